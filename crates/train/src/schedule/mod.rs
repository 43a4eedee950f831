//! Learning rate and weight decay at each step: warm-up, then a schedule.
//!
//! Each schedule has a file, which owns all about it: its keys in recipes with their defaults and checks, its
//! formula. [`Schedule`] lists them: the recipe's reader and its documentation know a schedule by its line there.

mod constant;
mod cosine;
mod linear;
mod lota;
#[cfg(test)]
mod step;
mod two_stage;
mod wsd;

pub use constant::Constant;
pub use cosine::Cosine;
pub use linear::Linear;
pub use lota::Lota;
pub use two_stage::TwoStage;
pub use wsd::Wsd;

use crate::recipe::{Keys, Optim, registry};
#[cfg(test)]
use step::Step;

registry! {
    /// What the learning rate does after the warm-up.
    Schedule: Shape, tag = "schedule", read = fn(&mut Keys<'_>, &Run) -> Schedule;
    Cosine = "cosine",
    Linear = "linear",
    Constant = "constant",
    Wsd = "wsd",
    TwoStage = "two-stage",
    Lota = "lota",
    #[cfg(test)]
    Step = "single-step",
}

/// A schedule. The struct that implements it holds its constants, which are its keys of `[optim]`; the documentation
/// of the struct and its fields is that of the recipe.
pub(crate) trait Shape {
    /// Reads its keys.
    fn read(keys: &mut Keys<'_>, run: &Run) -> Schedule
    where
        Self: Sized;

    /// Notes what contradicts it in a recipe whose keys are right one by one, for a run of `steps`, of which the warm-up
    /// takes no more.
    fn check(&self, _optim: &Optim, _steps: u64, _keys: &mut Keys<'_>) {}

    /// The learning rate of a step after the warm-up.
    fn rate(&self, at: &At) -> f64;

    /// `optim.weight_decay_until` by default.
    fn weight_decay_until(&self) -> f64 {
        1.0
    }
}

/// What a schedule's defaults may depend on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Run {
    /// Steps of the run.
    pub(crate) steps: u64,
    /// The peak learning rate.
    pub(crate) lr: f64,
}

/// A step of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct At {
    /// The peak learning rate.
    lr: f64,
    /// Final learning rate of a decaying schedule, as a fraction of the peak.
    min_lr_ratio: f64,
    /// Steps of the warm-up.
    warmup_steps: u64,
    /// Steps of the run.
    steps: u64,
    /// The step, from 0.
    step: u64,
}

impl At {
    /// Share of the way from step `start` to the end of the run, 0..1.
    fn progress(&self, start: u64) -> f64 {
        let Self { steps, step, .. } = *self;
        if step < start { 0.0 } else { (step - start) as f64 / steps.saturating_sub(start).max(1) as f64 }
    }

    /// The fraction of the peak on the line from 1 at step `start` to `min_lr_ratio` at the end of the run.
    fn linear(&self, start: u64) -> f64 {
        1.0 - (1.0 - self.min_lr_ratio) * self.progress(start)
    }
}

/// The learning rate of step `step` (from 0) of `steps`.
///
/// The first `warmup_steps` rise linearly to `lr`; the last step of a decaying schedule comes close to `lr ·
/// min_lr_ratio`.
pub(crate) fn learning_rate(optim: &Optim, steps: u64, step: u64) -> f64 {
    let Optim { lr, min_lr_ratio, warmup_steps, .. } = *optim;
    if step < warmup_steps {
        return lr * (step + 1) as f64 / warmup_steps as f64;
    }
    optim.schedule.chosen().rate(&At { lr, min_lr_ratio, warmup_steps, steps, step })
}

/// Whether weights decay in step `step` (from 0) of `steps`: from `weight_decay_until` on they do not.
pub(crate) fn decays(optim: &Optim, steps: u64, step: u64) -> bool {
    let until = optim.weight_decay_until;
    until >= 1.0 || !reached(until, steps, step)
}

/// Whether `share` of `steps` are done before step `step`.
fn reached(share: f64, steps: u64, step: u64) -> bool {
    step as f64 >= share * steps as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn optim(schedule: Schedule) -> Optim {
        Optim { lr: 1.0, warmup_steps: 10, schedule, min_lr_ratio: 0.1, ..Optim::default() }
    }

    #[test]
    fn warm_up_is_linear_and_reaches_the_peak() {
        let o = optim(Schedule::Cosine(Cosine));
        assert_eq!(learning_rate(&o, 110, 0), 0.1);
        assert_eq!(learning_rate(&o, 110, 9), 1.0);
        assert_eq!(learning_rate(&o, 110, 10), 1.0);
    }

    #[test]
    fn shapes_are_those_of_their_formulas() {
        let at = |schedule, step| learning_rate(&optim(schedule), 110, step);
        assert_eq!(at(Schedule::Constant(Constant), 100), 1.0);
        assert!((at(Schedule::Linear(Linear), 60) - 0.55).abs() < 1e-12);
        assert!((at(Schedule::Cosine(Cosine), 60) - 0.55).abs() < 1e-12);
        // From the end of the warm-up: half way, at the turn, half way from there.
        for (step, expected) in [(10, 1.0), (50, 0.51), (90, 0.02), (100, 0.011)] {
            assert!((at(Schedule::Lota(Lota), step) - expected).abs() < 1e-12, "{step}");
        }
        let wsd = Schedule::Wsd(Wsd { decay_steps: 20 });
        assert_eq!(at(wsd, 90), 1.0);
        assert!((at(wsd, 100) - 0.55).abs() < 1e-12);
        assert!(at(Schedule::Cosine(Cosine), 109) < 0.11);
    }

    #[test]
    fn two_stages_drop_the_rate_and_the_decay() {
        // The 700M model of "The Era of 1-bit LLMs: Training Tips": 1.5e-3, then 1e-3, decay 0.1 until the
        // middle.
        let o = Optim {
            lr: 1.5e-3,
            warmup_steps: 10,
            schedule: Schedule::TwoStage(TwoStage { stage2_lr: 1e-3, stage2_at: 0.5 }),
            min_lr_ratio: 0.0,
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
        assert_eq!([0, 54, 55, 109].map(|step| decays(&o, 110, step)), [true, true, false, false]);
        assert!(decays(&Optim::default(), 10, 9));
    }
}
