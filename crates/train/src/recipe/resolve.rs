//! From entries to a whole recipe: every key read, every default filled in.

use std::path::{Path, PathBuf};

use tritforge_config::{
    ActivationQuant, Granularity, HiddenAct, LoraMode, ModelConfig, WeightQuant, WeightQuantizer,
};
use tritforge_data::Packing;
use tritforge_kernels::DenseType;
use tritforge_model::GradPrecision;
use tritforge_ternary::{Packing as TernaryPacking, QUANTIZERS};

use super::kind::{Kind, Range};
use super::reader::Reader;
use super::sections::{
    Data, DataSource, Ema, Export, Model, OnFault, Quant, Run, SHARD_TOKENS, Sample, SplitKind, Tokenizer,
    TokenizerKind, Train, TrainEngine, recipe_name,
};
use super::{Recipe, VERSION, convert, distill, dpo, lora, optim, samples, sources, validate};

/// Tokens of a sample where the recipe does not say.
const SEQ_LEN: usize = 256;
/// Vocabulary of a BPE where the recipe does not say.
const VOCAB_SIZE: usize = 4096;

/// Reads every key. Faults are noted in the reader; the recipe is of use only if there are none.
pub(super) fn resolve(r: &mut Reader, path: &Path) -> Recipe {
    let run = run(r, path);
    let dpo = dpo::dpo(r);
    let data = data(r, dpo.is_some());
    let vocab_inline = r.has_inline("model", "vocab_size");
    let (mut model, quant) = (model(r, data.seq_len), quant(r));
    let lora = lora::lora(r);
    let tokenizer = tokenizer(r, model.vocab_size, model.base.is_some());
    if !vocab_inline {
        // The shape's file only says what size it was made for.
        model.vocab_size = None;
    }
    let train = train(r);
    let convert = convert::convert(r, train.steps);
    let distill = distill::distill(r);
    let ternary_adapter = lora.as_ref().is_some_and(|lora| lora.mode == LoraMode::Lota);
    let optim = optim::optim(r, train.steps, ternary_adapter);
    let ema = ema(r);
    let sample = sample(r);
    let export = export(r, &model, quant);
    Recipe {
        version: VERSION,
        run,
        model,
        quant,
        lora,
        convert,
        distill,
        dpo,
        tokenizer,
        data,
        optim,
        train,
        ema,
        sample,
        export,
    }
}

fn run(r: &mut Reader, path: &Path) -> Run {
    let stem = path.file_stem().map_or("run".to_string(), |s| s.to_string_lossy().into_owned());
    let name = r.text("run", "name").unwrap_or(stem);
    // An output directory is made, so it is never looked for beside the recipe.
    let out = r.text("run", "out").map(PathBuf::from);
    let out = out.unwrap_or_else(|| Path::new("runs").join(&name));
    Run { name, out, seed: r.integer("run", "seed", 0, i64::MAX as u64).unwrap_or(0) }
}

fn data(r: &mut Reader, pairs: bool) -> Data {
    let train = r.paths("data", "train");
    let sources = [("files", DataSource::Files), ("rust-sources", DataSource::RustSources)];
    let source = r.choice("data", "source", &sources);
    let tables = sources::sources(r);
    if ["train", "source", "sources"].iter().all(|key| !r.given("data", key)) {
        r.missing(
            "data",
            "train",
            "text files, as in train = [\"corpus.txt\"], or source = \"rust-sources\"",
        );
    }
    let held_out = r.number("data", "held_out", Range::above(0.0).below(1.0)).unwrap_or(0.1);
    let splits = [("contiguous", SplitKind::Contiguous), ("document", SplitKind::Document)];
    let packings =
        [("concat", Packing::Concat), ("documents", Packing::Documents), ("masked", Packing::Masked)];
    let column = r.text("data", "column").unwrap_or_else(|| "text".to_string());
    let split = r.choice("data", "split", &splits);
    let seq_len = r.size("data", "seq_len", 1).unwrap_or(SEQ_LEN);
    let packing = r.choice("data", "packing", &packings);
    let samples = samples::samples(r);
    let (default_split, default_packing) = match samples.records {
        None => (SplitKind::Contiguous, Packing::default()),
        Some(_) if pairs => (SplitKind::Document, Packing::Documents),
        Some(_) => (SplitKind::Document, Packing::Masked),
    };
    Data {
        source: source.unwrap_or(DataSource::Files),
        train: train.unwrap_or_default(),
        column,
        held_out,
        split: split.unwrap_or(default_split),
        seq_len,
        packing: packing.unwrap_or(default_packing),
        shard_tokens: r.integer("data", "shard_tokens", 1, 1 << 40).map_or(SHARD_TOKENS, |n| n as usize),
        samples,
        sources: tables,
    }
}

