//! The report as tables for programs. `report.csv` holds nothing that differs when the experiment is run again.

use std::fmt::Write as _;

use super::Report;

/// A row for each arm, in the order of the file.
pub(super) fn arms(report: &Report) -> String {
    let mut text = "arm,settings,n,diverged,failed,mean,sd,half_width,difference,difference_sd,difference_half_width,\
                    t,df,p,holm_p,sign_flip_p,wins,smallest_shown,evaluation_sd,verdict,pairing,parameters,file_bytes\n"
        .to_string();
    for arm in &report.arms {
        let s = &arm.summary;
        let versus = arm.versus.as_ref();
        let d = versus.map(|v| v.difference);
        let of = |value: Option<f64>| value.map_or(String::new(), number);
        let cells = [
            cell(&arm.arm.name),
            cell(arm.arm.tuned.as_ref().map_or("", |tuned| &tuned.chosen)),
            s.n.to_string(),
            arm.diverged.to_string(),
            arm.failed.to_string(),
            number(s.mean),
            number(s.sd),
            number(s.half_width),
            of(d.map(|d| d.mean)),
            of(d.map(|d| d.sd)),
            of(d.map(|d| d.half_width)),
            of(d.map(|d| d.t)),
            of(d.map(|d| d.df)),
            of(d.map(|d| d.p)),
            of(versus.map(|v| v.adjusted_p)),
            of(d.and_then(|d| d.sign_flip_p)),
            d.and_then(|d| d.wins).map_or(String::new(), |wins| wins.to_string()),
            of(d.map(|d| d.smallest_shown)),
            of(versus.and_then(|v| v.evaluation).map(|e| e.sd)),
            versus.map_or(String::new(), |v| v.verdict.word().to_string()),
            cell(&arm.arm.pairing.as_ref().map_or(String::new(), ToString::to_string)),
            of(arm.costs.parameters),
            of(arm.costs.file_bytes),
        ];
        let _ = writeln!(text, "{}", cells.join(","));
    }
    text
}

/// A row for each run.
pub(super) fn runs(report: &Report) -> String {
    let mut text = "arm,seed,outcome,bits_per_byte,held_out_loss,parameters,steps,tokens,seconds,peak_memory,file_bytes,\
                    directory\n"
        .to_string();
    for arm in &report.arms {
        for run in &arm.arm.runs {
            let result = run.outcome.result();
            let outcome = match result {
                None => "failed",
                Some(result) if result.diverged.is_some() => "diverged",
                Some(_) => "finished",
            };
            let whole = |value: Option<u64>| value.map_or(String::new(), |n| n.to_string());
            let real = |value: Option<f64>| value.map_or(String::new(), number);
            let cells = [
                cell(&arm.arm.name),
                run.seed.to_string(),
                outcome.to_string(),
                real(result.and_then(|r| r.bits_per_byte)),
                real(result.and_then(|r| r.held_out_loss)),
                whole(result.and_then(|r| r.parameters).map(|n| n as u64)),
                whole(result.map(|r| r.steps)),
                whole(result.map(|r| r.tokens)),
                real(result.map(|r| r.seconds)),
                whole(result.and_then(|r| r.peak_memory)),
                whole(result.and_then(|r| r.file_bytes)),
                cell(&run.dir.display().to_string()),
            ];
            let _ = writeln!(text, "{}", cells.join(","));
        }
    }
    text
}

/// A number to its last bit; nothing for none.
fn number(x: f64) -> String {
    if x.is_finite() { x.to_string() } else { String::new() }
}

/// A text as a cell.
fn cell(text: &str) -> String {
    match text.contains([',', '"', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_string(),
    }
}
