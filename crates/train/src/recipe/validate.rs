//! Keys that can contradict each other: all such checks, in one place.

use std::path::Path;

use tritforge_config::{ActivationQuant, ConfigError, Granularity, Projection, WeightQuant, WeightQuantizer};
use tritforge_data::Packing as DataPacking;
use tritforge_model::GradPrecision;
use tritforge_ternary::Packing;
use tritforge_text::ChatTemplate;

use super::reader::Reader;
use super::sections::{DataSource, Model, Quant, TokenizerKind, TrainEngine, recipe_name};
use super::{Recipe, convert, distill, dpo, lora, optim, samples};

/// Notes every contradiction in a recipe whose keys are right one by one.
pub(super) fn check(r: &mut Reader, recipe: &Recipe) {
    text(r, recipe);
    samples(r, recipe);
    tokenizer(r, recipe);
    shape(r, recipe);
    optim::check_optimizer(r, recipe);
    train(r, recipe);
    optim::check_schedule(r, recipe);
    scales(r, recipe);
    packing(r, recipe);
    backward(r, recipe);
    engine(r, recipe);
    lora::check(r, recipe);
    convert::check(r, recipe);
    distill::check(r, recipe);
    dpo::check(r, recipe);
}

fn text(r: &mut Reader, recipe: &Recipe) {
    let data = &recipe.data;
    match data.source {
        DataSource::Files if data.train.is_empty() && data.sources.is_empty() => {
            r.missing("data", "train", "text files, as in train = [\"corpus.txt\"]");
        }
        DataSource::RustSources if !data.train.is_empty() => {
            let message = "data.source = \"rust-sources\" contradicts data.train: give one of them";
            r.fault("data", "source", message);
        }
        DataSource::RustSources if !data.sources.is_empty() => {
            let message = "data.source = \"rust-sources\" contradicts [[data.sources]]: give one of them";
            r.fault("data", "source", message);
        }
        DataSource::Files if !data.train.is_empty() && !data.sources.is_empty() => {
            r.fault("data", "train", "data.train contradicts [[data.sources]]: give one of them");
        }
        _ => {}
    }
    let weighted = data.sources.iter().filter(|s| s.weight.is_some()).count();
    if weighted != 0 && weighted != data.sources.len() {
        let message = format!(
            "data.sources: {weighted} of {} have a weight: give one to all, or to none",
            data.sources.len()
        );
        r.fault("data", "sources", message);
    }
    let longest = recipe.model.max_position_embeddings;
    if data.seq_len > longest {
        let seq_len = data.seq_len;
        let message =
            format!("data.seq_len = {seq_len}: expected at most model.max_position_embeddings = {longest}");
        // The one that was written down is the one to look at.
        let blame = if r.given("data", "seq_len") {
            ("data", "seq_len")
        } else {
            ("model", "max_position_embeddings")
        };
        r.fault(blame.0, blame.1, message);
    }
    if recipe.run.out.as_os_str().is_empty() {
        r.fault("run", "out", "run.out is empty: expected a directory");
    }
    let name = &recipe.run.name;
    if !r.given("run", "out") && (name.is_empty() || name.starts_with('.') || name.contains(['/', '\\'])) {
        let message = format!("run.name = \"{name}\": expected a name without slashes, or run.out beside it");
        r.fault("run", "name", message);
    }
}

fn samples(r: &mut Reader, recipe: &Recipe) {
    let data = &recipe.data;
    if data.samples.records.is_none() {
        for key in samples::KEYS.into_iter().filter(|key| r.given("data", key)).collect::<Vec<_>>() {
            let message = format!("data.{key}: has no effect without data.records; set records = \"auto\"");
            r.fault("data", key, message);
        }
        return;
    }
    if data.source == DataSource::RustSources {
        r.fault(
            "data",
            "records",
            "data.records contradicts data.source = \"rust-sources\": source code has no records",
        );
    }
    if r.given("data", "shard_tokens") {
        let message = "data.shard_tokens contradicts data.records: samples are kept in memory, not in shards";
        r.fault("data", "shard_tokens", message);
    }
    if data.packing == DataPacking::Concat {
        let message =
            "data.packing = \"concat\" contradicts data.records: expected \"masked\" or \"documents\"";
        r.fault("data", "packing", message);
    }
    if data.sources.iter().any(|source| source.weight.is_some()) {
        r.fault("data", "sources", "data.sources.weight contradicts data.records: samples are not weighted");
    }
    if data.column != "text" || data.sources.iter().any(|source| source.column != "text") {
        let message = "data.column contradicts data.records: give data.columns, as in { text = \"body\" }";
        r.fault("data", "column", message);
    }
    if let Some(name) = data.samples.template.as_deref().filter(|name| *name != samples::MODEL)
        && !ChatTemplate::names().contains(&name)
        && !Path::new(name).is_file()
    {
        let names = ChatTemplate::names().map(|name| format!("\"{name}\"")).join(", ");
        let message = format!(
            "data.template = \"{name}\": no such file; expected a file, \"model\", \
                               {names}"
        );
        r.fault("data", "template", message);
    }
}

