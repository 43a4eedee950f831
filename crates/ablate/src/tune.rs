//! Which of an arm's points is the best, on seeds that are not reported: what is chosen on a seed looks better on it
//! than it is.

use crate::AblateError;
use crate::experiment::{Experiment, Metric, Setting};
use crate::plan::Plan;
use crate::runner::{Outcome, Runner, Task};

/// What was chosen for an arm.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    /// The point.
    pub point: usize,
    /// The mean of the metric at each point; none where a run diverged or failed.
    pub values: Vec<Option<f64>>,
    /// Keys for which the best value is the least or the greatest that was tried: a better one may lie beyond.
    pub at_edge: Vec<String>,
}

/// Tries every point of every arm, and chooses. Without `[tune]` each arm has one point and nothing is run.
///
/// # Errors
/// If no point of an arm has a result, or as [`Runner::run`].
pub(crate) fn tune(
    experiment: &Experiment,
    plan: &Plan,
    runner: &Runner<'_>,
) -> Result<Vec<Option<Tuned>>, AblateError> {
    let Some(tune) = &experiment.tune else { return Ok(vec![None; plan.arms.len()]) };
    let mut tasks = Vec::new();
    for seed in &tune.seeds {
        for (arm, planned) in plan.arms.iter().enumerate() {
            tasks.extend((0..planned.points.len()).map(|point| Task { arm, point, seed: *seed }));
        }
    }
    let outcomes = runner.run(&tasks)?;
    let of = |arm: usize, point: usize| {
        let own = tasks.iter().zip(&outcomes).filter(move |(task, _)| (task.arm, task.point) == (arm, point));
        own.map(|(_, outcome)| outcome)
    };
    let mut tuned = Vec::new();
    for (arm, planned) in plan.arms.iter().enumerate() {
        let values: Vec<_> =
            (0..planned.points.len()).map(|point| mean(of(arm, point), experiment.metric)).collect();
        let Some(point) = least(&values) else {
            return Err(AblateError::Request(format!(
                "arm \"{}\": every run of [tune] diverged or failed: try lower values",
                planned.name
            )));
        };
        let at_edge = at_edge(&experiment.points(arm), point);
        tuned.push(Some(Tuned { point, values, at_edge }));
    }
    Ok(tuned)
}

/// The mean over seeds; none if one of them has no value.
fn mean<'a>(outcomes: impl Iterator<Item = &'a Outcome>, metric: Metric) -> Option<f64> {
    let values: Option<Vec<f64>> = outcomes.map(|outcome| outcome.result()?.value(metric)).collect();
    values.filter(|values| !values.is_empty()).map(|values| values.iter().sum::<f64>() / values.len() as f64)
}

/// The point with the least value, the first of equals.
fn least(values: &[Option<f64>]) -> Option<usize> {
    let known = values.iter().enumerate().filter_map(|(i, value)| Some((i, (*value)?)));
    known.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i)
}

/// Keys whose value at a point is the least or the greatest of all points, where all values are numbers.
fn at_edge(points: &[Vec<Setting>], chosen: usize) -> Vec<String> {
    let mut keys = Vec::new();
    for setting in &points[chosen] {
        let values = points.iter().flatten().filter(|other| other.key == setting.key);
        let values: Option<Vec<f64>> = values.map(|other| other.value.parse().ok()).collect();
        let (Some(values), Ok(own)) = (values, setting.value.parse::<f64>()) else { continue };
        let is_edge = values.iter().all(|value| *value >= own) || values.iter().all(|value| *value <= own);
        if is_edge {
            keys.push(setting.short());
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[(&str, &str)]) -> Vec<Vec<Setting>> {
        let setting = |key: &str, value: &str| Setting { key: key.to_string(), value: value.to_string() };
        values.iter().map(|(lr, norm)| vec![setting("optim.lr", lr), setting("model.norm", norm)]).collect()
    }

    #[test]
    fn the_best_is_chosen_and_an_edge_is_said() {
        assert_eq!(least(&[Some(2.0), None, Some(1.0), Some(1.0)]), Some(2));
        assert_eq!(least(&[None, None]), None);
        let points = points(&[("1e-3", "\"pre\""), ("0.002", "\"pre\""), ("4e-3", "\"sub\"")]);
        assert_eq!(at_edge(&points, 0), ["lr=1e-3"]);
        assert_eq!(at_edge(&points, 1), [""; 0]);
        assert_eq!(at_edge(&points, 2), ["lr=4e-3"]);
    }
}
