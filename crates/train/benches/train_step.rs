//! Whole training steps at the shapes S, M and L: tokens a second, its share of the machine's f32 speed
//! (MFU), where the time goes, and memory.
//!
//! `cargo bench -p tritforge-train -- [S|M|L] [--steps N] [--checkpointing] [--backward B] [--lora
//! adapter|qat_lora|lota] [--json]`, B being auto, int24, f32, int16 or int8. A step is forward and backward,
//! clipping's norm, AdamW and the quantization of the weights. MFU counts 6 operations a parameter and token,
//! also those that integers replace. `--lora` trains an adapter of rank 16 on all seven projections of a
//! frozen base; ternary adapters move by t-SignSGD.

use std::time::Instant;

use tritforge_config::{HiddenAct, LOTA_THRESHOLD, LoraConfig, LoraMode, ModelConfig, Projection};
use tritforge_kernels::{Matrix, WriteMode, gemm};
use tritforge_model::{Batch, Decoder, GradPrecision, Gradients, ModelError, Workspace, initial_adapter};
use tritforge_train::{AdamW, Optimizer, OptimizerConfig, Rule, Step, StoredType, TSignSgd};

/// Steps before the measured ones.
const WARM_UP: usize = 2;

struct Options {
    shape: String,
    steps: usize,
    checkpointing: bool,
    backward: GradPrecision,
    lora: Option<LoraMode>,
    json: bool,
}

/// Rank of the adapters.
const RANK: usize = 16;

fn options() -> Result<Options, String> {
    let mut options = Options {
        shape: "S".to_string(),
        steps: 7,
        checkpointing: false,
        backward: GradPrecision::Auto,
        lora: None,
        json: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "S" | "M" | "L" => options.shape = argument,
            "--steps" => {
                let steps = arguments.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                options.steps = steps.ok_or("--steps: expected a number of steps")?;
            }
            "--backward" => {
                let name = arguments.next().unwrap_or_default();
                let known = GradPrecision::ALL.into_iter().find(|backward| backward.name() == name);
                options.backward = known.ok_or("--backward: expected auto, int24, f32, int16 or int8")?;
            }
            "--lora" => {
                let name = arguments.next().unwrap_or_default();
                let known = LoraMode::ALL.into_iter().find(|mode| mode.name() == name);
                options.lora = Some(known.ok_or("--lora: expected adapter, qat_lora or lota")?);
            }
            "--checkpointing" => options.checkpointing = true,
            "--json" => options.json = true,
            // What `cargo bench` adds by itself.
            "--bench" => {}
            other => {
                return Err(format!(
                    "unknown argument {other}: expected S, M, L, --steps N, --checkpointing, --backward B, --lora MODE, --json"
                ));
            }
        }
    }
    Ok(options)
}

/// The model, and how many sequences of how many tokens a step takes.
fn shape(name: &str) -> (ModelConfig, usize, usize) {
    let (d, layers, heads, kv, ffn, vocab, length, sequences) = match name {
        "S" => (256, 6, 4, 2, 768, 4096, 256, 8),
        "M" => (512, 8, 8, 4, 1536, 8192, 512, 4),
        _ => (768, 12, 12, 4, 2048, 32000, 512, 2),
    };
    let config = ModelConfig {
        hidden_size: d,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: kv,
        head_dim: d / heads,
        intermediate_size: ffn,
        vocab_size: vocab,
        hidden_act: HiddenAct::Relu2,
        max_position_embeddings: length,
        ..ModelConfig::default()
    };
    (config, sequences, length)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// GFLOP/s of this machine's best f32 product: [2048, 2048] · [2048, 2048].
fn peak() -> f64 {
    const N: usize = 2048;
    let (a, b) = (vec![0.5f32; N * N], vec![0.25f32; N * N]);
    let mut c = vec![0f32; N * N];
    let (a, b) = (Matrix::f32(&a, N, N), Matrix::f32(&b, N, N));
    let mut best = f64::INFINITY;
    for _ in 0..9 {
        let begin = Instant::now();
        gemm(a, b, &mut c, WriteMode::Overwrite);
        best = best.min(begin.elapsed().as_secs_f64());
    }
    2.0 * (N * N * N) as f64 / best / 1e9
}

/// The most memory that the process held, in MB.
fn peak_rss() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
    kilobytes.unwrap_or(f64::NAN) / 1024.0
}

