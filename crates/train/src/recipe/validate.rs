//! Sections that can contradict each other: all such checks, in one place. What is about one section stands with it.

use tritforge_config::{ActivationQuant, ConfigError, Granularity, LoraMode, Rotation, WeightQuant};
use tritforge_data::RecordKind;
use tritforge_model::GradPrecision;
use tritforge_recipe::{Reader, TrainEngine};
use tritforge_ternary::Ste;

use super::{CodeChoice, Recipe, dead_zone, lora, optim_groups};
use crate::objective::{DataKind, Objective};
use crate::optimizer::StoredType;

/// Notes every contradiction in a recipe whose keys are right one by one.
pub(super) fn check(r: &mut Reader, recipe: &Recipe) {
    recipe.run.check(r);
    recipe.data.check(r, recipe);
    recipe.tokenizer.check(r, &recipe.model);
    shape(r, recipe);
    norms(r, recipe);
    recipe.optim.check_optimizer(r);
    recipe.train.check(r);
    recipe.optim.check_schedule(r, recipe.train.steps);
    recipe.export.check(r, &recipe.model, recipe.quant);
    recipe.quant.check(r, &recipe.model);
    engine(r, recipe);
    embedding_noise(r, recipe);
    rotation(r, recipe);
    dead_zone::check(r, recipe);
    lora::check(r, recipe);
    if let Some(convert) = &recipe.convert {
        convert.check(r, recipe);
    }
    if recipe.convert.is_some() && recipe.quant.codes != CodeChoice::Round {
        let message = "quant.codes contradicts [convert]: soft codes set in by themselves, and drawn ones are those of the whole \
                       quantization";
        r.fault("quant", "codes", message);
    }
    if recipe.quant.pull > 0.0 && recipe.optim.master_dtype != StoredType::F32 {
        let message = "quant.pull contradicts optim.master_dtype = \"bf16\", in which so small a change is lost: expected \"f32\"";
        r.fault("quant", "pull", message);
    }
    grid(r, recipe);
    objective(r, recipe);
    optim_groups::check(r, recipe);
}

/// What weights that are ternary themselves cannot have.
fn grid(r: &mut Reader, recipe: &Recipe) {
    let Recipe { quant, .. } = recipe;
    if quant.weights != WeightQuant::Absmean || !quant.scale.on_grid() {
        return;
    }
    let inside = recipe.lora.as_ref().is_some_and(|lora| lora.mode == LoraMode::QatLora);
    for (section, key, given, why) in [
        (
            "quant",
            "granularity",
            quant.granularity != Granularity::Tensor,
            "its weights have one scale a tensor",
        ),
        ("quant", "ste", quant.ste != Ste::Identity, "there is no rounding for gradients to pass through"),
        ("quant", "codes", quant.codes != CodeChoice::Round, "the weights are the codes"),
        ("quant", "sparsity", quant.sparsity.is_some(), "all weights have one of three magnitudes"),
        ("quant", "pull", quant.pull > 0.0, "the weights are ternary already"),
        (
            "optim",
            "master_dtype",
            recipe.optim.master_dtype != StoredType::F32,
            "bf16 does not hold its levels",
        ),
        ("ema", "decay", recipe.ema.is_some(), "an average of ternary weights is not ternary"),
        ("convert", "schedule", recipe.convert.is_some(), "the weights are ternary from the first step"),
        ("lora", "mode", inside, "the base has no latent weights to add an adapter to"),
    ] {
        if given {
            r.fault(
                section,
                key,
                format!("{section}.{key} contradicts quant.scale = \"{}\": {why}", quant.scale),
            );
        }
    }
}

fn shape(r: &mut Reader, recipe: &Recipe) {
    let vocab_size = recipe.model.vocab_size.unwrap_or(1);
    let config = recipe.quant.config(&recipe.model, vocab_size);
    match config.validate() {
        Ok(()) => {}
        // Noted by the section.
        Err(ConfigError::Value { key: "ternary_embedding" | "ternary_head", .. })
            if recipe.quant.weights == WeightQuant::None => {}
        Err(ConfigError::Value { key: "dead_zone_bias", .. }) => {}
        Err(ConfigError::Value { key: "ternary_embedding", found, expected }) => {
            r.fault("quant", "embedding", format!("quant.embedding = {found}: {expected}"));
        }
        Err(ConfigError::Value { key: "ternary_head", found, expected }) => {
            r.fault("quant", "head", format!("quant.head = {found}: {expected}"));
        }
        Err(ConfigError::Value { key, found, expected }) => {
            let quantization = ["granularity", "sparsity", "threshold"].contains(&key);
            let section = if quantization { "quant" } else { "model" };
            r.fault(section, key, format!("{section}.{key} = {found}: {expected}"));
        }
        Err(other) => r.fault("model", "config", other),
    }
}

