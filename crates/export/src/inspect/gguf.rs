//! What a GGUF file holds, of whatever architecture.

use std::path::Path;

use tritforge_config::ModelConfig;
use tritforge_gguf::{Array, Gguf, Metadata, TensorInfo, Value};
use tritforge_infer::Model;
use tritforge_support::counted;
use tritforge_ternary::{I2_S_LAYOUT, PackedRows, Packing};

use super::{Inspection, TensorRow, TokenizerSummary, summarize};
use crate::ExportError;
use crate::runtimes::{GgufTraits, Runtime, gguf_verdicts};

pub(super) fn file(path: &Path, digest: bool) -> Result<Inspection, ExportError> {
    let gguf = Gguf::open(path)?;
    let architecture = gguf.metadata().get_str("general.architecture").ok().map(str::to_string);
    let mut tensors = Vec::new();
    for info in gguf.tensors() {
        tensors.push(row(&gguf, info, digest)?);
        gguf.release(info);
    }
    // A `.scale` tensor is part of its weight, not a parameter of its own.
    let scales = |t: &&TensorInfo| t.name.ends_with(".scale");
    let layout = gguf.metadata().get_str(I2_S_LAYOUT).ok();
    // The layout of a ternary type is what a loader must know.
    let known = |t: &TensorInfo| match Packing::in_file(t.ty.name(), layout) {
        Some(packing) if packing.ggml_type() == t.ty.name() => packing.name(),
        _ => t.ty.name(),
    };
    let ternary = |t: &&TensorInfo| Packing::in_file(t.ty.name(), layout).is_some();
    let columns = |t: &TensorInfo| t.dims.first().map_or(0, |columns| *columns as usize);
    let traits = |architecture| GgufTraits {
        architecture,
        types: gguf.tensors().iter().map(known).collect(),
        scales: gguf.tensors().iter().any(|t| scales(&t)),
        own_head: gguf.tensor("output.weight").is_some(),
        ternary_tables: ["token_embd.weight", "output.weight"]
            .into_iter()
            .any(|name| gguf.tensor(name).is_some_and(|t| ternary(&t))),
        pre: gguf.metadata().get_str("tokenizer.ggml.pre").ok(),
        least_columns: gguf.tensors().iter().filter(ternary).map(columns).min().unwrap_or(0),
    };
    let mut runtimes = architecture.as_deref().map(|name| gguf_verdicts(&traits(name))).unwrap_or_default();
    let config = ModelConfig::from_gguf_file(&gguf);
    // What keeps the engine from the file although it knows architecture and types: the engine says it.
    let ours = runtimes.iter_mut().find(|verdict| verdict.runtime == Runtime::Tritforge && verdict.loads);
    if let Some(ours) = ours
        && let Err(error) = Model::open(path)
    {
        let message = error.to_string();
        let place = format!("{}: ", path.display());
        (ours.loads, ours.note) = (false, message.strip_prefix(&place).unwrap_or(&message).to_string());
    }
    let files = match gguf.part_count() {
        1 => String::new(),
        count => format!(" in {count}", count = counted(count, "file")),
    };
    let mut inspection = Inspection {
        path: path.display().to_string(),
        kind: format!("GGUF version {}{files}", gguf.version()),
        architecture,
        parameters: gguf.tensors().iter().filter(|t| !scales(t)).map(TensorInfo::elements).sum(),
        bytes: gguf.file_size(),
        config: config.ok(),
        tokenizer: TokenizerSummary::of_metadata(gguf.metadata())?,
        runtimes,
        metadata: metadata_rows(gguf.metadata()),
        ..Inspection::of(tensors)
    };
    summarize(&mut inspection);
    Ok(inspection)
}

fn row(gguf: &Gguf, info: &TensorInfo, digest: bool) -> Result<TensorRow, ExportError> {
    let shape: Vec<u64> = info.dims.iter().rev().copied().collect();
    let mut row = TensorRow::new(&info.name, info.ty.name(), shape, info.nbytes);
    let fault = |source| ExportError::Ternary { tensor: info.name.clone(), source };
    let cols = info.dims.first().copied().unwrap_or(1) as usize;
    let rows = info.dims.iter().skip(1).product::<u64>() as usize;
    let beside = match gguf.tensor(&info.name.replace(".weight", ".scale")).map(|scale| gguf.data(scale)) {
        Some([a, b, c, d]) => Some(f32::from_le_bytes([*a, *b, *c, *d])),
        _ => None,
    };
    let layout = gguf.metadata().get_str(I2_S_LAYOUT).ok();
    if let Some(packing) = Packing::in_file(info.ty.name(), layout) {
        let bytes = Packing::bytes_in_file(info.ty.name(), gguf.data(info), rows, cols).map_err(fault)?;
        let unpacked = packing.unpack(&bytes, rows, cols).map_err(fault)?;
        // None for scales that the engine refuses.
        let packed = PackedRows::new(packing, &bytes, rows, cols).map_err(fault)?;
        let said = ModelConfig::said_table_granularity(gguf.metadata(), &info.name).ok().flatten();
        let scales = packed.scales(beside, said).ok();
        row.set_codes(&unpacked.codes, scales.as_ref(), digest);
    }
    Ok(row)
}

fn metadata_rows(metadata: &Metadata) -> Vec<(String, String)> {
    metadata.iter().map(|(key, value)| (key.to_string(), shown(value))).collect()
}

/// A value on one line; long ones by their length.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(array) => format!("[{} {}]", array.len(), array_kind(array)),
        Value::String(text) if text.chars().count() > 60 => {
            let begin: String = text.chars().take(40).collect();
            format!("\"{begin}…\" ({})", counted(text.chars().count(), "character"))
        }
        Value::String(text) => format!("{text:?}"),
        Value::Bool(b) => b.to_string(),
        Value::F32(x) => x.to_string(),
        Value::F64(x) => x.to_string(),
        other => other.as_integer().map(|i| i.to_string()).unwrap_or_default(),
    }
}

fn array_kind(array: &Array) -> &'static str {
    match array {
        Array::String(_) => "strings",
        Array::Bool(_) => "booleans",
        _ => "numbers",
    }
}
