//! What `tritforge train --dry-run` prints.

use tritforge_support::{counted, duration};
use tritforge_train::{DryRun, Memory, Time};

use crate::table;

/// The recipe, and tables of parameters, memory, speed and time.
pub(crate) fn print(plan: &DryRun, gradient_checkpointing: bool) {
    println!("{}", plan.recipe);
    let p = plan.parameters;
    let row = |name: &str, count: usize| vec![name.to_string(), count.to_string()];
    table::print(
        &["parameters", "number"],
        &[
            row("embedding", p.embedding),
            row("head", p.head),
            row("projections", p.projections),
            row("norms", p.norms),
            row("total", p.total()),
        ],
    );
    for group in &plan.groups {
        println!("optim.groups: {group}");
    }
    print_memory(&plan.memory);
    let peak = plan.peak_memory(gradient_checkpointing);
    let how = if plan.measured_memory.is_some() { "measured in a trial run" } else { "estimated" };
    println!("\npeak memory of this recipe: {} ({how})", table::bytes(peak));
    if let Some(available) = plan.available_memory.filter(|available| *available < peak) {
        println!("warning: only {} of memory are available on this machine", table::bytes(available));
    }
    let (work, attention) = (plan.flops_per_token, plan.attention_flops_per_token);
    println!("\n{} per step, {} in total", counted(plan.tokens_per_step, "token"), plan.tokens);
    println!("{work:.3e} FLOPs per token (6 per parameter), plus {attention:.3e} for attention");
    let total = work * plan.tokens as f64;
    println!(
        "{total:.2e} FLOPs in total; this machine: f32 {:.0} GFLOP/s, int8 × ternary {:.0} GOP/s",
        plan.f32_flops / 1e9,
        plan.ternary_ops / 1e9
    );
    match &plan.time {
        Some(time) => print_time(time),
        None => println!("\nnot enough memory to time a step"),
    }
    if let Some(reason) = &plan.unprepared {
        println!("preparation and evaluations are not included, since the text is not available: {reason}");
    }
}

/// The figures as a JSON object: seconds and bytes, null for what is not known.
pub(crate) fn json(plan: &DryRun, gradient_checkpointing: bool) -> serde_json::Value {
    let time = plan.time.as_ref();
    serde_json::json!({
        "parameters": plan.parameters.total(),
        "tokens_per_step": plan.tokens_per_step,
        "tokens": plan.tokens,
        "peak_memory": plan.peak_memory(gradient_checkpointing),
        "available_memory": plan.available_memory,
        "step_seconds": time.map(|time| time.step),
        "training_seconds": time.map(|time| time.training),
        "total_seconds": time.map(Time::total),
        "tokens_per_second": time.map(|time| time.tokens_per_second),
        "unprepared": plan.unprepared,
    })
}

fn print_memory(m: &Memory) {
    println!();
    let row = |name: &str, kept: u64, checkpointed: u64| {
        vec![name.to_string(), table::bytes(kept), table::bytes(checkpointed)]
    };
    let same = |name: &str, bytes: u64| row(name, bytes, bytes);
    let mut rows = vec![
        same("weights", m.weights),
        same("ternary weights", m.quantized),
        same("gradients", m.gradients),
        same("optimizer", m.optimizer),
        row("activations", m.activations, m.checkpointed_activations),
        same("buffers", m.buffers),
        same("logits", m.logits),
        same("evaluation", m.evaluation),
        same("text and program", m.process),
        row("total", m.total(false), m.total(true)),
    ];
    if m.objective > 0 {
        rows.insert(rows.len() - 2, same("teacher or reference", m.objective));
    }
    table::print(&["memory", "estimate", "with gradient checkpointing"], &rows);
}

fn print_time(t: &Time) {
    println!();
    let row = |name: &str, seconds: Option<f64>| {
        vec![name.to_string(), seconds.map_or("unknown".to_string(), duration)]
    };
    let how = if t.extrapolated { "extrapolated" } else { "measured" };
    table::print(
        &["time", how],
        &[
            row("preparation", t.preparation),
            row("training", Some(t.training)),
            row("evaluations", t.evaluations),
            row("samples", Some(t.samples)),
            row("checkpoints", Some(t.checkpoints)),
            row("total", Some(t.total())),
        ],
    );
    println!(
        "\n{} per step, {:.0} tokens/s, MFU {:.0} %",
        duration(t.step),
        t.tokens_per_second,
        100.0 * t.mfu
    );
}
