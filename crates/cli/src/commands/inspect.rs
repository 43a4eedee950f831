//! `tritforge inspect`: what a file or directory holds, and who can load it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args as ClapArgs;
use tritforge_config::ModelConfig;
use tritforge_export::{ImportOptions, Inspection, TensorRow, TokenizerSummary, inspect};
use tritforge_support::counted;

use super::import::Assume;
use crate::table;

#[derive(ClapArgs)]
#[command(
    after_help = "Examples:\n  tritforge inspect model.gguf\n  tritforge inspect runs/quickstart --tensors --json"
)]
pub(crate) struct Args {
    /// GGUF file, checkpoint, run directory (its latest checkpoint is used), Hugging Face directory, adapter,
    /// or safetensors file.
    path: PathBuf,
    /// List every tensor with its type, shape and bytes, and for ternary tensors the share of zeros and the
    /// scale.
    #[arg(long)]
    tensors: bool,
    /// List the metadata of a GGUF file, or the files of a directory.
    #[arg(long)]
    metadata: bool,
    /// Add the SHA-256 of each ternary tensor's codes (int8, row-major), to compare with other programs.
    #[arg(long)]
    codes_digest: bool,
    /// Kind of weights of a Hugging Face checkpoint, if `config.json` does not say or is wrong.
    #[arg(long, value_enum)]
    assume: Option<Assume>,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let options = ImportOptions { assume: args.assume.map(Assume::weights), ..ImportOptions::default() };
    let inspection = inspect(&args.path, &options, args.codes_digest)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&inspection)?);
        return Ok(ExitCode::SUCCESS);
    }
    print(&inspection);
    if args.metadata {
        println!();
        let rows = inspection.metadata.iter().map(|(k, v)| vec![k.clone(), v.clone()]);
        table::print(&["key", "value"], &rows.collect::<Vec<_>>());
    }
    println!();
    if args.tensors {
        print_tensors(&inspection);
    } else {
        let also = if args.metadata { "" } else { ", --metadata lists the metadata" };
        println!("{}; --tensors lists them{also}", counted(inspection.tensors.len(), "tensor"));
    }
    Ok(ExitCode::SUCCESS)
}

fn print(inspection: &Inspection) {
    println!("{}: {}", inspection.path, inspection.kind);
    if let Some(architecture) = &inspection.architecture {
        println!("  architecture  {architecture}");
    }
    if let Some(config) = &inspection.config {
        println!("  shape         {}", shape(config));
    }
    println!(
        "  size          {} parameters, {}, {:.2} bits per parameter",
        inspection.parameters,
        table::bytes(inspection.bytes),
        inspection.bits_per_parameter
    );
    if let Some(ternary) = &inspection.ternary {
        println!(
            "  ternary       {} matrices, {} weights, {:.2} bits per weight as stored, {:.1} % zero, scales \
             {:.6} to {:.6}",
            ternary.tensors,
            ternary.weights,
            ternary.bits_per_weight,
            100.0 * ternary.zero_fraction,
            ternary.scales[0],
            ternary.scales[1]
        );
    }
    let types = inspection.types.iter();
    let types = types.map(|(ty, s)| format!("{ty} {} ({})", s.tensors, table::bytes(s.bytes)));
    println!("  types         {}", types.collect::<Vec<_>>().join(", "));
    match &inspection.tokenizer {
        Some(tokenizer) => print_tokenizer(tokenizer),
        None => println!("  tokenizer     none"),
    }
    for (i, verdict) in inspection.runtimes.iter().enumerate() {
        let label = if i == 0 { "loads in" } else { "" };
        let note = if verdict.note.is_empty() { String::new() } else { format!(": {}", verdict.note) };
        let says = if verdict.loads { "yes" } else { "no" };
        println!("  {label:13} {:13} {says}{note}", verdict.runtime.name());
    }
}

fn shape(config: &ModelConfig) -> String {
    let tied = if config.tie_word_embeddings { "tied" } else { "untied" };
    format!(
        "{}, d {}, FFN {} ({:?}), {} ({} KV) of {}, vocabulary {}, head {tied}, context {}",
        counted(config.num_hidden_layers, "block"),
        config.hidden_size,
        config.intermediate_size,
        config.hidden_act,
        counted(config.num_attention_heads, "head"),
        config.num_key_value_heads,
        config.head_dim,
        config.vocab_size,
        config.max_position_embeddings
    )
}

fn print_tokenizer(tokenizer: &TokenizerSummary) {
    let pre = match &tokenizer.pre {
        Some(pre) => format!("pre-tokenizer {pre}"),
        None => "no pre-tokenizer named: runtimes guess it".to_string(),
    };
    println!(
        "  tokenizer     {}, {}, {}, {pre}, {}, {}",
        tokenizer.kind,
        counted(tokenizer.size, "id"),
        counted(tokenizer.merges, "merge"),
        counted(tokenizer.special.len(), "special token"),
        if tokenizer.chat_template { "chat template" } else { "no chat template" }
    );
    if !tokenizer.roles.is_empty() {
        let roles = tokenizer.roles.iter().map(|(role, token)| format!("{role} {token}"));
        println!("                {}", roles.collect::<Vec<_>>().join(", "));
    }
}

fn print_tensors(inspection: &Inspection) {
    let rows: Vec<Vec<String>> = inspection
        .tensors
        .iter()
        .map(|t| {
            vec![
                t.name.clone(),
                t.ty.clone(),
                format!("{:?}", t.shape),
                table::bytes(t.bytes),
                t.zero_fraction.map(|z| format!("{:.1} %", 100.0 * z)).unwrap_or_default(),
                scale(t),
                t.codes_sha256.as_deref().map(|d| d[..16].to_string()).unwrap_or_default(),
            ]
        })
        .collect();
    table::print(&["tensor", "type", "shape", "bytes", "zero", "scale", "codes"], &rows);
}

/// The scale of a ternary matrix, or the mean of its scales and which weights share one.
fn scale(row: &TensorRow) -> String {
    match (row.scale, row.granularity.as_deref()) {
        (None, _) => String::new(),
        (Some(scale), None | Some("tensor")) => format!("{scale:.6}"),
        (Some(scale), Some("row")) => format!("{scale:.6} (mean of rows)"),
        (Some(scale), Some(size)) => format!("{scale:.6} (mean of groups of {size})"),
    }
}
