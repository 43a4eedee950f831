//! A few steps of a model of the recipe's shape on random tokens, timed.

use std::time::{Duration, Instant};

use tritforge_config::{ModelConfig, WeightQuant};
use tritforge_model::{Batch, Decoder, Gradients, ModelError, Workspace, initial_adapter};

use crate::TrainError;
use crate::dry_run::memory;
use crate::ema::EmaWeights;
use crate::health::Monitor;
use crate::optimizer::{Optimizer, Step};
use crate::recipe::Recipe;
use crate::trainer::eval_sequences;
use crate::training_codes::training_codes;

/// A pass that is expected to take longer is tried with fewer tokens or layers, in seconds.
const LONGEST_PASS: f64 = 6.0;
/// Share of the measured f32 speed that is expected of training before it has been tried.
const EXPECTED_MFU: f64 = 0.5;
/// Share of the memory left that a trial may take.
const MEMORY_SHARE: f64 = 0.7;
/// Passes that are timed, and for how long.
const PASSES: (usize, usize) = (3, 40);
const BUDGET: Duration = Duration::from_secs(5);

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    layers: usize,
    sequences: usize,
    length: usize,
}

/// What was found, for the recipe's whole depth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Trial {
    pub(super) costs: Costs,
    /// Whether everything was as large as in the run.
    pub(super) whole: bool,
}

/// Seconds. All of them grow linearly with the number of layers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Costs {
    /// Forward and backward, a token.
    pub(super) pass: f64,
    /// Clipping, optimizer, quantization, a step.
    pub(super) update: f64,
    /// Scoring, a token.
    pub(super) score: f64,
    /// Writing a token of the sample.
    pub(super) sample: f64,
    /// Looking at the ternary matrices, once.
    pub(super) look: f64,
}

/// What to try: the recipe's shape if it takes seconds and the memory is there; otherwise fewer sequences,
/// then shorter ones, then fewer layers. None if two layers are too much.
pub(super) fn size(
    recipe: &Recipe,
    config: &ModelConfig,
    flops: f64,
    available: Option<u64>,
) -> Option<Size> {
    let with = |layers| ModelConfig { num_hidden_layers: layers, ..config.clone() };
    let seconds = |size: Size| {
        let work = 6.0 * with(size.layers).parameters().total() as f64;
        work * (size.sequences * size.length) as f64 / (EXPECTED_MFU * flops)
    };
    let room = available.map_or(f64::INFINITY, |bytes| MEMORY_SHARE * bytes as f64);
    let fits = |layers| {
        let memory = memory::estimate(recipe, &with(layers), 0, 0);
        (memory.total(recipe.train.gradient_checkpointing) as f64) < room
    };
    let mut size =
        Size { layers: config.num_hidden_layers, sequences: recipe.rows(), length: recipe.data.seq_len };
    while seconds(size) > LONGEST_PASS && size.sequences > 1 {
        size.sequences = size.sequences.div_ceil(2);
    }
    while seconds(size) > LONGEST_PASS && size.length > 128 {
        size.length = size.length.div_ceil(2);
    }
    while (seconds(size) > LONGEST_PASS || !fits(size.layers)) && size.layers > 2 {
        size.layers = size.layers.div_ceil(2);
    }
    fits(size.layers).then_some(size)
}

/// Tries the size given, and half its layers too where it has not all of them.
pub(super) fn run(recipe: &Recipe, config: &ModelConfig, size: Size) -> Result<Trial, TrainError> {
    let layers = config.num_hidden_layers;
    let costs = time(recipe, config, size)?;
    if size.layers == layers {
        let whole = size.sequences == recipe.rows() && size.length == recipe.data.seq_len;
        return Ok(Trial { costs, whole });
    }
    let fewer = Size { layers: size.layers / 2, ..size };
    let part = time(recipe, config, fewer)?;
    let more = (layers - size.layers) as f64 / (size.layers - fewer.layers) as f64;
    let extrapolate = |of: fn(&Costs) -> f64| of(&costs) + more * (of(&costs) - of(&part)).max(0.0);
    let costs = Costs {
        pass: extrapolate(|c| c.pass),
        update: extrapolate(|c| c.update),
        score: extrapolate(|c| c.score),
        sample: extrapolate(|c| c.sample),
        look: extrapolate(|c| c.look),
    };
    Ok(Trial { costs, whole: false })
}

