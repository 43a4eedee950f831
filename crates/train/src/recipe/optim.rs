//! `[optim]`: read and checked. Optimizers and schedules read and check the keys that only they have
//! themselves: `crate::optimizer`, `crate::schedule`.

use super::Recipe;
use super::keys::{self, Keys};
use super::kind::Range;
use super::reader::Reader;
use super::sections::Optim;
use crate::optimizer::{Rule, StoredType, TSignSgd};
use crate::schedule::{Run, Schedule};

/// The section's name.
pub(super) const SECTION: &str = "optim";
/// The key that chooses an optimizer.
pub(super) const KIND: &str = "kind";
/// The key that chooses a schedule.
pub(super) const SCHEDULE: &str = "schedule";

/// Reads the section for a run of `steps`. An adapter of ternary matrices has an optimizer of its own.
pub(super) fn optim(r: &mut Reader, steps: u64, ternary_adapter: bool) -> Optim {
    let default = Optim::default();
    let usual = if ternary_adapter { Rule::TSignSgd(TSignSgd) } else { default.rule };
    let names: Vec<_> = Rule::ALL.iter().map(|known| (known.name, known.name)).collect();
    let kind = r.choice(SECTION, KIND, &names).unwrap_or(usual.name());
    let rates = Range::above(0.0).at_most(10.0);
    let lr = r.number(SECTION, "lr", rates);
    let rule = rule(r, kind).unwrap_or(usual);
    let defaults = rule.chosen().defaults();
    let lr = lr.unwrap_or(defaults.lr);
    let weight_decay = r.number(SECTION, "weight_decay", Range::at_least(0.0));
    let grad_clip = r.number(SECTION, "grad_clip", Range::at_least(0.0)).unwrap_or(default.grad_clip);
    let warmup = defaults.warmup_steps.unwrap_or((steps / 20).min(500));
    let warmup_steps = r.integer(SECTION, "warmup_steps", 0, u64::MAX).unwrap_or(warmup);
    let names: Vec<_> = Schedule::ALL.iter().map(|known| (known.name, known.name)).collect();
    let name = r.choice(SECTION, SCHEDULE, &names).unwrap_or(defaults.schedule);
    let share = Range::at_least(0.0).at_most(1.0);
    let min_lr_ratio = r.number(SECTION, "min_lr_ratio", share).unwrap_or(default.min_lr_ratio);
    let schedule = schedule(r, name, &Run { steps, lr }).unwrap_or(default.schedule);
    let decay_until = r.number(SECTION, "weight_decay_until", share);
    let types = [("f32", StoredType::F32), ("bf16", StoredType::Bf16)];
    Optim {
        rule,
        lr,
        weight_decay: weight_decay.unwrap_or(defaults.weight_decay),
        grad_clip,
        warmup_steps,
        schedule,
        min_lr_ratio,
        weight_decay_until: decay_until.unwrap_or(schedule.chosen().weight_decay_until()),
        state_dtype: r.choice(SECTION, "state_dtype", &types).unwrap_or(default.state_dtype),
        master_dtype: r.choice(SECTION, "master_dtype", &types).unwrap_or(default.master_dtype),
    }
}

/// Has all optimizers read their keys; returns the one of this name.
pub(super) fn rule(r: &mut Reader, name: &str) -> Option<Rule> {
    let mut found = None;
    for known in Rule::ALL {
        let rule = (known.read)(&mut Keys::new(r, SECTION, KIND, known.name));
        found = found.or((known.name == name).then_some(rule));
    }
    found
}

/// Has all schedules read their keys; returns the one of this name.
fn schedule(r: &mut Reader, name: &str, run: &Run) -> Option<Schedule> {
    let mut found = None;
    for known in Schedule::ALL {
        let schedule = (known.read)(&mut Keys::new(r, SECTION, SCHEDULE, known.name), run);
        found = found.or((known.name == name).then_some(schedule));
    }
    found
}

/// Notes what contradicts the optimizer.
pub(super) fn check_optimizer(r: &mut Reader, recipe: &Recipe) {
    let rule = recipe.optim.rule;
    rule.chosen().check(&recipe.optim, &mut Keys::new(r, SECTION, KIND, rule.name()));
    keys::check(r, SECTION, KIND, rule.name());
}

/// Notes what contradicts the schedule.
pub(super) fn check_schedule(r: &mut Reader, recipe: &Recipe) {
    let (optim, steps) = (&recipe.optim, recipe.train.steps);
    let warmup = optim.warmup_steps;
    if warmup > steps {
        let message = format!("optim.warmup_steps = {warmup}: expected at most train.steps = {steps}");
        r.fault(SECTION, "warmup_steps", message);
        return;
    }
    let schedule = optim.schedule;
    schedule.chosen().check(optim, steps, &mut Keys::new(r, SECTION, SCHEDULE, schedule.name()));
    keys::check(r, SECTION, SCHEDULE, schedule.name());
}