/// Norms that no architecture has together.
fn norms(r: &mut Reader, recipe: &Recipe) {
    if recipe.model.use_qk_norm && recipe.model.use_sub_norm && !recipe.model.projection_norms {
        let message = "model.use_qk_norm contradicts model.use_sub_norm, which is true by default: no architecture of GGUF \
                       files has both; set use_sub_norm = false";
        r.fault("model", "use_qk_norm", message);
    }
}

/// A base whose weights stay as they are stored cannot be folded with another rotation than its own.
fn rotation(r: &mut Reader, recipe: &Recipe) {
    let Some(base) = &recipe.model.base_config else { return };
    let frozen = recipe.quant.weights == WeightQuant::Ternary || recipe.lora.is_some();
    if frozen && base.rotation != recipe.quant.rotation {
        let message = format!(
            "quant.rotation = \"{}\": expected \"{}\", that of model.base, whose weights are not trained",
            recipe.quant.rotation.name(),
            base.rotation.name()
        );
        r.fault("quant", "rotation", message);
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
        (recipe.objective.name(), !recipe.objective.chosen().runs_on_tape()),
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
    for (key, table) in [("embedding", recipe.quant.embedding), ("head", recipe.quant.head)] {
        if let Some(granularity) = table {
            let message = format!(
                "quant.{key} = {granularity} contradicts train.engine = \"candle\", which has embedding and head in full \
                 precision: expected \"none\", or train.engine = \"fused\""
            );
            r.fault("quant", key, message);
        }
    }
    if recipe.quant.codes != CodeChoice::Round {
        let message =
            "quant.codes contradicts train.engine = \"candle\", whose modules round: expected \"fused\"";
        r.fault("quant", "codes", message);
    }
    if recipe.quant.scale.learned().is_some() {
        let message = format!(
            "quant.scale = \"{}\" contradicts train.engine = \"candle\", whose modules have no learned scales: expected \"fused\"",
            recipe.quant.scale
        );
        r.fault("quant", "scale", message);
    }
    if recipe.model.projection_norms {
        let message = "train.engine = \"candle\": expected model.norm = \"pre\" or \"sub\", which candle's tape computes";
        r.fault("train", "engine", message);
    }
    let quant = &recipe.quant;
    if quant.activations == ActivationQuant::Int4
        || quant.rotation != Rotation::None
        || quant.activation_top_k.is_some()
    {
        let message = "train.engine = \"candle\": expected quant.activations = \"absmax\" or \"none\", quant.rotation = \"none\" and no \
                       quant.activation_top_k, which candle's tape computes";
        r.fault("train", "engine", message);
    }
    if recipe.quant.weights == WeightQuant::Ternary {
        let message = "train.engine = \"candle\": needs latent weights; the base has ternary ones only";
        r.fault("train", "engine", message);
    }
}

/// What has no noise on its embeddings.
fn embedding_noise(r: &mut Reader, recipe: &Recipe) {
    if recipe.train.neftune_noise_alpha.is_none() {
        return;
    }
    if recipe.train.engine == TrainEngine::Candle {
        let message = "train.neftune_noise_alpha contradicts train.engine = \"candle\", whose embeddings have no noise: expected \"fused\"";
        r.fault("train", "neftune_noise_alpha", message);
    }
    if recipe.objective.chosen().data() != DataKind::Targets {
        let message = format!(
            "train.neftune_noise_alpha contradicts [{}], which compares answers by their log-probabilities without noise",
            recipe.objective.name()
        );
        r.fault("train", "neftune_noise_alpha", message);
    }
}

fn objective(r: &mut Reader, recipe: &Recipe) {
    let objective = recipe.objective.chosen();
    objective.check(recipe, r);
    if objective.data() != DataKind::Targets {
        return;
    }
    let (what, sections) = match recipe.data.samples.records {
        Some(RecordKind::Preference) => {
            ("\"preference\": training on pairs of answers", Objective::of_pairs())
        }
        Some(RecordKind::UnpairedPreference) => {
            ("\"unpaired-preference\": training on answers that were judged", Objective::of_labelled())
        }
        _ => return,
    };
    r.fault("data", "records", format!("data.records = {what} needs a {sections} section"));
}