fn tokenizer(r: &mut Reader, recipe: &Recipe) {
    let tokenizer = &recipe.tokenizer;
    match (tokenizer.kind, &tokenizer.path) {
        (TokenizerKind::Base, _) if recipe.model.base.is_none() => {
            r.fault("tokenizer", "kind", "tokenizer.kind = \"base\": model.base is missing");
        }
        (TokenizerKind::File, None) => r.missing("tokenizer", "path", "the path of a tokenizer.json"),
        (TokenizerKind::Bpe | TokenizerKind::Characters | TokenizerKind::Base, Some(path)) => {
            let message =
                format!("tokenizer.path = \"{}\": only for tokenizer.kind = \"file\"", path.display());
            r.fault("tokenizer", "path", message);
        }
        _ => {}
    }
    let vocab_size = tokenizer.vocab_size;
    if tokenizer.kind != TokenizerKind::Bpe && vocab_size > 0 {
        let message =
            format!("tokenizer.vocab_size = {vocab_size}: only for tokenizer.kind = \"bpe\"; leave it out");
        r.fault("tokenizer", "vocab_size", message);
    } else if let Some(rows) = recipe.model.vocab_size.filter(|rows| vocab_size > 0 && *rows != vocab_size) {
        let message = format!(
            "model.vocab_size = {rows} contradicts tokenizer.vocab_size = {vocab_size}: leave model.vocab_size out"
        );
        r.fault("model", "vocab_size", message);
    } else if tokenizer.kind == TokenizerKind::Bpe && vocab_size <= 256 {
        let message = format!("model.vocab_size = {vocab_size}: a byte-level BPE needs at least 257");
        r.fault("model", "vocab_size", message);
    }
}

fn shape(r: &mut Reader, recipe: &Recipe) {
    let config = recipe.model.config(recipe.quant, recipe.model.vocab_size.unwrap_or(1));
    match config.validate() {
        Ok(()) => {}
        Err(ConfigError::Value { key, found, expected }) => {
            r.fault("model", key, format!("model.{key} = {found}: {expected}"));
        }
        Err(other) => r.fault("model", "config", other),
    }
}

fn train(r: &mut Reader, recipe: &Recipe) {
    let train = &recipe.train;
    if train.on_spike.is_some() && train.spike_threshold.is_none() {
        r.fault("train", "on_spike", "train.on_spike: has no effect without train.spike_threshold");
    }
    if train.min_delta > 0.0 && train.patience.is_none() {
        r.fault("train", "min_delta", "train.min_delta: has no effect without train.patience");
    }
}

/// Scales of rows and groups, and quantizers, where weights are not computed from latent ones.
fn scales(r: &mut Reader, recipe: &Recipe) {
    let Quant { weights, scale, granularity, .. } = recipe.quant;
    if weights != WeightQuant::Absmean && scale != WeightQuantizer::default() {
        let message = format!(
            "quant.scale = \"{scale}\": expected quant.weights = \"absmean\": no latent weights are quantized"
        );
        r.fault("quant", "scale", message);
    }
    if weights == WeightQuant::None && granularity != Granularity::Tensor {
        let message =
            "quant.granularity: expected quant.weights = \"absmean\": full-precision weights have no scales";
        r.fault("quant", "granularity", message);
    }
    if weights == WeightQuant::None || recipe.export.format.holds(granularity) {
        return;
    }
    let (name, holding) = (recipe_name(recipe.export.format), Packing::holding(granularity));
    let holding = match holding.is_empty() {
        true => {
            "no packing has room for them: expected row, tensor, or a group of 64, 128 or 256".to_string()
        }
        false => format!("these packings have: {}", holding.join(", ")),
    };
    if r.given("export", "format") {
        let message = format!(
            "export.format = \"{name}\" has no room for quant.granularity = {granularity}; {holding}"
        );
        r.fault("export", "format", message);
    } else {
        r.fault("quant", "granularity", format!("quant.granularity = {granularity}: {holding}"));
    }
}

