//! Learning rate and weight decay at each step: warm-up, then constant, linear, cosine, warm-up–stable–decay
//! (WSD), BitNet's two stages or the percentile of LoTA-QAF.

use crate::recipe::{Optim, Schedule};

/// The learning rate of step `step` (from 0) of `steps`.
///
/// The first `warmup_steps` rise linearly to `lr`; the last step of a decaying schedule comes close to `lr ·
/// min_lr_ratio`.
pub(crate) fn learning_rate(optim: &Optim, steps: u64, step: u64) -> f64 {
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
        Schedule::Linear | Schedule::TwoStage => 1.0 - (1.0 - floor) * progress(warmup),
        Schedule::Cosine => {
            floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress(warmup)).cos())
        }
        Schedule::Lota => {
            let (done, turn) = (progress(warmup), 0.8);
            if done <= turn {
                1.0 - (1.0 - 0.02) * done / turn
            } else {
                0.02 - (0.02 - 0.002) * (done - turn) / (1.0 - turn)
            }
        }
        Schedule::Wsd => 1.0 - (1.0 - floor) * progress(steps.saturating_sub(optim.decay_steps)),
    };
    let peak = match optim.stage2_at {
        Some(at) if optim.schedule == Schedule::TwoStage && reached(at, steps, step) => optim.stage2_lr,
        _ => None,
    };
    peak.unwrap_or(optim.lr) * share
}

/// The weight decay of step `step` (from 0) of `steps`: 0 from `weight_decay_until` on.
pub(crate) fn weight_decay(optim: &Optim, steps: u64, step: u64) -> f64 {
    let until = optim.weight_decay_until;
    if until < 1.0 && reached(until, steps, step) { 0.0 } else { optim.weight_decay }
}

/// Whether `share` of `steps` are done before step `step`.
fn reached(share: f64, steps: u64, step: u64) -> bool {
    step as f64 >= share * steps as f64
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
        // From the end of the warm-up: half way, at the turn, half way from there.
        for (step, expected) in [(10, 1.0), (50, 0.51), (90, 0.02), (100, 0.011)] {
            assert!((at(Schedule::Lota, step) - expected).abs() < 1e-12, "{step}");
        }
        assert_eq!(at(Schedule::Wsd, 90), 1.0);
        assert!((at(Schedule::Wsd, 100) - 0.55).abs() < 1e-12);
        assert!(at(Schedule::Cosine, 109) < 0.11);
    }

    #[test]
    fn two_stages_drop_the_rate_and_the_decay() {
        // The 700M model of "The Era of 1-bit LLMs: Training Tips": 1.5e-3, then 1e-3, decay 0.1 until the
        // middle.
        let o = Optim {
            lr: 1.5e-3,
            warmup_steps: 10,
            schedule: Schedule::TwoStage,
            min_lr_ratio: 0.0,
            stage2_lr: Some(1e-3),
            stage2_at: Some(0.5),
            weight_decay: 0.1,
            weight_decay_until: 0.5,
            ..Optim::default()
        };
        let near = |step: u64, lr: f64| assert!((learning_rate(&o, 110, step) - lr).abs() < 1e-15, "{step}");
        near(4, 0.75e-3);
        near(10, 1.5e-3);
        near(54, 1.5e-3 * 0.56);
        near(55, 1e-3 * 0.55);
        near(109, 1e-3 * 0.01);
        assert_eq!([0, 54, 55, 109].map(|step| weight_decay(&o, 110, step)), [0.1, 0.1, 0.0, 0.0]);
        assert_eq!(weight_decay(&Optim::default(), 10, 9), 0.1);
    }
}
