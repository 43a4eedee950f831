//! Drawings of a report as SVG in the page: curves with bands, points with error bars, intervals of differences. Colours
//! are classes of the page's style, so that they follow its theme; numbers show under the pointer by `<title>`.

use std::fmt::Write as _;

use tritforge_report::{Scale, escape, label, path};

use super::Report;
use crate::results::ArmResult;
use crate::verdict::signed;

/// Size of a drawing, and the margins around its plot: left, right, top, bottom.
const SIZE: (f64, f64) = (600.0, 270.0);
const MARGIN: (f64, f64, f64, f64) = (58.0, 16.0, 12.0, 38.0);
/// Colours of the page's style.
pub(super) const COLORS: usize = 8;

/// Axes with their ticks, between the margins; `log` says which of x and y is logarithmic.
struct Axes {
    x: Scale,
    y: Scale,
    svg: String,
}

impl Axes {
    fn new(title: &str, name: &str, xs: &[f64], ys: &[f64], log: [bool; 2]) -> Option<Self> {
        let (left, right, top, bottom) = MARGIN;
        let x = match log[0] {
            true => Scale::around(xs.iter().copied(), true, left, SIZE.0 - right)?,
            false => Scale::steps(xs.iter().copied(), left, SIZE.0 - right),
        };
        let y = Scale::around(ys.iter().copied(), log[1], SIZE.1 - bottom, top)?;
        let mut svg = format!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\"><title>{}</title>",
            SIZE.0,
            SIZE.1,
            escape(title)
        );
        for tick in y.ticks(5.0) {
            let Some(at) = y.at(tick) else { continue };
            let _ = write!(svg, "<path class=\"grid\" d=\"M{left} {at:.1}H{}\"/>", SIZE.0 - right);
            let _ = write!(
                svg,
                "<text class=\"y\" x=\"{}\" y=\"{:.1}\">{}</text>",
                left - 6.0,
                at + 3.5,
                label(tick)
            );
        }
        for tick in x.ticks(6.0) {
            let Some(at) = x.at(tick) else { continue };
            let _ =
                write!(svg, "<text class=\"x\" x=\"{at:.1}\" y=\"{}\">{}</text>", SIZE.1 - 22.0, label(tick));
        }
        let middle = 0.5 * (left + SIZE.0 - right);
        let _ =
            write!(svg, "<text class=\"x\" x=\"{middle}\" y=\"{}\">{}</text>", SIZE.1 - 6.0, escape(name));
        Some(Self { x, y, svg })
    }

    fn end(mut self) -> String {
        self.svg += "</svg>";
        self.svg
    }
}

