//! `tritforge deploy`: how a model is served on a machine.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args as ClapArgs, Subcommand};
use tritforge_deploy::{BUILT_IN, Plan, Request, Source, Target, plan, serve_toml};
use tritforge_infer::KvType;

use super::ranges;
use crate::table;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Plan a model for a target: memory, options of the service with reasons, expected speed.
    Plan(PlanArgs),
    /// List the built-in targets, or print one as a file to begin with.
    Targets(TargetsArgs),
}

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  tritforge deploy plan model.gguf --target edge\n  \
    tritforge deploy plan model.gguf --target here --concurrency 4 --out serve.toml && tritforge serve --config serve.toml\n  \
    tritforge deploy plan runs/demo --target mobile --context 1024 --json\n  \
    tritforge deploy targets edge > board.toml && tritforge deploy plan model.gguf --target board.toml")]
pub(crate) struct PlanArgs {
    /// GGUF file, checkpoint, run, or directory in Hugging Face's layout; only headers are read.
    model: PathBuf,
    /// mobile, edge, server, cloud, here (this machine as it is now), or a TOML file (see deploy targets).
    #[arg(long, value_name = "TARGET")]
    target: String,
    /// Tokens of a request, prompt and answer; default: the target's.
    #[arg(long, value_name = "N", value_parser = ranges::count(1..=1 << 30))]
    context: Option<usize>,
    /// Requests at once; default: the target's.
    #[arg(long, value_name = "N", value_parser = ranges::count(1..=256))]
    concurrency: Option<usize>,
    /// Memory that the service may take, in bytes; default: the target's.
    #[arg(long, value_name = "BYTES", value_parser = ranges::count(1..=1 << 50))]
    memory: Option<usize>,
    /// Type of the KV cache, f16, f32 or q8_0; default: the target's.
    #[arg(long, value_name = "f16|f32|q8_0")]
    kv: Option<KvType>,
    /// Write the options to this file, for tritforge serve --config.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the plan as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  tritforge deploy targets\n  tritforge deploy targets edge > board.toml")]
pub(crate) struct TargetsArgs {
    /// Print this target's file.
    name: Option<String>,
}

pub(crate) fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Plan(args) => run_plan(args),
        Command::Targets(args) => targets(args),
    }
}

fn run_plan(args: &PlanArgs) -> Result<ExitCode> {
    let target = Target::named(&args.target)?;
    let request = Request {
        context: args.context,
        concurrency: args.concurrency,
        memory: args.memory.map(|bytes| bytes as u64),
        kv: args.kv,
    };
    let plan = plan(&Source::open(&args.model)?, &target, request)?;
    if let Some(out) = &args.out {
        let text = serve_toml(&plan)?;
        fs::write(out, text).with_context(|| format!("--out {}: cannot write", out.display()))?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&plan)?);
        return Ok(ExitCode::SUCCESS);
    }
    print(&plan);
    match &args.out {
        Some(out) => println!("\n{out}: tritforge serve --config {out}", out = out.display()),
        None => println!("\n--out serve.toml writes these options"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The plan as tables.
fn print(plan: &Plan) {
    let target = &plan.target;
    println!("{} ({}; {}) on {}", plan.model, plan.kind, plan.packing, target.name);
    println!(
        "{} cores, {}, {} of memory, {:.1} GB/s; {}",
        target.cores,
        target.isa,
        table::bytes(target.memory),
        target.bandwidth / 1e9,
        target.about
    );
    println!("{} at once, {} tokens of context each\n", plan.concurrency, plan.context);
    let memory = &plan.memory;
    let row = |name: &str, bytes: u64| vec![name.to_string(), table::bytes(bytes)];
    table::print(
        &["memory", "bytes"],
        &[
            row(&format!("weights, {}", plan.layout), memory.weights),
            row("weights in the mapped file", memory.mapped),
            row("positions (RoPE)", memory.rope),
            row(&format!("keys and values, {}", target.kv), memory.kv),
            row("buffers of a pass", memory.workspace),
            row("program, threads, tokenizer (estimate)", memory.process),
            row("under full load", memory.serving()),
            row("while loading", memory.loading),
        ],
    );
    let speed = &plan.speed;
    println!("\ndecoding, estimate: {:.1} tokens/s alone, {:.1} tokens/s together", speed.one, speed.all);
    println!(
        "({}: {} of weights a pass, {} of keys and values a token)\n",
        speed.assumption,
        table::bytes(speed.weight_bytes),
        table::bytes(speed.kv_bytes)
    );
    let settings: Vec<Vec<String>> = plan
        .settings
        .iter()
        .map(|setting| vec![setting.key.clone(), setting.value.to_string(), setting.why.clone()])
        .collect();
    table::print(&["option", "value", "why"], &settings);
    println!("everything else: preset {}", target.preset);
    for note in &plan.notes {
        println!("note: {note}");
    }
}

fn targets(args: &TargetsArgs) -> Result<ExitCode> {
    if let Some(name) = &args.name {
        // Refuses a name that is none.
        Target::named(name)?;
        let text = BUILT_IN.iter().find(|(known, ..)| known == name).map(|(_, text, _)| *text);
        print!("{}", text.with_context(|| format!("{name}: not built in; without a name they are listed"))?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    for (name, ..) in BUILT_IN {
        let target = Target::named(name)?;
        rows.push(vec![
            target.name,
            target.cores.to_string(),
            table::bytes(target.memory),
            format!("{:.1}", target.bandwidth / 1e9),
            target.isa.to_string(),
            target.concurrency.to_string(),
            target.context.to_string(),
            target.about,
        ]);
    }
    table::print(&["target", "cores", "memory", "GB/s", "isa", "at once", "context", "for"], &rows);
    Ok(ExitCode::SUCCESS)
}
