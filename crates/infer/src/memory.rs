//! What a model takes in memory, from its shape and the types of its tensors alone: the sizes that [`Model::memory`]
//! finds in a loaded model, before there is one, and those of caches and of a pass.
//!
//! [`Model::memory`]: crate::Model::memory

use std::path::Path;

use tritforge_config::{Architecture, Granularity, ModelConfig, Projection, Rotation};
use tritforge_gguf::GgmlType;
use tritforge_kernels::{DenseType, KvCache, KvType, TernaryLayout};
use tritforge_ternary::Packing;

use crate::load::dense_type;
use crate::model::{EMBEDDING, HEAD};
use crate::{InferError, ModelMemory};

/// How the engine lays weights out on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineLayout {
    /// The layout of ternary weights.
    pub ternary: TernaryLayout,
    /// Whether a head in Q8_0 is copied in another order.
    pub rearranges_head: bool,
}

impl EngineLayout {
    /// That of this machine.
    pub fn here() -> Self {
        Self { ternary: TernaryLayout::for_decoding(), rearranges_head: DenseType::Q8_0.is_rearranged() }
    }
}

/// The memory of a model that is not loaded, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedMemory {
    /// What [`crate::Model::memory`] will say.
    pub weights: ModelMemory,
    /// The cosines and sines of all positions.
    pub rope_bytes: usize,
    /// Weights that a decoding pass reads.
    pub read_bytes: usize,
    /// The largest tensor whose pages are in memory while it is unpacked, and are given back then.
    pub largest_unpacked: usize,
    /// The head's pages, which are in memory beside its copy before the blocks are loaded; 0 if it is not copied.
    pub copied_head: usize,
}

/// Where one matrix's bytes will be.
#[derive(Default)]
struct Place {
    memory: usize,
    file: usize,
    unpacked: usize,
}

/// The memory of a model of this shape on a machine of this layout. `type_of` knows the type of each matrix by its name in a
/// GGUF file of `file_bytes` and this architecture. Weights of which the file does not say how many share a scale are taken for those of the
/// configuration.
///
/// # Errors
/// If a matrix is missing, or of a type that the engine does not load.
pub fn planned_memory(
    path: &Path,
    config: &ModelConfig,
    layout: EngineLayout,
    (file_bytes, architecture): (u64, &Architecture),
    type_of: impl Fn(&str) -> Option<GgmlType>,
) -> Result<PlannedMemory, InferError> {
    let place = |name: &str, [rows, cols]: [usize; 2], granularity: Option<Granularity>| {
        let fault = |message: String| InferError::Tensor {
            path: path.to_path_buf(),
            tensor: name.to_string(),
            message,
        };
        let ty = type_of(name).ok_or_else(|| fault(format!("missing; expected shape [{rows}, {cols}]")))?;
        let stored = ty.nbytes(&[cols as u64, rows as u64]).map_err(|e| fault(e.to_string()))? as usize;
        let ternary = Packing::in_file(ty.name(), None).is_some();
        Ok::<_, InferError>(match (ternary, granularity, dense_type(ty)) {
            (true, Some(granularity), _) => Place {
                memory: layout.ternary.packed_bytes(rows, cols, granularity.on(cols)),
                file: 0,
                unpacked: stored,
            },
            (false, _, Some(_)) => Place { memory: 0, file: stored, unpacked: 0 },
            // Converted to F32.
            _ => Place { memory: 4 * rows * cols, file: 0, unpacked: stored },
        })
    };
    let table = [config.vocab_size, config.hidden_size];
    let embedding = place(EMBEDDING, table, config.ternary_embedding)?;
    let tied = config.tie_word_embeddings;
    let head = if tied { None } else { Some(place(HEAD, table, config.ternary_head)?) };
    let output = head.as_ref().unwrap_or(&embedding);
    let q8_0 = type_of(if tied { EMBEDDING } else { HEAD }) == Some(GgmlType::Q8_0);
    let copied_head = if q8_0 && layout.rearranges_head { output.file } else { 0 };
    let mut read_bytes = output.memory + output.file;
    let mut all = embedding;
    let add = |all: &mut Place, place: &Place| {
        all.memory += place.memory;
        all.file += place.file;
        all.unpacked = all.unpacked.max(place.unpacked);
    };
    if let Some(head) = &head {
        add(&mut all, head);
    }
    for layer in 0..config.num_hidden_layers {
        for p in Projection::ALL {
            let name = p.gguf_weight(layer);
            let mut place = place(&name, config.projection_shape(p), Some(config.granularity))?;
            if architecture.interleaves_rope() && matches!(p, Projection::Q | Projection::K) {
                // Copied with its rows in the model's order.
                place.memory += std::mem::take(&mut place.file);
            }
            read_bytes += place.memory + place.file;
            add(&mut all, &place);
        }
    }
    Ok(PlannedMemory {
        weights: ModelMemory {
            file_bytes: file_bytes as usize,
            weight_bytes: all.memory,
            rearranged_head_bytes: copied_head,
            resident_file_bytes: all.file - copied_head,
        },
        rope_bytes: config.max_position_embeddings * config.head_dim * size_of::<f32>(),
        read_bytes,
        largest_unpacked: all.unpacked,
        copied_head,
    })
}

/// Bytes of the keys and values of so many positions of a model of this shape.
pub fn kv_bytes(config: &ModelConfig, kv: KvType, positions: usize) -> usize {
    KvCache::bytes_for(kv, config.num_key_value_heads, config.head_dim, positions) * config.num_hidden_layers
}

/// Bytes of the buffers of a pass of so many tokens that wants the logits of `wanted` of them. Adapters add theirs.
pub fn pass_bytes(config: &ModelConfig, tokens: usize, wanted: usize) -> usize {
    let (d, ff) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (config.q_size(), config.kv_size());
    let integer = config.activations.is_integer();
    // An input is codes with a scale and a sum, or numbers.
    let input = |width: usize| if integer { width + 8 } else { 4 * width };
    let own = if config.projection_norms { 5 * input(d) } else { 0 };
    let inputs = 2 * input(d) + input(q) + input(ff) + own;
    let heads = if config.use_qk_norm { q + kv } else { 0 };
    // The stream and what becomes of it, what is added to it, and the stream between attention and feed-forward network.
    let streams = 4 * d;
    let rotated = if config.rotation == Rotation::None { 0 } else { ff.max(d) };
    let numbers = streams + 2 * q + 2 * kv + heads + 2 * ff + rotated;
    let position = size_of::<u32>();
    let logits = config.vocab_size * size_of::<f32>();
    // Those of each part are copied from those of all.
    let logits = if wanted > 1 { 2 * wanted * logits } else { wanted * logits };
    tokens * (inputs + 4 * numbers + position) + logits + 2 * wanted * 4 * d
}
