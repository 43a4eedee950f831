//! A base with adapters on it, in the training forward.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use tritforge_checkpoint::{AdapterFiles, Checkpoint, MANIFEST, TOKENIZER, TOKENIZER_CONFIG};
use tritforge_config::{LOTA_THRESHOLD, LoraConfig, LoraMode, ModelConfig, Projection};
use tritforge_data::Fingerprint;
use tritforge_export::{AnyModel, ExportError, ImportOptions, ModelFormat};
use tritforge_model::{Decoder, ModelError};
use tritforge_text::Tokenizer;

use crate::EvalError;

/// Where the trainer says what a run's adapter was trained on, and under which key.
const STATE: &str = "training.json";
const BASE: &str = "base_model";

/// An adapter that takes part, and what its product is multiplied by beside its own scaling.
type Scaled = (AdapterFiles, f32);

/// The model at a path with adapters on it. An adapter at the path goes first, on the base that it names.
///
/// # Errors
/// If a model or adapter cannot be read, an adapter does not fit the model, or a base is not the one that an
/// adapter was trained on.
pub(crate) fn open(
    path: &Path,
    options: &ImportOptions,
    adapters: &[(PathBuf, f32)],
) -> Result<(Decoder, Option<Tokenizer>), EvalError> {
    let mut scaled: Vec<Scaled> = Vec::new();
    let first = AdapterFiles::find(path)?;
    let base_path = match &first {
        Some(files) => files.base_path(None)?,
        None => path.to_path_buf(),
    };
    scaled.extend(first.map(|files| (files, 1.0)));
    for (path, scale) in adapters {
        if path.is_file() {
            return Err(EvalError::Input(format!(
                "{}: a file: GGUF adapters go on GGUF files; give the adapter's directory",
                path.display()
            )));
        }
        scaled.push((AdapterFiles::open(path)?, *scale));
    }
    let base = AnyModel::open(&base_path, options)?;
    let own = scaled.first().and_then(|(files, _)| files.checkpoint()).filter(|_| adapters.is_empty());
    let tokenizer = match own.filter(|checkpoint| checkpoint.has(TOKENIZER)) {
        Some(checkpoint) => {
            let tokenizer = Tokenizer::from_json(&checkpoint.file(TOKENIZER)?)?;
            Some(tokenizer.with_config(&checkpoint.file(TOKENIZER_CONFIG)?)?)
        }
        None => base.tokenizer()?,
    };
    Ok((load(&base, &scaled)?, tokenizer))
}

/// A tensor of a model, for the training forward.
fn read(model: &AnyModel, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
    model.values(name, shape).map_err(|e| match e {
        ExportError::Tensor { tensor: name, message } => ModelError::Tensor { name, message },
        other => ModelError::Tensor { name: name.to_string(), message: other.to_string() },
    })
}

/// A model of any form in the training forward: each tensor is read once, where it lies.
///
/// # Errors
/// If a tensor is missing or damaged.
pub(crate) fn decoder_of(model: &AnyModel) -> Result<Decoder, EvalError> {
    load(model, &[])
}

/// A model of any form with adapters on it.
fn load(base: &AnyModel, adapters: &[Scaled]) -> Result<Decoder, EvalError> {
    let read = |name: &str, shape: &[usize]| read(base, name, shape);
    for (files, _) in adapters {
        check_base(files, base)?;
    }
    let config = base.config().clone();
    let (lora, mut matrices) = match adapters {
        [] => return Ok(Decoder::load(&config, read)?),
        [(files, 1.0)] => match alike(files, &config)? {
            Some(found) => found,
            None => stacked(adapters, &config)?,
        },
        several => stacked(several, &config)?,
    };
    Ok(Decoder::load_adapted(&config, &lora, read, |name, _| {
        let missing = || ModelError::Tensor { name: name.to_string(), message: "no such matrix".to_string() };
        matrices.remove(name).ok_or_else(missing)
    })?)
}

/// An adapter and its matrices, by the names that [`Decoder::load_adapted`] asks for.
type Matrices = (LoraConfig, HashMap<String, Vec<f32>>);

/// An adapter that has the same projections in every block, with one rank and one scaling; nothing if it has
/// not.
fn alike(files: &AdapterFiles, config: &ModelConfig) -> Result<Option<Matrices>, EvalError> {
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
fn stacked(adapters: &[Scaled], config: &ModelConfig) -> Result<Matrices, EvalError> {
    struct Part {
        a: Vec<f32>,
        b: Vec<f32>,
        rank: usize,
    }
    let mut parts: HashMap<(usize, Projection), Vec<Part>> = HashMap::new();
    for (files, scale) in adapters {
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

/// Refuses a checkpoint as the base of a run's adapter that was trained on another. Adapters of peft do not
/// say what they were trained on but by name, and a base in another format has no manifest to be compared.
fn check_base(files: &AdapterFiles, base: &AnyModel) -> Result<(), EvalError> {
    let Some(checkpoint) = files.checkpoint().filter(|checkpoint| checkpoint.has(STATE)) else {
        return Ok(());
    };
    let dir = checkpoint.dir().display();
    let state: serde_json::Value = serde_json::from_slice(&checkpoint.file(STATE)?)
        .map_err(|e| EvalError::Input(format!("{dir}: {STATE}: {e}")))?;
    let (Some(expected), ModelFormat::Checkpoint) = (state[BASE].as_str(), base.format()) else {
        return Ok(());
    };
    let manifest = base.path().join(MANIFEST);
    let bytes = std::fs::read(&manifest)
        .map_err(|e| EvalError::Input(format!("{}: cannot read: {e}", manifest.display())))?;
    if Fingerprint::of(&bytes, &[], None).to_string() != expected {
        return Err(EvalError::Input(format!(
            "{dir}: its base, {}, is not the checkpoint that it was trained on: the files have other contents",
            base.path().display()
        )));
    }
    Ok(())
}

/// The model of an adapter's checkpoint, with the base that it names.
///
/// # Errors
/// As [`open`].
pub(crate) fn of_checkpoint(checkpoint: &Checkpoint) -> Result<Decoder, EvalError> {
    Ok(open(checkpoint.dir(), &ImportOptions::default(), &[])?.0)
}