/// Something over `name`, a line an arm with a band of one standard deviation over seeds: `of` gives x, mean and deviation.
/// `log` draws it on a logarithmic axis. None if there is nothing to draw.
pub(super) fn lines(
    report: &Report,
    what: &str,
    name: &str,
    log: bool,
    of: impl Fn(&ArmResult) -> Vec<(f64, f64, f64)>,
) -> Option<String> {
    let mut arms: Vec<Vec<(f64, f64, f64)>> = report.arms.iter().map(of).collect();
    if log {
        arms.iter_mut().for_each(|points| points.retain(|(_, mean, _)| *mean > 0.0));
    }
    let points = || arms.iter().flatten();
    // On a logarithmic axis a band ends where the lowest line does.
    let floor = points().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let low =
        |(_, mean, sd): &(f64, f64, f64)| if log { (mean - sd).max(floor.min(*mean)) } else { mean - sd };
    let xs: Vec<f64> = points().map(|p| p.0).collect();
    let ys: Vec<f64> = points().flat_map(|p| [low(p), p.1 + p.2]).collect();
    let mut axes = Axes::new(&format!("{what} over {name}"), name, &xs, &ys, [false, log])?;
    for (i, points) in arms.iter().enumerate().filter(|(_, points)| !points.is_empty()) {
        let color = i % COLORS;
        let highs = points.iter().map(|p| (p.0, p.1 + p.2));
        let band: Vec<(f64, f64)> = highs.chain(points.iter().rev().map(|p| (p.0, low(p)))).collect();
        let d = path(&band, &axes.x, &axes.y);
        let _ = write!(axes.svg, "<path class=\"band f{color}\" d=\"{d}Z\"/>");
        let d = path(&points.iter().map(|p| (p.0, p.1)).collect::<Vec<_>>(), &axes.x, &axes.y);
        let _ = write!(axes.svg, "<path class=\"line s{color}\" d=\"{d}\"/>");
        for (at, mean, sd) in points {
            let Some((x, y)) = axes.x.at(*at).zip(axes.y.at(*mean)) else { continue };
            let arm = &report.arms[i].arm.name;
            // Small numbers, such as shares of codes that flip, need their digits.
            let text = match mean.abs() < 0.01 {
                true => format!("{arm}: {mean:.3e} ± {sd:.1e} (sd) at {} {name}", label(*at)),
                false => format!("{arm}: {mean:.4} ± {sd:.4} (sd) at {} {name}", label(*at)),
            };
            let _ = write!(
                axes.svg,
                "<circle class=\"f{color}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\"><title>{}</title></circle>",
                escape(&text)
            );
        }
    }
    Some(axes.end())
}

/// The metric against a cost, a point an arm with its interval, and the line through the arms that no other arm beats in
/// both; none if fewer than two arms have the cost, or all have the same.
pub(super) fn pareto(
    report: &Report,
    name: &str,
    less: bool,
    cost: fn(&ArmResult) -> Option<f64>,
) -> Option<String> {
    let mut points = Vec::new();
    for (i, arm) in report.arms.iter().enumerate() {
        if let Some(x) = cost(arm).filter(|x| x.is_finite() && *x > 0.0)
            && arm.summary.mean.is_finite()
        {
            points.push((i, x, arm.summary.mean, arm));
        }
    }
    // Arms that cost the same differ in nothing that this would show.
    let (least, most) =
        points.iter().fold((f64::INFINITY, 0.0), |(a, b): (f64, f64), p| (a.min(p.1), b.max(p.1)));
    if points.len() < 2 || most <= least * (1.0 + 1e-6) {
        return None;
    }
    let half =
        |arm: &ArmResult| if arm.summary.half_width.is_finite() { arm.summary.half_width } else { 0.0 };
    let xs: Vec<f64> = points.iter().map(|p| p.1).collect();
    let ys: Vec<f64> = points.iter().flat_map(|p| [p.2 - half(p.3), p.2 + half(p.3)]).collect();
    let title = format!("{} against {name}", report.metric.label());
    let mut axes = Axes::new(&title, name, &xs, &ys, [true, false])?;
    let cheaper = |a: f64, b: f64| if less { a <= b } else { a >= b };
    let mut front: Vec<(f64, f64)> = points
        .iter()
        .filter(|p| !points.iter().any(|q| cheaper(q.1, p.1) && q.2 <= p.2 && (q.1 != p.1 || q.2 != p.2)))
        .map(|p| (p.1, p.2))
        .collect();
    front.sort_by(|a, b| a.0.total_cmp(&b.0));
    let d = path(&front, &axes.x, &axes.y);
    let _ = write!(axes.svg, "<path class=\"front\" d=\"{d}\"/>");
    for (i, x, mean, arm) in points {
        let color = i % COLORS;
        let (Some(at), Some(y)) = (axes.x.at(x), axes.y.at(mean)) else { continue };
        if let (Some(low), Some(high)) = (axes.y.at(mean - half(arm)), axes.y.at(mean + half(arm))) {
            let _ = write!(axes.svg, "<path class=\"bar s{color}\" d=\"M{at:.1} {low:.1}V{high:.1}\"/>");
        }
        let text = format!("{}: {mean:.4} ± {:.4}, {} {name}", arm.arm.name, half(arm), label(x));
        let _ = write!(
            axes.svg,
            "<circle class=\"f{color}\" cx=\"{at:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{}</title></circle>",
            escape(&text)
        );
    }
    Some(axes.end())
}

