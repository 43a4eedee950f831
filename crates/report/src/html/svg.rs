//! Line charts as SVG: scales, ticks, lines with gaps. Colours are classes of the page's style, so that they
//! follow its theme.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// Points of a line, at most; a screen shows no more.
const MOST_POINTS: usize = 800;

/// The chart's size, and the margins around its plot: left, right, top, bottom.
const SIZE: (f64, f64) = (600.0, 250.0);
const MARGIN: (f64, f64, f64, f64) = (54.0, 12.0, 10.0, 24.0);

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Line,
    /// In the background.
    Faint,
    /// Dashed, with a dot at every point.
    Dots,
}

/// One line of a chart.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) label: String,
    /// Which colour of the page's series.
    pub(super) color: usize,
    pub(super) look: Look,
    pub(super) points: Vec<(f64, f64)>,
}

/// Lines over steps.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    pub(super) title: &'static str,
    /// What is measured, and its unit.
    pub(super) caption: &'static str,
    pub(super) log: bool,
    pub(super) series: Vec<Series>,
}

/// A range of numbers drawn along a length.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    low: f64,
    high: f64,
    log: bool,
    /// Where `low` and `high` are drawn.
    from: f64,
    to: f64,
}

impl Scale {
    /// A scale that shows all numbers, with a little room at both ends; none if there are none to show.
    pub fn around(numbers: impl Iterator<Item = f64>, log: bool, from: f64, to: f64) -> Option<Self> {
        let shown = numbers.filter(|x| x.is_finite() && (!log || *x > 0.0));
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for x in shown.map(|x| if log { x.log10() } else { x }) {
            (low, high) = (low.min(x), high.max(x));
        }
        if low > high {
            return None;
        }
        let room = match high - low {
            span if span > 0.0 => 0.04 * span,
            _ if log => 0.5,
            _ => (0.1 * high.abs()).max(1e-9),
        };
        // Nothing that is never negative needs an axis below 0.
        let floor = if !log && low >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
        Some(Self { low: (low - room).max(floor), high: high + room, log, from, to })
    }

    /// From 0 to the largest number.
    pub fn steps(numbers: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        Self { low: 0.0, high: numbers.fold(1.0, f64::max), log: false, from, to }
    }

    /// Where a number is drawn; none for what the scale cannot show.
    pub fn at(&self, x: f64) -> Option<f64> {
        let x = if self.log { x.log10() } else { x };
        x.is_finite().then(|| self.from + (x - self.low) / (self.high - self.low) * (self.to - self.from))
    }

    /// Round numbers on the scale, about `count` of them.
    pub fn ticks(&self, count: f64) -> Vec<f64> {
        let span = self.high - self.low;
        if self.log && span > 1.0 {
            let fits = |within: &&[f64]| span * within.len() as f64 <= count + 1.0;
            let within = [&[1.0, 2.0, 5.0][..], &[1.0, 3.0]].into_iter().find(fits).unwrap_or(&[1.0]);
            let stride = (span / count).ceil().max(1.0) as usize;
            let decades = (self.low.floor() as i32..=self.high.floor() as i32).step_by(stride);
            let ticks = decades.flat_map(|decade| within.iter().map(move |m| m * 10f64.powi(decade)));
            return ticks.filter(|x| (self.low..=self.high).contains(&x.log10())).collect();
        }
        // Within a decade or so a logarithmic scale is nearly even.
        let (low, high) = match self.log {
            true => (10f64.powf(self.low), 10f64.powf(self.high)),
            false => (self.low, self.high),
        };
        let rough = (high - low) / count;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough);
        let step = step.unwrap_or(rough);
        let first = (low / step).ceil() as i64;
        (first..).map(|i| i as f64 * step).take_while(|x| *x <= high).take(20).collect()
    }
}

/// A number for an axis or a table: three or four digits that matter.
pub fn label(x: f64) -> String {
    let magnitude = x.abs();
    match magnitude {
        0.0 => "0".to_string(),
        1e18.. => format!("{x:.1e}").replace(".0e", "e"),
        1e15.. => format!("{}P", plain(x / 1e15)),
        1e12.. => format!("{}T", plain(x / 1e12)),
        1e9.. => format!("{}G", plain(x / 1e9)),
        1e6.. => format!("{}M", plain(x / 1e6)),
        1e4.. => format!("{}k", plain(x / 1e3)),
        1e-3.. => plain(x),
        _ => format!("{x:.1e}").replace(".0e", "e"),
    }
}

