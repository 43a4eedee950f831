//! Models of any shape with random weights, as a GGUF file or a checkpoint: for benchmarks and tests of
//! conversions, where what is computed does not matter and how much does.

use std::borrow::Cow;
use std::path::Path;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tritforge_checkpoint::{MODEL, TOKENIZER, TOKENIZER_CONFIG, TensorType, Writer};
use tritforge_config::{Granularity, ModelConfig, WeightQuant};
use tritforge_ternary::{Scales, TernaryTensor, pack_stripes};
use tritforge_text::{SpecialTokens, Tokenizer};

use crate::gguf::write_model;
use crate::import::{Stored, scale_name, specs_of};
use crate::plan::{TensorPlan, TensorRole, items};
use crate::tensor_data::{TensorData, f32_bytes};
use crate::{ExportError, ExportOptions, Report};

/// Writes a GGUF file of the given shape with random weights that depend on the seed alone: ternary codes,
/// each as likely as the others, full-precision matrices uniform in ±`initializer_range`, norms 1. Without a
/// tokenizer it has one that knows the 256 bytes; the rest of the vocabulary is padding.
///
/// # Errors
/// If the shape has no GGUF architecture, does not fit the packing, has a vocabulary smaller than the
/// tokenizer's (257), or the file cannot be written.
pub fn synth_gguf(
    config: &ModelConfig,
    out: &Path,
    options: &ExportOptions,
    seed: u64,
    tokenizer: Option<&Tokenizer>,
) -> Result<Report, ExportError> {
    config.validate()?;
    let order: Vec<String> = items(config).into_iter().map(|item| item.source).collect();
    let tensor = |item: &TensorPlan| {
        let index = order.iter().position(|name| *name == item.source).unwrap_or_default();
        random(config, item, seed, index)
    };
    with_tokenizer(tokenizer, |tokenizer| write_model(config, tokenizer, out, options, tensor))
}

/// Writes a checkpoint with the weights of [`synth_gguf`]: ternary matrices packed, everything else in bf16,
/// as published models are.
///
/// # Errors
/// If the shape is impossible, or the checkpoint cannot be written.
pub fn synth_checkpoint(
    config: &ModelConfig,
    out: &Path,
    seed: u64,
    tokenizer: Option<&Tokenizer>,
) -> Result<(), ExportError> {
    let mut config = config.clone();
    if config.weights == WeightQuant::Absmean {
        config = ModelConfig { weights: WeightQuant::Ternary, ..config.folded() };
    }
    config.validate()?;
    let items = items(&config);
    let ternary = config.weights == WeightQuant::Ternary;
    let stored = |item: &TensorPlan| match item.ternary {
        Some(_) if ternary => Stored::Ternary,
        _ => Stored::Bf16,
    };
    let mut writer = Writer::create(out)?;
    writer.write_config(&config)?;
    with_tokenizer(tokenizer, |tokenizer| {
        writer.write_file(TOKENIZER, tokenizer.to_json()?.as_bytes())?;
        Ok(writer.write_file(TOKENIZER_CONFIG, tokenizer.to_config_json().as_bytes())?)
    })?;
    let specs = items.iter().flat_map(|item| specs_of(item, stored(item), false)).collect();
    let mut file = writer.tensor_file(MODEL, specs)?;
    for spec in file.specs().to_vec() {
        let found = items.iter().position(|item| item.source == spec.name || scale_name(item) == spec.name);
        let Some(index) = found else { continue };
        let item = &items[index];
        let bytes = match spec.ty {
            TensorType::F32 => {
                let scales = random_scales(&config, item, &mut generator(seed, index))?;
                f32_bytes(scales.values()).into_owned()
            }
            _ => match random(&config, item, seed, index)? {
                TensorData::Ternary(tensor) => {
                    let fault = |source| ExportError::Ternary { tensor: item.source.clone(), source };
                    pack_stripes(tensor.codes(), tensor.rows(), tensor.cols()).map_err(fault)?
                }
                TensorData::Dense(values) => {
                    values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect()
                }
            },
        };
        file.write(&spec.name, &bytes)?;
    }
    writer.keep(MODEL, file)?;
    Ok(writer.commit()?)
}

/// Calls `write` with the tokenizer that was given, or one of the 256 bytes.
fn with_tokenizer<T>(
    given: Option<&Tokenizer>,
    write: impl FnOnce(&Tokenizer) -> Result<T, ExportError>,
) -> Result<T, ExportError> {
    match given {
        Some(tokenizer) => write(tokenizer),
        None => write(&Tokenizer::train_bpe([""; 0], 257, &SpecialTokens::default())?),
    }
}

/// Random numbers for one tensor: a stream of their own, so that they do not depend on the order of a file.
fn generator(seed: u64, index: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index as u64);
    rng
}

/// The scales of a ternary matrix; the first that its generator gives. Those of rows and groups are f16 numbers.
fn random_scales(
    config: &ModelConfig,
    item: &TensorPlan,
    rng: &mut ChaCha8Rng,
) -> Result<Scales, ExportError> {
    let [rows, cols] = item.matrix();
    let granularity = item.ternary.unwrap_or(config.granularity).on(cols);
    let draw = |rng: &mut ChaCha8Rng| config.initializer_range * rng.random_range(0.5..1.0);
    let scales = match granularity {
        Granularity::Tensor => vec![draw(rng)],
        _ => (0..granularity.count(rows, cols)).map(|_| half::f16::from_f32(draw(rng)).to_f32()).collect(),
    };
    Scales::new(granularity, [rows, cols], scales)
        .map_err(|source| ExportError::Ternary { tensor: item.source.clone(), source })
}

fn random(
    config: &ModelConfig,
    item: &TensorPlan,
    seed: u64,
    index: usize,
) -> Result<TensorData<'static>, ExportError> {
    let mut rng = generator(seed, index);
    let range = config.initializer_range;
    let count: usize = item.shape.iter().product();
    if item.ternary.is_some() {
        let [rows, cols] = item.matrix();
        let scales = random_scales(config, item, &mut rng)?;
        let codes = (0..count).map(|_| rng.random_range(-1..=1i8)).collect();
        let tensor = TernaryTensor::from_codes(codes, rows, cols, scales);
        let fault = |source| ExportError::Ternary { tensor: item.source.clone(), source };
        return Ok(TensorData::Ternary(tensor.map_err(fault)?));
    }
    Ok(TensorData::Dense(Cow::Owned(match item.role {
        TensorRole::Vector => vec![1.0; count],
        TensorRole::Embedding | TensorRole::Projection => {
            (0..count).map(|_| rng.random_range(-range..range)).collect()
        }
    })))
}
