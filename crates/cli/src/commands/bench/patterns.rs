//! Real prompts at three settings: what a user of a service would feel.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tritforge_export::gguf_file;
use tritforge_infer::{KvType, LogitsRequest, Model, SequenceInput, Session, step};
use tritforge_kernels::{max_threads, set_threads};
use tritforge_machine::resident;
use tritforge_support::counted;

use super::Format;

/// Prompts that `aggressive` runs at once.
const TOGETHER: usize = 8;

/// What a setting gave.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Setting {
    name: &'static str,
    requests: usize,
    /// From the moment a prompt is taken up to its first token, median and 95th percentile, in seconds.
    first_token_p50: f64,
    first_token_p95: f64,
    /// Tokens generated a second, over the whole run.
    tokens_per_second: f64,
    requests_a_minute: f64,
    peak_rss_bytes: Option<u64>,
}

/// Runs every prompt of a file at every setting, greedily, with `tokens` tokens of answer.
pub(super) fn run(model: &Path, file: &Path, tokens: usize) -> Result<Vec<Setting>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{}: cannot read", file.display()))?;
    let model = Arc::new(Model::open(&gguf_file(model)?)?);
    let context = model.config().max_position_embeddings;
    let mut prompts = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let ids = model.tokenizer().encode(line, model.tokenizer().adds_bos())?;
        if ids.is_empty() || ids.len() + tokens > context {
            let (file, found) = (file.display(), ids.len());
            bail!(
                "{file}:{}: a prompt of {found} and an answer of {tokens} do not fit in a context of \
                 {context}",
                i + 1,
                found = counted(found, "token")
            );
        }
        prompts.push(ids);
    }
    if prompts.is_empty() {
        bail!("{}: no prompts: expected one per line", file.display());
    }
    let run = |name, threads, one: &dyn Fn() -> Result<Vec<Duration>>| -> Result<Setting> {
        set_threads(threads);
        let begin = Instant::now();
        let mut first = one()?;
        let seconds = begin.elapsed().as_secs_f64();
        first.sort();
        let at = |share: f64| first[((first.len() - 1) as f64 * share).ceil() as usize].as_secs_f64();
        Ok(Setting {
            name,
            requests: prompts.len(),
            first_token_p50: at(0.5),
            first_token_p95: at(0.95),
            tokens_per_second: (prompts.len() * tokens) as f64 / seconds,
            requests_a_minute: 60.0 * prompts.len() as f64 / seconds,
            peak_rss_bytes: resident().map(|memory| memory.peak),
        })
    };
    Ok(vec![
        run("baseline", 1, &|| one_by_one(&model, &prompts, tokens, KvType::F32, false))?,
        run("optimized", max_threads(), &|| one_by_one(&model, &prompts, tokens, KvType::F16, true))?,
        run("aggressive", max_threads(), &|| together(&model, &prompts, tokens))?,
    ])
}

/// A prompt after the other; returns the time to each first token.
fn one_by_one(
    model: &Arc<Model>,
    prompts: &[Vec<u32>],
    tokens: usize,
    kv: KvType,
    reuse: bool,
) -> Result<Vec<Duration>> {
    let mut session = Session::with_kv(Arc::clone(model), model.config().max_position_embeddings, kv)?;
    let mut first = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let begin = Instant::now();
        let kept = if reuse { session.reuse_prefix(prompt) } else { 0 };
        session.truncate(kept);
        let mut logits = session.forward(&prompt[kept..], LogitsRequest::Last)?;
        first.push(begin.elapsed());
        for _ in 1..tokens {
            logits = session.forward(&[greedy(&logits)], LogitsRequest::Last)?;
        }
    }
    Ok(first)
}

/// Up to [`TOGETHER`] prompts in the same passes; a finished one makes room for the next.
fn together(model: &Arc<Model>, prompts: &[Vec<u32>], tokens: usize) -> Result<Vec<Duration>> {
    struct Running {
        session: Session,
        next: Vec<u32>,
        begin: Instant,
        made: usize,
    }
    let mut waiting = prompts.iter();
    let mut running: Vec<Running> = Vec::new();
    let mut first = Vec::with_capacity(prompts.len());
    loop {
        while running.len() < TOGETHER
            && let Some(prompt) = waiting.next()
        {
            let session = Session::new(Arc::clone(model), prompt.len() + tokens)?;
            running.push(Running { session, next: prompt.clone(), begin: Instant::now(), made: 0 });
        }
        if running.is_empty() {
            return Ok(first);
        }
        let mut parts: Vec<SequenceInput<'_>> = running
            .iter_mut()
            .map(|r| SequenceInput { session: &mut r.session, ids: &r.next, request: LogitsRequest::Last })
            .collect();
        let logits = step(&mut parts)?;
        for (r, logits) in running.iter_mut().zip(logits) {
            if r.made == 0 {
                first.push(r.begin.elapsed());
            }
            r.made += 1;
            r.next = vec![greedy(&logits)];
        }
        running.retain(|r| r.made < tokens);
    }
}

fn greedy(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or(0) as u32
}

/// The settings as text.
pub(super) fn print(settings: &[Setting], format: Format) -> String {
    let rss = |s: &Setting| s.peak_rss_bytes.map(|n| n.to_string()).unwrap_or_default();
    let lines = |head: &str, line: &dyn Fn(&Setting) -> String| -> String {
        std::iter::once(head.to_string()).chain(settings.iter().map(line)).map(|line| line + "\n").collect()
    };
    match format {
        Format::Json => {
            serde_json::to_string_pretty(settings).expect("plain structs of numbers and strings") + "\n"
        }
        Format::Csv => lines(
            "setting,requests,first_token_p50,first_token_p95,tokens_per_second,requests_a_minute,peak_rss_bytes",
            &|s| {
                let (p50, p95, rate) = (s.first_token_p50, s.first_token_p95, s.tokens_per_second);
                format!(
                    "{},{},{p50:.4},{p95:.4},{rate:.2},{:.2},{}",
                    s.name,
                    s.requests,
                    s.requests_a_minute,
                    rss(s)
                )
            },
        ),
        Format::Md => lines(
            "| setting | requests | first token p50 | p95 | tokens/s | requests/min | peak RSS so far |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            &|s| {
                format!(
                    "| {} | {} | {:.0} ms | {:.0} ms | {:.1} | {:.1} | {} |",
                    s.name,
                    s.requests,
                    1e3 * s.first_token_p50,
                    1e3 * s.first_token_p95,
                    s.tokens_per_second,
                    s.requests_a_minute,
                    s.peak_rss_bytes.map_or("unknown".to_string(), crate::table::bytes)
                )
            },
        ),
    }
}
