//! `[convert]`: how much of the quantization a step sees (`x + λ(Q(x) − x)`), growing from 0 to 1.

use schemars::JsonSchema;
use serde::Serialize;
use tritforge_config::{ActivationQuant, WeightQuant};

use crate::recipe::{Reader, Recipe};

/// `[convert]`: quantization that sets in gradually, `x + λ(Q(x) − x)` with λ from 0 to 1, for a base that was trained without; kept
/// where `schedule` is given. Without a base and with `start` it is training in full precision that becomes quantized within one
/// run. Evaluations are always those of the quantized model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Convert {
    /// How λ rises: `"linear"`, `"exponential"`, `"sigmoid"`, or `"none"` (1 from the first step).
    pub schedule: BlendSchedule,
    /// The step at which λ begins to rise, 0 before it: what comes before trains in full precision. By default 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub start: u64,
    /// Number of steps over which λ rises; by default 1000, or half the run if that is less.
    pub steps: u64,
    /// `"together"` (the default: all blocks) or `"layers"` (one after the other, from the first).
    pub order: BlendOrder,
    /// How λ of the projections' inputs rises, where it is another than that of the weights; by default `schedule`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_schedule: Option<BlendSchedule>,
    /// The step at which λ of the inputs begins to rise; by default `start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_start: Option<u64>,
    /// Number of steps over which λ of the inputs rises; by default `steps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_steps: Option<u64>,
    /// What happens to the optimizer's state before the first step that sees any quantization: `"keep"` (the default) or `"reset"`:
    /// moments and momenta begin anew from 0.
    #[serde(skip_serializing_if = "AtTransition::is_keep")]
    pub optimizer: AtTransition,
}

/// How λ rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BlendSchedule {
    /// It is 1 from the beginning.
    None,
    /// In equal steps.
    Linear,
    /// Slowly at first.
    Exponential,
    /// Slowly at first and in the end.
    Sigmoid,
}

/// Which blocks are quantized when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BlendOrder {
    /// All at once.
    Together,
    /// One after the other.
    Layers,
}

/// What happens to the optimizer's state where quantization sets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AtTransition {
    /// It stays.
    Keep,
    /// It begins anew.
    Reset,
}

impl AtTransition {
    // serde hands references to `skip_serializing_if`.
    fn is_keep(&self) -> bool {
        *self == AtTransition::Keep
    }
}

/// Steps of a rise where the recipe does not say: what worked best in "Fine-tuning LLMs to 1.58bit" (Hugging
/// Face, 2024).
const STEPS: u64 = 1000;

impl Convert {
    /// Reads the section; none where no schedule is given.
    pub(crate) fn read(r: &mut Reader, train_steps: u64) -> Option<Self> {
        let schedules = [
            ("none", BlendSchedule::None),
            ("linear", BlendSchedule::Linear),
            ("exponential", BlendSchedule::Exponential),
            ("sigmoid", BlendSchedule::Sigmoid),
        ];
        let orders = [("together", BlendOrder::Together), ("layers", BlendOrder::Layers)];
        let schedule = r.choice("convert", "schedule", &schedules);
        let start = r.integer("convert", "start", 0, u64::MAX);
        let steps = r.integer("convert", "steps", 1, u64::MAX);
        let order = r.choice("convert", "order", &orders);
        let input_schedule = r.choice("convert", "input_schedule", &schedules);
        let input_start = r.integer("convert", "input_start", 0, u64::MAX);
        let input_steps = r.integer("convert", "input_steps", 1, u64::MAX);
        let transitions = [("keep", AtTransition::Keep), ("reset", AtTransition::Reset)];
        let optimizer = r.choice("convert", "optimizer", &transitions);
        if schedule.is_none() && r.has_any("convert") && !r.given("convert", "schedule") {
            r.fault(
                "convert",
                "schedule",
                "convert.schedule is missing: expected a quantization schedule, as in schedule = \"linear\"",
            );
        }
        let (schedule, start) = (schedule?, start.unwrap_or(0));
        Some(Self {
            schedule,
            start,
            steps: steps.unwrap_or(STEPS.min((train_steps.saturating_sub(start) / 2).max(1))),
            order: order.unwrap_or(BlendOrder::Together),
            input_schedule,
            input_start,
            input_steps,
            optimizer: optimizer.unwrap_or(AtTransition::Keep),
        })
    }

