//! The report as one page that needs nothing else, light or dark.

use std::fmt::Write as _;

use tritforge_report::{STYLE, escape};

use super::markdown::{self, changes, costs, rungs, table};
use super::plots::{COLORS, differences, lines, pareto};
use super::{Kind, Report};
use crate::health::MEASURES;
use crate::results::ArmResult;
use crate::verdict::sentence;

const MORE_STYLE: &str = include_str!("style.css");
const SCRIPT: &str = "document.getElementById('theme').addEventListener('click', () => {\n\
    const root = document.documentElement;\n\
    const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;\n\
    root.dataset.theme = dark ? 'light' : 'dark';\n});";

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let title = escape(&report.question);
    let kind = match report.kind {
        Kind::Ablation => "Ablation",
        Kind::Sweep => "Sweep",
    };
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <title>{title} – Tritforge</title><style>\n{STYLE}{MORE_STYLE}</style></head>\n<body><header><h1>{kind}</h1>\
         <button id=\"theme\" type=\"button\">light / dark</button></header>\n<main>"
    );
    let _ = write!(
        html,
        "<section class=\"card wide\"><p class=\"question\">{title}</p><p class=\"answer\">{}</p></section>",
        escape(&report.answer)
    );
    html += &card_of_table(report);
    if let Some((header, rows)) = rungs(report) {
        html += &format!(
            "<section class=\"card wide scroll\"><h2>Rungs <small>{}, means over seeds</small></h2>{}</section>",
            report.metric.label(),
            of_cells(report, &header, &rows)
        );
    }
    if let Some(svg) = differences(report) {
        let text = format!("against {}, with 95 % intervals", report.base().arm.name);
        html += &card("Differences", &text, &svg, "");
    }
    let what = report.metric.label();
    for (name, of) in [
        ("steps", (|p| p.step) as fn(&crate::CurvePoint) -> f64),
        ("target tokens", |p| p.tokens),
        ("floating-point operations", |p| p.flops.unwrap_or(f64::NAN)),
        ("seconds of training", |p| p.seconds),
    ] {
        // A line that some arms lack would say something of them that nobody knows.
        if !report.arms.iter().flat_map(|arm| &arm.curve).all(|point| of(point).is_finite()) {
            continue;
        }
        let line = |arm: &ArmResult| arm.curve.iter().map(|p| (of(p), p.mean, p.sd)).collect();
        if let Some(svg) = lines(report, what, name, false, line) {
            let legend = legend(report, |arm| !arm.curve.is_empty());
            html +=
                &card("Learning", &format!("{what} over {name}; bands: one sd over seeds"), &svg, &legend);
        }
    }
    for (name, less, of) in [
        ("bytes of the exported file", true, (|arm| arm.costs.file_bytes) as fn(&ArmResult) -> Option<f64>),
        ("tokens/s of the engine", false, |arm| arm.arm.engine_speed),
        ("seconds of training", true, |arm| arm.costs.seconds),
        ("floating-point operations of training", true, |arm| arm.costs.flops),
    ] {
        if let Some(svg) = pareto(report, name, less, of) {
            let text = format!("{what} against {name}; dashed: what no arm beats in both");
            let legend = legend(report, |arm| of(arm).is_some() && arm.summary.mean.is_finite());
            html += &card("Cost", &text, &svg, &legend);
        }
    }
    let (header, rows) = costs(report);
    html += &format!(
        "<section class=\"card wide scroll\"><h2>Costs <small>means over runs</small></h2>{}</section>",
        of_cells(report, &header, &rows)
    );
    html += &health(report);
    html += &arms(report);
    html += &about(report);
    html + &format!("</main>\n<script>\n{SCRIPT}</script></body></html>\n")
}

/// How ternary matrices fare, arm beside arm: the end as a table, and the way there; empty if no arm has any.
fn health(report: &Report) -> String {
    let Some((header, rows)) = markdown::health(report) else { return String::new() };
    let mut html = format!(
        "<section class=\"card wide scroll\"><h2>Ternary health <small>at the end</small></h2>{}<p class=\"note\">{}</p></section>",
        of_cells(report, &header, &rows),
        escape(markdown::HEALTH)
    );
    for (i, measure) in MEASURES.iter().enumerate() {
        let looks = |arm: &ArmResult| arm.health.get(i).cloned().unwrap_or_default();
        if let Some(svg) = lines(report, measure.meaning, "steps", measure.log, |arm| {
            looks(arm).iter().map(|look| (look.step, look.mean, look.sd)).collect()
        }) {
            let legend = legend(report, |arm| !looks(arm).is_empty());
            html += &card(&format!("Ternary: {}", measure.name), measure.meaning, &svg, &legend);
        }
    }
    html
}

fn card(title: &str, caption: &str, svg: &str, legend: &str) -> String {
    format!(
        "<section class=\"card\"><h2>{title} <small>{}</small></h2>{legend}<div class=\"chart\">{svg}</div></section>",
        escape(caption)
    )
}

/// The colours of the arms that are drawn.
fn legend(report: &Report, drawn: impl Fn(&ArmResult) -> bool) -> String {
    let each = report.arms.iter().enumerate().filter(|(_, arm)| drawn(arm));
    let each =
        each.map(|(i, arm)| format!("<span class=\"k{}\">{}</span> ", i % COLORS, escape(&arm.arm.name)));
    format!("<p class=\"legend\">{}</p>", each.collect::<String>())
}

