//! An adapter and its base to one checkpoint, and what that changes.
//!
//! An adapter inside the quantizer is merged exactly: the merged latent weight is what the forward quantized;
//! and so is a ternary one, which moves codes ([`merge_lota`]). One beside a ternary weight has no place in
//! it: quantizing the sum again is another model, and how far away is told. One beside a full-precision
//! weight is added to it.

use std::borrow::Cow;
use std::path::Path;

use tritforge_checkpoint::{Checkpoint, MODEL, TOKENIZER, TOKENIZER_CONFIG, TensorView, Tensors, Writer};
use tritforge_config::{
    ADAPTER_CONFIG, ADAPTER_MODEL, LoraConfig, LoraMode, ModelConfig, Projection, WeightQuant,
};
use tritforge_nn::merge_adapter;
use tritforge_ternary::{absmean, weight_codes};

use crate::{TrainError, identity, init, merge_lota, state};

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
    pub lora: LoraConfig,
    /// Whether the merged model computes what base and adapter did: up to rounding for full-precision models,
    /// to the bit where the adapter stood inside the quantizer.
    pub exact: bool,
    /// Every adapted projection.
    pub projections: Vec<MergedProjection>,
}

/// Merges the adapter of a checkpoint, or of the newest of a run, with the base that it names, and writes the
/// checkpoint `out`. `requantize` allows merging an adapter that stands beside ternary weights, which loses
/// most of what it learned.
///
/// # Errors
/// If there is no adapter or no base, the adapter stands beside ternary weights and `requantize` is not
/// given, the base has no latent weights, or the checkpoint cannot be written.
pub fn merge(adapter: &Path, out: &Path, requantize: bool) -> Result<MergeReport, TrainError> {
    let checkpoint = init::open(adapter)?;
    let fault = |message: String| TrainError::Merge { path: checkpoint.dir().to_path_buf(), message };
    if !checkpoint.has(ADAPTER_MODEL) {
        return Err(fault(format!("no {ADAPTER_MODEL}: expected the checkpoint of a run with [lora]")));
    }
    let (lora, named) = read_config(&checkpoint)?;
    let named = named.ok_or_else(|| fault(format!("{ADAPTER_CONFIG} names no base_model_name_or_path")))?;
    let base = init::open(Path::new(&named)).map_err(|e| fault(format!("its base: {e}")))?;
    if let Some(fingerprint) = state::trained_on(&checkpoint)?
        && identity::of_checkpoint(&base)? != fingerprint
    {
        return Err(fault(format!(
            "its base, {}, is not the checkpoint that it was trained on: the files have other contents. Put that one back, or name it \
             as base_model_name_or_path in {ADAPTER_CONFIG}",
            base.dir().display()
        )));
    }
    let config = checkpoint.config()?;
    match (lora.mode, config.weights) {
        (LoraMode::Lota, _) => {
            let mut report = MergeReport { lora, exact: true, projections: Vec::new() };
            merge_lota::write(&base, &checkpoint, &config, out, &mut report)?;
            return Ok(report);
        }
        (_, WeightQuant::Ternary) => {
            return Err(fault(
                "the base has codes and no latent weights: nothing can be added to it. `tritforge export` makes a GGUF adapter, which is \
                 loaded beside the model; mode = \"lota\" (experimental) trains one that moves codes"
                    .to_string(),
            ));
        }
        (LoraMode::Adapter, WeightQuant::Absmean) if !requantize => {
            return Err(fault(
                "the adapter stands beside ternary weights: quantizing their sum loses most of it. `tritforge export` makes a GGUF adapter \
                 that loses nothing; mode = \"qat_lora\" trains one that merges exactly; --requantize merges all the same"
                    .to_string(),
            ));
        }
        _ => {}
    }
    let ternary = config.weights == WeightQuant::Absmean;
    let exact = !ternary || lora.mode == LoraMode::QatLora;
    let mut report = MergeReport { lora, exact, projections: Vec::new() };
    write(&base, &checkpoint, &config, out, ternary, &mut report)?;
    Ok(report)
}

/// The adapter that a checkpoint holds, and the base that it names.
pub(crate) fn read_config(checkpoint: &Checkpoint) -> Result<(LoraConfig, Option<String>), TrainError> {
    let bytes = checkpoint.file(ADAPTER_CONFIG)?;
    Ok(LoraConfig::from_json(&String::from_utf8_lossy(&bytes))?)
}

fn write(
    base: &Checkpoint,
    adapter: &Checkpoint,
    config: &ModelConfig,
    out: &Path,
    ternary: bool,
    report: &mut MergeReport,
) -> Result<(), TrainError> {
    let (tensors, matrices) = (base.model_tensors()?, adapter.tensors(ADAPTER_MODEL)?);
    let mut writer = Writer::create(out)?;
    writer.write_config(config)?;
    let mut merged = Vec::new();
    for (name, shape, _) in tensors.list()? {
        let latent = tensors.f32(&name, &shape)?;
        let values = match target(&name, config, &report.lora) {
            None => latent,
            Some((layer, projection)) => {
                let sum = merge_one(&matrices, config, &report.lora, layer, projection, &latent)?;
                report.projections.push(compare(name.clone(), &latent, &sum, ternary));
                Cow::Owned(sum)
            }
        };
        merged.push((name, shape, values));
    }
    let views: Vec<_> =
        merged.iter().map(|(name, shape, values)| TensorView::new(name, shape, values)).collect();
    writer.write_tensors(MODEL, &views)?;
    for file in [TOKENIZER, TOKENIZER_CONFIG] {
        writer.write_file(file, &adapter.file(file)?)?;
    }
    Ok(writer.commit()?)
}

/// Which adapted projection a tensor is the weight of.
fn target(name: &str, config: &ModelConfig, lora: &LoraConfig) -> Option<(usize, Projection)> {
    let all =
        (0..config.num_hidden_layers).flat_map(|layer| lora.target_modules.iter().map(move |p| (layer, *p)));
    all.into_iter().find(|(layer, projection)| projection.hf_weight(*layer) == name)
}

fn merge_one(
    matrices: &Tensors,
    config: &ModelConfig,
    lora: &LoraConfig,
    layer: usize,
    projection: Projection,
    latent: &[f32],
) -> Result<Vec<f32>, TrainError> {
    let [rows, cols] = config.projection_shape(projection);
    let [a, b] = LoraConfig::tensors(layer, projection).map(|name| LoraConfig::peft_name(&name));
    let (a, b) = (matrices.f32(&a, &[lora.rank, cols])?, matrices.f32(&b, &[rows, lora.rank])?);
    Ok(merge_adapter(latent, &a, &b, [rows, cols], lora.scaling()))
}

fn compare(name: String, before: &[f32], after: &[f32], ternary: bool) -> MergedProjection {
    let weights = before.len();
    if !ternary {
        return MergedProjection { name, weights, flipped: 0, scale_ratio: 1.0 };
    }
    let codes = |values: &[f32]| {
        let scale = absmean(values);
        let mut codes = vec![0i8; values.len()];
        weight_codes(values, scale, &mut codes);
        (codes, scale)
    };
    let ((old, old_scale), (new, new_scale)) = (codes(before), codes(after));
    let flipped = old.iter().zip(&new).filter(|(a, b)| a != b).count();
    MergedProjection { name, weights, flipped, scale_ratio: f64::from(new_scale) / f64::from(old_scale) }
}
