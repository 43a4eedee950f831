//! The charts of the report: what is drawn of each run.

use super::svg::{Chart, Look, Series};
use crate::Train;
use crate::history::{History, Preference};

/// Colours that the page's style has for series.
pub(super) const COLORS: usize = 8;

/// All charts; with several runs, each has its colour in all of them.
pub(super) fn charts(runs: &[History]) -> Vec<Chart> {
    let chart = |title, caption, log, series| Chart { title, caption, log, series };
    let number = |what: fn(&Train) -> Option<f64>| {
        let each = runs.iter().enumerate();
        each.map(move |(i, run)| line(run.name.clone(), i, points(run, what))).collect::<Vec<_>>()
    };
    let compares = runs.iter().any(|run| !run.preferences.is_empty());
    let loss = match compares {
        true => "training objective; dots: held out, faint: every logged step",
        false => "nats per token; dots: held-out text, faint: every logged step",
    };
    let mut charts = vec![
        chart("Loss", loss, false, losses(runs)),
        chart("Learning rate", "at each step", false, number(|t| Some(t.lr))),
        chart("Gradient norm", "before clipping, log scale", true, number(|t| Some(t.grad_norm))),
        chart("Speed", "target tokens per second", false, number(|t| Some(t.tokens_per_second))),
        chart(
            "MFU",
            "6 · parameters · tokens/s, in % of the machine's measured f32 products",
            false,
            number(|t| t.mfu.map(|mfu| 100.0 * mfu)),
        ),
        chart("Memory", "of the process, in MB", false, number(|t| t.rss.map(|bytes| bytes as f64 / 1e6))),
    ];
    if runs.iter().flat_map(|run| &run.train).any(|t| t.relation().is_some()) {
        let caption = "attention-relation loss against the teacher, unweighted, log scale";
        charts.insert(1, chart("Relation", caption, true, number(|t| t.relation())));
    }
    if compares {
        let caption = "pairs, or judged answers, with a margin above 0, in %; dots: held out";
        charts.insert(1, chart("Accuracy", caption, false, preferences(runs, |p| 100.0 * p.accuracy)));
        let caption = "mean margin in nats; dots: held out";
        charts.insert(2, chart("Margin", caption, false, preferences(runs, |p| p.margin)));
    }
    charts
}

/// A number of every run's pairs of answers, in training and held out.
fn preferences(runs: &[History], what: fn(&Preference) -> f64) -> Vec<Series> {
    let mut series = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let of = |held_out| {
            let own = run.preferences.iter().filter(|p| p.held_out == held_out);
            own.map(|p| (p.step as f64, what(p))).collect::<Vec<_>>()
        };
        // As for the loss: one run needs two colours, several need one each.
        let (name, held_out) = match runs.len() {
            1 => (String::new(), 1),
            _ => (format!("{} ", run.name), i),
        };
        series.push(line(format!("{name}train"), i, smoothed(&of(false))));
        let dots = line(format!("{name}held-out"), held_out, of(true));
        series.push(Series { look: Look::Dots, ..dots });
    }
    series
}

/// Training and held-out loss of every run.
fn losses(runs: &[History]) -> Vec<Series> {
    let mut series = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let raw = points(run, |t| Some(t.loss));
        // One run needs two colours, several need one each.
        let (name, held_out) = match runs.len() {
            1 => (String::new(), 1),
            _ => (format!("{} ", run.name), i),
        };
        let smooth = smoothed(&raw);
        series.push(Series { look: Look::Faint, ..line(String::new(), i, raw) });
        series.push(line(format!("{name}train"), i, smooth));
        let evaluations = run.evaluations.iter().map(|e| (e.step as f64, e.loss)).collect();
        let held_out = line(format!("{name}held-out"), held_out, evaluations);
        series.push(Series { look: Look::Dots, ..held_out });
    }
    series
}

fn line(label: String, color: usize, points: Vec<(f64, f64)>) -> Series {
    Series { label, color: color % COLORS, look: Look::Line, points }
}

fn points(run: &History, what: impl Fn(&Train) -> Option<f64>) -> Vec<(f64, f64)> {
    run.train.iter().filter_map(|t| Some((t.step as f64, what(t)?))).collect()
}

/// The mean over a window around every point, a fortieth of all of them.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len() / 80;
    let mean = |i: usize| {
        // As wide to one side as to the other: a falling curve stays where it is.
        let reach = reach.min(i).min(points.len() - 1 - i);
        let near = || points[i - reach..=i + reach].iter().map(|p| p.1).filter(|y| y.is_finite());
        near().sum::<f64>() / near().count() as f64
    };
    (0..points.len()).map(|i| (points[i].0, mean(i))).collect()
}