fn model(config: &ModelConfig, lora: Option<LoraMode>) -> Result<Decoder, ModelError> {
    let Some(mode) = lora else { return Decoder::init(config, 1) };
    let target_modules = Projection::ALL.to_vec();
    let threshold = LOTA_THRESHOLD;
    let lora = LoraConfig {
        mode,
        rank: RANK,
        alpha: 32.0,
        dropout: 0.0,
        use_rslora: false,
        target_modules,
        threshold,
    };
    let mut state = 1u64;
    let base = |_: &str, shape: &[usize]| {
        let mut drawn = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        let n = shape.iter().product();
        Ok(if shape.len() == 1 { vec![1.0; n] } else { (0..n).map(|_| 0.07 * drawn()).collect() })
    };
    Decoder::load_adapted(config, &lora, base, initial_adapter(mode, 1))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = options()?;
    // SAFETY: no thread has been started yet.
    unsafe { tritforge_machine::configure_threads(None) };
    tritforge_machine::keep_pages();
    let (config, sequences, length) = shape(&options.shape);
    let parameters = config.parameters().total();
    let mut model = model(&config, options.lora)?;
    model.set_grad_precision(options.backward)?;
    let tokens = sequences * length;
    let vocab = config.vocab_size as u64;
    let ids: Vec<u32> = (0..=tokens as u64).map(|i| (i * 2_654_435_761 % vocab) as u32).collect();
    let batch = Batch { ids: &ids[..tokens], targets: &ids[1..], sequences, segments: &[] };
    let mut workspace = Workspace::new(options.checkpointing);
    let mut gradients = Gradients::new(model.parameters(), |_| true);
    let (rule, lr) = match options.lora {
        Some(LoraMode::Lota) => (Rule::TSignSgd(TSignSgd), 0.05),
        _ => (Rule::AdamW(AdamW { betas: (0.9, 0.95), eps: 1e-8 }), 1e-3),
    };
    let config = OptimizerConfig { rule, state: StoredType::F32, master: StoredType::F32, seed: 1 };
    let mut optimizer = Optimizer::new(config, model.parameters());
    let mut laps = vec![];
    for step in 0..WARM_UP + options.steps {
        let begin = Instant::now();
        workspace.set_noise(step as u64);
        gradients.clear();
        let loss = model.forward_backward(&mut workspace, &batch, tokens as f32, &mut gradients)?;
        let passed = begin.elapsed().as_secs_f64();
        let norm = gradients.norm();
        let scale = if norm > 1.0 { 1.0 / norm } else { 1.0 };
        let values: Vec<_> = gradients.iter().collect();
        optimizer.step(
            model.parameters(),
            &values,
            Step { lr, weight_decay: 0.1, gradient_scale: scale, decays: true },
        )?;
        let updated = begin.elapsed().as_secs_f64();
        model.requantize()?;
        let end = begin.elapsed().as_secs_f64();
        assert!(loss.is_finite() && norm.is_finite(), "the run diverged");
        laps.push([passed, updated - passed, end - updated, end]);
    }
    let rss = peak_rss();
    let [pass, update, quantize, step] =
        std::array::from_fn(|i| median(laps[WARM_UP..].iter().map(|lap| lap[i]).collect()));
    let speed = tokens as f64 / step;
    let best = laps[WARM_UP..].iter().map(|lap| lap[3]).fold(f64::INFINITY, f64::min);
    let best = tokens as f64 / best;
    let peak = peak();
    let mfu = 6.0 * parameters as f64 * speed / (peak * 1e9);
    let (kept, all) = (workspace.activation_bytes() as f64 / 1e6, workspace.bytes() as f64 / 1e6);
    if options.json {
        println!(
            "{{\"shape\": \"{}\", \"checkpointing\": {}, \"backward\": \"{}\", \"parameters\": {parameters}, \"tokens_per_second\": {speed:.1}, \
             \"best_tokens_per_second\": {best:.1}, \
             \"step_ms\": {:.2}, \"forward_backward_ms\": {:.2}, \"optimizer_ms\": {:.2}, \"quantize_ms\": {:.2}, \
             \"gemm_gflops\": {peak:.1}, \"mfu\": {mfu:.4}, \"activation_mb\": {kept:.1}, \"workspace_mb\": {all:.1}, \
             \"peak_rss_mb\": {rss:.1}}}",
            options.shape,
            options.checkpointing,
            options.backward.name(),
            1e3 * step,
            1e3 * pass,
            1e3 * update,
            1e3 * quantize,
        );
        return Ok(());
    }
    let backward = options.backward.name();
    println!("shape {}, {parameters} parameters, {tokens} tokens a step, backward {backward}", options.shape);
    println!(
        "forward and backward {:.1} ms, clipping and AdamW {:.1}, quantization {:.1}",
        1e3 * pass,
        1e3 * update,
        1e3 * quantize
    );
    println!("{speed:.0} tokens/s (fastest step {best:.0}), MFU {:.1} % of {peak:.0} GFLOP/s", 1e2 * mfu);
    println!("activations {kept:.0} MB, with buffers {all:.0} MB; peak RSS {rss:.0} MB");
    Ok(())
}
