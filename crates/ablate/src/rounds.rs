//! All runs of an experiment in their order: seed by seed, or in rounds after which only the better arms go on.

use crate::engine::Search;
use crate::plan::Plan;
use crate::rungs::RungResult;
use crate::runner::{Outcome, Runner, Task};
use crate::{AblateError, Metric};

/// What was run.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    /// The runs that are compared.
    pub(crate) tasks: Vec<Task>,
    /// What became of each.
    pub(crate) outcomes: Vec<Outcome>,
    /// With rungs, what each of them found.
    pub(crate) rungs: Vec<RungResult>,
}

/// Runs what a search asks for; `point` is that of each arm.
///
/// # Errors
/// As [`Runner::run`]; if every run of a rung diverged or failed.
pub(crate) fn run(
    plan: &Plan,
    search: Search,
    runner: &Runner<'_>,
    point: &dyn Fn(usize) -> usize,
    metric: Metric,
) -> Result<Rounds, AblateError> {
    let mut alive: Vec<usize> = (0..plan.arms.len()).collect();
    let mut rounds = Rounds::default();
    match search {
        Search::All => rounds.add(runner, &alive, &plan.seeds, point)?,
        // The arms of a seed are those that were good enough on the seeds before.
        Search::Seeds => {
            for seed in &plan.seeds {
                rounds.add(runner, &alive, &[*seed], point)?;
                let kept = alive.len().div_ceil(2);
                alive = best(&alive, kept, &rounds.tasks, &rounds.outcomes, metric);
            }
        }
        Search::Steps(rungs) => {
            for (rung, steps) in plan.rungs().iter().enumerate() {
                (runner.say)(&format!("{} of {steps} steps", tritforge_support::counted(alive.len(), "arm")));
                let mut own = Rounds::default();
                own.add(runner, &alive, &plan.seeds, &|_| plan.point_of_rung(rung))?;
                let value = |arm: &usize| mean(*arm, &own.tasks, &own.outcomes, metric);
                let arms: Vec<_> = alive.iter().map(|arm| (*arm, value(arm))).collect();
                let kept = rungs.survivors(alive.len());
                alive = best(&alive, kept, &own.tasks, &own.outcomes, metric);
                // What has no value here has none later.
                alive.retain(|arm| value(arm).is_some());
                if alive.is_empty() {
                    return Err(AblateError::Request(format!(
                        "every run of {steps} steps diverged or failed: try lower learning rates"
                    )));
                }
                rounds.rungs.push(RungResult { steps: *steps, arms });
                // Losses after fewer steps are not compared with those after all of them.
                (rounds.tasks, rounds.outcomes) = (own.tasks, own.outcomes);
            }
        }
    }
    Ok(rounds)
}

impl Rounds {
    fn add(
        &mut self,
        runner: &Runner<'_>,
        arms: &[usize],
        seeds: &[u64],
        point: &dyn Fn(usize) -> usize,
    ) -> Result<(), AblateError> {
        let each = seeds.iter().flat_map(|seed| arms.iter().map(move |arm| (*arm, *seed)));
        let own: Vec<Task> = each.map(|(arm, seed)| Task { arm, point: point(arm), seed }).collect();
        self.outcomes.extend(runner.run(&own)?);
        self.tasks.extend(own);
        Ok(())
    }
}

/// The mean over an arm's runs; none if one of them has no value.
fn mean(arm: usize, tasks: &[Task], outcomes: &[Outcome], metric: Metric) -> Option<f64> {
    let own = tasks.iter().zip(outcomes).filter(|(task, _)| task.arm == arm);
    let values: Option<Vec<f64>> = own.map(|(_, outcome)| outcome.result()?.value(metric)).collect();
    values.filter(|values| !values.is_empty()).map(|values| values.iter().sum::<f64>() / values.len() as f64)
}

/// The best of the arms, so many of them, by their means over all runs; those that have no value in one of them are the
/// worst.
fn best(alive: &[usize], kept: usize, tasks: &[Task], outcomes: &[Outcome], metric: Metric) -> Vec<usize> {
    let value = |arm: usize| mean(arm, tasks, outcomes, metric).unwrap_or(f64::INFINITY);
    let mut ranked: Vec<(f64, usize)> = alive.iter().map(|arm| (value(*arm), *arm)).collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut kept: Vec<usize> = ranked.iter().take(kept).map(|(_, arm)| *arm).collect();
    kept.sort_unstable();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunResult;

    fn ran(value: Option<f64>) -> Outcome {
        let diverged = value.is_none().then(|| "NaN".to_string());
        let (bits_per_byte, held_out_loss) = (value, value);
        Outcome::Ran(Box::new(RunResult { diverged, bits_per_byte, held_out_loss, ..RunResult::default() }))
    }

    #[test]
    fn the_best_go_on() {
        let task = |arm, seed| Task { arm, point: 0, seed };
        let tasks: Vec<Task> = (0..5).map(|arm| task(arm, 1)).collect();
        let mut outcomes: Vec<Outcome> = [Some(3.0), Some(1.0), None, Some(2.0), Some(4.0)].map(ran).into();
        assert_eq!(best(&[0, 1, 2, 3, 4], 3, &tasks, &outcomes, Metric::BitsPerByte), [0, 1, 3]);
        assert_eq!(best(&[0, 1, 2, 3, 4], 1, &tasks, &outcomes, Metric::BitsPerByte), [1]);
        outcomes[1] = Outcome::Failed("full disk".to_string());
        assert_eq!(best(&[0, 1, 2, 3, 4], 3, &tasks, &outcomes, Metric::BitsPerByte), [0, 3, 4]);
        assert_eq!(best(&[0], 1, &tasks, &outcomes, Metric::BitsPerByte), [0]);
        // Over all seeds so far.
        let more = [tasks.clone(), vec![task(0, 2), task(3, 2), task(4, 2)]].concat();
        outcomes.extend([Some(3.0), Some(9.0), Some(4.0)].map(ran));
        assert_eq!(best(&[0, 3, 4], 2, &more, &outcomes, Metric::HeldOutLoss), [0, 4]);
        assert_eq!(mean(1, &more, &outcomes, Metric::HeldOutLoss), None);
        assert_eq!(mean(4, &more, &outcomes, Metric::HeldOutLoss), Some(4.0));
    }
}
