//! The learning rate at each step: warm-up, then constant, linear, cosine or warm-up–stable–decay (WSD).

use crate::recipe::{Optim, Schedule};

/// The learning rate of step `step` (from 0) of `steps`.
///
/// The first `warmup_steps` rise linearly to `lr`; the last step of a decaying schedule comes close to `lr · min_lr_ratio`.
pub fn learning_rate(optim: &Optim, steps: u64, step: u64) -> f64 {
    let warmup = optim.warmup_steps;
    if step < warmup {
        return optim.lr * (step + 1) as f64 / warmup as f64;
    }
    let floor = optim.min_lr_ratio;
    // Share of the way from the end of the warm-up to the end of the run, 0..1.
    let progress = |start: u64| {
        if step < start { 0.0 } else { (step - start) as f64 / steps.saturating_sub(start).max(1) as f64 }
    };
    let share = match optim.schedule {
        Schedule::Constant => 1.0,
        Schedule::Linear => 1.0 - (1.0 - floor) * progress(warmup),
        Schedule::Cosine => {
            floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress(warmup)).cos())
        }
        Schedule::Wsd => 1.0 - (1.0 - floor) * progress(steps.saturating_sub(optim.decay_steps)),
    };
    optim.lr * share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn optim(schedule: Schedule) -> Optim {
        Optim { lr: 1.0, warmup_steps: 10, schedule, min_lr_ratio: 0.1, decay_steps: 20, ..Optim::default() }
    }

    #[test]
    fn warm_up_is_linear_and_reaches_the_peak() {
        let o = optim(Schedule::Cosine);
        assert_eq!(learning_rate(&o, 110, 0), 0.1);
        assert_eq!(learning_rate(&o, 110, 9), 1.0);
        assert_eq!(learning_rate(&o, 110, 10), 1.0);
    }

    #[test]
    fn shapes_are_those_of_their_formulas() {
        let at = |schedule, step| learning_rate(&optim(schedule), 110, step);
        assert_eq!(at(Schedule::Constant, 100), 1.0);
        assert!((at(Schedule::Linear, 60) - 0.55).abs() < 1e-12);
        assert!((at(Schedule::Cosine, 60) - 0.55).abs() < 1e-12);
        assert_eq!(at(Schedule::Wsd, 90), 1.0);
        assert!((at(Schedule::Wsd, 100) - 0.55).abs() < 1e-12);
        assert!(at(Schedule::Cosine, 109) < 0.11);
    }
}
