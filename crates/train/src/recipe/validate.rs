//! Sections that can contradict each other: all such checks, in one place. What is about one section stands with it.

use tritforge_config::{ConfigError, WeightQuant};
use tritforge_data::RecordKind;
use tritforge_model::GradPrecision;
use tritforge_recipe::{Reader, TrainEngine};

use super::{Recipe, lora};
use crate::objective::DataKind;

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
    lora::check(r, recipe);
    if let Some(convert) = &recipe.convert {
        convert.check(r, recipe);
    }
    objective(r, recipe);
}

fn shape(r: &mut Reader, recipe: &Recipe) {
    let vocab_size = recipe.model.vocab_size.unwrap_or(1);
    let config = recipe.quant.config(&recipe.model, vocab_size);
    match config.validate() {
        Ok(()) => {}
        // Noted by the section.
        Err(ConfigError::Value { key: "ternary_embedding" | "ternary_head", .. })
            if recipe.quant.weights == WeightQuant::None => {}
        Err(ConfigError::Value { key: "ternary_embedding", found, expected }) => {
            r.fault("quant", "embedding", format!("quant.embedding = {found}: {expected}"));
        }
        Err(ConfigError::Value { key: "ternary_head", found, expected }) => {
            r.fault("quant", "head", format!("quant.head = {found}: {expected}"));
        }
        Err(ConfigError::Value { key, found, expected }) => {
            r.fault("model", key, format!("model.{key} = {found}: {expected}"));
        }
        Err(other) => r.fault("model", "config", other),
    }
}

/// Norms that no architecture has together.
fn norms(r: &mut Reader, recipe: &Recipe) {
    if recipe.model.use_qk_norm && recipe.model.use_sub_norm {
        let message = "model.use_qk_norm contradicts model.use_sub_norm, which is true by default: no architecture of GGUF \
                       files has both; set use_sub_norm = false";
        r.fault("model", "use_qk_norm", message);
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
    if recipe.quant.weights == WeightQuant::Ternary {
        let message = "train.engine = \"candle\": needs latent weights; the base has ternary ones only";
        r.fault("train", "engine", message);
    }
}

fn objective(r: &mut Reader, recipe: &Recipe) {
    let objective = recipe.objective.chosen();
    objective.check(recipe, r);
    if objective.data() != DataKind::Pairs && recipe.data.samples.records == Some(RecordKind::Preference) {
        let message = "data.records = \"preference\": training on pairs of answers needs a [dpo] section";
        r.fault("data", "records", message);
    }
}
