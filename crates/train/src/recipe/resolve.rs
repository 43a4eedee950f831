//! From entries to a whole recipe: every key read, every default filled in.

use std::path::{Path, PathBuf};

use tritforge_config::{ActivationQuant, HiddenAct, ModelConfig, WeightQuant};
use tritforge_data::Packing;
use tritforge_kernels::DenseType;
use tritforge_ternary::Packing as TernaryPacking;

use super::reader::Reader;
use super::sections::{
    Data, DataSource, Export, Model, Optim, OptimKind, Quant, Run, SHARD_TOKENS, Sample, Schedule, SplitKind,
    Tokenizer, TokenizerKind, Train, recipe_name,
};
use super::{Recipe, sources, validate};

/// Tokens of a sample where the recipe does not say.
const SEQ_LEN: usize = 256;
/// Vocabulary of a BPE where the recipe does not say.
const VOCAB_SIZE: usize = 4096;

/// Reads every key. Faults are noted in the reader; the recipe is of use only if there are none.
pub(super) fn resolve(r: &mut Reader, path: &Path) -> Recipe {
    let run = run(r, path);
    let data = data(r);
    let vocab_inline = r.has_inline("model", "vocab_size");
    let (mut model, quant) = (model(r, data.seq_len), quant(r));
    let tokenizer = tokenizer(r, model.vocab_size);
    if !vocab_inline {
        // The shape's file only says what size it was made for.
        model.vocab_size = None;
    }
    let train = train(r);
    let optim = optim(r, train.steps);
    let sample = sample(r);
    let export = export(r, &model, quant);
    Recipe { run, model, quant, tokenizer, data, optim, train, sample, export }
}

fn run(r: &mut Reader, path: &Path) -> Run {
    let stem = path.file_stem().map_or("run".to_string(), |s| s.to_string_lossy().into_owned());
    let name = r.text("run", "name").unwrap_or(stem);
    // An output directory is made, so it is never looked for beside the recipe.
    let out = r.text("run", "out").map(PathBuf::from);
    let out = out.unwrap_or_else(|| Path::new("runs").join(&name));
    Run { name, out, seed: r.integer("run", "seed", 0, i64::MAX as u64).unwrap_or(0) }
}

fn data(r: &mut Reader) -> Data {
    let train = r.paths("data", "train");
    let sources = [("files", DataSource::Files), ("rust-sources", DataSource::RustSources)];
    let source = r.choice("data", "source", &sources);
    let tables = sources::sources(r);
    if ["train", "source", "sources"].into_iter().all(|key| !r.given("data", key)) {
        r.missing(
            "data",
            "train",
            "files of text, as in train = [\"corpus.txt\"], or source = \"rust-sources\"",
        );
    }
    let splits = [("contiguous", SplitKind::Contiguous), ("document", SplitKind::Document)];
    let packings = [("concat", Packing::Concat), ("documents", Packing::Documents)];
    Data {
        source: source.unwrap_or(DataSource::Files),
        train: train.unwrap_or_default(),
        column: r.text("data", "column").unwrap_or_else(|| "text".to_string()),
        held_out: r.number("data", "held_out", "above 0 and below 1", |x| x > 0.0 && x < 1.0).unwrap_or(0.1),
        split: r.choice("data", "split", &splits).unwrap_or(SplitKind::Contiguous),
        seq_len: r.size("data", "seq_len", 1).unwrap_or(SEQ_LEN),
        packing: r.choice("data", "packing", &packings).unwrap_or_default(),
        shard_tokens: r.integer("data", "shard_tokens", 1, 1 << 40).map_or(SHARD_TOKENS, |n| n as usize),
        sources: tables,
    }
}

