//! Successive halving over steps (Jamieson and Talwalkar, arXiv 1502.07943): every arm is trained for few steps, the best
//! 1/eta of them for eta times as many, and so on; the last ones for all steps of the recipe.
//!
//! The run of a rung is a whole run of its own, whose learning rate falls to its end at the rung's last step: losses are
//! those that a model trained so long has, not those of a run broken off at a high rate. Where a longer run begins with the
//! same steps ([`tritforge_train::shared_steps`]: all of a run with a constant rate, a run with warm-up, stable, decay up
//! to its decay), it goes on from there, to the same bits as from the beginning.

use crate::AblateError;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rungs {
    /// Steps of the first rung at least.
    pub min_steps: u64,
    /// One of so many arms goes on, for so many times the steps.
    pub eta: u64,
}

impl Rungs {
    /// The steps of each rung, of which the last is `steps`, and the arms that it begins with, for `arms` of them: no more
    /// rungs than it takes to one arm.
    ///
    /// # Errors
    /// If there is only one rung.
    pub(crate) fn of(self, steps: u64, arms: usize) -> Result<Vec<(u64, usize)>, AblateError> {
        let (mut lengths, mut length, mut left) = (vec![steps], steps / self.eta, arms);
        while length >= self.min_steps.max(1) && left > 1 {
            lengths.push(length);
            (length, left) = (length / self.eta, self.survivors(left));
        }
        if lengths.len() < 2 {
            return Err(AblateError::Request(format!(
                "--min-steps {}: expected at most train.steps / eta = {} / {}, so that there are two rungs",
                self.min_steps, steps, self.eta
            )));
        }
        lengths.reverse();
        let mut alive = arms;
        let each = lengths.into_iter().map(|steps| {
            let own = (steps, alive);
            alive = self.survivors(alive);
            own
        });
        Ok(each.collect())
    }

    /// How many of so many arms go on: one at least.
    pub(crate) fn survivors(self, arms: usize) -> usize {
        (arms / usize::try_from(self.eta).unwrap_or(usize::MAX)).max(1)
    }
}

/// What a rung found, for the report.
#[derive(Debug, Clone, PartialEq)]
pub struct RungResult {
    /// Steps of its runs.
    pub steps: u64,
    /// The arms that took part, each with the mean of the metric over seeds; none where a run diverged or failed.
    pub arms: Vec<(usize, Option<f64>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_are_those_of_the_paper() {
        let of = |min_steps, eta, steps, arms| Rungs { min_steps, eta }.of(steps, arms);
        // Table 1 of Hyperband (arXiv 1603.06560) for s = 4 and s = 2: R = 81, eta = 3.
        assert_eq!(of(1, 3, 81, 81).unwrap(), [(1, 81), (3, 27), (9, 9), (27, 3), (81, 1)]);
        assert_eq!(of(9, 3, 81, 9).unwrap(), [(9, 9), (27, 3), (81, 1)]);
        // No more rungs than it takes to one arm, and several arms at the end if the first rung is long.
        assert_eq!(of(1, 3, 81, 9).unwrap(), [(9, 9), (27, 3), (81, 1)]);
        assert_eq!(of(100, 2, 400, 16).unwrap(), [(100, 16), (200, 8), (400, 4)]);
        assert_eq!(of(50, 4, 400, 2).unwrap(), [(100, 2), (400, 1)]);
        let message = of(300, 3, 400, 9).unwrap_err().to_string();
        assert!(
            message.contains("--min-steps 300: expected at most train.steps / eta = 400 / 3"),
            "{message}"
        );
    }
}
