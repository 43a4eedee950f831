//! A GGUF file of any shape with random weights: for benchmarks, where what is computed does not matter and how much does.

use std::borrow::Cow;
use std::path::Path;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tritforge_config::{ModelConfig, WeightQuant};
use tritforge_ternary::TernaryTensor;
use tritforge_text::{SpecialTokens, Tokenizer};

use crate::gguf::write_model;
use crate::numbers::Numbers;
use crate::plan::Kind;
use crate::{ExportError, ExportOptions, Report};

/// Writes a model of the given shape with random weights that depend on the seed alone: matrices uniform in ±`initializer_range`, a
/// quarter of the codes zero, norms 1. Its tokenizer knows the 256 bytes; the rest of the vocabulary is padding.
///
/// # Errors
/// If the shape has no GGUF architecture, does not fit the packing, has a vocabulary of fewer than 257 tokens, or the file cannot
/// be written.
pub fn synth_gguf(
    config: &ModelConfig,
    out: &Path,
    options: &ExportOptions,
    seed: u64,
) -> Result<Report, ExportError> {
    config.validate()?;
    let tokenizer = Tokenizer::train_bpe([""; 0], 257, &SpecialTokens::default())?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let range = config.initializer_range;
    write_model(config, &tokenizer, out, options, |item| {
        let count: usize = item.shape.iter().product();
        let values: Vec<f32> = match item.kind {
            Kind::Vector => vec![1.0; count],
            Kind::Embedding | Kind::Projection => {
                (0..count).map(|_| rng.random_range(-range..range)).collect()
            }
        };
        if item.kind != Kind::Projection || config.weights == WeightQuant::None {
            return Ok(Numbers::Dense(Cow::Owned(values)));
        }
        let [rows, cols] = item.matrix();
        let tensor = TernaryTensor::quantize(&values, rows, cols);
        Ok(Numbers::Ternary(
            tensor.map_err(|source| ExportError::Ternary { tensor: item.source.clone(), source })?,
        ))
    })
}
