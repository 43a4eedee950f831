//! `[optim]`: read and checked. Optimizers and schedules read and check the keys that only they have
//! themselves: `crate::optimizer`, `crate::schedule`.

use schemars::JsonSchema;
use serde::Serialize;
use tritforge_recipe::{Keys, Range, Reader, check_owned};

use super::ParamGroup;
use crate::optimizer::{AdamW, Defaults, Rule, StoredType, TSignSgd};
use crate::schedule::{Cosine, Run, Schedule};

/// `[optim]`: the optimizer and its learning rate.
///
/// Defaults that are not given here depend on the optimizer.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Optim {
    /// `kind`, and the keys that only some optimizers have.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rule: Rule,
    /// The peak learning rate.
    pub lr: f64,
    /// Decoupled weight decay of the projections, not of embeddings and norms.
    pub weight_decay: f64,
    /// Maximum global gradient norm; 0 disables clipping. By default 1.
    pub grad_clip: f64,
    /// Number of warm-up steps.
    pub warmup_steps: u64,
    /// `schedule`, and the keys that only some schedules have.
    #[serde(flatten)]
    #[schemars(skip)]
    pub schedule: Schedule,
    /// Final learning rate of a decaying schedule, as a fraction of the peak; by default 0.1.
    pub min_lr_ratio: f64,
    /// The share of the run after which weight decay is 0; by default 1, for `"two-stage"` `stage2_at`.
    pub weight_decay_until: f64,
    /// Storage type of moments and momenta: `"f32"` (the default), or `"bf16"`, rounded stochastically, in
    /// half the memory.
    pub state_dtype: StoredType,
    /// Storage type of the weights: `"f32"` (the default), or `"bf16"`, rounded stochastically after every
    /// step, in half the disk space.
    pub master_dtype: StoredType,
    /// `[[optim.groups]]`: parameters, by their names, with another learning rate or weight decay, or frozen. A parameter belongs to the
    /// first group whose pattern finds it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<ParamGroup>,
}

impl Default for Optim {
    fn default() -> Self {
        let Defaults { lr, weight_decay, .. } = Defaults::default();
        Self {
            rule: Rule::AdamW(AdamW::default()),
            lr,
            weight_decay,
            grad_clip: 1.0,
            warmup_steps: 0,
            schedule: Schedule::Cosine(Cosine),
            min_lr_ratio: 0.1,
            weight_decay_until: 1.0,
            state_dtype: StoredType::F32,
            master_dtype: StoredType::F32,
            groups: Vec::new(),
        }
    }
}

/// The section's name.
pub(super) const SECTION: &str = "optim";
/// The key that chooses an optimizer.
pub(super) const KIND: &str = "kind";
/// The key that chooses a schedule.
pub(super) const SCHEDULE: &str = "schedule";

impl Optim {
    /// Reads the section for a run of `steps`. An adapter of ternary matrices has an optimizer of its own.
    pub(super) fn read(r: &mut Reader, steps: u64, ternary_adapter: bool) -> Self {
        let default = Self::default();
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
        Self {
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
            groups: ParamGroup::read(r),
        }
    }

    /// Notes what contradicts the optimizer.
    pub(super) fn check_optimizer(&self, r: &mut Reader) {
        let rule = self.rule;
        rule.chosen().check(self, &mut Keys::new(r, SECTION, KIND, rule.name()));
        check_owned(r, SECTION, KIND, rule.name());
    }

    /// Notes what contradicts the schedule, in a run of `steps`.
    pub(super) fn check_schedule(&self, r: &mut Reader, steps: u64) {
        let warmup = self.warmup_steps;
        if warmup > steps {
            let message = format!("optim.warmup_steps = {warmup}: expected at most train.steps = {steps}");
            r.fault(SECTION, "warmup_steps", message);
            return;
        }
        let schedule = self.schedule;
        schedule.chosen().check(self, steps, &mut Keys::new(r, SECTION, SCHEDULE, schedule.name()));
        check_owned(r, SECTION, SCHEDULE, schedule.name());
    }
}

/// Has all optimizers read their keys; returns the one of this name.
fn rule(r: &mut Reader, name: &str) -> Option<Rule> {
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
