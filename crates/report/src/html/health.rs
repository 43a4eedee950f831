//! Ternary health in the report: a small chart for each kind of projection, a line for each layer; and the
//! last numbers as a table.

use std::fmt::Write as _;

use tritforge_config::Projection;

use super::page::escape;
use super::svg::{Scale, label, path, thin};
use crate::MatrixHealth;
use crate::history::{Health, History};

/// A small chart's size and the room left of the first for the axis.
const PANEL: (f64, f64) = (150.0, 86.0);
const AXIS: f64 = 52.0;
const GAP: f64 = 8.0;

/// One number of a matrix.
struct Measure {
    title: &'static str,
    meaning: &'static str,
    log: bool,
    of: fn(&MatrixHealth, u64) -> Option<f64>,
}

const MEASURES: [Measure; 4] = [
    Measure {
        title: "Zeros",
        meaning: "fraction of codes that are 0; 0.31 for normally distributed weights",
        log: false,
        of: |matrix, _| Some(matrix.zero),
    },
    Measure {
        title: "Flips",
        meaning: "fraction of codes that change per step, averaged since the previous evaluation; log scale",
        log: true,
        of: |matrix, steps| matrix.flipped_per_step(steps),
    },
    Measure {
        title: "Scale",
        meaning: "mean |W|, the factor of the integer products",
        log: false,
        of: |matrix, _| Some(matrix.scale),
    },
    Measure {
        title: "Distance to the boundary",
        meaning: "mean of ||W/scale| − 0.5|; 0.66 for normally distributed weights, near 0 if weights are \
                  close to the rounding boundary",
        log: false,
        of: |matrix, _| Some(matrix.distance),
    },
];

/// The section of a run; empty for one without ternary matrices.
pub(super) fn section(run: &History) -> String {
    let kinds = Projection::ALL.len();
    let Some(last) = run.health.last().filter(|last| last.matrices.len() >= kinds) else {
        return String::new();
    };
    let layers = last.matrices.len() / kinds;
    let mut html = format!(
        "<section class=\"card wide\"><h2>Ternary health{}</h2><p class=\"note\">One line per layer, <span \
         class=\"ramp\">first</span> to last.</p>",
        escape(&format!(" of {}", run.name))
    );
    for measure in &MEASURES {
        let title = format!("<h3>{} <small>{}</small></h3>", measure.title, escape(measure.meaning));
        if let Some(svg) = row(&run.health, layers, measure) {
            let _ = write!(html, "{title}<div class=\"scroll\">{svg}</div>");
        }
    }
    html + &table(last) + "</section>"
}

/// A measure of all matrices: one chart beside the other, all with the same axes.
fn row(looks: &[Health], layers: usize, measure: &Measure) -> Option<String> {
    let kinds = Projection::ALL.len();
    let line = |matrix: usize| -> Vec<(f64, f64)> {
        let number = |look: &Health| (measure.of)(look.matrices.get(matrix)?, look.steps);
        thin(&looks.iter().filter_map(|look| Some((look.step as f64, number(look)?))).collect::<Vec<_>>())
    };
    let lines: Vec<_> = (0..kinds * layers).map(line).collect();
    let (top, base) = (16.0, PANEL.1 - 4.0);
    let y = Scale::around(lines.iter().flatten().map(|p| p.1), measure.log, base, top)?;
    let width = AXIS + kinds as f64 * (PANEL.0 + GAP);
    let mut svg = format!("<svg class=\"health\" viewBox=\"0 0 {width} {}\" role=\"img\">", PANEL.1);
    let ticks = y.ticks(3.0);
    for (tick, at) in ticks.iter().filter_map(|tick| Some((tick, y.at(*tick)?))) {
        let text = label(*tick);
        let _ = write!(svg, "<text class=\"y\" x=\"{}\" y=\"{:.1}\">{text}</text>", AXIS - 6.0, at + 3.5);
    }
    for (kind, projection) in Projection::ALL.into_iter().enumerate() {
        let left = AXIS + kind as f64 * (PANEL.0 + GAP);
        let x = Scale::steps(looks.iter().map(|look| look.step as f64), left, left + PANEL.0);
        let name = projection.hf_name().rsplit('.').next().unwrap_or_default();
        let _ = write!(svg, "<text class=\"name\" x=\"{left}\" y=\"10\">{name}</text>");
        for at in ticks.iter().filter_map(|tick| y.at(*tick)) {
            let _ = write!(svg, "<path class=\"grid\" d=\"M{left} {at:.1}h{}\"/>", PANEL.0);
        }
        for layer in 0..layers {
            let points = &lines[layer * kinds + kind];
            let share = if layers > 1 { 100 * layer / (layers - 1) } else { 100 };
            let d = path(points, &x, &y);
            let now = points.last().map_or(String::new(), |p| label(p.1));
            let _ = write!(
                svg,
                "<path class=\"layer\" style=\"--depth:{share}%\" d=\"{d}\"><title>layer {layer}: {now}</title></path>"
            );
        }
    }
    Some(svg + "</svg>")
}

/// The last look in numbers.
fn table(look: &Health) -> String {
    let mut html = format!(
        "<details><summary>Every matrix at step {}</summary><div \
         class=\"scroll\"><table><thead><tr><th>matrix</th> <th>zeros</th><th>flips per \
         step</th><th>scale</th><th>drift</th><th>distance</th></tr></thead><tbody>",
        look.step
    );
    let number = |x: Option<f64>| x.filter(|x| x.is_finite()).map_or("–".to_string(), label);
    for matrix in &look.matrices {
        let drift = matrix.drift.map_or("–".to_string(), |drift| format!("{:+.2} %", 100.0 * drift));
        let _ = write!(
            html,
            "<tr><th>{}</th><td>{}</td><td>{}</td><td>{}</td><td>{drift}</td><td>{}</td></tr>",
            escape(&matrix.name),
            number(Some(matrix.zero)),
            number(matrix.flipped_per_step(look.steps)),
            number(Some(matrix.scale)),
            number(Some(matrix.distance)),
        );
    }
    html + "</tbody></table></div></details>"
}
