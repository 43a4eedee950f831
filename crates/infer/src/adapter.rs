//! Low-rank adapters (LoRA, arXiv 2106.09685) beside the projections of a loaded model: read from GGUF
//! adapter files as llama.cpp has them, or from a directory of peft or of a run, put on at any time, several
//! at once.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tritforge_checkpoint::AdapterFiles;
use tritforge_config::{ADAPTER_CONFIG, ADAPTER_MODEL, ADAPTER_RUNTIME, Architecture, Projection};
use tritforge_gguf::{GgmlType, Gguf, TensorInfo};
use tritforge_kernels::{DenseMatrix, DenseType};

use crate::{InferError, Model};

/// In a GGUF adapter of llama.cpp: the tokens from which on an aLoRA acts.
const INVOCATION: &str = "adapter.alora.invocation_tokens";

/// An adapter as it was read: for some projections A [rank, in] and B [out, rank], and what their product is
/// multiplied by.
#[derive(Debug)]
pub struct Adapter {
    path: PathBuf,
    /// The seven projections of the first block, then those of the next.
    pub(crate) pairs: Vec<Option<Pair>>,
}

/// The matrices of one projection, B's rows in the model's order.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) ty: [DenseType; 2],
    pub(crate) a: Vec<u8>,
    pub(crate) b: Vec<u8>,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) rank: usize,
    pub(crate) scaling: f32,
}

/// An adapter that takes part, and how much of it.
#[derive(Debug, Clone)]
pub struct ScaledAdapter {
    /// The adapter.
    pub adapter: Arc<Adapter>,
    /// What its product is multiplied by beside its own scaling; 1 is as it was trained.
    pub scale: f32,
}

impl Adapter {
    /// Reads an adapter for `model`: a GGUF adapter, the directory that peft's `save_pretrained` writes, or
    /// the checkpoint or the directory of a run with an adapter of mode `adapter`.
    ///
    /// # Errors
    /// If the file is damaged, is no such adapter, or does not fit the model.
    pub fn open(path: &Path, model: &Model) -> Result<Self, InferError> {
        let named = |name: &&str| path.file_name().is_some_and(|found| found == *name);
        if path.is_file() && [ADAPTER_CONFIG, ADAPTER_MODEL].iter().any(named) {
            let message = "one of the two files of an adapter: give their directory".to_string();
            return Err(InferError::Adapter { path: path.to_path_buf(), message });
        }
        if path.is_dir() { Self::of_directory(path, model) } else { Self::of_gguf(path, model) }
    }

    /// An adapter whose tensors have the names and the order of Hugging Face's layout, which is the model's
    /// in memory.
    fn of_directory(path: &Path, model: &Model) -> Result<Self, InferError> {
        let files = AdapterFiles::open(path)?;
        files.beside_weights()?;
        let config = model.config();
        let mut pairs: Vec<Option<Pair>> = Vec::new();
        pairs.resize_with(config.num_hidden_layers * Projection::ALL.len(), || None);
        for found in files.modules(config)? {
            let [a, b] = files.matrices(&found)?.map(|values| bytes(&values));
            let module = found.module;
            let [rows, cols] = config.projection_shape(module.projection);
            let ty = [DenseType::F32; 2];
            let pair = Pair { ty, a, b, rows, cols, rank: module.rank, scaling: module.scaling };
            pairs[module.layer * Projection::ALL.len() + module.projection as usize] = Some(pair);
        }
        Ok(Self { path: path.to_path_buf(), pairs })
    }

