//! `tritforge serve`: a model over HTTP.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use tritforge_export::gguf_file;
use tritforge_infer::{KvType, Model, Session};
use tritforge_serve::{
    AccessLog, Alerts, Engine, Filters, History, Keys, KvOptions, Limits, ServeOptions, Tls, Webhook,
    key_entry, run_blocking,
};
use tritforge_text::ToolFormat;

use super::device_args::DeviceArgs;
use super::draft_args::DraftArgs;
use super::lora_args;
use crate::{Cli, Command};

mod config;

/// Ten years: clocks overflow beyond centuries.
const MOST_SECONDS: u64 = 10 * 366 * 24 * 3600;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  tritforge serve model.gguf --port 8080\n  \
    curl localhost:8080/v1/completions -H 'Content-Type: application/json' \\\n    -d '{\"prompt\": \"fn main\", \"max_tokens\": 32}'\n  \
    tritforge serve base.gguf --lora legal=legal.gguf --lora poems=poems.gguf:0.8\n  \
    curl localhost:8080/v1/completions -H 'Content-Type: application/json' \\\n    -d '{\"model\": \"legal\", \"prompt\": \"The tenant\"}'\n  \
    tritforge serve 2b.gguf --draft-model 125m.gguf --draft-tokens 4\n  \
    tritforge serve model.gguf --host 0.0.0.0 --api-key \"$KEY\" --allow-origin https://app.example\n  \
    tritforge serve model.gguf --config configs/serve/server.toml\n  \
    openssl rand -hex 32 | tee alice.key | tritforge serve --hash-key alice >> keys.toml\n  \
    tritforge serve model.gguf --api-keys keys.toml --rate-limit 60 --access-log access.jsonl\n  \
    tritforge serve model.gguf --tls-cert cert.pem --tls-key key.pem --filters filters.toml --history history.json")]