fn model(r: &mut Reader, seq_len: usize) -> Model {
    let default = ModelConfig::default();
    let vocab_size = r.size("model", "vocab_size", 1);
    let mut needed = |key, what: &str| {
        let size = r.size("model", key, 1);
        if size.is_none() && !r.given("model", key) {
            r.missing("model", key, &format!("{what}, or config = \"configs/….toml\""));
        }
        size.unwrap_or(1)
    };
    let hidden_size = needed("hidden_size", "the model's width");
    let intermediate_size = needed("intermediate_size", "the feed-forward network's width");
    let num_hidden_layers = needed("num_hidden_layers", "the number of blocks");
    let num_attention_heads = needed("num_attention_heads", "the number of heads");
    let num_key_value_heads = r.size("model", "num_key_value_heads", 1).unwrap_or(num_attention_heads);
    let head_dim = r.size("model", "head_dim", 1);
    if head_dim.is_none() && !hidden_size.is_multiple_of(num_attention_heads) && r.faults.is_empty() {
        let message = format!(
            "model.num_attention_heads = {num_attention_heads}: it must divide model.hidden_size = {hidden_size}, \
             or model.head_dim must be given"
        );
        r.fault("model", "num_attention_heads", message);
    }
    let acts = [("silu", HiddenAct::Silu), ("relu2", HiddenAct::Relu2)];
    let positive = |x: f64| x > 0.0;
    Model {
        vocab_size,
        hidden_size,
        intermediate_size,
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads,
        head_dim: head_dim.unwrap_or(hidden_size / num_attention_heads),
        hidden_act: r.choice("model", "hidden_act", &acts).unwrap_or(default.hidden_act),
        max_position_embeddings: r.size("model", "max_position_embeddings", 1).unwrap_or(seq_len),
        rms_norm_eps: r.number("model", "rms_norm_eps", "above 0", positive).unwrap_or(1e-5),
        rope_theta: r.number("model", "rope_theta", "above 1", |x| x > 1.0).unwrap_or(10_000.0),
        tie_word_embeddings: r.flag("model", "tie_word_embeddings").unwrap_or(default.tie_word_embeddings),
        use_sub_norm: r.flag("model", "use_sub_norm").unwrap_or(default.use_sub_norm),
        initializer_range: r.number("model", "initializer_range", "above 0", positive).unwrap_or(0.02),
    }
}

fn quant(r: &mut Reader) -> Quant {
    let weights = [("absmean", WeightQuant::Absmean), ("none", WeightQuant::None)];
    let activations = [("absmax", ActivationQuant::Absmax), ("none", ActivationQuant::None)];
    let default = Quant::default();
    Quant {
        weights: r.choice("quant", "weights", &weights).unwrap_or(default.weights),
        activations: r.choice("quant", "activations", &activations).unwrap_or(default.activations),
    }
}

fn tokenizer(r: &mut Reader, model_vocab_size: Option<usize>) -> Tokenizer {
    let kinds = [
        ("bpe", TokenizerKind::Bpe),
        ("characters", TokenizerKind::Characters),
        ("file", TokenizerKind::File),
    ];
    let kind = r.choice("tokenizer", "kind", &kinds).unwrap_or(TokenizerKind::Bpe);
    // A byte-level BPE begins with the 256 bytes.
    let vocab_size = r.size("tokenizer", "vocab_size", 257);
    let path = r.path("tokenizer", "path");
    let default = if kind == TokenizerKind::Bpe { model_vocab_size.unwrap_or(VOCAB_SIZE) } else { 0 };
    Tokenizer { kind, vocab_size: vocab_size.unwrap_or(default), path }
}

