//! The page is well-formed, needs nothing from outside, and holds the numbers of the metrics.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::svg::{Scale, label, thin};
use super::{FILE, write};
use crate::ReportError;
use crate::history::history;

/// Metrics of a run with two layers, as the trainer writes them.
fn metrics(name: &str, steps: u64) -> String {
    let mut lines = vec![format!(
        "{{\"event\":\"run\",\"step\":0,\"name\":\"{name}\",\"parameters\":1200000,\"threads\":2,\"gemm_flops\":1.5e11,\
         \"recipe\":\"[train]\\nsteps = {steps} # a < b & c\"}}"
    )];
    for step in 1..=steps {
        let loss = 8.0 / (step as f64).sqrt();
        lines.push(format!(
            "{{\"event\":\"train\",\"step\":{step},\"loss\":{loss},\"lr\":0.001,\"grad_norm\":{},\"tokens\":{},\
             \"tokens_per_second\":5000.0,\"mfu\":0.5,\"rss\":200000000,\"peak_rss\":250000000}}",
            if step == 3 { "null".to_string() } else { "0.7".to_string() },
            step * 64
        ));
        if step % 10 == 0 {
            lines.push(format!(
                "{{\"event\":\"eval\",\"step\":{step},\"loss\":{loss},\"bits_per_byte\":2.5,\"sample\":\"</pre><b>{step}\\u0007\"}}"
            ));
            let matrix = |layer: u64, p: &str| {
                format!(
                    "{{\"name\":\"model.layers.{layer}.x.{p}\",\"zero\":0.3,\"flipped\":0.02,\"scale\":0.01,\"drift\":0.1,\"distance\":0.6}}"
                )
            };
            let kinds = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
            let matrices: Vec<String> = (0..2).flat_map(|l| kinds.map(|p| matrix(l, p))).collect();
            let matrices = matrices.join(",");
            lines.push(format!(
                "{{\"event\":\"health\",\"step\":{step},\"steps\":10,\"matrices\":[{matrices}]}}"
            ));
        }
    }
    lines.push("{\"event\":\"skip\",\"step\":7,\"reason\":\"a spike\"}".to_string());
    lines.push("{\"event\":\"of a later version\",\"step\":7}".to_string());
    lines.join("\n") + "\n"
}

fn page(runs: &[(&str, String)]) -> Result<String, ReportError> {
    let dir = tempfile::tempdir().unwrap();
    let dirs: Vec<_> = runs.iter().map(|(name, _)| dir.path().join(name)).collect();
    for (dir, (_, text)) in dirs.iter().zip(runs) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("metrics.jsonl"), text).unwrap();
    }
    let file = dir.path().join(FILE);
    write(&dirs, &file)?;
    Ok(fs::read_to_string(file).unwrap())
}