/// The difference of each arm from the baseline with its interval, around a line at 0; none if there is none.
pub(super) fn differences(report: &Report) -> Option<String> {
    let arms: Vec<(usize, &ArmResult)> = report
        .arms
        .iter()
        .enumerate()
        .filter(|(_, arm)| arm.versus.as_ref().is_some_and(|v| v.difference.mean.is_finite()))
        .collect();
    let of = |arm: &ArmResult| {
        let d = arm.versus.as_ref().map(|v| v.difference);
        d.map_or((0.0, 0.0), |d| (d.mean, if d.half_width.is_finite() { d.half_width } else { 0.0 }))
    };
    let ends = arms.iter().flat_map(|(_, arm)| {
        let (mean, half) = of(arm);
        [mean - half, mean + half]
    });
    let margins = report.margin.into_iter().flat_map(|m| [-m, m]);
    // Long names stand above their row.
    let (row, top) = (34.0, 8.0);
    let height = top + row * arms.len() as f64 + 40.0;
    // Both sides of 0 are of interest.
    let ends: Vec<f64> = ends.chain(margins).chain([0.0]).collect();
    let widest = ends.iter().map(|x| x.abs()).fold(0.0, f64::max);
    let x = Scale::around([-widest, widest].into_iter(), false, 16.0, SIZE.0 - 16.0)?;
    if arms.is_empty() {
        return None;
    }
    let mut svg = format!(
        "<svg viewBox=\"0 0 {} {height}\" role=\"img\"><title>Differences from {}</title>",
        SIZE.0,
        escape(&report.base().arm.name)
    );
    if let Some(margin) = report.margin
        && let (Some(low), Some(high)) = (x.at(-margin), x.at(margin))
    {
        let _ = write!(
            svg,
            "<rect class=\"margin\" x=\"{low:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            high - low,
            height - top - 40.0
        );
    }
    for tick in x.ticks(6.0) {
        let Some(at) = x.at(tick) else { continue };
        let _ = write!(svg, "<path class=\"grid\" d=\"M{at:.1} {top}V{}\"/>", height - 40.0);
        let _ = write!(svg, "<text class=\"x\" x=\"{at:.1}\" y=\"{}\">{}</text>", height - 24.0, label(tick));
    }
    if let Some(zero) = x.at(0.0) {
        let _ = write!(svg, "<path class=\"zero\" d=\"M{zero:.1} {top}V{}\"/>", height - 40.0);
    }
    for (place, (i, arm)) in arms.iter().enumerate() {
        let (color, (mean, half)) = (i % COLORS, of(arm));
        let y = top + row * place as f64 + 24.0;
        let (Some(at), Some(low), Some(high)) = (x.at(mean), x.at(mean - half), x.at(mean + half)) else {
            continue;
        };
        let _ =
            write!(svg, "<text class=\"name\" x=\"18\" y=\"{}\">{}</text>", y - 9.0, escape(&arm.arm.name));
        let _ = write!(svg, "<path class=\"bar s{color}\" d=\"M{low:.1} {y}H{high:.1}\"/>");
        let text = format!("{}: {} ± {half:.4}", arm.arm.name, signed(mean));
        let _ = write!(
            svg,
            "<circle class=\"f{color}\" cx=\"{at:.1}\" cy=\"{y}\" r=\"4\"><title>{}</title></circle>",
            escape(&text)
        );
    }
    let _ = write!(
        svg,
        "<text class=\"x\" x=\"{}\" y=\"{}\">lower than the baseline ← {} → higher</text>",
        0.5 * SIZE.0,
        height - 8.0,
        escape(report.metric.label())
    );
    Some(svg + "</svg>")
}