fn model(r: &mut Reader, seq_len: usize) -> Model {
    let default = ModelConfig::default();
    // Read before all others: its file's keys are already among the entries.
    r.declare("model", "config", Kind::Path);
    let base = r.path("model", "base");
    let vocab_size = r.size("model", "vocab_size", 1);
    let mut needed = |key, what: &str| {
        let size = r.size("model", key, 1);
        // A base that cannot be read is a fault of its own.
        if size.is_none() && !r.given("model", key) && base.is_none() {
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
    Model {
        base,
        base_config: None,
        vocab_size,
        hidden_size,
        intermediate_size,
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads,
        head_dim: head_dim.unwrap_or(hidden_size / num_attention_heads),
        hidden_act: r.choice("model", "hidden_act", &acts).unwrap_or(default.hidden_act),
        max_position_embeddings: r.size("model", "max_position_embeddings", 1).unwrap_or(seq_len),
        rms_norm_eps: r.number("model", "rms_norm_eps", Range::above(0.0)).unwrap_or(1e-5),
        rope_theta: r.number("model", "rope_theta", Range::above(1.0)).unwrap_or(10_000.0),
        tie_word_embeddings: r.flag("model", "tie_word_embeddings").unwrap_or(default.tie_word_embeddings),
        use_sub_norm: r.flag("model", "use_sub_norm").unwrap_or(default.use_sub_norm),
        initializer_range: r.number("model", "initializer_range", Range::above(0.0)).unwrap_or(0.02),
    }
}

fn quant(r: &mut Reader) -> Quant {
    let weights =
        [("absmean", WeightQuant::Absmean), ("none", WeightQuant::None), ("ternary", WeightQuant::Ternary)];
    let activations = [("absmax", ActivationQuant::Absmax), ("none", ActivationQuant::None)];
    let backwards = GradPrecision::ALL.map(|backward| (backward.name(), backward));
    let quantizers = QUANTIZERS.map(|quantizer| (quantizer.name(), WeightQuantizer::new(quantizer)));
    let sizes = Granularity::GROUPS.map(|size| (size.to_string(), Granularity::Group(size)));
    let mut granularities = vec![("tensor", Granularity::Tensor), ("row", Granularity::Row)];
    granularities.extend(sizes.iter().map(|(name, granularity)| (name.as_str(), *granularity)));
    let default = Quant::default();
    Quant {
        weights: r.choice("quant", "weights", &weights).unwrap_or(default.weights),
        scale: r.choice("quant", "scale", &quantizers).unwrap_or(default.scale),
        granularity: r.choice("quant", "granularity", &granularities).unwrap_or(default.granularity),
        activations: r.choice("quant", "activations", &activations).unwrap_or(default.activations),
        backward: r.choice("quant", "backward", &backwards).unwrap_or(default.backward),
    }
}

fn tokenizer(r: &mut Reader, model_vocab_size: Option<usize>, based: bool) -> Tokenizer {
    let kinds = [
        ("bpe", TokenizerKind::Bpe),
        ("characters", TokenizerKind::Characters),
        ("file", TokenizerKind::File),
        ("base", TokenizerKind::Base),
    ];
    let default = if based { TokenizerKind::Base } else { TokenizerKind::Bpe };
    let kind = r.choice("tokenizer", "kind", &kinds).unwrap_or(default);
    // A byte-level BPE begins with the 256 bytes.
    let vocab_size = r.size("tokenizer", "vocab_size", 257);
    let path = r.path("tokenizer", "path");
    let default = if kind == TokenizerKind::Bpe { model_vocab_size.unwrap_or(VOCAB_SIZE) } else { 0 };
    Tokenizer { kind, vocab_size: vocab_size.unwrap_or(default), path }
}

fn train(r: &mut Reader) -> Train {
    let steps = r.integer("train", "steps", 1, 1 << 40);
    if steps.is_none() && !r.given("train", "steps") {
        r.missing("train", "steps", "the number of optimizer steps");
    }
    let steps = steps.unwrap_or(1);
    let verdicts = [("stop", OnFault::Stop), ("skip", OnFault::Skip)];
    let batch_size = r.integer("train", "batch_size", 1, 1 << 20).unwrap_or(8) as usize;
    let gradient_accumulation = r.integer("train", "gradient_accumulation", 1, 1 << 20).unwrap_or(1) as usize;
    let gradient_checkpointing = r.flag("train", "gradient_checkpointing").unwrap_or(false);
    let engines = [("fused", TrainEngine::Fused), ("candle", TrainEngine::Candle)];
    let engine = r.choice("train", "engine", &engines).unwrap_or(TrainEngine::Fused);
    let eval_every = r.integer("train", "eval_every", 1, u64::MAX).unwrap_or((steps / 10).max(1));
    Train {
        steps,
        batch_size,
        gradient_accumulation,
        gradient_checkpointing,
        engine,
        eval_every,
        eval_tokens: r.integer("train", "eval_tokens", 1, 1 << 40).map(|tokens| tokens as usize),
        save_every: r.integer("train", "save_every", 1, u64::MAX).unwrap_or(eval_every),
        keep_last: r.size("train", "keep_last", 1).unwrap_or(2),
        keep_best: r.flag("train", "keep_best").unwrap_or(false),
        patience: r.integer("train", "patience", 1, 1 << 40),
        min_delta: r.number("train", "min_delta", Range::at_least(0.0)).unwrap_or(0.0),
        on_nonfinite: r.choice("train", "on_nonfinite", &verdicts).unwrap_or(OnFault::Stop),
        spike_threshold: r.number("train", "spike_threshold", Range::above(1.0)),
        on_spike: r.choice("train", "on_spike", &verdicts),
        log_every: r.integer("train", "log_every", 1, u64::MAX).unwrap_or(10),
    }
}

fn ema(r: &mut Reader) -> Option<Ema> {
    let decay = r.number("ema", "decay", Range::above(0.0).below(1.0));
    let deploy = r.flag("ema", "deploy");
    if decay.is_none() && deploy.is_some() {
        r.fault("ema", "deploy", "ema.deploy: needs ema.decay, as in decay = 0.999");
    }
    Some(Ema { decay: decay?, deploy: deploy.unwrap_or(true) })
}

fn sample(r: &mut Reader) -> Sample {
    let default = Sample::default();
    Sample {
        prompt: r.text("sample", "prompt").unwrap_or(default.prompt),
        tokens: r.size("sample", "tokens", 0).unwrap_or(default.tokens),
        temperature: r.number("sample", "temperature", Range::at_least(0.0)).unwrap_or(default.temperature),
        top_k: r.size("sample", "top_k", 0).unwrap_or(default.top_k),
        top_p: r.number("sample", "top_p", Range::above(0.0).at_most(1.0)).unwrap_or(default.top_p),
    }
}

fn export(r: &mut Reader, model: &Model, quant: Quant) -> Export {
    let default = Export::default();
    let names = TernaryPacking::ALL.map(|packing| (recipe_name(packing), packing));
    let packings: Vec<(&str, TernaryPacking)> =
        names.iter().map(|(name, packing)| (name.as_str(), *packing)).collect();
    let dense = DenseType::ALL.map(|format| (format.name(), format));
    let format = r.choice("export", "format", &packings).unwrap_or_else(|| {
        let fits = |packing: &TernaryPacking| {
            packing.holds(quant.granularity) && validate::misfit(model, quant, *packing).is_none()
        };
        let preferred = [TernaryPacking::Tq2_0, TernaryPacking::I2S, TernaryPacking::Q2_0];
        preferred.into_iter().chain(TernaryPacking::ALL).find(fits).unwrap_or(default.format)
    });
    Export { format, embeddings: r.choice("export", "embeddings", &dense).unwrap_or(default.embeddings) }
}
