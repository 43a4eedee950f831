//! An exponential moving average of the weights.

use rayon::prelude::*;
use tritforge_model::Parameter;

use crate::optimizer::CHUNK;

/// The average, one vector a parameter, in f32.
#[derive(Debug, Clone)]
pub(crate) struct EmaWeights {
    decay: f64,
    values: Vec<Vec<f32>>,
}

impl EmaWeights {
    /// An average that begins with the parameters as they are.
    pub(crate) fn new(decay: f64, parameters: &[Parameter]) -> Self {
        Self { decay, values: parameters.iter().map(|p| p.tensor.read().to_vec()).collect() }
    }

    /// An average as it was stored, in the order of the parameters.
    pub(crate) fn restore(decay: f64, values: Vec<Vec<f32>>) -> Self {
        Self { decay, values }
    }

    /// The averages, in the order of the parameters.
    pub(crate) fn values(&self) -> &[Vec<f32>] {
        &self.values
    }

    /// Takes the parameters in after optimizer step `step` (from 1). The first steps weigh more than the
    /// decay says: a run soon leaves the weights it began with.
    pub(crate) fn update(&mut self, parameters: &[Parameter], step: u64) {
        let decay = self.decay.min((1 + step) as f64 / (10 + step) as f64);
        let share = (1.0 - decay) as f32;
        // What is frozen is its own average, to the bit.
        let trained = parameters.iter().zip(&mut self.values).filter(|(parameter, _)| !parameter.frozen);
        for (parameter, average) in trained {
            let values = parameter.tensor.read();
            average.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK)).for_each(|(average, values)| {
                for (a, v) in average.iter_mut().zip(values) {
                    *a += share * (v - *a);
                }
            });
        }
    }

    /// Exchanges average and parameters; done twice, everything is as before.
    pub(crate) fn swap(&mut self, parameters: &[Parameter]) {
        for (parameter, average) in parameters.iter().zip(&mut self.values) {
            parameter.tensor.write().swap_with_slice(average);
        }
    }
}

#[cfg(test)]
mod tests {
    use tritforge_model::{DecayGroup, Tensor};

    use super::*;

    #[test]
    fn the_average_follows_its_recurrence_and_swaps_both_ways() {
        let tensor = Tensor::vector(vec![1.0, -2.0]);
        let parameters =
            [Parameter { name: "w".to_string(), tensor, group: DecayGroup::Decay, frozen: false }];
        let mut average = EmaWeights::new(0.5, &parameters);
        let mut expected = [1f64, -2.0];
        for step in 1..=40 {
            let values = [step as f32, 0.5];
            parameters[0].tensor.write().copy_from_slice(&values);
            average.update(&parameters, step);
            let decay = f64::min(0.5, (1 + step) as f64 / (10 + step) as f64);
            for (e, v) in expected.iter_mut().zip(values) {
                *e = decay * *e + (1.0 - decay) * f64::from(v);
            }
        }
        for (found, expected) in average.values()[0].iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} {expected}");
        }
        let before = average.values()[0].clone();
        average.swap(&parameters);
        assert_eq!(*parameters[0].tensor.read(), before);
        assert_eq!(average.values()[0], [40.0, 0.5]);
        average.swap(&parameters);
        assert_eq!(average.values()[0], before);
    }
}