    /// Reads a GGUF adapter: `general.type = "adapter"`, `adapter.type = "lora"`, the scaling
    /// `adapter.lora.alpha` / rank, and for each adapted weight `<weight>.lora_a` and `<weight>.lora_b`.
    fn of_gguf(path: &Path, model: &Model) -> Result<Self, InferError> {
        let fault = |source| InferError::Gguf { path: path.to_path_buf(), source };
        let gguf = Gguf::open(path).map_err(fault)?;
        let adapter = |message: String| InferError::Adapter { path: path.to_path_buf(), message };
        let metadata = gguf.metadata();
        for (key, expected) in [("general.type", "adapter"), ("adapter.type", "lora")] {
            let found = metadata.get_str(key).unwrap_or("nothing");
            if found != expected {
                let hint = if key == "general.type" {
                    "; this file is a model: pass it as MODEL, not --lora"
                } else {
                    ""
                };
                return Err(adapter(format!("{key} = {found}: expected {expected}{hint}")));
            }
        }
        if let Ok(runtime) = metadata.get_str(ADAPTER_RUNTIME) {
            return Err(adapter(format!(
                "made for {runtime}, which scales some products differently: export the adapter again \
                 without --for"
            )));
        }
        // llama.cpp puts such an adapter on from a sequence of tokens on.
        if metadata.get(INVOCATION).is_some() {
            return Err(adapter(format!(
                "{INVOCATION}: aLoRA, which begins to act at certain tokens, is not computed"
            )));
        }
        let of_model = model.gguf().metadata().get_str("general.architecture").map_err(fault)?;
        let found = metadata.get_str("general.architecture").map_err(fault)?;
        if found != of_model {
            return Err(adapter(format!("made for architecture {found}, but the model is {of_model}")));
        }
        let alpha = metadata.get_f32("adapter.lora.alpha").map_err(fault)?;
        if !alpha.is_finite() {
            return Err(adapter(format!("adapter.lora.alpha = {alpha}: expected a finite number")));
        }
        let interleaved = Architecture::from_name(found).is_some_and(Architecture::interleaves_rope);
        let config = model.config();
        let (mut pairs, mut taken) = (Vec::new(), 0);
        for layer in 0..config.num_hidden_layers {
            for projection in Projection::ALL {
                let name = projection.gguf_weight(layer);
                let tensors = [".lora_a", ".lora_b"].map(|end| gguf.tensor(&format!("{name}{end}")));
                let (a, b) = match tensors {
                    [Some(a), Some(b)] => (a, b),
                    [None, None] => {
                        pairs.push(None);
                        continue;
                    }
                    _ => return Err(adapter(format!("{name}: expected both .lora_a and .lora_b"))),
                };
                let [rows, cols] = config.projection_shape(projection);
                let inner = a.dims.get(1).copied().unwrap_or(0) as usize;
                let mut types = [DenseType::F32; 2];
                for (at, (tensor, shape)) in [(a, [cols, inner]), (b, [inner, rows])].into_iter().enumerate()
                {
                    let expected: Vec<u64> = shape.iter().map(|n| *n as u64).collect();
                    if tensor.dims != expected || inner == 0 {
                        let (found, name) = (&tensor.dims, &tensor.name);
                        return Err(adapter(format!(
                            "{name}: shape {found:?}, the model's projection needs {expected:?}"
                        )));
                    }
                    let Some(ty) = dense_type(tensor.ty) else {
                        let (name, ty) = (&tensor.name, tensor.ty.name());
                        return Err(adapter(format!("{name}: stored as {ty}, expected F32 or F16")));
                    };
                    types[at] = ty;
                    DenseMatrix::from_bytes(ty, gguf.data(tensor), shape[1], shape[0])
                        .check_finite()
                        .map_err(|e| adapter(format!("tensor {}: {e}", tensor.name)))?;
                }
                let moved = interleaved && matches!(projection, Projection::Q | Projection::K);
                let bytes = gguf.data(b);
                let width = bytes.len() / rows;
                let order = |row: usize| if moved { config.interleaved_row(row) } else { row };
                let rows_in_order = (0..rows).flat_map(|row| &bytes[order(row) * width..][..width]);
                let b = rows_in_order.copied().collect();
                taken += 2;
                let scaling = if alpha == 0.0 { 1.0 } else { alpha / inner as f32 };
                let a = gguf.data(a).to_vec();
                pairs.push(Some(Pair { ty: types, a, b, rows, cols, rank: inner, scaling }));
            }
        }
        if let Some(stranger) = gguf.tensors().get(taken).filter(|_| gguf.tensors().len() > taken) {
            let names = "blk.N.attn_q.weight.lora_a and the like, for the model's seven projections";
            let known = |t: &TensorInfo| {
                let base = t.name.trim_end_matches(".lora_a").trim_end_matches(".lora_b");
                (0..config.num_hidden_layers)
                    .any(|l| Projection::ALL.iter().any(|p| p.gguf_weight(l) == base))
            };
            let name = gguf.tensors().iter().find(|t| !known(t)).unwrap_or(stranger).name.clone();
            return Err(adapter(format!("{name}: this model has no such weight; expected {names}")));
        }
        if taken == 0 {
            return Err(adapter("contains no tensors".to_string()));
        }
        Ok(Self { path: path.to_path_buf(), pairs })
    }

    /// The file or directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Inner width of the widest product.
    pub fn rank(&self) -> usize {
        self.pairs.iter().flatten().map(|pair| pair.rank).max().unwrap_or(0)
    }

    /// Number of projections that are adapted, in all blocks.
    pub fn projections(&self) -> usize {
        self.pairs.iter().flatten().count()
    }
}

/// Which rows of a pass have which adapters.
pub(crate) type Rows = Vec<(Range<usize>, Arc<[ScaledAdapter]>)>;

/// Whether any row has an adapter on one of these projections.
pub(crate) fn any_adapted(rows: &Rows, layer: usize, projections: &[Projection]) -> bool {
    let has = |adapter: &Adapter| {
        projections.iter().any(|p| matches!(adapter.pairs.get(layer * 7 + *p as usize), Some(Some(_))))
    };
    rows.iter().any(|(_, scaled)| scaled.iter().any(|scaled| has(&scaled.adapter)))
}

/// Adds the products of the adapters to a projection's output y [rows, out], given its input x [rows, in].
pub(crate) fn add_products(rows: &Rows, layer: usize, projection: Projection, x: &[f32], y: &mut [f32]) {
    for (range, scaled) in rows {
        for ScaledAdapter { adapter, scale } in scaled.iter() {
            let Some(Some(pair)) = adapter.pairs.get(layer * 7 + projection as usize) else { continue };
            let a = DenseMatrix::from_bytes(pair.ty[0], &pair.a, pair.rank, pair.cols);
            let b = DenseMatrix::from_bytes(pair.ty[1], &pair.b, pair.rows, pair.rank);
            let mut inner = vec![0f32; range.len() * pair.rank];
            a.matmul(&x[range.start * pair.cols..range.end * pair.cols], &mut inner);
            inner.iter_mut().for_each(|h| *h *= pair.scaling * scale);
            let mut product = vec![0f32; range.len() * pair.rows];
            b.matmul(&inner, &mut product);
            let y = &mut y[range.start * pair.rows..range.end * pair.rows];
            y.iter_mut().zip(&product).for_each(|(y, p)| *y += p);
        }
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn dense_type(ty: GgmlType) -> Option<DenseType> {
    match ty {
        GgmlType::F32 => Some(DenseType::F32),
        GgmlType::F16 => Some(DenseType::F16),
        _ => None,
    }
}
