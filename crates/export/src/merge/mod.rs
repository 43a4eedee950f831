//! An adapter and its base to one checkpoint, and what that changes.
//!
//! An adapter inside the quantizer is merged exactly: the merged latent weight is what the forward quantized;
//! and so is a ternary one, which moves codes ([`lota`]). One beside a ternary weight has no place in
//! it: quantizing the sum again is another model, and how far away is told. One beside a full-precision
//! weight is added to it.

mod lota;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use tritforge_checkpoint::{
    AdapterFiles, AdapterModule, Checkpoint, MODEL, TOKENIZER, TOKENIZER_CONFIG, TensorView, Writer,
};
use tritforge_config::{AdapterConfig, LoraMode, ModelConfig, WeightQuant};
use tritforge_model::merge_adapter;

use crate::applied::check_base;
use crate::tensor_data::{learned_scales, quantize};
use crate::{ExportError, open_checkpoint};

/// What a merge did to a projection.
#[derive(Debug, Clone, PartialEq)]
pub struct MergedProjection {
    /// The weight's name.
    pub name: String,
    /// Weights of it.
    pub weights: usize,
    /// Codes that are others than the base's; 0 for full-precision models.
    pub flipped: usize,
    /// The scale over the base's; 1 for full-precision models.
    pub scale_ratio: f64,
}

/// What a merge did.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeReport {
    /// The adapter.
    pub adapter: AdapterConfig,
    /// Whether the merged model computes what base and adapter did: up to rounding for full-precision models,
    /// to the bit where the adapter stood inside the quantizer.
    pub exact: bool,
    /// Every adapted projection.
    pub projections: Vec<MergedProjection>,
}

/// Merges an adapter with its base, and writes the checkpoint `out`. The adapter is that of a checkpoint, of
/// the newest of a run, or a directory of peft; the base is the checkpoint or run that it names, or `base`.
/// `requantize` allows merging an adapter that stands beside ternary weights, which loses most of what it
/// learned.
///
/// # Errors
/// If there is no adapter or no base, the adapter stands beside ternary weights and `requantize` is not
/// given, the base has no latent weights, or the checkpoint cannot be written.
pub fn merge(
    adapter: &Path,
    base: Option<&Path>,
    out: &Path,
    requantize: bool,
) -> Result<MergeReport, ExportError> {
    let files = AdapterFiles::open(adapter)?;
    let fault = |message: String| ExportError::Merge { path: files.dir().to_path_buf(), message };
    let base = open_checkpoint(&files.base_path(base)?).map_err(|e| fault(format!("its base: {e}")))?;
    check_base(&files, &base).map_err(|e| fault(e.to_string()))?;
    let config = match files.checkpoint() {
        Some(checkpoint) => checkpoint.config()?,
        None => base.config()?,
    };
    let modules = files.modules(&config)?;
    let adapter = files.config().clone();
    let mode = adapter.mode;
    let mut report = MergeReport { adapter, exact: true, projections: Vec::new() };
    match (mode, config.weights) {
        (LoraMode::Lota, _) => {
            lota::write(&base, &files, &modules, &config, out, &mut report)?;
            return Ok(report);
        }
        (_, WeightQuant::Ternary) => {
            return Err(fault(
                "the base has only codes and no latent weights to add the adapter to. `tritforge export` \
                 makes a GGUF adapter to use beside the model; mode = \"lota\" (experimental) trains an \
                 adapter that changes codes"
                    .to_string(),
            ));
        }
        (LoraMode::Adapter, WeightQuant::Absmean) if !requantize => {
            return Err(fault(
                "the adapter was trained beside ternary weights, and quantizing the sum would lose most of \
                 it. `tritforge export` makes a GGUF adapter without loss; mode = \"qat_lora\" trains an \
                 adapter that merges exactly; --requantize merges anyway"
                    .to_string(),
            ));
        }
        _ => {}
    }
    let ternary = config.weights == WeightQuant::Absmean;
    report.exact = !ternary || mode == LoraMode::QatLora;
    write(&base, &files, &modules, &config, out, &mut report)?;
    Ok(report)
}

/// The tokenizer of a merged model: that of the adapter's checkpoint, or the base's.
fn write_tokenizer(writer: &mut Writer, files: &AdapterFiles, base: &Checkpoint) -> Result<(), ExportError> {
    let source = files.checkpoint().unwrap_or(base);
    for file in [TOKENIZER, TOKENIZER_CONFIG].into_iter().filter(|file| source.has(file)) {
        writer.write_file(file, &source.file(file)?)?;
    }
    Ok(())
}

/// The adapted modules by the names of their weights.
fn by_weight(modules: &[AdapterModule]) -> HashMap<String, &AdapterModule> {
    modules.iter().map(|found| (found.module.projection.hf_weight(found.module.layer), found)).collect()
}

fn write(
    base: &Checkpoint,
    files: &AdapterFiles,
    modules: &[AdapterModule],
    config: &ModelConfig,
    out: &Path,
    report: &mut MergeReport,
) -> Result<(), ExportError> {
    let (tensors, modules) = (base.model_tensors()?, by_weight(modules));
    let ternary = config.weights == WeightQuant::Absmean;
    let mut writer = Writer::create(out)?;
    writer.write_config(config)?;
    let mut merged = Vec::new();
    for (name, shape, _) in tensors.list()? {
        let latent = tensors.f32(&name, &shape)?;
        let values = match modules.get(&name) {
            None => latent,
            Some(found) => {
                let [a, b] = files.matrices(found)?;
                let shape = config.projection_shape(found.module.projection);
                let sum = merge_adapter(&latent, &a, &b, shape, found.module.scaling);
                let quantized = ternary.then_some(config);
                let scales = learned_scales(&tensors, config, &name, shape)?;
                let found = compare(name.clone(), &latent, &sum, shape, scales.as_deref(), quantized)?;
                report.projections.push(found);
                Cow::Owned(sum)
            }
        };
        merged.push((name, shape, values));
    }
    let views: Vec<_> =
        merged.iter().map(|(name, shape, values)| TensorView::new(name, shape, values)).collect();
    writer.write_tensors(MODEL, &views)?;
    write_tokenizer(&mut writer, files, base)?;
    Ok(writer.commit()?)
}

/// What a merge changed; `quantized` is the model's configuration where its weights are quantized.
fn compare(
    name: String,
    before: &[f32],
    after: &[f32],
    shape: [usize; 2],
    scales: Option<&[f32]>,
    quantized: Option<&ModelConfig>,
) -> Result<MergedProjection, ExportError> {
    let weights = before.len();
    let Some(config) = quantized else {
        return Ok(MergedProjection { name, weights, flipped: 0, scale_ratio: 1.0 });
    };
    let ternary = |values: &[f32]| quantize(config, config.granularity, scales, &name, values, shape);
    let (old, new) = (ternary(before)?, ternary(after)?);
    let flipped = old.codes().iter().zip(new.codes()).filter(|(a, b)| a != b).count();
    let scale_ratio = new.scales().mean() / old.scales().mean();
    Ok(MergedProjection { name, weights, flipped, scale_ratio })
}
