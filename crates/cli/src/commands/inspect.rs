//! `tritforge inspect`: what a file holds.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tritforge_checkpoint::{Checkpoint, MODEL, Tensors};
use tritforge_config::{Architecture, ModelConfig, Projection, WeightQuant};
use tritforge_gguf::{Array, Gguf, Metadata, TensorInfo, Value};
use tritforge_ternary::{I2_S_LAYOUT, Packing};

use crate::table;

#[derive(ClapArgs)]
#[command(
    after_help = "Examples:\n  tritforge inspect model.gguf\n  tritforge inspect runs/quickstart --tensors --json"
)]
pub(crate) struct Args {
    /// A GGUF file, a safetensors file, a checkpoint, or the directory of a run.
    path: PathBuf,
    /// List every tensor.
    #[arg(long)]
    tensors: bool,
    /// Add the SHA-256 of each ternary tensor's codes (int8, row-major), to compare with other readers.
    #[arg(long)]
    codes_digest: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize, Default)]
struct Summary {
    path: String,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    architecture: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    loads_in: Vec<&'static str>,
    parameters: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<ModelConfig>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    metadata: Vec<(String, String)>,
    tensors: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    /// Outermost dimension first.
    shape: Vec<u64>,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    zero_fraction: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    codes_sha256: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let summary = if args.path.is_dir() {
        checkpoint(&super::checkpoint_dir(&args.path)?)?
    } else if is_safetensors(&args.path)? {
        safetensors(&args.path)?
    } else {
        gguf(&args.path, args.codes_digest)?
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        print(&summary, args.tensors);
    }
    Ok(ExitCode::SUCCESS)
}

/// A safetensors file starts with the length of its JSON header, and then `{`.
fn is_safetensors(path: &Path) -> Result<bool> {
    use std::io::Read as _;
    let mut head = [0u8; 9];
    let mut file = std::fs::File::open(path).with_context(|| format!("{}: cannot open", path.display()))?;
    Ok(file.read_exact(&mut head).is_ok() && &head[..4] != b"GGUF" && head[8] == b'{')
}

fn gguf(path: &Path, digest: bool) -> Result<Summary> {
    let file = Gguf::open(path)?;
    let config = ModelConfig::from_gguf_file(&file).ok();
    let mut tensors = Vec::new();
    for info in file.tensors() {
        tensors.push(gguf_row(&file, info, digest).with_context(|| path.display().to_string())?);
    }
    let architecture = file.metadata().get_str("general.architecture").ok();
    let packing = tensors.iter().find(|t| t.zero_fraction.is_some()).map(|t| t.ty.clone());
    let known = Architecture::ALL.into_iter().find(|a| Some(a.name()) == architecture);
    let loads_in = match (known, packing) {
        (Some(a), Some(packing)) => a.runtimes(&packing).into_iter().map(|r| r.name()).collect(),
        _ => Vec::new(),
    };
    Ok(Summary {
        path: path.display().to_string(),
        kind: format!("GGUF version {}", file.version()),
        architecture: architecture.map(str::to_string),
        loads_in,
        // A `.scale` tensor is part of its weight, not a parameter of its own.
        parameters: file
            .tensors()
            .iter()
            .filter(|t| !t.name.ends_with(".scale"))
            .map(TensorInfo::elements)
            .sum(),
        bytes: file.file_size(),
        config,
        metadata: metadata_rows(file.metadata()),
        tensors,
    })
}