pub(crate) struct Args {
    /// GGUF file.
    #[arg(required_unless_present_any = ["hash_key", "config"])]
    model: Option<PathBuf>,
    /// TOML file of options: each by its name without the hyphens, and model for the GGUF file. Options on the
    /// command line take precedence.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Adapter (a GGUF file, a directory written by peft, or a run), with an optional scale. Requests with
    /// "model": "NAME" use it; without a NAME it is also used by requests that do not name a model. Can be
    /// repeated.
    #[arg(long, value_name = "[NAME=]ADAPTER[:SCALE]")]
    lora: Vec<String>,
    /// Let clients load and unload adapters from this directory (POST /v1/load_lora_adapter). The server
    /// reads the files that they name.
    #[arg(long, value_name = "DIR")]
    allow_runtime_lora: Option<PathBuf>,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 picks a free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Certificate in PEM, with those between it and its root: serve HTTPS (TLS 1.2 and 1.3). It is read again when it
    /// changes, and on SIGHUP.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert in PEM.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Maximum number of concurrent generations.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Maximum number of waiting requests; further requests get status 429.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(0..=10_000))]
    queue: u16,
    /// Tokens of a prompt and its continuation at most; default: the model's context length.
    #[arg(long, value_name = "N", value_parser = super::ranges::count(1..=1 << 32))]
    context: Option<usize>,
    /// Memory for keys and values in bytes, those kept for further prompts included. A request waits until all that it may
    /// need is free; without this every concurrent generation may fill the context.
    #[arg(long, value_name = "BYTES", value_parser = super::ranges::count(1..=1 << 50))]
    kv_memory: Option<usize>,
    /// Type of the KV cache: f16; f32, which reproduces the logits of training bit for bit; or q8_0, half of f16's memory.
    #[arg(long, value_name = "f16|f32|q8_0", default_value_t = KvType::F16)]
    kv: KvType,
    /// Do not run the model once before GET /ready answers 200.
    #[arg(long)]
    no_warm_up: bool,
    /// Time limit per request in seconds, including waiting.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=MOST_SECONDS))]
    timeout: u64,
    /// Seconds that running requests are given to finish after Ctrl-C or SIGTERM; a second signal stops the
    /// service immediately.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=MOST_SECONDS))]
    shutdown_timeout: u64,
    /// Seconds after Ctrl-C or SIGTERM for which the service still accepts connections while GET /ready answers
    /// 503, so that a load balancer can take it out first.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=MOST_SECONDS))]
    drain_delay: u64,
    /// Maximum number of open connections; further connections get status 503. Lowered to fit the limit on
    /// open files.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,
    /// Longest request body in bytes; a longer one gets status 413.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = super::ranges::count(1..=1 << 32))]
    max_body: usize,
    /// Allow web pages of this origin (CORS), in addition to localhost; * allows all. Can be repeated.
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Accept this name in the Host header, in addition to localhost, while listening on a loopback address
    /// (for example behind a proxy); * accepts any. Can be repeated.
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// Require this API key (Authorization: Bearer KEY). It can also be set in TRITFORGE_API_KEY, which hides
    /// it from other users of the machine.
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// TOML file of API keys: name, SHA-256, role and limits of each. It is read again when it changes, and on
    /// SIGHUP.
    #[arg(long, value_name = "FILE")]
    api_keys: Option<PathBuf>,
    /// Read a key from standard input and print its entry for the file of --api-keys; nothing is served.
    #[arg(long, value_name = "NAME")]
    hash_key: Option<String>,
    /// Maximum number of requests a minute: of each key without a limit of its own, and without keys of each
    /// client address. Further requests get status 429.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate_limit: Option<u64>,
    /// Maximum number of prompt and generated tokens a minute, counted like --rate-limit.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    token_rate_limit: Option<u64>,
    /// Who may read GET /metrics when there are API keys.
    #[arg(long, value_name = "WHO", value_enum, default_value = "admin")]
    metrics_access: MetricsAccess,
    /// Keep answers in up to this much memory, in MiB, and give them again to equal requests with temperature 0 or
    /// a seed; 0 keeps none.
    #[arg(long, value_name = "MIB", default_value_t = 0, value_parser = super::ranges::count(0..=1 << 20))]
    response_cache: usize,
    /// Propose up to N tokens at once that followed the same words before (prompt lookup), which is faster where
    /// answers repeat their prompts; answers stay the same. 0 disables.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = super::ranges::count(0..=64))]
    prompt_lookup: usize,
    #[command(flatten)]
    draft: DraftArgs,
    /// How /v1/embeddings makes one vector of a text's tokens.
    #[arg(long, value_name = "WHICH", value_enum, default_value = "mean")]
    pooling: Pooling,
    /// How the model writes calls of tools: hermes, llama3 or mistral; default: as its chat template says.
    #[arg(long, value_name = "FORMAT", value_parser = tool_format)]
    tool_format: Option<ToolFormat>,
    /// Append one JSON object per finished request to this file; - writes to standard output. Prompts and texts
    /// are never logged.
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// Keep the snapshots of the last 24 hours (GET /v1/stats) in this file over restarts.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Seconds between two snapshots.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    history_interval: u64,
    /// POST alerts, which are `[[alerts]]` in the file of --config, to this http:// or https:// URL, beside the log.
    #[arg(long, value_name = "URL")]
    alert_webhook: Option<String>,
    /// Authorities in PEM that may have signed the certificate of --alert-webhook, in place of those that Mozilla trusts.
    #[arg(long, value_name = "FILE", requires = "alert_webhook")]
    alert_webhook_ca: Option<PathBuf>,
    /// Power that the machine takes, for an estimate of the energy per token where the processor does not count it (RAPL).
    #[arg(long, value_name = "W", value_parser = watts)]
    watts: Option<f64>,
    /// Alerts of the file of --config.
    #[arg(skip)]
    alerts: Vec<toml::Value>,
    /// TOML file of content filters: pattern, where (prompt, answer, both) and action (block, redact) of each. It is read
    /// again when it changes, and on SIGHUP.
    #[arg(long, value_name = "FILE")]
    filters: Option<PathBuf>,
    /// Do not serve the page at / and the dashboard at /dashboard.
    #[arg(long)]
    no_page: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    overrides: lora_args::OverrideArgs,
}

/// The command line with the options of the file that `serve --config` names, if it does.
pub(crate) fn with_config(cli: Cli) -> Result<Cli> {
    if let Command::Serve(args) = &cli.command
        && let Some(path) = &args.config
    {
        let argv: Vec<std::ffi::OsString> = std::env::args_os().collect();
        return config::with_file(path, &argv);
    }
    Ok(cli)
}