/// Times every part of training at a size.
fn time(recipe: &Recipe, config: &ModelConfig, size: Size) -> Result<Costs, TrainError> {
    let config = ModelConfig { num_hidden_layers: size.layers, ..config.clone() };
    let mut random = random();
    let deviation = 3f32.sqrt() * config.initializer_range;
    let mut drawn = |_: &str, shape: &[usize]| {
        Ok::<_, ModelError>((0..shape.iter().product()).map(|_| deviation * (2.0 * random() - 1.0)).collect())
    };
    // Weights that are stored as ternary cost what those cost that are quantized once.
    let stored = config.weights == WeightQuant::Ternary;
    let weights = if stored { WeightQuant::Absmean } else { config.weights };
    let config = ModelConfig { weights, ..config };
    let mut model = match &recipe.lora {
        Some(lora) => Decoder::load_adapted(&config, &lora.config(), drawn, initial_adapter(lora.mode, 1))?,
        None => Decoder::load(&config, &mut drawn)?,
    };
    // Codes that are soft only in part of the run cost what they cost in its middle.
    model.set_training_codes(training_codes(recipe, recipe.train.steps / 2), &[])?;
    recipe.freeze(&mut model);
    model.set_grad_precision(recipe.quant.backward)?;
    let mut optimizer = Optimizer::new(recipe.optimizer_config(), model.parameters());
    let mut average = recipe.ema.map(|ema| EmaWeights::new(ema.decay, model.parameters()));
    let mut gradients = Gradients::new(model.parameters(), |p| !p.frozen);
    let mut workspace = Workspace::new(recipe.train.gradient_checkpointing);
    let mut monitor = Monitor::default();
    monitor.observe(&model, 0);
    let mut tokens = |n: usize| -> Vec<u32> {
        (0..n).map(|_| (random() * config.vocab_size as f32) as u32 % config.vocab_size as u32).collect()
    };
    let n = size.sequences * size.length;
    let ids = tokens(n + 1);
    let batch = Batch { ids: &ids[..n], targets: &ids[1..], sequences: size.sequences, segments: &[] };
    let (mut passes, mut updates) = (Vec::new(), Vec::new());
    let mut begin = Instant::now();
    // The first step is not counted: memory comes into being.
    while passes.len() < 1 + PASSES.0 || passes.len() < PASSES.1 && begin.elapsed() < BUDGET {
        gradients.clear();
        let start = Instant::now();
        model.forward_backward(&mut workspace, &batch, n as f32, &mut gradients)?;
        passes.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        model.apply_ste(recipe.quant.ste, &mut gradients);
        let norm = gradients.norm();
        let scale = if norm > 1.0 { 1.0 / norm } else { 1.0 };
        let values: Vec<_> = gradients.iter().collect();
        let step = Step {
            lr: recipe.optim.lr,
            weight_decay: recipe.optim.weight_decay,
            gradient_scale: scale,
            decays: true,
        };
        optimizer.step(model.parameters(), &values, step)?;
        if let Some(average) = &mut average {
            average.update(model.parameters(), optimizer.steps());
        }
        model.requantize()?;
        updates.push(start.elapsed().as_secs_f64());
        if passes.len() == 1 {
            begin = Instant::now();
        }
    }
    let sequences = eval_sequences(size.length, config.vocab_size);
    let ids = tokens(sequences * size.length + 1);
    let n = ids.len() - 1;
    let batch = Batch { ids: &ids[..n], targets: &ids[1..], sequences, segments: &[] };
    let score = median(&timed(3, || Ok(model.score(&batch).map(|_| ())?))?);
    // The sequence grows while a sample is written: half of it is the mean.
    let written = recipe.sample.prompt.len() / 3 + recipe.sample.tokens / 2;
    let window = tokens(written.clamp(1, config.max_position_embeddings));
    let sample = median(&timed(5, || Ok(model.logits(&window, 1, None).map(|_| ())?))?);
    let look = median(&timed(1, || {
        monitor.observe(&model, 1);
        Ok(())
    })?);
    Ok(Costs {
        pass: median(&passes[1..]) / (size.sequences * size.length) as f64,
        update: median(&updates[1..]),
        score: score / n as f64,
        sample,
        look,
    })
}

fn timed(repeats: usize, mut work: impl FnMut() -> Result<(), TrainError>) -> Result<Vec<f64>, TrainError> {
    let once = |_| {
        let start = Instant::now();
        work().map(|()| start.elapsed().as_secs_f64())
    };
    (0..repeats).map(once).collect()
}

fn median(seconds: &[f64]) -> f64 {
    let mut seconds = seconds.to_vec();
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Numbers from 0 to 1, good enough to be multiplied.
fn random() -> impl FnMut() -> f32 {
    let mut state = 1u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const RECIPE: &str = "[model]\nhidden_size = 32\nintermediate_size = 64\nnum_hidden_layers = 8\n\
        num_attention_heads = 2\n[quant]\nweights = \"none\"\n[data]\ntrain = [\"x.txt\"]\nseq_len = 256\n[train]\nsteps = 3\nbatch_size = 4\n";

    fn recipe() -> (Recipe, ModelConfig) {
        let recipe = Recipe::from_toml(Path::new("r.toml"), RECIPE, &[]).unwrap();
        let config = recipe.model_config(100).unwrap();
        (recipe, config)
    }

    #[test]
    fn what_is_tried_shrinks_with_the_machine() {
        let (recipe, config) = recipe();
        let whole = Size { layers: 8, sequences: 4, length: 256 };
        assert_eq!(size(&recipe, &config, 1e12, Some(1 << 40)), Some(whole));
        assert_eq!(size(&recipe, &config, 1e12, None), Some(whole));
        let work = 6.0 * config.parameters().total() as f64 * 256.0;
        // A machine that needs just over the limit for two sequences.
        let slow = 2.0 * work / (EXPECTED_MFU * LONGEST_PASS) * 0.99;
        assert_eq!(size(&recipe, &config, slow, None), Some(Size { sequences: 1, ..whole }));
        let slow = work / (EXPECTED_MFU * LONGEST_PASS) * 0.55;
        assert_eq!(size(&recipe, &config, slow, None), Some(Size { sequences: 1, length: 128, ..whole }));
        let tried = size(&recipe, &config, slow / 8.0, None).unwrap();
        assert!(tried.layers == 2 && tried.length == 128, "{tried:?}");
        assert_eq!(size(&recipe, &config, 1e12, Some(1000)), None);
    }

    #[test]
    fn a_trial_of_half_the_layers_is_extrapolated() {
        let (recipe, config) = recipe();
        let tried = run(&recipe, &config, Size { layers: 2, sequences: 1, length: 16 }).unwrap();
        let Costs { pass, update, score, sample, look } = tried.costs;
        assert!(!tried.whole && [pass, update, score, sample, look].iter().all(|seconds| *seconds >= 0.0));
        assert!(run(&recipe, &config, Size { layers: 8, sequences: 4, length: 256 }).unwrap().whole);
    }
}