/// Every element of a page closed in order; returns how many there are of each name.
fn elements(html: &str) -> std::collections::BTreeMap<String, usize> {
    let (mut open, mut counts) = (Vec::new(), std::collections::BTreeMap::new());
    let mut rest = html.strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some(at) = rest.find('<') {
        assert!(!rest[..at].contains('>'), "a stray >: {}", &rest[..at]);
        let end = at + rest[at..].find('>').unwrap();
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap().to_string();
        assert!(name.chars().all(char::is_alphanumeric), "{tag}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        *counts.entry(name.clone()).or_insert(0) += 1;
        if ["script", "style"].contains(&name.as_str()) {
            // Their text is no markup.
            rest = &rest[rest.find(&format!("</{name}>")).unwrap()..];
        }
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert_eq!(open, [] as [String; 0]);
    counts
}

/// What the page's script reads.
fn data(html: &str) -> Value {
    let begin = "<script id=\"data\" type=\"application/json\">";
    let text = &html[html.find(begin).unwrap() + begin.len()..];
    serde_json::from_str(&text[..text.find("</script>").unwrap()]).unwrap()
}

#[test]
fn a_page_is_well_formed_and_holds_the_numbers() {
    let html = page(&[("one", metrics("a & <b>", 40))]).unwrap();
    let counts = elements(&html);
    // Six charts, and four rows of health with seven kinds and two layers each.
    assert_eq!(counts["svg"], 6 + 4);
    assert_eq!(html.matches("class=\"layer\"").count(), 4 * 7 * 2);
    for outside in ["http:", "https:", "src=", "href=", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
    for text in
        ["a &amp; &lt;b&gt;", "a &lt; b &amp; c", "&lt;/pre&gt;&lt;b&gt;40\u{fffd}", "1, last 7: a spike"]
    {
        assert!(html.contains(text), "{text}");
    }
    let data = data(&html);
    let series = |chart: usize, label: &str| {
        let all = data[chart]["series"].as_array().unwrap();
        all.iter().find(|s| s["label"] == label).unwrap()["points"].as_array().unwrap().clone()
    };
    assert_eq!(data[0]["title"], "Loss");
    assert_eq!(series(0, "held-out").len(), 4);
    assert_eq!(series(0, "held-out")[0], serde_json::json!([10.0, 2.52982]));
    assert_eq!(series(0, "train").len(), 40);
    let norms = series(2, "a & <b>");
    assert_eq!((&norms[1][1], &norms[2][1]), (&serde_json::json!(0.7), &Value::Null));
}

#[test]
fn several_runs_are_drawn_one_over_the_other() {
    let html = page(&[("one", metrics("one", 40)), ("two", metrics("two", 20))]).unwrap();
    elements(&html);
    let labels: Vec<_> =
        data(&html)[0]["series"].as_array().unwrap().iter().map(|s| s["label"].clone()).collect();
    assert_eq!(labels, ["one train", "one held-out", "two train", "two held-out"]);
    assert_eq!(html.matches("<h2>Ternary health of ").count(), 2);
}

#[test]
fn a_run_that_said_little_has_a_page_too() {
    for text in [
        "",
        "\n",
        "{\"event\":\"train\",\"step\":1,\"loss\":2.0,\"lr\":1e-3,\"grad_norm\":1.0,\"tokens\":9,\"tokens_per_second\":3.0}\n",
    ] {
        elements(&page(&[("bare", text.to_string())]).unwrap());
    }
    let nan = metrics("nan", 10)
        .replace("\"loss\":", "\"loss\":null,\"x\":")
        .replace("\"scale\":0.01", "\"scale\":null");
    elements(&page(&[("nan", nan)]).unwrap());
}

#[test]
fn a_torn_last_line_is_passed_over_and_a_broken_one_named() {
    let whole = metrics("m", 10);
    let torn = &whole[..whole.len() - 20];
    assert!(page(&[("torn", torn.to_string())]).is_ok());
    // A cut inside a character.
    let broken = whole.replacen("\"event\":\"train\",\"step\":2,", "\"event\":\"train\",", 1);
    let message = page(&[("broken", broken)]).unwrap_err().to_string();
    assert!(message.contains("metrics.jsonl:3: missing field `step`"), "{message}");
    let message = page(&[("bytes", format!("{whole}\0\0\0\n{whole}"))]).unwrap_err().to_string();
    assert!(message.contains("metrics.jsonl:16: "), "{message}");
    let message = history(Path::new("no/such/run")).unwrap_err().to_string();
    assert!(message.contains("no/such/run: no such file: expected a run directory"), "{message}");
}

#[test]
fn scales_have_round_ticks_and_leave_out_what_they_cannot_show() {
    let scale = Scale::around([2.0, 9.7, f64::NAN].into_iter(), false, 100.0, 0.0).unwrap();
    assert_eq!(scale.ticks(5.0), [2.0, 4.0, 6.0, 8.0, 10.0]);
    assert!(scale.at(2.0).unwrap() > scale.at(9.7).unwrap());
    let scale = Scale::around([1e-5, 1e-2, 0.0].into_iter(), true, 100.0, 0.0).unwrap();
    assert_eq!(scale.ticks(5.0), [1e-5, 1e-4, 1e-3, 1e-2]);
    let scale_of_two = Scale::around([0.6, 20.0].into_iter(), true, 100.0, 0.0).unwrap();
    assert_eq!(scale_of_two.ticks(5.0), [1.0, 2.0, 5.0, 10.0, 20.0]);
    assert_eq!((scale.at(0.0), scale.at(-1.0), scale.at(f64::NAN)), (None, None, None));
    assert!(Scale::around([f64::INFINITY].into_iter(), false, 0.0, 1.0).is_none());
    // One number has a scale too.
    assert!(Scale::around([3.0].into_iter(), false, 0.0, 1.0).unwrap().at(3.0).unwrap().is_finite());
    let labels = [0.0, 3.0, 0.25, 1500.0, 25_000.0, 3e6, 2.5e10, -4e12, 1e17, 6e21, 2e-5].map(label);
    assert_eq!(labels, ["0", "3", "0.25", "1500", "25k", "3M", "25G", "-4T", "100P", "6e21", "2e-5"]);
}

#[test]
fn thinning_keeps_spikes() {
    let mut points: Vec<(f64, f64)> = (0..10_000).map(|i| (i as f64, 1.0)).collect();
    (points[1234].1, points[5000].1) = (99.0, f64::NAN);
    let thinned = thin(&points);
    assert!(thinned.len() <= 800 && thinned.contains(&(1234.0, 99.0)));
    assert!(thinned.is_sorted_by(|a, b| a.0 < b.0));
}