fn packing(r: &mut Reader, recipe: &Recipe) {
    let format = recipe.export.format;
    let Some((key, width)) = misfit(&recipe.model, recipe.quant, format) else { return };
    let what = match key {
        "head_dim" => "model.num_attention_heads · model.head_dim".to_string(),
        key => format!("model.{key}"),
    };
    let other = Packing::ALL.into_iter().find(|p| misfit(&recipe.model, recipe.quant, *p).is_none());
    let other =
        other.map_or(String::new(), |p| format!(", or choose export.format = \"{}\"", recipe_name(p)));
    let (name, block) = (recipe_name(format), format.block());
    let fix = format!(
        "expected a multiple of {block}: export.format = \"{name}\" packs blocks of {block} weights{other}"
    );
    // Whoever chose a format sees the fault there; otherwise the width is at fault.
    if r.given("export", "format") {
        r.fault(
            "export",
            "format",
            format!("export.format = \"{name}\" does not support {what} = {width}: {fix}"),
        );
    } else {
        r.fault("model", key, format!("{what} = {width}: {fix}"));
    }
}

/// What candle's tape does not compute.
fn engine(r: &mut Reader, recipe: &Recipe) {
    if recipe.train.engine == TrainEngine::Fused {
        return;
    }
    let sections = [
        ("lora", recipe.lora.is_some()),
        ("convert", recipe.convert.is_some()),
        ("distill", recipe.distill.is_some()),
        ("dpo", recipe.dpo.is_some()),
    ];
    for (section, _) in sections.into_iter().filter(|(_, given)| *given) {
        let message = format!("train.engine = \"candle\" contradicts [{section}]: expected \"fused\"");
        r.fault("train", "engine", message);
    }
    if recipe.train.gradient_checkpointing {
        let message = "train.gradient_checkpointing contradicts train.engine = \"candle\", whose tape keeps \
                       all activations";
        r.fault("train", "gradient_checkpointing", message);
    }
    if !matches!(recipe.quant.backward, GradPrecision::Auto | GradPrecision::F32) {
        let message = format!(
            "quant.backward = \"{}\" contradicts train.engine = \"candle\", whose gradients are f32",
            recipe.quant.backward.name()
        );
        r.fault("quant", "backward", message);
    }
    if recipe.quant.weights == WeightQuant::Ternary {
        let message = "train.engine = \"candle\": needs latent weights; the base has ternary ones only";
        r.fault("train", "engine", message);
    }
}

fn backward(r: &mut Reader, recipe: &Recipe) {
    let quant = recipe.quant;
    let integers = quant.weights != WeightQuant::None && quant.activations == ActivationQuant::Absmax;
    if quant.backward.needs_integers() && !integers {
        let message = format!(
            "quant.backward = \"{}\": expected quant.weights = \"absmean\" and quant.activations = \
             \"absmax\", since only then the forward pass uses integers",
            quant.backward.name()
        );
        r.fault("quant", "backward", message);
    }
}

/// The width that a packing's blocks do not divide, with the key that it comes from. Models that are not
/// ternary are not packed.
pub(super) fn misfit(model: &Model, quant: Quant, packing: Packing) -> Option<(&'static str, usize)> {
    if quant.weights != WeightQuant::Absmean {
        return None;
    }
    let config = model.config(quant, 1);
    Projection::ALL.into_iter().find_map(|projection| {
        let [_, cols] = config.projection_shape(projection);
        let key = match projection {
            Projection::O => "head_dim",
            Projection::Down => "intermediate_size",
            _ => "hidden_size",
        };
        (!cols.is_multiple_of(packing.block())).then_some((key, cols))
    })
}
