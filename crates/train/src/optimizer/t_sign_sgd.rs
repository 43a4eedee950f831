//! t-SignSGD (LoTA-QAF, arXiv 2505.18724): ternary numbers that stay ternary. The elements with the largest
//! gradients move by one against its sign, within -1 and 1; all others stay. Nothing is remembered from step
//! to step.

use schemars::JsonSchema;
use serde::Serialize;

use super::Rule;
use super::algorithm::{Algorithm, Defaults, ParameterShape, StateTensor, Update};
use crate::recipe::{Keys, Optim, Range};

/// t-SignSGD (arXiv 2505.18724) for the ternary matrices of `lora.mode = "lota"`, and for nothing else: `lr` is the
/// fraction of a matrix's elements updated per step.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, JsonSchema)]
pub struct TSignSgd;

impl Algorithm for TSignSgd {
    fn read(keys: &mut Keys<'_>) -> Rule {
        // Means nothing here, but earlier versions wrote it into every recipe that they resolved.
        let _ = keys.pair("betas", Range::at_least(0.0).below(1.0));
        Rule::TSignSgd(Self)
    }

    /// The paper's fraction of the elements and its schedule.
    fn defaults(&self) -> Defaults {
        Defaults { lr: 0.05, weight_decay: 0.0, warmup_steps: Some(0), schedule: "lota" }
    }

    fn check(&self, optim: &Optim, keys: &mut Keys<'_>) {
        for (key, value, right) in [
            ("lr", optim.lr, optim.lr <= 1.0),
            ("weight_decay", optim.weight_decay, optim.weight_decay == 0.0),
        ] {
            if !right {
                let message = format!(
                    "optim.{key} = {value}: for optim.kind = \"t-sign-sgd\", lr is the fraction of elements \
                     updated (<= 1); weight decay is not supported"
                );
                keys.fault(key, message);
            }
        }
    }

    fn state(&self, _: ParameterShape<'_>) -> Vec<StateTensor> {
        Vec::new()
    }

    fn step(&self, update: Update<'_>) -> candle_core::Result<()> {
        step(update.values, update.gradient, update.step.lr);
        Ok(())
    }
}

/// Gradients of this magnitude and below move nothing: the paper's τ.
const TAU: f32 = 1e-9;

/// A step of one parameter of numbers -1, 0 and 1: moves the elements whose gradient's magnitude is beyond
/// the quantile 1 − `share`, about that share of them. Ties at the quantile stay.
fn step(parameter: &mut [f32], gradient: &[f32], share: f64) {
    let Some(last) = gradient.len().checked_sub(1) else { return };
    let mut magnitudes: Vec<f32> = gradient.iter().map(|g| g.abs()).collect();
    // What is larger than the interpolated quantile is larger than the element below it, and the other way
    // round but for ties.
    let below = ((1.0 - share).clamp(0.0, 1.0) * last as f64) as usize;
    let (_, quantile, _) = magnitudes.select_nth_unstable_by(below, f32::total_cmp);
    let least = quantile.max(TAU);
    for (p, g) in parameter.iter_mut().zip(gradient) {
        if g.abs() > least {
            *p = (*p - g.signum()).clamp(-1.0, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_gradients_move_by_one_and_no_further_than_one() {
        let mut p = [0.0, 1.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let g = [5.0, 4.0, -3.0, -2.0, -1.0, 0.1, 0.1, 0.1, 0.1, 0.0];
        step(&mut p, &g, 0.3);
        assert_eq!(p, [-1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        // All of them: the one in the grid's corner stays there.
        step(&mut p, &g, 1.0);
        assert_eq!(p, [-1.0, -1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 0.0]);
    }

    #[test]
    fn as_many_move_as_the_quantile_says() {
        let n = 1000;
        let g: Vec<f32> = (0..n).map(|i| ((i * 389) % n + 1) as f32).collect();
        for (share, moved) in [(0.05, 50), (0.001, 1), (0.0001, 1), (0.9999, 999), (0.0, 0)] {
            let mut p = vec![0.0; n];
            step(&mut p, &g, share);
            assert_eq!(p.iter().filter(|p| **p != 0.0).count(), moved, "{share}");
            assert_eq!(p[g.iter().position(|g| *g == n as f32).unwrap()], if moved > 0 { -1.0 } else { 0.0 });
        }
    }

    #[test]
    fn no_gradient_moves_nothing() {
        let mut p = [1.0, -1.0, 0.0];
        step(&mut p, &[0.0, 1e-10, -1e-10], 1.0);
        assert_eq!(p, [1.0, -1.0, 0.0]);
        step(&mut [], &[], 0.5);
    }
}