    /// How λ of the weights rises.
    fn weights(&self) -> Rise {
        Rise { schedule: self.schedule, start: self.start, steps: self.steps }
    }

    /// How λ of the projections' inputs rises.
    fn inputs(&self) -> Rise {
        Rise {
            schedule: self.input_schedule.unwrap_or(self.schedule),
            start: self.input_start.unwrap_or(self.start),
            steps: self.input_steps.unwrap_or(self.steps),
        }
    }

    /// Whether the optimizer's state begins anew before step number `step` (from 0).
    pub(crate) fn resets(&self, step: u64) -> bool {
        self.optimizer == AtTransition::Reset && step == self.transition()
    }

    /// The first step that sees any quantization.
    fn transition(&self) -> u64 {
        self.weights().start.min(self.inputs().start)
    }

    /// Notes what contradicts the section.
    pub(crate) fn check(&self, r: &mut Reader, recipe: &Recipe) {
        if recipe.quant.weights != WeightQuant::Absmean {
            let message = "[convert]: expected quant.weights = \"absmean\", the only quantization that models \
                           can be converted to";
            r.fault("convert", "schedule", message);
        }
        if recipe.lora.is_some() {
            r.fault("convert", "schedule", "[convert] contradicts [lora]: conversion trains all weights");
        }
        for (key, given) in [
            ("input_schedule", self.input_schedule.is_some()),
            ("input_start", self.input_start.is_some()),
            ("input_steps", self.input_steps.is_some()),
        ] {
            if given && recipe.quant.activations == ActivationQuant::None {
                r.fault(
                    "convert",
                    key,
                    format!(
                        "convert.{key}: expected quant.activations = \"absmax\": no inputs are quantized"
                    ),
                );
            }
        }
        if self.optimizer == AtTransition::Reset && self.transition() == 0 {
            let message = "convert.optimizer = \"reset\": expected convert.start above 0: nothing has been trained before step 0";
            r.fault("convert", "optimizer", message);
        }
        let Rise { start, steps, .. } = self.inputs();
        let apart = self.input_start.is_some() || self.input_steps.is_some();
        if apart && start.saturating_add(steps) > recipe.train.steps {
            let message = format!(
                "convert.input_start = {start} and convert.input_steps = {steps}: expected at most train.steps = {} together: otherwise \
                 the inputs of the final model would be only partly quantized",
                recipe.train.steps
            );
            r.fault(
                "convert",
                if self.input_start.is_some() { "input_start" } else { "input_steps" },
                message,
            );
        }
        if self.start > 0 && self.start.saturating_add(self.steps) > recipe.train.steps {
            let message = format!(
                "convert.start = {} and convert.steps = {}: expected at most train.steps = {} together: otherwise the final \
                 model would be only partly ternary",
                self.start, self.steps, recipe.train.steps
            );
            r.fault("convert", "start", message);
        } else if self.steps > recipe.train.steps {
            let message = format!(
                "convert.steps = {}: expected at most train.steps = {}: otherwise the final model would be only \
                 partly ternary",
                self.steps, recipe.train.steps
            );
            r.fault("convert", "steps", message);
        }
    }
}

// serde hands references to `skip_serializing_if`.
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// How steep an exponential rise is: e⁵ between its ends.
const STEEPNESS: f64 = 5.0;
/// How steep a sigmoid is in its middle, over the whole rise.
const SLOPE: f64 = 12.0;

/// λ as it rises from one step on.
#[derive(Debug, Clone, Copy)]
struct Rise {
    schedule: BlendSchedule,
    start: u64,
    steps: u64,
}

/// λ of each of `blocks` blocks in step number `step` (from 0): of their weights, and of their inputs.
pub(crate) fn blend(convert: &Convert, step: u64, blocks: usize) -> [Vec<f32>; 2] {
    [convert.weights(), convert.inputs()].map(|rise| blend_of(rise, convert.order, step, blocks))
}

fn blend_of(rise: Rise, order: BlendOrder, step: u64, blocks: usize) -> Vec<f32> {
    let Some(since) = step.checked_sub(rise.start) else { return vec![0.0; blocks] };
    let done = since as f64 / rise.steps.max(1) as f64;
    let part = |block: usize| match order {
        BlendOrder::Together => done,
        // One block after the other, from the first to the last.
        BlendOrder::Layers => done * blocks as f64 - block as f64,
    };
    (0..blocks).map(|block| ramp(rise.schedule, part(block).clamp(0.0, 1.0)) as f32).collect()
}

