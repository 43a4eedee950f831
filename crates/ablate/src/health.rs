//! How the ternary matrices of an arm fare: for every look at them the mean over matrices, then mean and spread over seeds.

use tritforge_report::{Health, History, MatrixHealth};

use crate::stats::summary;

/// Something that is measured of a matrix.
pub(crate) struct Measure {
    /// What it is called.
    pub(crate) name: &'static str,
    /// What it means, with its unit.
    pub(crate) meaning: &'static str,
    /// Whether it is drawn on a logarithmic axis.
    pub(crate) log: bool,
    /// Whether it is a share, which tables show in percent.
    pub(crate) share: bool,
    /// Its value for a matrix, over the steps since the look before, against the first look at the same matrix.
    of: fn(&MatrixHealth, u64, &MatrixHealth) -> Option<f64>,
}

/// Everything that is measured, in the order of tables and plots.
pub(crate) const MEASURES: [Measure; 6] = [
    Measure {
        name: "−1",
        meaning: "share of the codes that are −1",
        log: false,
        share: true,
        of: |matrix, _, _| matrix.negative(),
    },
    Measure {
        name: "0",
        meaning: "share of the codes that are 0; of normally distributed weights 0.31",
        log: false,
        share: true,
        of: |matrix, _, _| Some(matrix.zero),
    },
    Measure {
        name: "+1",
        meaning: "share of the codes that are +1",
        log: false,
        share: true,
        of: |matrix, _, _| matrix.positive,
    },
    Measure {
        name: "flips a step",
        meaning: "share of the codes that change in a step, since the look before",
        log: true,
        share: true,
        of: |matrix, steps, _| matrix.flipped_per_step(steps),
    },
    Measure {
        name: "scale",
        meaning: "scale of the matrices against the one that they began with",
        log: false,
        share: false,
        of: |matrix, _, first| (first.scale > 0.0).then(|| matrix.scale / first.scale),
    },
    Measure {
        name: "distance",
        meaning: "mean of ||W/scale| − 0.5|, how far weights are from where their code changes; of normally distributed ones 0.66",
        log: false,
        share: false,
        of: |matrix, _, _| Some(matrix.distance),
    },
];

/// A measure of an arm at a step, over its seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// Steps.
    pub step: f64,
    /// Mean over matrices and seeds.
    pub mean: f64,
    /// Standard deviation over seeds of the means over matrices; 0 of one run.
    pub sd: f64,
}

/// Every measure over the looks that all runs have, in the order of `MEASURES`; nothing of models that are not ternary.
pub(crate) fn looks(logs: &[History]) -> Vec<Vec<Look>> {
    MEASURES.iter().map(|measure| series(logs, measure)).collect()
}

fn series(logs: &[History], measure: &Measure) -> Vec<Look> {
    let Some(first) = logs.first() else { return Vec::new() };
    let mut steps: Vec<u64> = first.health.iter().map(|look| look.step).collect();
    steps.dedup();
    let look = |step: u64| {
        let values: Option<Vec<f64>> = logs
            .iter()
            .map(|log| {
                // A run that went on looked again at some steps.
                let look = log.health.iter().rev().find(|look| look.step == step)?;
                mean(look, log.health.first()?, measure)
            })
            .collect();
        let s = summary(&values?);
        Some(Look { step: step as f64, mean: s.mean, sd: if s.n > 1 { s.sd } else { 0.0 } })
    };
    steps.into_iter().filter_map(look).collect()
}

/// The mean of a measure over the matrices of a look that have it.
fn mean(look: &Health, first: &Health, measure: &Measure) -> Option<f64> {
    let of = |matrix: &MatrixHealth| {
        let begun = first.matrices.iter().find(|own| own.name == matrix.name)?;
        (measure.of)(matrix, look.steps, begun).filter(|x| x.is_finite())
    };
    let values: Vec<f64> = look.matrices.iter().filter_map(of).collect();
    (!values.is_empty()).then(|| summary(&values).mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(looks: &[(u64, [f64; 2], f64)]) -> History {
        let matrix = |name: &str, zero: f64, scale: f64| MatrixHealth {
            name: name.to_string(),
            zero,
            positive: Some(0.5),
            flipped: Some(0.1),
            scale,
            drift: None,
            distance: f64::NAN,
        };
        let look = |(step, zeros, scale): &(u64, [f64; 2], f64)| Health {
            step: *step,
            steps: *step,
            matrices: vec![matrix("a", zeros[0], *scale), matrix("b", zeros[1], 2.0 * scale)],
        };
        History { health: looks.iter().map(look).collect(), ..History::default() }
    }

    #[test]
    fn means_are_over_matrices_and_spreads_over_seeds() {
        let logs = [
            log(&[(0, [0.3, 0.3], 1.0), (10, [0.1, 0.3], 2.0), (20, [0.2, 0.2], 3.0)]),
            log(&[(0, [0.3, 0.3], 4.0), (10, [0.3, 0.5], 6.0)]),
        ];
        let found = looks(&logs);
        let of = |name: &str| &found[MEASURES.iter().position(|m| m.name == name).unwrap()];
        // Step 20 is of one run only.
        let [first, second] = of("0")[..] else { panic!("{:?}", of("0")) };
        assert_eq!((first.step, first.sd, second.step), (0.0, 0.0, 10.0));
        // Means over matrices of 0.2 and 0.4: their mean, and √2/2 of their distance.
        assert!((second.mean - 0.3).abs() < 1e-12 && (second.sd - 0.2 / 2f64.sqrt()).abs() < 1e-12);
        let scale = of("scale");
        assert_eq!((scale[0].mean, scale[1].mean), (1.0, 1.75));
        assert!((of("−1")[1].mean - 0.2).abs() < 1e-12 && of("+1")[1].mean == 0.5);
        // Nothing flips before the first step, and what is no number is not shown.
        assert_eq!(of("flips a step").len(), 1);
        assert!((of("flips a step")[0].mean - 0.01).abs() < 1e-12 && of("distance").is_empty());
        assert!(looks(&[]).iter().all(Vec::is_empty));
        let mixed = [log(&[(0, [0.3, 0.3], 1.0)]), History::default()];
        assert!(looks(&mixed).iter().all(Vec::is_empty));
    }
}
