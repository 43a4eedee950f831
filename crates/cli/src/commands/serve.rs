//! `tritforge serve`: a model over HTTP.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args as ClapArgs;
use tritforge_serve::{Engine, ServeOptions, run_blocking};

use super::lora_args::LoraArgs;

#[derive(ClapArgs)]
#[command(after_help = "Example:\n  tritforge serve model.gguf --port 8080\n  \
    curl localhost:8080/v1/completions -d '{\"prompt\": \"fn main\", \"max_tokens\": 32}'")]
pub(crate) struct Args {
    /// A GGUF file.
    model: PathBuf,
    #[command(flatten)]
    lora: LoraArgs,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Generations that run at once.
    #[arg(long, default_value_t = 2)]
    concurrency: usize,
    /// Requests that may wait for their turn; more are refused with 429.
    #[arg(long, default_value_t = 32)]
    queue: usize,
    /// Seconds that a request may take, waiting included.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let model = args.lora.open(&args.model)?;
    let options = ServeOptions {
        address: SocketAddr::new(args.host, args.port),
        concurrency: args.concurrency,
        queue: args.queue,
        timeout: Duration::from_secs(args.timeout),
        ..ServeOptions::default()
    };
    run_blocking(Engine::of(&model), &options, |address| {
        println!("{} at http://{address}/v1 (Ctrl-C ends it)", args.model.display());
    })?;
    Ok(ExitCode::SUCCESS)
}
