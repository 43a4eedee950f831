//! What a checkpoint, a directory in Hugging Face's layout, or a safetensors file holds.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tritforge_checkpoint::{AdapterFiles, Tensors};
use tritforge_config::{Architecture, ModelConfig, WeightQuant};
use tritforge_support::counted;

use super::{Inspection, TensorRow, TokenizerSummary, summarize};
use crate::dense::ggml_type;
use crate::model::{LoadedModel, ModelFormat};
use crate::plan::TensorPlan;
use crate::runtimes::{GgufTraits, Runtime, Verdict, gguf_verdicts, hugging_face_verdicts};
use crate::{ExportError, ExportOptions, default_packing};

pub(super) fn safetensors(path: &Path) -> Result<Inspection, ExportError> {
    let file = Tensors::open(path)?;
    let mut tensors = Vec::new();
    for (name, shape, ty) in file.list()? {
        let bytes = file.raw(&name)?.2.len() as u64;
        tensors.push(TensorRow::new(&name, &ty, wide(&shape), bytes));
    }
    let mut inspection = Inspection {
        path: path.display().to_string(),
        kind: "safetensors".to_string(),
        bytes: size_of(path),
        ..Inspection::of(tensors)
    };
    summarize(&mut inspection);
    Ok(inspection)
}

/// The files of an adapter. Its base need not be there: tensors are listed as they are.
pub(super) fn adapter(adapter: &AdapterFiles) -> Result<Inspection, ExportError> {
    let mut tensors = Vec::new();
    for tensor in adapter.tensors()? {
        let bytes = tensor.bytes as u64;
        tensors.push(TensorRow::new(&tensor.name, &tensor.dtype, wide(&tensor.shape), bytes));
    }
    let config = adapter.config();
    let form = if adapter.checkpoint().is_some() {
        "checkpoint of an adapter"
    } else {
        "adapter in the layout of peft"
    };
    let scaling = if config.use_rslora { "alpha / √rank" } else { "alpha / rank" };
    let files = files(adapter.dir())?;
    let mut inspection = Inspection {
        path: adapter.dir().display().to_string(),
        kind: format!(
            "{form}, mode {}, rank {}, alpha {}, scaling {scaling}, base {}",
            config.mode.name(),
            config.rank,
            config.alpha,
            config.base.as_deref().unwrap_or("not named")
        ),
        bytes: files.iter().map(|(_, bytes)| bytes).sum(),
        metadata: files.into_iter().map(|(name, bytes)| (name, counted(bytes, "byte").to_string())).collect(),
        ..Inspection::of(tensors)
    };
    summarize(&mut inspection);
    Ok(inspection)
}

pub(super) fn directory(model: &LoadedModel, digest: bool) -> Result<Inspection, ExportError> {
    let config = model.config().clone();
    let mut tensors = Vec::new();
    for item in model.items() {
        tensors.push(row(model, item, digest)?);
    }
    let architecture = Architecture::of(&config).ok();
    let runtimes = match model.format() {
        ModelFormat::HuggingFace => hugging_face_verdicts(),
        ModelFormat::Checkpoint | ModelFormat::Gguf => checkpoint_verdicts(architecture, &config),
    };
    let files = files(model.path())?;
    let mut inspection = Inspection {
        path: model.path().display().to_string(),
        kind: model.description(),
        architecture: architecture.map(|a| a.name().to_string()),
        parameters: config.parameters().total() as u64,
        bytes: files.iter().map(|(_, bytes)| bytes).sum(),
        tokenizer: match model.tokenizer()? {
            Some(tokenizer) => TokenizerSummary::of(&tokenizer, config.vocab_size)?,
            None => None,
        },
        config: Some(config),
        runtimes,
        metadata: files.into_iter().map(|(name, bytes)| (name, counted(bytes, "byte").to_string())).collect(),
        ..Inspection::of(tensors)
    };
    summarize(&mut inspection);
    Ok(inspection)
}

/// A checkpoint is this program's own; what its default export would be loaded by.
fn checkpoint_verdicts(architecture: Option<&Architecture>, config: &ModelConfig) -> Vec<Verdict> {
    let weights = config.weights;
    let note = "eval, diff and verify directly; export it for generate, chat and serve".to_string();
    let ours = Verdict { runtime: Runtime::Tritforge, loads: true, note };
    let Some(architecture) = architecture else { return vec![ours] };
    let options = ExportOptions::default();
    let ty = match weights {
        WeightQuant::None => ggml_type(options.linears).name(),
        WeightQuant::Absmean | WeightQuant::Ternary => default_packing(config).name(),
    };
    let scales = weights != WeightQuant::None && architecture.has_scale_tensors();
    let after = gguf_verdicts(&GgufTraits {
        pre: None,
        architecture: architecture.name(),
        types: BTreeSet::from([ty]),
        scales,
        own_head: !config.tie_word_embeddings,
        ternary_tables: config.ternary_embedding.is_some() || config.ternary_head.is_some(),
        least_columns: config.hidden_size,
    });
    let others = after.into_iter().filter(|v| v.runtime != Runtime::Tritforge).map(|v| Verdict {
        runtime: v.runtime,
        loads: false,
        note: match (v.runtime, v.loads) {
            (Runtime::Transformers, _) if weights == WeightQuant::None => {
                "after `export --format hf-bf16` or hf-f32".to_string()
            }
            (Runtime::Transformers, _) if !config.is_bitnet() => {
                "quantizes by absmean with one scale a tensor only".to_string()
            }
            (Runtime::Transformers, _) => "after `export --format hf-packed`, hf-bf16 or hf-f32".to_string(),
            (_, true) if v.note.is_empty() => format!("after `export` ({} in {ty})", architecture.name()),
            (_, true) => format!("after `export` ({} in {ty}); {}", architecture.name(), v.note),
            (_, false) => v.note,
        },
    });
    [ours].into_iter().chain(others).collect()
}

fn row(model: &LoadedModel, item: &TensorPlan, digest: bool) -> Result<TensorRow, ExportError> {
    let (ty, bytes) = model.storage(item)?;
    let mut row = TensorRow::new(&item.source, &ty, wide(&item.shape), bytes);
    let quantized = model.config().activations.is_integer();
    if quantized && let Some(tensor) = model.ternary(item, &model.stored(item)?)? {
        row.set_codes(tensor.codes(), Some(tensor.scales()), digest);
    }
    model.release(item);
    Ok(row)
}

fn wide(shape: &[usize]) -> Vec<u64> {
    shape.iter().map(|d| *d as u64).collect()
}

fn size_of(path: &Path) -> u64 {
    fs::metadata(path).map(|m| m.len()).unwrap_or_default()
}

/// Files of a directory with their sizes, by name.
fn files(directory: &Path) -> Result<Vec<(String, u64)>, ExportError> {
    let io = |source| ExportError::io(directory, "list")(source);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.is_file() {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            files.push((name, size_of(&path)));
        }
    }
    files.sort();
    Ok(files)
}
