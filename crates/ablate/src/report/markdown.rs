//! The report for a paper or a pull request.

use std::fmt::Write as _;

use super::Report;
use crate::health::MEASURES;
use tritforge_support::duration;

use crate::results::{ArmResult, dir_name};
use crate::verdict::{p_value, sentence, signed};

/// The whole report.
pub(super) fn page(report: &Report) -> String {
    let mut text = format!("# {}\n\n**{}**\n\n", report.question, report.answer);
    let (header, rows) = table(report);
    text += &of_cells(&header, &rows);
    let _ = writeln!(
        text,
        "\nThe metric is {}, less is better. ± are 95 % intervals by Student's t over seeds; Δ is the arm less {}, pair by pair where arms \
         are paired; p by the t-test, after Holm's correction; the sign-flip p is exact and cannot be below 2/2ⁿ. \
         \"could show\" is the difference that so many seeds would have shown with probability 0.8. \"text\" is the standard \
         deviation of Δ over other held-out documents, which more seeds do not lessen.\n",
        report.metric.label(),
        report.base().arm.name
    );
    let base = &report.base().arm.name;
    for arm in report.in_order().into_iter().filter(|arm| arm.versus.is_some()) {
        let _ = writeln!(text, "- {}.", sentence(arm, base, report.metric));
    }
    for note in report.notes() {
        let _ = writeln!(text, "- {note}");
    }
    if let Some((header, rows)) = rungs(report) {
        text += "\n## Rungs\n\n";
        text += &of_cells(&header, &rows);
    }
    text += "\n## Costs\n\n";
    let (header, rows) = costs(report);
    text += &of_cells(&header, &rows);
    if let Some((header, rows)) = health(report) {
        text += &format!("\n## Ternary health\n\n{HEALTH}\n\n");
        text += &of_cells(&header, &rows);
    }
    text += "\n## Arms\n\n";
    for arm in &report.arms {
        let _ = writeln!(text, "- {}: {}", arm.arm.name, changes(arm));
        if let Some(tuned) = &arm.arm.tuned {
            let tried = tuned.tried.iter().map(|(point, value)| match value {
                Some(value) => format!("{point}: {value:.4}"),
                None => format!("{point}: diverged"),
            });
            let _ = writeln!(
                text,
                "  - tuned on other seeds: {} of {}",
                tuned.chosen,
                tried.collect::<Vec<_>>().join("; ")
            );
        }
    }
    text += "\n## Runs\n\n";
    for arm in &report.arms {
        let each = arm.arm.runs.iter().map(|run| {
            let value = run.outcome.result().and_then(|r| r.value(report.metric));
            let value = value.map_or("no value".to_string(), |value| format!("{value:.6}"));
            format!("seed {}: {value} ({})", run.seed, dir_name(&run.dir))
        });
        let _ = writeln!(text, "- {}: {}", arm.arm.name, each.collect::<Vec<_>>().join("; "));
    }
    let c = &report.context;
    let _ = write!(
        text,
        "\n{}; Tritforge {}; {}; {}\n\n    {}\n",
        c.time, c.program, c.machine, c.threads, c.command
    );
    text
}

/// The table of arms: its header and its rows.
pub fn table(report: &Report) -> (Vec<String>, Vec<Vec<String>>) {
    let tuned = report.arms.iter().any(|arm| arm.arm.tuned.is_some());
    let mut header: Vec<String> =
        ["arm", "n", "mean", "sd", "Δ", "p (Holm)", "sign flips", "wins", "could show", "text", "verdict"]
            .map(str::to_string)
            .into();
    if tuned {
        header.insert(1, "chosen".to_string());
    }
    let row = |arm: &ArmResult| {
        let s = &arm.summary;
        let dash = || "–".to_string();
        let plain = |x: f64| if x.is_finite() { format!("{x:.4}") } else { "–".to_string() };
        let mut cells = vec![arm.arm.name.clone()];
        if tuned {
            cells.push(arm.arm.tuned.as_ref().map_or_else(dash, |tuned| tuned.chosen.clone()));
        }
        let with =
            |mean: String, half: f64| if half.is_finite() { format!("{mean} ± {half:.4}") } else { mean };
        cells.push(s.n.to_string());
        cells.push(with(plain(s.mean), s.half_width));
        cells.push(plain(s.sd));
        match &arm.versus {
            None => cells.extend([
                "baseline".to_string(),
                dash(),
                dash(),
                dash(),
                dash(),
                dash(),
                "–".to_string(),
            ]),
            Some(versus) => {
                let d = &versus.difference;
                cells.push(with(signed(d.mean), d.half_width));
                cells.push(p_value(versus.adjusted_p));
                cells.push(d.sign_flip_p.map_or_else(dash, p_value));
                cells.push(d.wins.map_or_else(dash, |wins| format!("{wins} of {}", d.n)));
                cells.push(plain(d.smallest_shown));
                cells.push(versus.evaluation.map_or_else(dash, |e| plain(e.sd)));
                let mut verdict = versus.verdict.word().to_string();
                if arm.diverged > 0 && verdict != "diverged" {
                    verdict += &format!(", {} diverged", arm.diverged);
                }
                if arm.failed > 0 {
                    verdict += &format!(", {} failed", arm.failed);
                }
                cells.push(verdict);
            }
        }
        cells
    };
    (header, report.in_order().into_iter().map(row).collect())
}

