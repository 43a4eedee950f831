//! `tritforge verify`: is the file the model that was trained?

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::Args as ClapArgs;
use tritforge_checkpoint::Checkpoint;
use tritforge_eval::{Comparison, VerifyOptions, VerifyReport, verify};
use tritforge_infer::Model;

use crate::table;

#[derive(ClapArgs)]
#[command(
    after_help = "Example:\n  tritforge verify runs/quickstart runs/quickstart/model.gguf --text held_out.txt\n\n\
    The exit code is 1 when a code, scale, activation or sum differs, a logit differs by more than --bound, or a greedy \
    token differs."
)]
pub(crate) struct Args {
    /// A checkpoint, or the directory of a run (its newest checkpoint is taken).
    checkpoint: PathBuf,
    /// A GGUF file.
    model: PathBuf,
    /// Text to run through both; without it, tokens of the vocabulary in a fixed order.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// The largest difference of a logit that passes.
    #[arg(long, default_value_t = 1e-4)]
    bound: f32,
    /// Tokens to generate greedily in both.
    #[arg(long, default_value_t = 200)]
    greedy_tokens: usize,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let checkpoint = Checkpoint::open(&super::checkpoint_dir(&args.checkpoint)?)?;
    let model = Arc::new(Model::open(&args.model)?);
    let ids = match &args.text {
        Some(path) => model.tokenizer().encode(&super::read_text(path)?, false)?,
        None => default_ids(&model),
    };
    let options = VerifyOptions { ids, greedy_tokens: args.greedy_tokens, logit_bound: args.bound };
    let report = verify(&checkpoint, &model, &options)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print_report(&report);
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tokens from all over the vocabulary: a multiplicative walk whose step is odd and coprime to most sizes.
fn default_ids(model: &Model) -> Vec<u32> {
    let vocab = model.config().vocab_size as u64;
    (0..model.config().max_position_embeddings as u64).map(|i| (i * 2_654_435_761 % vocab) as u32).collect()
}

/// Prints the tensors that differ, or that none does; then logits and greedy tokens.
pub(crate) fn print_report(report: &VerifyReport) {
    let faulty: Vec<_> = report.projections.iter().filter(|p| !p.identical()).collect();
    if faulty.is_empty() {
        let weights: usize = report.projections.iter().map(|p| p.weights).sum();
        println!(
            "  {} projections, {weights} weights, {} tokens: codes, scales, int8 activations and int32 sums identical",
            report.projections.len(),
            report.tokens
        );
    } else {
        let header = ["tensor", "codes", "scale", "activations", "sums", "largest sum"];
        let rows: Vec<Vec<String>> = faulty
            .iter()
            .map(|p| {
                vec![
                    p.tensor.clone(),
                    p.codes_different.to_string(),
                    format!("{:.3e}", p.scale_difference),
                    p.activations_different.to_string(),
                    p.sums_different.to_string(),
                    p.sum_difference.to_string(),
                ]
            })
            .collect();
        println!("differences (number of codes, activations and sums; size of the others):");
        table::print(&header, &rows);
    }
    let logits = |name: &str, c: &Comparison| {
        println!(
            "  logits {name}: largest difference {:.3e}, top-1 agreement {:.2} %, mean KL {:.3e}",
            c.max_difference,
            100.0 * c.top1_agreement,
            c.mean_kl
        );
    };
    if report.embedding_rounding > 0.0 {
        println!(
            "  embedding stored as {}: a value changed by at most {:.2e}",
            report.embedding_type, report.embedding_rounding
        );
        logits("against training", &report.as_trained);
        logits("against training with the stored embedding", &report.with_stored_embeddings);
    } else {
        logits("against training", &report.with_stored_embeddings);
    }
    println!("  greedy tokens: {} of {} identical", report.greedy_agreeing, report.greedy_tokens);
    println!("  {}", if report.passed() { "verified" } else { "NOT verified" });
}
