//! A benchmark's results as Markdown, CSV or JSON.

use std::fmt::Write as _;

use serde::Serialize;
use tritforge_support::counted;

use super::Format;
use super::measure::{Machine, Measured, Row};
use crate::table;

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// The machine's limits, by number of threads; empty unless asked for.
    pub(super) machine: Vec<Machine>,
    pub(super) models: Vec<Measured>,
}

/// The report as text.
pub(super) fn print(report: &Report, format: Format) -> String {
    match format {
        Format::Md => markdown(report),
        Format::Csv => csv(report),
        Format::Json => {
            let text = serde_json::to_string_pretty(report).expect("plain structs of numbers and strings");
            text + "\n"
        }
    }
}

/// Share of the machine's limit that a row reaches, in percent, and what the limit is of.
fn reached(report: &Report, model: &Measured, row: &Row) -> Option<(f64, &'static str)> {
    let machine = report.machine.iter().find(|machine| machine.threads == row.threads)?;
    if row.decodes && row.batch == 1 {
        let bytes = (model.bytes_a_token + row.kv_bytes) as f64;
        return Some((100.0 * bytes * row.median() * 1e-9 / machine.read_bandwidth, "read bandwidth"));
    }
    let gmacs = model.macs_a_token as f64 * row.median() * 1e-9;
    let of_avx2 = (machine.avx2_peak?, "AVX2 int8 peak");
    let (peak, name) = match (model.backend.as_str(), machine.avx_vnni_peak, machine.avx512_peak) {
        ("avx-vnni", Some(peak), _) => (peak, "AVX-VNNI int8 peak"),
        ("avx512", _, Some(peak)) => (peak, "AVX-512 int8 peak"),
        _ => of_avx2,
    };
    Some((100.0 * gmacs / peak, name))
}

fn markdown(report: &Report) -> String {
    let mut text = String::new();
    for machine in &report.machine {
        let peak = |peak: Option<f64>| peak.map_or("none".to_string(), |peak| format!("{peak:.0} GMAC/s"));
        let _ = writeln!(
            text,
            "{}: memory read bandwidth {:.1} GB/s; int8 peak {} (AVX2), {} (AVX-VNNI), {} (AVX-512 VNNI)",
            counted(machine.threads, "thread"),
            machine.read_bandwidth,
            peak(machine.avx2_peak),
            peak(machine.avx_vnni_peak),
            peak(machine.avx512_peak)
        );
    }
    if !report.machine.is_empty() {
        text.push('\n');
    }
    let roofline = if report.machine.is_empty() { ("", "") } else { (" of limit |", " ---: |") };
    let _ = writeln!(
        text,
        "| model | size | params | backend | kv | threads | test | tokens/s | median |{}",
        roofline.0
    );
    let _ = writeln!(text, "| --- | ---: | ---: | --- | --- | ---: | --- | ---: | ---: |{}", roofline.1);
    for model in &report.models {
        for row in &model.rows {
            let [backend, kv, threads, test, mean, deviation, median] = cells(model, row, 2);
            let _ = write!(
                text,
                "| {} | {} | {:.1} M | {backend} | {kv} | {threads} | {test} | {mean} ± {deviation} | {median} |",
                model.model,
                table::bytes(model.file_bytes as u64),
                model.parameters as f64 * 1e-6,
            );
            if let Some((percent, of)) = reached(report, model, row) {
                let _ = write!(text, " {percent:.0} % of {of} |");
            }
            text.push('\n');
        }
    }
    text.push('\n');
    for model in &report.models {
        let rss = model.peak_rss_bytes.map_or("unknown".to_string(), table::bytes);
        let _ = writeln!(
            text,
            "{}: loaded in {:.2} s; {} read per token, of which {} are ternary weights; peak RSS of the \
             process {rss}",
            model.model,
            model.load_seconds,
            table::bytes(model.bytes_a_token as u64),
            table::bytes(model.weight_bytes as u64),
        );
    }
    text
}

/// How a row was measured, and its speeds with so many decimals: their mean, their deviation, their median.
fn cells(model: &Measured, row: &Row, decimals: usize) -> [String; 7] {
    let [mean, deviation, median] =
        [row.mean(), row.deviation(), row.median()].map(|speed| format!("{speed:.decimals$}"));
    [
        model.backend.clone(),
        model.kv.clone(),
        row.threads.to_string(),
        row.test.clone(),
        mean,
        deviation,
        median,
    ]
}

fn csv(report: &Report) -> String {
    let mut text =
        "model,file_bytes,parameters,backend,kv,threads,test,mean,deviation,median,percent_of_limit,limit,\
                    load_seconds,peak_rss_bytes\n"
            .to_string();
    for model in &report.models {
        for row in &model.rows {
            let limit = reached(report, model, row);
            let (percent, limit) = limit.map_or((String::new(), ""), |(p, of)| (format!("{p:.1}"), of));
            let rss = model.peak_rss_bytes.map(|n| n.to_string()).unwrap_or_default();
            let measured = cells(model, row, 3).join(",");
            let _ = writeln!(
                text,
                "{},{},{},{measured},{percent},{limit},{:.3},{rss}",
                quoted(&model.model),
                model.file_bytes,
                model.parameters,
                model.load_seconds,
            );
        }
    }
    text
}

/// A field of CSV, in quotes if it needs them (RFC 4180).
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let row = |test: &str, decodes, samples: &[f64]| Row {
            test: test.to_string(),
            threads: 2,
            decodes,
            batch: 1,
            kv_bytes: 1000,
            tokens_per_second: samples.to_vec(),
        };
        Report {
            machine: vec![Machine {
                threads: 2,
                read_bandwidth: 20.0,
                avx2_peak: Some(300.0),
                avx_vnni_peak: None,
                avx512_peak: None,
            }],
            models: vec![Measured {
                model: "a,b.gguf".to_string(),
                parameters: 2_000_000,
                file_bytes: 2048,
                weight_bytes: 1024,
                bytes_a_token: 999_999_000,
                macs_a_token: 1_000_000_000,
                backend: "avx2".to_string(),
                kv: "f16".to_string(),
                load_seconds: 0.5,
                peak_rss_bytes: Some(4096),
                rows: vec![row("pp512", false, &[200.0, 250.0, 220.0]), row("tg128", true, &[9.0, 11.0])],
            }],
        }
    }

    #[test]
    fn markdown_shows_mean_deviation_median_and_share_of_the_limit() {
        let text = print(&report(), Format::Md);
        assert!(
            text.contains(
                "2 threads: memory read bandwidth 20.0 GB/s; int8 peak 300 GMAC/s (AVX2), none (AVX-VNNI), none (AVX-512 VNNI)"
            ),
            "{text}"
        );
        assert!(text.contains("| pp512 | 223.33 ± 25.17 | 220.00 | 73 % of AVX2 int8 peak |"), "{text}");
        assert!(text.contains("| tg128 | 10.00 ± 1.41 | 10.00 | 50 % of read bandwidth |"), "{text}");
    }

    #[test]
    fn csv_has_a_column_for_every_name() {
        let text = print(&report(), Format::Csv);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].split(',').count(), 14);
        assert_eq!(
            lines[1],
            "\"a,b.gguf\",2048,2000000,avx2,f16,2,pp512,223.333,25.166,220.000,73.3,AVX2 int8 peak,0.500,4096"
        );
    }

    #[test]
    fn json_holds_every_sample() {
        let json: serde_json::Value = serde_json::from_str(&print(&report(), Format::Json)).expect("JSON");
        assert_eq!(json["models"][0]["rows"][1]["tokens_per_second"], serde_json::json!([9.0, 11.0]));
    }
}
