//! Which values a step's forward sees: those that are deployed, drawn codes, soft ones that harden, or codes with a
//! residual that fades.

use std::f64::consts::PI;

use tritforge_kernels::CounterRng;
use tritforge_model::TrainingCodes;

use crate::recipe::{CodeChoice, Recipe};

/// The share of the steps of a run in which soft codes set in; they harden in the others.
const PRESSURE: f64 = 0.2;
/// The share of the steps in which a residual sets in; it fades in the others.
const WARMUP: f64 = 0.1;

/// The codes of step number `step` (from 0).
pub(crate) fn training_codes(recipe: &Recipe, step: u64) -> TrainingCodes {
    match recipe.quant.codes {
        CodeChoice::Round => TrainingCodes::Rounded,
        // A stream apart from that of the gradients' rounding.
        CodeChoice::Stochastic => {
            let seed = CounterRng::derive(CounterRng::derive(recipe.run.seed, u64::MAX), step);
            TrainingCodes::Stochastic { seed }
        }
        CodeChoice::Soft => soft(recipe.quant.temperature(), step as f64 / recipe.train.steps as f64),
        CodeChoice::Residual => residual(recipe.quant.residual(), step as f64 / recipe.train.steps as f64),
    }
}

/// Sherry's schedule for a part `done` of the run: the residual rises to `most` and falls to 0 as a cosine.
fn residual(most: f64, done: f64) -> TrainingCodes {
    let share = if done < WARMUP {
        most * done / WARMUP
    } else {
        most * 0.5 * (1.0 + (PI * ((done - WARMUP) / (1.0 - WARMUP)).min(1.0)).cos())
    };
    match share as f32 {
        share if share > 0.0 && done < 1.0 => TrainingCodes::Residual { share },
        _ => TrainingCodes::Rounded,
    }
}

/// Hestia's schedule for a part `done` of the run: with the first temperature the codes set in, then it falls to 0 as a
/// cosine.
fn soft(first: f64, done: f64) -> TrainingCodes {
    let annealed = ((done - PRESSURE) / (1.0 - PRESSURE)).clamp(0.0, 1.0);
    let temperature = (first * 0.5 * (1.0 + (PI * annealed).cos())) as f32;
    if temperature <= 0.0 || annealed >= 1.0 {
        return TrainingCodes::Rounded;
    }
    TrainingCodes::Soft { temperature, share: (done / PRESSURE).min(1.0) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_codes_set_in_and_harden() {
        let of = |done| match soft(0.5, done) {
            TrainingCodes::Soft { temperature, share } => (temperature, share),
            other => panic!("{done}: {other:?}"),
        };
        assert_eq!((of(0.0), of(0.1), of(0.2)), ((0.5, 0.0), (0.5, 0.5), (0.5, 1.0)));
        let (half, share) = of(0.6);
        assert!((half - 0.25).abs() < 1e-6 && share == 1.0, "{half}");
        let temperatures: Vec<f32> = (2..100).map(|part| of(f64::from(part) / 100.0).0).collect();
        assert!(temperatures.windows(2).all(|pair| pair[1] <= pair[0]));
        assert_eq!(soft(0.5, 1.0), TrainingCodes::Rounded);
    }

    #[test]
    fn a_residual_sets_in_and_fades() {
        assert_eq!(residual(2.0, 0.0), TrainingCodes::Rounded);
        assert_eq!(residual(2.0, 0.05), TrainingCodes::Residual { share: 1.0 });
        assert_eq!(residual(2.0, 0.1), TrainingCodes::Residual { share: 2.0 });
        let TrainingCodes::Residual { share } = residual(2.0, 0.55) else { panic!("half-way") };
        assert!((share - 1.0).abs() < 1e-6, "{share}");
        assert_eq!(residual(2.0, 1.0), TrainingCodes::Rounded);
        assert_eq!(residual(2.0, 1.1), TrainingCodes::Rounded);
    }
}
