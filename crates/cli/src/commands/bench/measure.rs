//! The rows of a benchmark: what is run, how often, how long it took.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use indicatif::ProgressBar;
use serde::Serialize;
use tritforge_export::gguf_file;
use tritforge_infer::{
    KvType, LogitsRequest, Model, NeededLogits, SequenceInput, Session, Table, step_needed,
};
use tritforge_kernels::{Backend, TernaryWeights, set_threads};
use tritforge_machine::{int8_peak, read_bandwidth, resident};
use tritforge_support::counted;

use crate::commands::device_args::DeviceArgs;

/// What to run: every combination that makes sense.
pub(super) struct Plan {
    pub(super) prompts: Vec<usize>,
    pub(super) generate: Vec<usize>,
    pub(super) depths: Vec<usize>,
    pub(super) batches: Vec<usize>,
    pub(super) threads: Vec<usize>,
    pub(super) repetitions: usize,
    pub(super) kv: KvType,
}

/// What a machine can do with a number of threads.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    pub(super) threads: usize,
    /// GB/s.
    pub(super) read_bandwidth: f64,
    /// GMAC/s of `vpmaddubsw` + `vpaddw` in registers.
    pub(super) avx2_peak: Option<f64>,
    /// GMAC/s of `vpdpbusd` in registers of 256 bits.
    pub(super) avx_vnni_peak: Option<f64>,
    /// GMAC/s of `vpdpbusd` in registers of 512 bits.
    pub(super) avx512_peak: Option<f64>,
}

/// A model and its rows.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Measured {
    pub(super) model: String,
    pub(super) parameters: u64,
    pub(super) file_bytes: usize,
    /// Ternary weights as they are kept in memory.
    pub(super) weight_bytes: usize,
    /// Weights, head: what every token reads.
    pub(super) bytes_a_token: usize,
    /// Multiply-accumulates with ternary weights a token.
    pub(super) macs_a_token: u64,
    pub(super) backend: String,
    pub(super) kv: String,
    pub(super) load_seconds: f64,
    /// Largest resident set of the process so far.
    pub(super) peak_rss_bytes: Option<u64>,
    pub(super) rows: Vec<Row>,
}

/// One row.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    /// `pp512`, `tg128@d1024`, `tg128x8`.
    pub(super) test: String,
    pub(super) threads: usize,
    /// Whether the row decodes: bound by memory.
    pub(super) decodes: bool,
    pub(super) batch: usize,
    /// Bytes of keys and values that a token reads, on average.
    pub(super) kv_bytes: usize,
    /// Tokens/s of every repetition.
    pub(super) tokens_per_second: Vec<f64>,
}

impl Row {
    pub(super) fn mean(&self) -> f64 {
        self.tokens_per_second.iter().sum::<f64>() / self.tokens_per_second.len() as f64
    }

    /// Standard deviation of the samples.
    pub(super) fn deviation(&self) -> f64 {
        let (n, mean) = (self.tokens_per_second.len(), self.mean());
        if n < 2 {
            return 0.0;
        }
        let squares: f64 = self.tokens_per_second.iter().map(|x| (x - mean).powi(2)).sum();
        (squares / (n - 1) as f64).sqrt()
    }

    pub(super) fn median(&self) -> f64 {
        let mut sorted = self.tokens_per_second.clone();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        if n.is_multiple_of(2) { f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]) } else { sorted[n / 2] }
    }
}

/// Measures the machine with a number of threads.
pub(super) fn machine(threads: usize) -> Result<Machine> {
    set_threads(threads);
    Ok(Machine {
        threads,
        read_bandwidth: read_bandwidth().context("cannot measure the memory's speed")? * 1e-9,
        avx2_peak: int8_peak(Backend::Avx2).map(|rate| rate * 1e-9),
        avx_vnni_peak: int8_peak(Backend::AvxVnni).map(|rate| rate * 1e-9),
        avx512_peak: int8_peak(Backend::Avx512Vnni).map(|rate| rate * 1e-9),
    })
}

/// A row to run.
struct Test {
    name: String,
    depth: usize,
    tokens: usize,
    batch: usize,
    decodes: bool,
}

impl Plan {
    fn tests(&self) -> Vec<Test> {
        let mut tests = Vec::new();
        for depth in &self.depths {
            let at = if *depth > 0 { format!("@d{depth}") } else { String::new() };
            for tokens in self.prompts.iter().filter(|n| **n > 0) {
                let name = format!("pp{tokens}{at}");
                tests.push(Test { name, depth: *depth, tokens: *tokens, batch: 1, decodes: false });
            }
            for tokens in self.generate.iter().filter(|n| **n > 0) {
                for batch in &self.batches {
                    let times = if *batch > 1 { format!("x{batch}") } else { String::new() };
                    let name = format!("tg{tokens}{times}{at}");
                    tests.push(Test { name, depth: *depth, tokens: *tokens, batch: *batch, decodes: true });
                }
            }
        }
        tests
    }
}