fn optim(r: &mut Reader, steps: u64) -> Optim {
    let schedules = [
        ("cosine", Schedule::Cosine),
        ("linear", Schedule::Linear),
        ("constant", Schedule::Constant),
        ("wsd", Schedule::Wsd),
    ];
    let default = Optim::default();
    let positive = |x: f64| x > 0.0;
    let not_negative = |x: f64| x >= 0.0;
    let schedule = r.choice("optim", "schedule", &schedules).unwrap_or(default.schedule);
    let decay = if schedule == Schedule::Wsd { (steps / 5).max(1) } else { 0 };
    Optim {
        kind: r.choice("optim", "kind", &[("adamw", OptimKind::AdamW)]).unwrap_or(default.kind),
        lr: r.number("optim", "lr", "above 0 and at most 10", |x| x > 0.0 && x <= 10.0).unwrap_or(default.lr),
        betas: r
            .pair("optim", "betas", "from 0 to less than 1", |x| (0.0..1.0).contains(&x))
            .unwrap_or(default.betas),
        eps: r.number("optim", "eps", "above 0", positive).unwrap_or(default.eps),
        weight_decay: r
            .number("optim", "weight_decay", "of at least 0", not_negative)
            .unwrap_or(default.weight_decay),
        grad_clip: r
            .number("optim", "grad_clip", "of at least 0 (0 does not clip)", not_negative)
            .unwrap_or(default.grad_clip),
        warmup_steps: r.integer("optim", "warmup_steps", 0, u64::MAX).unwrap_or((steps / 20).min(500)),
        schedule,
        min_lr_ratio: r
            .number("optim", "min_lr_ratio", "from 0 to 1", |x| (0.0..=1.0).contains(&x))
            .unwrap_or(default.min_lr_ratio),
        decay_steps: r.integer("optim", "decay_steps", 1, u64::MAX).unwrap_or(decay),
    }
}

fn train(r: &mut Reader) -> Train {
    let steps = r.integer("train", "steps", 1, 1 << 40);
    if steps.is_none() && !r.given("train", "steps") {
        r.missing("train", "steps", "the number of optimizer steps");
    }
    let steps = steps.unwrap_or(1);
    let eval_every = r.integer("train", "eval_every", 1, u64::MAX).unwrap_or((steps / 10).max(1));
    Train {
        steps,
        batch_size: r.integer("train", "batch_size", 1, 1 << 20).unwrap_or(8) as usize,
        gradient_accumulation: r.integer("train", "gradient_accumulation", 1, 1 << 20).unwrap_or(1) as usize,
        eval_every,
        eval_tokens: r.integer("train", "eval_tokens", 1, 1 << 40).map(|tokens| tokens as usize),
        save_every: r.integer("train", "save_every", 1, u64::MAX).unwrap_or(eval_every),
        keep_last: r.size("train", "keep_last", 1).unwrap_or(2),
        log_every: r.integer("train", "log_every", 1, u64::MAX).unwrap_or(10),
    }
}

fn sample(r: &mut Reader) -> Sample {
    let default = Sample::default();
    Sample {
        prompt: r.text("sample", "prompt").unwrap_or(default.prompt),
        tokens: r.size("sample", "tokens", 0).unwrap_or(default.tokens),
        temperature: r
            .number("sample", "temperature", "of at least 0", |x| x >= 0.0)
            .unwrap_or(default.temperature),
        top_k: r.size("sample", "top_k", 0).unwrap_or(default.top_k),
        top_p: r
            .number("sample", "top_p", "above 0 and at most 1", |x| x > 0.0 && x <= 1.0)
            .unwrap_or(default.top_p),
    }
}

fn export(r: &mut Reader, model: &Model, quant: Quant) -> Export {
    let default = Export::default();
    let names = TernaryPacking::ALL.map(|packing| (recipe_name(packing), packing));
    let packings: Vec<(&str, TernaryPacking)> =
        names.iter().map(|(name, packing)| (name.as_str(), *packing)).collect();
    let dense = DenseType::ALL.map(|format| (format.name(), format));
    let format = r.choice("export", "format", &packings).unwrap_or_else(|| {
        let fits = |packing: &TernaryPacking| validate::misfit(model, quant, *packing).is_none();
        [TernaryPacking::Tq2_0, TernaryPacking::I2S].into_iter().find(fits).unwrap_or(default.format)
    });
    Export { format, embeddings: r.choice("export", "embeddings", &dense).unwrap_or(default.embeddings) }
}