/// The table of arms with what its columns mean, and what is said of each arm.
fn card_of_table(report: &Report) -> String {
    let (header, rows) = table(report);
    let base = &report.base().arm.name;
    let mut html = format!(
        "<section class=\"card wide scroll arms\"><h2>Arms <small>{}, less is better; {} × {}</small></h2>{}",
        report.metric.label(),
        tritforge_support::counted(report.seeds.len(), "seed"),
        tritforge_support::counted(report.arms.len(), "arm"),
        of_cells(report, &header, &rows)
    );
    html += "<ul>";
    for arm in report.in_order().into_iter().filter(|arm| arm.versus.is_some()) {
        let _ = write!(html, "<li>{}.</li>", escape(&sentence(arm, base, report.metric)));
    }
    for note in report.notes() {
        let _ = write!(html, "<li>{}</li>", prose(&note));
    }
    let _ = write!(
        html,
        "</ul><p class=\"note\">± are 95 % intervals by Student's t over seeds. Δ is the arm less {}, pair by pair where arms \
         are paired. p is the t-test's after Holm's correction over arms; the sign-flip p is exact and cannot be below 2/2ⁿ. \
         “could show”: the difference that so many seeds would have shown with probability 0.8. “text”: the standard \
         deviation of Δ over other held-out documents, a noise of its own that more seeds do not lessen.</p></section>",
        escape(base)
    );
    html
}

/// A text whose parts between backticks are code.
fn prose(text: &str) -> String {
    let escaped = escape(text);
    let parts = escaped.split('`').enumerate();
    parts
        .map(|(i, part)| if i % 2 == 0 { part.to_string() } else { format!("<code>{part}</code>") })
        .collect()
}

/// What each arm is: what it changes, what was tuned, its recipe.
fn arms(report: &Report) -> String {
    let mut html = "<section class=\"card wide\"><h2>Recipes <small>keys that differ from the baseline's</small></h2><ul>".to_string();
    for (i, arm) in report.arms.iter().enumerate() {
        let _ = write!(
            html,
            "<li><span class=\"k{}\">{}</span>: {}",
            i % COLORS,
            escape(&arm.arm.name),
            escape(&changes(arm))
        );
        if let Some(tuned) = &arm.arm.tuned {
            let tried = tuned.tried.iter().map(|(point, value)| match value {
                Some(value) => format!("{point}: {value:.4}"),
                None => format!("{point}: diverged"),
            });
            let tried = tried.collect::<Vec<_>>().join("; ");
            let _ =
                write!(html, "<br/>tuned on other seeds: {} of {}", escape(&tuned.chosen), escape(&tried));
        }
        html += "</li>";
    }
    html += "</ul>";
    for arm in &report.arms {
        let (name, recipe) = (escape(&arm.arm.name), escape(&arm.arm.recipe));
        let _ = write!(
            html,
            "<details><summary>Resolved recipe of {name}</summary><pre>{recipe}</pre></details>"
        );
    }
    html + "</section>"
}

/// How the report came about, and where its runs are.
fn about(report: &Report) -> String {
    let c = &report.context;
    let mut html = "<section class=\"card wide\"><h2>How</h2><ul>".to_string();
    for (name, text) in [
        ("made", &c.time),
        ("program", &c.program),
        ("machine", &c.machine),
        ("threads", &c.threads),
        ("command", &c.command),
    ] {
        let _ = write!(html, "<li>{name}: {}</li>", escape(text));
    }
    html += "</ul><details><summary>Runs</summary><div class=\"scroll\"><table><thead><tr><th>arm</th><th>seed</th><th>value</th><th>directory</th></tr></thead><tbody>";
    for arm in &report.arms {
        for run in &arm.arm.runs {
            let value = match run.outcome.result() {
                None => "failed".to_string(),
                Some(result) => {
                    result.value(report.metric).map_or("diverged".to_string(), |v| format!("{v:.6}"))
                }
            };
            let _ = write!(
                html,
                "<tr><th>{}</th><td>{}</td><td>{value}</td><td>{}</td></tr>",
                escape(&arm.arm.name),
                run.seed,
                escape(&run.dir.display().to_string())
            );
        }
    }
    html + "</tbody></table></div></details></section>"
}

/// A table whose first column are the names of arms, with their colours.
fn of_cells(report: &Report, header: &[String], rows: &[Vec<String>]) -> String {
    let head: String = header.iter().map(|cell| format!("<th>{}</th>", escape(cell))).collect();
    let mut html = format!("<table><thead><tr>{head}</tr></thead><tbody>");
    for row in rows {
        html += "<tr>";
        for (column, cell) in row.iter().enumerate() {
            let text = escape(cell);
            if column == 0 {
                let color = report.arms.iter().position(|arm| arm.arm.name == *cell).unwrap_or(0) % COLORS;
                let _ = write!(html, "<th><span class=\"k{color}\">{text}</span></th>");
            } else {
                let _ = write!(html, "<td>{text}</td>");
            }
        }
        html += "</tr>";
    }
    html + "</tbody></table>"
}