/// The metric of every arm after the steps of each rung, the arms that came furthest first; none without rungs.
pub(super) fn rungs(report: &Report) -> Option<(Vec<String>, Vec<Vec<String>>)> {
    let last = report.rungs.len().checked_sub(1)?;
    let header = report.rungs.iter().map(|rung| format!("{} steps", rung.steps));
    let value = |rung: usize, arm: usize| {
        let own = report.rungs[rung].arms.iter().find(|(own, _)| *own == arm)?;
        Some(own.1.unwrap_or(f64::INFINITY))
    };
    // By the last rung of each, the longer one first.
    let place = |arm: usize| {
        let rung = (0..=last).rev().find(|rung| value(*rung, arm).is_some()).unwrap_or(0);
        (last - rung, value(rung, arm).unwrap_or(f64::INFINITY))
    };
    let mut order: Vec<usize> = (0..report.arms.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (place(*a), place(*b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    let cell = |value: Option<f64>| match value {
        None => String::new(),
        Some(value) if value.is_finite() => format!("{value:.4}"),
        Some(_) => "no value".to_string(),
    };
    let rows = order.into_iter().map(|arm| {
        let values = (0..=last).map(|rung| cell(value(rung, arm)));
        std::iter::once(report.arms[arm].arm.name.clone()).chain(values).collect()
    });
    Some((std::iter::once("arm".to_string()).chain(header).collect(), rows.collect()))
}

/// What arms cost.
pub(super) fn costs(report: &Report) -> (Vec<String>, Vec<Vec<String>>) {
    let header =
        ["arm", "parameters", "tokens", "training", "FLOPs", "peak memory", "exported file", "engine"];
    let row = |arm: &ArmResult| {
        let c = &arm.costs;
        let of = |value: Option<f64>, text: fn(f64) -> String| value.map_or("–".to_string(), text);
        vec![
            arm.arm.name.clone(),
            of(c.parameters, |n| format!("{n:.0}")),
            of(c.tokens, |n| format!("{n:.0}")),
            of(c.seconds, duration),
            of(c.flops, |n| format!("{n:.3e}")),
            of(c.peak_memory, |n| format!("{:.0} MB", n / 1e6)),
            of(c.file_bytes, |n| format!("{:.3} MB", n / 1e6)),
            of(arm.arm.engine_speed, |n| format!("{n:.0} tokens/s")),
        ]
    };
    (header.map(str::to_string).into(), report.in_order().into_iter().map(row).collect())
}

/// How ternary matrices are at the end, a column for each thing that is measured; none if no arm has any.
pub(super) fn health(report: &Report) -> Option<(Vec<String>, Vec<Vec<String>>)> {
    let cell = |arm: &ArmResult, i: usize| {
        let Some(look) = arm.health.get(i).and_then(|looks| looks.last()) else { return "–".to_string() };
        let (factor, unit) = if MEASURES[i].share { (100.0, " %") } else { (1.0, "") };
        let mean = format!("{:.4}{unit}", factor * look.mean);
        // One seed has no spread.
        match arm.summary.n > 1 {
            true => format!("{mean} ({:.4})", factor * look.sd),
            false => mean,
        }
    };
    let ternary = |arm: &ArmResult| arm.health.iter().any(|looks| !looks.is_empty());
    if !report.arms.iter().any(ternary) {
        return None;
    }
    let header = ["arm"].into_iter().chain(MEASURES.iter().map(|measure| measure.name)).map(str::to_string);
    let row = |arm: &ArmResult| {
        let cells = (0..MEASURES.len()).map(|i| cell(arm, i));
        std::iter::once(arm.arm.name.clone()).chain(cells).collect()
    };
    Some((header.collect(), report.in_order().into_iter().map(row).collect()))
}

/// What the columns of [`health`] mean.
pub(super) const HEALTH: &str = "At the last evaluation that all seeds have: means over all ternary matrices, then over seeds, with the \
     standard deviation over seeds in brackets. Shares of the codes −1, 0 and +1; share that changes in a step, since the evaluation \
     before; scale against the one at the beginning; distance of weights from where their code changes, in units of the scale.";

/// What an arm changes in the baseline's recipe, in a line.
pub(super) fn changes(arm: &ArmResult) -> String {
    if arm.changes.is_empty() {
        return "the baseline's recipe".to_string();
    }
    let each = arm.changes.iter().map(|(key, before, now)| format!("{key} = {now} (baseline {before})"));
    each.collect::<Vec<_>>().join(", ")
}

fn of_cells(header: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule = vec!["---".to_string(); header.len()];
    line(header) + &line(&rule) + &rows.iter().map(|row| line(row)).collect::<String>()
}
