//! The page around the charts: what a run reached, its texts, its recipe.

use std::fmt::Write as _;

use serde_json::Value;

use super::charts::{COLORS, charts};
use super::health;
use super::svg::{Chart, label};
use crate::history::History;

/// The style of all pages, light and dark. Series have the classes `s0` to `s7` for lines, `f0` to `f7` for areas, `k0` to
/// `k7` in legends.
pub const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Texts of a run that are shown, the last of them.
const SAMPLES: usize = 12;

/// The whole page.
pub(super) fn page(runs: &[History]) -> String {
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let title = escape(&names.join(", "));
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <title>{title} – Tritforge</title><style>\n{STYLE}</style></head>\n<body><header><h1>{title}</h1>\
         <button id=\"theme\" type=\"button\">light / dark</button></header>\n<main>"
    );
    html += &facts(runs);
    let mut data = Vec::new();
    for chart in charts(runs) {
        if let Some((svg, points)) = chart.draw() {
            html += &card(&chart, &svg, data.len());
            data.push(points);
        }
    }
    for run in runs {
        html += &health::section(run);
    }
    for run in runs {
        html += &samples(run);
    }
    for run in runs.iter().filter(|run| !run.recipe.is_empty()) {
        let (name, recipe) = (escape(&run.name), escape(&run.recipe));
        let _ = write!(
            html,
            "<section class=\"card wide\"><details><summary>Recipe of {name}</summary><pre>{recipe}</pre></details></section>"
        );
    }
    // `</` would end the script's element.
    let data = Value::from(data).to_string().replace("</", "<\\/");
    html += &format!(
        "</main>\n<div id=\"tip\"></div>\n<script id=\"data\" type=\"application/json\">{data}</script>\n\
         <script>\n{SCRIPT}</script></body></html>\n"
    );
    html
}

/// A chart with its heading and legend.
fn card(chart: &Chart, svg: &str, index: usize) -> String {
    let mut html =
        format!("<section class=\"card\"><h2>{} <small>{}</small></h2>", chart.title, escape(chart.caption));
    let labelled: Vec<_> =
        chart.series.iter().filter(|s| !s.label.is_empty() && !s.points.is_empty()).collect();
    if labelled.len() > 1 {
        html += "<p class=\"legend\">";
        for series in labelled {
            let _ = write!(html, "<span class=\"k{}\">{}</span> ", series.color, escape(&series.label));
        }
        html += "</p>";
    }
    html + &format!("<div class=\"chart\" data-chart=\"{index}\">{svg}</div></section>")
}

/// What every run is and reached: tiles for one, a table for several.
fn facts(runs: &[History]) -> String {
    if let [run] = runs {
        let tiles = facts_of(run)
            .into_iter()
            .map(|(name, value)| format!("<div><dt>{name}</dt><dd>{}</dd></div>", escape(&value)));
        return format!("<dl class=\"wide\">{}</dl>\n", tiles.collect::<String>());
    }
    let columns: Vec<Vec<(&str, String)>> = runs.iter().map(facts_of).collect();
    let mut html = "<section class=\"card wide scroll\"><table><thead><tr><th></th>".to_string();
    for (i, run) in runs.iter().enumerate() {
        let _ = write!(html, "<th><span class=\"k{}\">{}</span></th>", i % COLORS, escape(&run.name));
    }
    html += "</tr></thead><tbody>";
    for row in 0..columns.first().map_or(0, Vec::len) {
        let _ = write!(html, "<tr><th>{}</th>", columns[0][row].0);
        for column in &columns {
            let _ = write!(html, "<td>{}</td>", escape(&column[row].1));
        }
        html += "</tr>";
    }
    html + "</tbody></table></section>\n"
}

/// The facts of a run, always the same ones.
fn facts_of(run: &History) -> Vec<(&'static str, String)> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_string());
    let last = run.train.last();
    let held_out = run.evaluations.last();
    let speed = run.median(|t| Some(t.tokens_per_second));
    let peak = run.train.iter().filter_map(|t| t.peak_rss).max();
    let resumed = run.resumed.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    vec![
        ("parameters", or_dash(run.parameters.map(|n| label(n as f64)))),
        ("steps", or_dash(last.map(|t| t.step.to_string()))),
        ("tokens", or_dash(last.map(|t| label(t.tokens as f64)))),
        ("training loss", or_dash(last.map(|t| format!("{:.4}", t.loss)))),
        ("held-out loss", or_dash(held_out.map(|e| format!("{:.4}", e.loss)))),
        ("bits per byte", or_dash(held_out.map(|e| format!("{:.4}", e.bits_per_byte)))),
        ("best held-out loss", or_dash(run.best().map(|e| format!("{:.4} at step {}", e.loss, e.step)))),
        ("tokens/s, median", or_dash(speed.map(|x| format!("{x:.0}")))),
        ("MFU, median", or_dash(run.median(|t| t.mfu).map(|x| format!("{:.1} %", 100.0 * x)))),
        ("f32 products", or_dash(run.gemm_flops.map(|x| format!("{:.0} GFLOP/s", x / 1e9)))),
        ("backward", or_dash(run.backward.clone())),
        ("threads", or_dash(run.threads.map(|n| n.to_string()))),
        ("peak memory", or_dash(peak.map(|bytes| format!("{:.0} MB", bytes as f64 / 1e6)))),
        ("skipped steps", skipped(run)),
        ("resumed after step", if resumed.is_empty() { "–".to_string() } else { resumed }),
    ]
}

/// How many steps were skipped, and why the last was.
fn skipped(run: &History) -> String {
    match run.skipped.last() {
        None => "0".to_string(),
        Some((step, reason)) => format!("{}, last {step}: {reason}", run.skipped.len()),
    }
}

/// The last texts that a run wrote, the newest first.
fn samples(run: &History) -> String {
    let written: Vec<_> = run.evaluations.iter().filter(|e| !e.sample.is_empty()).rev().collect();
    if written.is_empty() {
        return String::new();
    }
    let mut html = format!(
        "<section class=\"card wide\"><h2>Samples of {}</h2><div class=\"samples\">",
        escape(&run.name)
    );
    for evaluation in written.into_iter().take(SAMPLES) {
        let (step, text) = (evaluation.step, escape(&evaluation.sample));
        let _ = write!(html, "<figure><figcaption>step {step}</figcaption><pre>{text}</pre></figure>");
    }
    html + "</div></section>\n"
}

/// A text as HTML shows it, in elements and in attributes.
pub fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '"' => html += "&quot;",
            // A page cannot hold control characters.
            '\n' | '\t' => html.push(c),
            c if c.is_control() => html.push('\u{fffd}'),
            c => html.push(c),
        }
    }
    html
}
