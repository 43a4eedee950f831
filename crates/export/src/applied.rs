//! Adapters on a model: as one set of matrices, whether there is one or several.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use tritforge_checkpoint::{AdapterFiles, Checkpoint};
use tritforge_config::{LOTA_THRESHOLD, LoraConfig, LoraMode, ModelConfig, Projection};

use crate::ExportError;

/// Where the trainer says what a run's adapter was trained on, and under which key.
const STATE: &str = "training.json";
const BASE: &str = "base_model";

/// An adapter that takes part, and how much of it.
pub struct AppliedAdapter {
    /// Its files.
    pub files: AdapterFiles,
    /// What its product is multiplied by beside its own scaling; 1 is as it was trained.
    pub scale: f32,
}

impl AppliedAdapter {
    /// The adapter in the directory `path`, of a run or as peft writes it.
    pub(crate) fn open(path: &Path, scale: f32) -> Result<Self, ExportError> {
        if path.is_file() {
            return Err(ExportError::Import {
                path: path.to_path_buf(),
                message: "a file: GGUF adapters go on GGUF files; give the adapter's directory".to_string(),
            });
        }
        Ok(Self { files: AdapterFiles::open(path)?, scale })
    }
}

/// The adapters of a model of this configuration as one.
pub(crate) fn joined(adapters: &[AppliedAdapter], config: &ModelConfig) -> Result<Matrices, ExportError> {
    match adapters {
        [AppliedAdapter { files, scale: 1.0 }] => match alike(files, config)? {
            Some(found) => Ok(found),
            None => stacked(adapters, config),
        },
        several => stacked(several, config),
    }
}

/// Refuses a checkpoint as the base of a run's adapter that was trained on another. Adapters of peft do not
/// say what they were trained on but by name, and a base in another format has no manifest to be compared.
///
/// # Errors
/// If the base has other contents, or the adapter's checkpoint is damaged.
pub(crate) fn check_base(files: &AdapterFiles, base: &Checkpoint) -> Result<(), ExportError> {
    let Some(checkpoint) = files.checkpoint().filter(|checkpoint| checkpoint.has(STATE)) else {
        return Ok(());
    };
    let fault = |message: String| ExportError::Import { path: checkpoint.dir().to_path_buf(), message };
    let state: serde_json::Value =
        serde_json::from_slice(&checkpoint.file(STATE)?).map_err(|e| fault(format!("{STATE}: {e}")))?;
    match state[BASE].as_str() {
        Some(expected) if base.fingerprint()? != expected => Err(fault(format!(
            "its base, {}, is not the checkpoint that it was trained on: the files have different contents. \
             Restore that checkpoint, or name it with --base",
            base.dir().display()
        ))),
        _ => Ok(()),
    }
}

/// An adapter and its matrices, row-major, by the names that [`LoraConfig::tensors`] gives.
pub(crate) type Matrices = (LoraConfig, HashMap<String, Vec<f32>>);

/// An adapter that has the same projections in every block, with one rank and one scaling; nothing if it has
/// not.
fn alike(files: &AdapterFiles, config: &ModelConfig) -> Result<Option<Matrices>, ExportError> {
    let modules = files.modules(config)?;
    let projections: BTreeSet<Projection> = modules.iter().map(|found| found.module.projection).collect();
    let rank = modules.first().map_or(0, |found| found.module.rank);
    let lora = files.config().lora(rank, projections.iter().copied().collect());
    let whole = modules.len() == projections.len() * config.num_hidden_layers;
    let same = modules.iter().all(|m| m.module.rank == rank && m.module.scaling == lora.scaling());
    if !(whole && same) {
        return Ok(None);
    }
    let mut matrices = HashMap::new();
    for found in &modules {
        let [a, b] = files.matrices(found)?;
        let names = LoraConfig::tensors(found.module.layer, found.module.projection);
        matrices.extend(names.into_iter().zip([a.into_owned(), b.into_owned()]));
    }
    Ok(Some((lora, matrices)))
}

/// Adapters as one: of each projection the rows of all A below each other, the columns of all B side by side,
/// each with its scaling; zeros up to the largest rank that comes of it.
fn stacked(adapters: &[AppliedAdapter], config: &ModelConfig) -> Result<Matrices, ExportError> {
    struct Part {
        a: Vec<f32>,
        b: Vec<f32>,
        rank: usize,
    }
    let mut parts: HashMap<(usize, Projection), Vec<Part>> = HashMap::new();
    for AppliedAdapter { files, scale } in adapters {
        files.beside_weights()?;
        for found in &files.modules(config)? {
            let module = found.module;
            let [a, b] = files.matrices(found)?;
            let b = b.iter().map(|b| b * (module.scaling * scale)).collect();
            let part = Part { a: a.into_owned(), b, rank: module.rank };
            parts.entry((module.layer, module.projection)).or_default().push(part);
        }
    }
    let rank = parts.values().map(|list| list.iter().map(|part| part.rank).sum()).max().unwrap_or(0);
    let projections: BTreeSet<Projection> = parts.keys().map(|(_, projection)| *projection).collect();
    let mut matrices = HashMap::new();
    for layer in 0..config.num_hidden_layers {
        for projection in &projections {
            let [rows, cols] = config.projection_shape(*projection);
            let (mut a, mut b) = (vec![0f32; rank * cols], vec![0f32; rows * rank]);
            let mut first = 0;
            for part in parts.remove(&(layer, *projection)).into_iter().flatten() {
                a[first * cols..][..part.a.len()].copy_from_slice(&part.a);
                for (row, columns) in part.b.chunks(part.rank).enumerate() {
                    b[row * rank + first..][..part.rank].copy_from_slice(columns);
                }
                first += part.rank;
            }
            matrices.extend(LoraConfig::tensors(layer, *projection).into_iter().zip([a, b]));
        }
    }
    let lora = LoraConfig {
        mode: LoraMode::Adapter,
        rank,
        alpha: rank as f32,
        dropout: 0.0,
        use_rslora: false,
        target_modules: projections.into_iter().collect(),
        threshold: LOTA_THRESHOLD,
    };
    Ok((lora, matrices))
}
