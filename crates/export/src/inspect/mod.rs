//! `inspect`: what a file or directory holds, and who can load it.

mod gguf;
mod layout;
mod tokenizer;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tritforge_config::ModelConfig;
use tritforge_ternary::Scales;

pub use self::tokenizer::TokenizerSummary;
use crate::runtimes::{Runtime, Verdict, loading};
use crate::{ExportError, ImportOptions, LoadedModel, Located, locate};

/// What a file or directory holds.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// Where it is: of a run, the directory of the checkpoint.
    pub path: String,
    /// What it is, for people.
    pub kind: String,
    /// The GGUF architecture: the file's, or the one that an export would have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Numbers that the model is made of; `.scale` tensors are part of their weights.
    pub parameters: u64,
    /// Bytes of the file, or of all files of a checkpoint, or of the tensors of a directory.
    pub bytes: u64,
    /// Bits of stored tensors over parameters.
    pub bits_per_parameter: f64,
    /// The ternary matrices, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ternary: Option<TernarySummary>,
    /// How many tensors are stored in each type, and their bytes.
    pub types: BTreeMap<String, TypeSummary>,
    /// The model's configuration, if this program understands it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<ModelConfig>,
    /// The tokenizer, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerSummary>,
    /// The runtimes that load it as it is.
    pub loads_in: Vec<Runtime>,
    /// What each runtime does with it, and why.
    pub runtimes: Vec<Verdict>,
    /// Metadata of a GGUF file; files of a directory.
    pub metadata: Vec<(String, String)>,
    /// All tensors, in the order of the file.
    pub tensors: Vec<TensorRow>,
}

impl Inspection {
    /// Tensors of which nothing else is known yet; [`summarize`] fills in what follows from them.
    fn of(tensors: Vec<TensorRow>) -> Self {
        Self {
            path: String::new(),
            kind: String::new(),
            architecture: None,
            parameters: tensors.iter().map(TensorRow::elements).sum(),
            bytes: 0,
            bits_per_parameter: 0.0,
            ternary: None,
            types: BTreeMap::new(),
            config: None,
            tokenizer: None,
            loads_in: Vec::new(),
            runtimes: Vec::new(),
            metadata: Vec::new(),
            tensors,
        }
    }
}

/// All ternary matrices of a model together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TernarySummary {
    /// How many.
    pub tensors: usize,
    /// Their weights.
    pub weights: u64,
    /// Bits of a weight as stored, with scales: 32 for latent weights in F32.
    pub bits_per_weight: f64,
    /// The share of zeros.
    pub zero_fraction: f64,
    /// The least and the largest scale.
    pub scales: [f32; 2],
}

/// Tensors of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TypeSummary {
    /// How many.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// One tensor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorRow {
    /// Its name.
    pub name: String,
    /// The type in which it is stored.
    #[serde(rename = "type")]
    pub ty: String,
    /// Outermost dimension first; of a packed matrix that of the weights, not of the bytes.
    pub shape: Vec<u64>,
    /// Bytes as stored, with the scale that stands beside a packed matrix.
    pub bytes: u64,
    /// The share of zeros among ternary codes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zero_fraction: Option<f64>,
    /// What ternary codes are multiplied by; none if the blocks of a tensor differ in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
    /// Which weights share a scale: `tensor`, `row`, or the size of a group.
    pub granularity: Option<String>,
    /// SHA-256 of the ternary codes as int8, row-major, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codes_sha256: Option<String>,
}

impl TensorRow {
    fn new(name: &str, ty: &str, shape: Vec<u64>, bytes: u64) -> Self {
        Self {
            name: name.to_string(),
            ty: ty.to_string(),
            shape,
            bytes,
            zero_fraction: None,
            scale: None,
            granularity: None,
            codes_sha256: None,
        }
    }

    /// Weights.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    fn set_codes(&mut self, codes: &[i8], scales: Option<&Scales>, digest: bool) {
        let zeros = codes.iter().filter(|code| **code == 0).count();
        self.zero_fraction = Some(zeros as f64 / codes.len().max(1) as f64);
        self.scale = scales.map(|scales| scales.mean() as f32);
        self.granularity = scales.map(|scales| scales.granularity().to_string());
        if digest {
            let bytes: Vec<u8> = codes.iter().map(|code| *code as u8).collect();
            self.codes_sha256 = Some(Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect());
        }
    }
}

/// Inspects a GGUF file, a safetensors file, a checkpoint, the directory of a run, a directory in Hugging
/// Face's layout, or an adapter.
/// `digest` adds the SHA-256 of each ternary tensor's codes.
///
/// # Errors
/// If it is none of these, or damaged.
pub fn inspect(path: &Path, options: &ImportOptions, digest: bool) -> Result<Inspection, ExportError> {
    match locate(path)? {
        Located::Adapter(adapter) => layout::adapter(&adapter),
        Located::Gguf(path) => gguf::file(&path, digest),
        // One file says what is in it without the rest of the model.
        Located::HuggingFace(path) if path.extension().is_none_or(|end| end != "json") && path.is_file() => {
            layout::safetensors(&path)
        }
        model => layout::directory(&LoadedModel::of(model, options, &[])?, digest),
    }
}

/// What the tensors say together.
fn summarize(inspection: &mut Inspection) {
    for tensor in &inspection.tensors {
        let summary = inspection.types.entry(tensor.ty.clone()).or_default();
        summary.tensors += 1;
        summary.bytes += tensor.bytes;
    }
    let bytes: u64 = inspection.tensors.iter().map(|t| t.bytes).sum();
    inspection.bits_per_parameter = bytes as f64 * 8.0 / inspection.parameters.max(1) as f64;
    let ternary: Vec<&TensorRow> = inspection.tensors.iter().filter(|t| t.zero_fraction.is_some()).collect();
    let weights: u64 = ternary.iter().map(|t| t.elements()).sum();
    if weights > 0 {
        let scale_bytes: u64 =
            inspection.tensors.iter().filter(|t| t.name.ends_with(".scale")).map(|t| t.bytes).sum();
        let bytes = ternary.iter().map(|t| t.bytes).sum::<u64>() + scale_bytes;
        let zeros: f64 = ternary.iter().filter_map(|t| Some(t.zero_fraction? * t.elements() as f64)).sum();
        let scales = || ternary.iter().filter_map(|t| t.scale);
        inspection.ternary = Some(TernarySummary {
            tensors: ternary.len(),
            weights,
            bits_per_weight: bytes as f64 * 8.0 / weights as f64,
            zero_fraction: zeros / weights as f64,
            // `f32::min` and `f32::max` would drop a NaN; in this order it is the largest.
            scales: [
                scales().min_by(f32::total_cmp).unwrap_or(f32::INFINITY),
                scales().max_by(f32::total_cmp).unwrap_or(0.0),
            ],
        });
    }
    inspection.loads_in = loading(&inspection.runtimes);
}