fn gguf_row(file: &Gguf, info: &TensorInfo, digest: bool) -> Result<Row> {
    let shape: Vec<u64> = info.dims.iter().rev().copied().collect();
    let mut row = Row {
        name: info.name.clone(),
        ty: info.ty.name().to_string(),
        shape,
        bytes: info.nbytes,
        zero_fraction: None,
        scale: None,
        codes_sha256: None,
    };
    let layout = file.metadata().get_str(I2_S_LAYOUT).ok();
    let Some(packing) = Packing::in_file(info.ty.name(), layout) else { return Ok(row) };
    let (cols, rows) = (info.dims.first().copied().unwrap_or(1), info.dims.iter().skip(1).product::<u64>());
    let unpacked = packing
        .unpack(file.data(info), rows as usize, cols as usize)
        .with_context(|| format!("tensor {}", info.name))?;
    let beside = file.tensor(&info.name.replace(".weight", ".scale")).map(|scale| file.data(scale));
    let beside = match beside {
        Some([a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
        _ => 1.0,
    };
    let zeros = unpacked.codes.iter().filter(|code| **code == 0).count();
    row.zero_fraction = Some(zeros as f64 / unpacked.codes.len().max(1) as f64);
    row.scale = unpacked.uniform_scale().map(|scale| scale * beside);
    if digest {
        let bytes: Vec<u8> = unpacked.codes.iter().map(|code| *code as u8).collect();
        row.codes_sha256 = Some(Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect());
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
            format!(
                "\"{}…\" ({} characters)",
                text.chars().take(40).collect::<String>(),
                text.chars().count()
            )
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

fn safetensors(path: &Path) -> Result<Summary> {
    let tensors = Tensors::open(path)?;
    let rows: Vec<Row> = tensors.list()?.into_iter().map(tensor_row).collect();
    Ok(Summary {
        path: path.display().to_string(),
        kind: "safetensors".to_string(),
        parameters: rows.iter().map(|r| r.shape.iter().product::<u64>()).sum(),
        bytes: std::fs::metadata(path).map(|m| m.len()).unwrap_or_default(),
        tensors: rows,
        ..Summary::default()
    })
}

fn tensor_row((name, shape, ty): (String, Vec<usize>, String)) -> Row {
    let size = match ty.as_str() {
        "F64" | "I64" | "U64" => 8,
        "F16" | "BF16" | "I16" | "U16" => 2,
        "U8" | "I8" | "BOOL" => 1,
        _ => 4,
    };
    let shape: Vec<u64> = shape.into_iter().map(|d| d as u64).collect();
    let bytes = shape.iter().product::<u64>() * size;
    Row { name, ty, shape, bytes, zero_fraction: None, scale: None, codes_sha256: None }
}

fn checkpoint(dir: &Path) -> Result<Summary> {
    let checkpoint = Checkpoint::open(dir)?;
    let config = checkpoint.config()?;
    let tensors = checkpoint.tensors(MODEL)?;
    let mut rows: Vec<Row> = tensors.list()?.into_iter().map(tensor_row).collect();
    let ternary = config.weights != WeightQuant::None;
    let projections =
        (0..config.num_hidden_layers).flat_map(|l| Projection::ALL.map(|p| (p.hf_weight(l), p)));
    for (name, projection) in projections.filter(|_| ternary) {
        let Some(row) = rows.iter_mut().find(|row| row.name == name) else { continue };
        let [out, inputs] = config.projection_shape(projection);
        let tensor = tritforge_export::ternary_tensor(&tensors, &config, &name, [out, inputs])
            .with_context(|| dir.display().to_string())?;
        row.zero_fraction = Some(tensor.zero_fraction());
        row.scale = Some(tensor.scale());
    }
    Ok(Summary {
        path: dir.display().to_string(),
        kind: "checkpoint".to_string(),
        architecture: Architecture::of(&config).ok().map(|a| a.name().to_string()),
        parameters: config.parameters().total() as u64,
        bytes: checkpoint.files().map(|(_, bytes)| bytes).sum(),
        config: Some(config),
        metadata: checkpoint.files().map(|(name, bytes)| (name.to_string(), table::bytes(bytes))).collect(),
        tensors: rows,
        ..Summary::default()
    })
}

fn print(summary: &Summary, all_tensors: bool) {
    println!("{}: {}", summary.path, summary.kind);
    println!("  {} parameters, {}", summary.parameters, table::bytes(summary.bytes));
    if let Some(architecture) = &summary.architecture {
        println!("  architecture {architecture}");
    }
    if !summary.loads_in.is_empty() {
        println!("  loads in: {}", summary.loads_in.join(", "));
    }
    let ternary: Vec<&Row> = summary.tensors.iter().filter(|t| t.zero_fraction.is_some()).collect();
    if !ternary.is_empty() {
        let weights = |t: &Row| t.shape.iter().product::<u64>();
        let total: u64 = ternary.iter().map(|t| weights(t)).sum();
        let bits = ternary.iter().map(|t| t.bytes).sum::<u64>() as f64 * 8.0 / total as f64;
        let zeros: f64 = ternary.iter().filter_map(|t| Some(t.zero_fraction? * weights(t) as f64)).sum();
        println!(
            "  {} ternary tensors, {total} weights, {bits:.2} bits a weight as stored, {:.1} % zero",
            ternary.len(),
            100.0 * zeros / total as f64
        );
    }
    println!();
    table::print(
        &["key", "value"],
        &summary.metadata.iter().map(|(k, v)| vec![k.clone(), v.clone()]).collect::<Vec<_>>(),
    );
    println!();
    if !all_tensors {
        println!("{} tensors; --tensors lists them", summary.tensors.len());
        return;
    }
    let rows: Vec<Vec<String>> = summary
        .tensors
        .iter()
        .map(|t| {
            vec![
                t.name.clone(),
                t.ty.clone(),
                format!("{:?}", t.shape),
                table::bytes(t.bytes),
                t.zero_fraction.map(|z| format!("{:.1} %", 100.0 * z)).unwrap_or_default(),
                t.scale.map(|s| format!("{s:.6}")).unwrap_or_default(),
                t.codes_sha256.as_deref().map(|d| d[..16].to_string()).unwrap_or_default(),
            ]
        })
        .collect();
    table::print(&["tensor", "type", "shape", "bytes", "zero", "scale", "codes"], &rows);
}
