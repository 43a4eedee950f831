//! How fast the engine writes with the exported model of a run.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use tritforge_infer::{GenerateOptions, Model, Sampling, Session, generate};

/// Tokens of a measurement, and measurements of which the median is taken.
const TOKENS: usize = 96;
const TIMES: usize = 5;

/// Tokens a second that the engine writes one after the other, on its threads, with the model in a GGUF file; with why
/// not, if it cannot.
pub(crate) fn engine_speed(file: &Path) -> Result<f64, String> {
    let model = Arc::new(Model::open(file).map_err(|e| e.to_string())?);
    let context = model.config().max_position_embeddings;
    let options = GenerateOptions {
        max_tokens: TOKENS.min(context.saturating_sub(2)).max(2),
        sampling: Sampling { temperature: 1.0, seed: 1, ..Sampling::default() },
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    let mut rates = Vec::new();
    for _ in 0..TIMES {
        let mut session = Session::new(Arc::clone(&model), context).map_err(|e| e.to_string())?;
        let written = generate(&mut session, &[0], &options, |_| ControlFlow::Continue(()));
        rates.push(written.map_err(|e| e.to_string())?.decode_rate());
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates[rates.len() / 2])
}