/// How far a rise has come after a part `t` of its time: 0 at 0 and 1 at 1.
fn ramp(schedule: BlendSchedule, t: f64) -> f64 {
    match schedule {
        BlendSchedule::None => 1.0,
        BlendSchedule::Linear => t,
        BlendSchedule::Exponential => ((STEEPNESS * t).exp() - 1.0) / (STEEPNESS.exp() - 1.0),
        BlendSchedule::Sigmoid => {
            let sigmoid = |t: f64| 1.0 / (1.0 + (-SLOPE * (t - 0.5)).exp());
            (sigmoid(t) - sigmoid(0.0)) / (sigmoid(1.0) - sigmoid(0.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(schedule: BlendSchedule, order: BlendOrder) -> Convert {
        Convert {
            schedule,
            start: 0,
            steps: 100,
            order,
            input_schedule: None,
            input_start: None,
            input_steps: None,
            optimizer: AtTransition::Keep,
        }
    }

    /// λ of the weights, which is that of the inputs where nothing else is said.
    fn blend(convert: &Convert, step: u64, blocks: usize) -> Vec<f32> {
        let [weights, inputs] = super::blend(convert, step, blocks);
        assert_eq!(weights, inputs);
        weights
    }

    #[test]
    fn inputs_rise_as_they_are_told() {
        let apart = Convert {
            start: 40,
            input_schedule: Some(BlendSchedule::None),
            input_start: Some(10),
            input_steps: Some(5),
            optimizer: AtTransition::Reset,
            ..convert(BlendSchedule::Linear, BlendOrder::Together)
        };
        for (step, expected) in [(9, [0.0, 0.0]), (10, [0.0, 1.0]), (40, [0.0, 1.0]), (90, [0.5, 1.0])] {
            assert_eq!(super::blend(&apart, step, 1).map(|parts| parts[0]), expected, "{step}");
        }
        let resets: Vec<u64> = (0..200).filter(|step| apart.resets(*step)).collect();
        assert_eq!(resets, [10]);
        let kept = Convert { optimizer: AtTransition::Keep, ..apart };
        assert!((0..200).all(|step| !kept.resets(step)));
    }

    #[test]
    fn every_schedule_rises_from_0_to_1_and_stays() {
        for schedule in [BlendSchedule::Linear, BlendSchedule::Exponential, BlendSchedule::Sigmoid] {
            let at = |step| blend(&convert(schedule, BlendOrder::Together), step, 1)[0];
            assert_eq!((at(0), at(100), at(5000)), (0.0, 1.0, 1.0), "{schedule:?}");
            assert!((1..=100).all(|step| at(step) > at(step - 1)), "{schedule:?}");
        }
        assert_eq!(blend(&convert(BlendSchedule::None, BlendOrder::Together), 0, 2), [1.0, 1.0]);
    }

    #[test]
    fn before_the_start_nothing_is_quantized() {
        for schedule in [BlendSchedule::None, BlendSchedule::Linear] {
            let late = Convert { start: 40, ..convert(schedule, BlendOrder::Together) };
            let at = |step| blend(&late, step, 2);
            assert_eq!((at(0), at(39)), (vec![0.0; 2], vec![0.0; 2]), "{schedule:?}");
            assert_eq!((40..200).map(at).collect::<Vec<_>>(), {
                let early = convert(schedule, BlendOrder::Together);
                (0..160).map(|step| blend(&early, step, 2)).collect::<Vec<_>>()
            });
        }
    }

    #[test]
    fn blocks_follow_each_other() {
        let at = |step| blend(&convert(BlendSchedule::Linear, BlendOrder::Layers), step, 4);
        assert_eq!(at(0), [0.0; 4]);
        assert_eq!(at(50), [1.0, 1.0, 0.0, 0.0]);
        assert_eq!(at(80), [1.0, 1.0, 1.0, 0.2]);
        assert_eq!(at(100), [1.0; 4]);
    }

    #[test]
    fn a_sigmoid_is_halfway_in_the_middle() {
        assert_eq!(blend(&convert(BlendSchedule::Sigmoid, BlendOrder::Together), 50, 1), [0.5]);
    }
}