/// Decimals as they are needed.
fn plain(x: f64) -> String {
    let decimals = match x.abs() {
        100.0.. => 1,
        1.0.. => 2,
        _ => 4,
    };
    let text = format!("{x:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// At most [`MOST_POINTS`] of the points: of every stretch the lowest and the highest, so that no spike is
/// lost.
pub(super) fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    let stretches = points.chunks(points.len().div_ceil(MOST_POINTS / 2));
    let extremes = stretches.flat_map(|stretch| {
        let numbers = || stretch.iter().enumerate().filter(|(_, point)| point.1.is_finite());
        let low = numbers().min_by(|a, b| a.1.1.total_cmp(&b.1.1)).map(|(i, _)| i);
        let high = numbers().max_by(|a, b| a.1.1.total_cmp(&b.1.1)).map(|(i, _)| i);
        let mut kept: Vec<usize> = low.into_iter().chain(high).collect();
        kept.sort_unstable();
        kept.dedup();
        kept.into_iter().map(|i| stretch[i])
    });
    extremes.collect()
}

/// The `d` of a path through the points, interrupted where one cannot be shown.
pub fn path(points: &[(f64, f64)], x: &Scale, y: &Scale) -> String {
    let mut path = String::new();
    let mut pen_down = false;
    for (px, py) in points {
        let (Some(px), Some(py)) = (x.at(*px), y.at(*py)) else {
            pen_down = false;
            continue;
        };
        let _ = write!(path, "{}{px:.1} {py:.1}", if pen_down { "L" } else { "M" });
        pen_down = true;
    }
    path
}

impl Chart {
    /// The drawing, and what it shows as data for the page's script; none if there is nothing to show.
    pub(super) fn draw(&self) -> Option<(String, Value)> {
        let thinned: Vec<_> = self.series.iter().map(|s| (s, thin(&s.points))).collect();
        let all = || thinned.iter().flat_map(|(_, points)| points);
        let (left, right, top, bottom) = MARGIN;
        let x = Scale::steps(all().map(|p| p.0), left, SIZE.0 - right);
        let y = Scale::around(all().map(|p| p.1), self.log, SIZE.1 - bottom, top)?;
        let mut svg = format!("<svg viewBox=\"0 0 {} {}\" role=\"img\">", SIZE.0, SIZE.1);
        let _ = write!(svg, "<title>{}</title>", self.title);
        for tick in y.ticks(5.0) {
            let Some(at) = y.at(tick) else { continue };
            let (end, text) = (SIZE.0 - right, label(tick));
            let _ = write!(svg, "<path class=\"grid\" d=\"M{left} {at:.1}H{end}\"/>");
            let _ = write!(svg, "<text class=\"y\" x=\"{}\" y=\"{:.1}\">{text}</text>", left - 6.0, at + 3.5);
        }
        for tick in x.ticks(7.0) {
            let Some(at) = x.at(tick) else { continue };
            let (base, text) = (SIZE.1 - 6.0, label(tick));
            let _ = write!(svg, "<text class=\"x\" x=\"{at:.1}\" y=\"{base}\">{text}</text>");
        }
        for (series, points) in &thinned {
            let look = match series.look {
                Look::Line => "line",
                Look::Faint => "faint",
                Look::Dots => "dots",
            };
            let (color, d) = (series.color, path(points, &x, &y));
            let _ = write!(svg, "<path class=\"{look} s{color}\" d=\"{d}\"/>");
            let dots = points.iter().filter(|_| series.look == Look::Dots);
            for (px, py) in dots.filter_map(|p| x.at(p.0).zip(y.at(p.1))) {
                let _ = write!(svg, "<circle class=\"f{color}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"2.6\"/>");
            }
        }
        svg += "<path class=\"cursor\" d=\"\"/></svg>";
        let shown = thinned.iter().filter(|(series, _)| series.look != Look::Faint);
        let data: Vec<Value> = shown
            .map(|(series, points)| {
                let points: Vec<_> = points.iter().map(|(x, y)| json!([x, rounded(*y)])).collect();
                json!({ "label": series.label, "color": series.color, "points": points })
            })
            .collect();
        let plot = json!([x.from, x.to, SIZE.0, y.to, y.from]);
        Some((svg, json!({ "title": self.title, "steps": x.high, "plot": plot, "series": data })))
    }
}

/// Six digits, as many as anybody looks at.
fn rounded(x: f64) -> Option<f64> {
    x.is_finite().then(|| format!("{x:.5e}").parse().unwrap_or(x))
}