/// How a text's vector is made of its tokens' states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Pooling {
    /// Their mean.
    Mean,
    /// The state of the last token.
    Last,
}

impl From<Pooling> for tritforge_infer::Pooling {
    fn from(pooling: Pooling) -> Self {
        match pooling {
            Pooling::Mean => Self::Mean,
            Pooling::Last => Self::Last,
        }
    }
}

/// Who may read the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum MetricsAccess {
    /// The keys of admins.
    Admin,
    /// All keys.
    User,
    /// Everyone, without a key.
    Public,
}

impl From<MetricsAccess> for tritforge_serve::MetricsAccess {
    fn from(access: MetricsAccess) -> Self {
        match access {
            MetricsAccess::Admin => Self::Admin,
            MetricsAccess::User => Self::User,
            MetricsAccess::Public => Self::Public,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if let Some(name) = &args.hash_key {
        return hash_key(name);
    }
    let Some(file) = &args.model else {
        bail!("no model: expected a GGUF file, on the command line or as model in the file of --config")
    };
    if let Some(dir) = args.allow_runtime_lora.as_deref().filter(|dir| !dir.is_dir()) {
        bail!("--allow-runtime-lora {}: not a directory", dir.display());
    }
    let api_key = args.api_key.clone().or_else(|| std::env::var("TRITFORGE_API_KEY").ok());
    if api_key.as_deref().is_some_and(|key| key.trim().is_empty()) {
        bail!("the API key (--api-key or TRITFORGE_API_KEY) is empty: set one, or leave it out");
    }
    // Before the model, which takes longer.
    let keys = args.api_keys.as_deref().map(|path| Keys::open(path).context("--api-keys")).transpose()?;
    let filters = args.filters.as_deref().map(|path| Filters::open(path).context("--filters")).transpose()?;
    let tls = match (&args.tls_cert, &args.tls_key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            Some(Tls::open(certificate, key).context("--tls-cert and --tls-key")?)
        }
        _ => bail!("--tls-cert and --tls-key: only one of them is given; expected both, or neither"),
    };
    let authorities = args.alert_webhook_ca.as_deref();
    let webhook = args.alert_webhook.as_deref().map(|url| Webhook::new(url, authorities)).transpose();
    let webhook = webhook.map_err(anyhow::Error::msg).context("--alert-webhook")?;
    let alerts =
        Alerts::new(args.alerts.clone(), webhook).map_err(anyhow::Error::msg).context("[[alerts]]")?;
    let every = Duration::from_secs(args.history_interval);
    let history = History::open(args.history.as_deref(), every, args.watts, alerts).context("--history")?;
    let to_stdout = args.access_log.as_deref() == Some(Path::new("-"));
    let access_log = match &args.access_log {
        None => None,
        Some(_) if to_stdout => Some(AccessLog::new(std::io::stdout())),
        Some(path) => {
            Some(AccessLog::open(path).with_context(|| format!("--access-log {}", path.display()))?)
        }
    };
    let mut model = Model::open_with(&gguf_file(file)?, args.overrides.list())?;
    let longest = model.config().max_position_embeddings;
    if let Some(context) = args.context.filter(|context| *context > longest) {
        bail!("--context {context}: expected 1 to the model's context length, {longest}");
    }
    let draft = args.draft.open(&model, &args.device)?;
    let of_draft = draft.as_ref().map_or(0, |draft| Engine::least_kv_memory(draft.model(), args.kv));
    let least = Engine::least_kv_memory(&model, args.kv) + of_draft;
    if let Some(found) = args.kv_memory.filter(|bytes| *bytes < least) {
        bail!(
            "--kv-memory {found}: expected at least {least} bytes, which the shortest request takes with this model"
        );
    }
    args.device.place(&mut model)?;
    let model = Arc::new(model);
    // What the device does not store is an error now and not of every request.
    Session::with_kv(Arc::clone(&model), 1, args.kv).context("--kv")?;
    let cache = KvOptions { kv: args.kv, memory: args.kv_memory, context: args.context };
    let mut engine = Engine::with_draft(&model, draft, cache)?;
    if let Some(format) = args.tool_format {
        engine = engine.with_tool_format(format);
    }
    for text in &args.lora {
        let (name, file) = split_name(text);
        let applied = lora_args::open(file, &model)?;
        let free = || engine.adapters().free_name(applied.adapter.path());
        let name = name.map_or_else(free, str::to_string);
        let on = file.len() == text.len();
        engine.adapters().add(&name, applied, on).with_context(|| format!("--lora {text}"))?;
    }
    let options = ServeOptions {
        address: SocketAddr::new(args.host, args.port),
        concurrency: args.concurrency.into(),
        queue: args.queue.into(),
        timeout: Duration::from_secs(args.timeout),
        runtime_lora: args.allow_runtime_lora.clone(),
        shutdown_timeout: Duration::from_secs(args.shutdown_timeout),
        drain_delay: Duration::from_secs(args.drain_delay),
        max_connections: args.max_connections as usize,
        max_body: args.max_body,
        allow_origins: args.allow_origin.clone(),
        allow_hosts: args.allow_host.clone(),
        api_key,
        keys: keys.map(Arc::new),
        rate_limit: Limits { requests: args.rate_limit, tokens: args.token_rate_limit },
        metrics_access: args.metrics_access.into(),
        response_cache: args.response_cache << 20,
        prompt_lookup: args.prompt_lookup,
        warm_up: !args.no_warm_up,
        pooling: args.pooling.into(),
        tls: tls.map(Arc::new),
        history: Some(Arc::new(history)),
        filters: filters.map(Arc::new),
        page: !args.no_page,
        access_log: access_log.map(Arc::new),
        ..ServeOptions::default()
    };
    let names: Vec<String> = engine.adapters().list().into_iter().map(|adapter| adapter.name).collect();
    run_blocking(engine, &options, |address| {
        let scheme = if args.tls_cert.is_some() { "https" } else { "http" };
        let mut text = format!("{} at {scheme}://{address}/v1 (Ctrl-C stops it)", file.display());
        if !args.no_page {
            text.push_str(&format!("\n  page: {scheme}://{address}/"));
        }
        if !names.is_empty() {
            text.push_str(&format!("\n  adapters: {}", names.join(", ")));
        }
        // Standard output is the access log's alone.
        if to_stdout { eprintln!("{text}") } else { println!("{text}") }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn tool_format(name: &str) -> Result<ToolFormat, String> {
    let names = ToolFormat::ALL.map(|(name, _)| name).join(", ");
    ToolFormat::named(name).ok_or_else(|| format!("expected one of {names}"))
}

/// Prints the entry of a key that standard input has.
fn hash_key(name: &str) -> Result<ExitCode> {
    let mut key = String::new();
    std::io::stdin().take(4096).read_to_string(&mut key).context("--hash-key: standard input")?;
    let entry = key_entry(name, key.trim_end_matches(['\r', '\n'])).map_err(anyhow::Error::msg);
    print!("{}", entry.context("--hash-key")?);
    Ok(ExitCode::SUCCESS)
}

/// A power in watts.
fn watts(text: &str) -> Result<f64, String> {
    let watts: Option<f64> = text.parse().ok().filter(|watts| *watts > 0.0 && *watts <= 1e6);
    watts.ok_or_else(|| "expected watts: a number above 0, up to 1,000,000".to_string())
}

/// A name, if there is one, and the rest. A file whose own name has an equals sign goes first.
fn split_name(text: &str) -> (Option<&str>, &str) {
    let whole = |text: &str| Path::new(text).exists();
    match text.split_once('=') {
        Some((name, file)) if !whole(text) && !text.rsplit_once(':').is_some_and(|(path, _)| whole(path)) => {
            (Some(name), file)
        }
        _ => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_stand_before_the_file() {
        assert_eq!(split_name("a.gguf:0.5"), (None, "a.gguf:0.5"));
        assert_eq!(split_name("law=a.gguf:0.5"), (Some("law"), "a.gguf:0.5"));
        assert_eq!(split_name("law=b=c.gguf"), (Some("law"), "b=c.gguf"));
    }
}
