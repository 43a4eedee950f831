//! Conversion: how much of the quantization a step sees (`x + λ(Q(x) − x)`), growing from 0 to 1.

use crate::recipe::{BlendOrder, BlendSchedule, Convert};

/// How steep an exponential rise is: e⁵ between its ends.
const STEEPNESS: f64 = 5.0;
/// How steep a sigmoid is in its middle, over the whole rise.
const SLOPE: f64 = 12.0;

/// λ of each of `blocks` blocks in step number `step` (from 0).
pub(crate) fn blend(convert: &Convert, step: u64, blocks: usize) -> Vec<f32> {
    let done = step as f64 / convert.steps.max(1) as f64;
    let part = |block: usize| match convert.order {
        BlendOrder::Together => done,
        // One block after the other, from the first to the last.
        BlendOrder::Layers => done * blocks as f64 - block as f64,
    };
    (0..blocks).map(|block| ramp(convert.schedule, part(block).clamp(0.0, 1.0)) as f32).collect()
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
        Convert { schedule, steps: 100, order }
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