/// Runs the plan on a model.
pub(super) fn model(path: &Path, device: &DeviceArgs, plan: &Plan) -> Result<Measured> {
    let begin = Instant::now();
    let mut model = Model::open(&gguf_file(path)?)?;
    let gpu = device.place(&mut model)?;
    let model = Arc::new(model);
    let load_seconds = begin.elapsed().as_secs_f64();
    let tests = plan.tests();
    let context = model.config().max_position_embeddings;
    if let Some(test) = tests.iter().find(|test| test.depth + test.tokens > context) {
        let name = &test.name;
        bail!(
            "{}: {name} needs {} of context, the model has {context}",
            path.display(),
            counted(test.depth + test.tokens, "token")
        );
    }
    let bar = ProgressBar::new((tests.len() * plan.threads.len() * (plan.repetitions + 1)) as u64);
    let mut rows = Vec::new();
    for threads in &plan.threads {
        for test in &tests {
            set_threads(*threads);
            bar.set_message(test.name.clone());
            rows.push(row(&model, test, *threads, plan, &bar)?);
        }
    }
    bar.finish_and_clear();
    let memory = model.memory();
    // A decoding step reads the whole head, and one row of an embedding that is not the head.
    let (embedding, head) = (model.embedding(), model.head());
    let untied = !model.config().tie_word_embeddings;
    let looked_up = embedding.ternary().filter(|_| untied).map_or(0, TernaryWeights::packed_bytes);
    let head_bytes = match &head {
        Table::Dense(head) => head.stored_bytes(),
        Table::Ternary(..) => 0,
    };
    let head_macs = head.ternary().map_or(0, |head| (head.rows() * head.cols()) as u64);
    Ok(Measured {
        model: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        parameters: model.config().parameters().total() as u64,
        file_bytes: memory.file_bytes,
        weight_bytes: memory.weight_bytes,
        bytes_a_token: memory.weight_bytes + head_bytes - looked_up,
        macs_a_token: head_macs
            + model.ternary().map(|t| (t.weights.rows() * t.weights.cols()) as u64).sum::<u64>(),
        backend: gpu.unwrap_or_else(|| Backend::active().to_string()),
        kv: plan.kv.to_string(),
        load_seconds,
        peak_rss_bytes: resident().map(|memory| memory.peak),
        rows,
    })
}

fn row(model: &Arc<Model>, test: &Test, threads: usize, plan: &Plan, bar: &ProgressBar) -> Result<Row> {
    let vocab = model.config().vocab_size as u32;
    let ids: Vec<u32> =
        (0..(test.depth + test.tokens) as u32).map(|i| i.wrapping_mul(2_654_435_761) % vocab).collect();
    let (before, after) = ids.split_at(test.depth);
    let mut sessions = (0..test.batch)
        .map(|_| Session::with_kv(Arc::clone(model), ids.len(), plan.kv))
        .collect::<Result<Vec<_>, _>>()?;
    if !before.is_empty() {
        for session in &mut sessions {
            session.forward(before, LogitsRequest::None)?;
        }
    }
    // What a greedy choice looks at.
    let needed = vec![Some(NeededLogits { largest: 1, ids: Vec::new() }); test.batch];
    let mut tokens_per_second = Vec::with_capacity(plan.repetitions);
    for repetition in 0..=plan.repetitions {
        sessions.iter_mut().for_each(|session| session.truncate(test.depth));
        let begin = Instant::now();
        if test.decodes {
            for id in after {
                let ids = [*id];
                let mut parts: Vec<SequenceInput<'_>> = sessions
                    .iter_mut()
                    .map(|session| SequenceInput { session, ids: &ids, request: LogitsRequest::Last })
                    .collect();
                step_needed(&mut parts, &needed)?;
            }
        } else {
            sessions[0].forward(after, LogitsRequest::Last)?;
        }
        let seconds = begin.elapsed().as_secs_f64();
        if repetition > 0 {
            tokens_per_second.push((test.tokens * test.batch) as f64 / seconds);
        }
        bar.inc(1);
    }
    let kv_bytes_a_position =
        2 * model.config().num_hidden_layers * model.config().kv_size() * plan.kv.size();
    Ok(Row {
        test: test.name.clone(),
        threads,
        decodes: test.decodes,
        batch: test.batch,
        kv_bytes: (test.depth + test.tokens / 2) * kv_bytes_a_position,
        tokens_per_second,
    })
}
