//! What contradicts `[lora]` in a recipe.

use tritforge_config::{Granularity, LoraMode, WeightQuant};
use tritforge_recipe::{Lora, Reader};
use tritforge_ternary::Ste;

use super::{CodeChoice, Recipe};
use crate::optimizer::Rule;

/// Notes what contradicts the section.
pub(super) fn check(r: &mut Reader, recipe: &Recipe) {
    if recipe.lora.is_some() && recipe.quant.ste != Ste::Identity {
        let message = format!(
            "quant.ste = \"{}\" contradicts [lora]: the latent weights of the base are not trained",
            recipe.quant.ste
        );
        r.fault("quant", "ste", message);
    }
    if recipe.lora.is_some() && recipe.quant.codes != CodeChoice::Round {
        let message = "quant.codes contradicts [lora]: the latent weights of the base are not trained";
        r.fault("quant", "codes", message);
    }
    if recipe.lora.is_some() && recipe.quant.pull > 0.0 {
        let message = "quant.pull contradicts [lora]: the latent weights of the base are not trained";
        r.fault("quant", "pull", message);
    }
    let weights = recipe.quant.weights;
    let ternary_optimizer = matches!(recipe.optim.rule, Rule::TSignSgd(_));
    let Some(lora) = &recipe.lora else {
        if weights == WeightQuant::Ternary {
            let message = "quant.weights = \"ternary\": packed ternary weights cannot be trained directly; \
                           add [lora] with mode = \"adapter\" or \"lota\", or import the model with \
                           --latent";
            r.fault("quant", "weights", message);
        }
        if ternary_optimizer {
            let message = "optim.kind = \"t-sign-sgd\": only for [lora] with mode = \"lota\", which trains \
                           ternary matrices";
            r.fault("optim", "kind", message);
        }
        return;
    };
    let lota = lora.mode == LoraMode::Lota;
    if lota != ternary_optimizer {
        let message = "optim.kind: lora.mode = \"lota\" and optim.kind = \"t-sign-sgd\" must be used \
                       together, since no other optimizer trains ternary matrices; leave optim.kind out";
        r.fault("optim", "kind", message);
    }
    if lota {
        ternary(r, recipe, lora);
    } else if lora.threshold.is_some() {
        r.fault("lora", "threshold", "lora.threshold: only for lora.mode = \"lota\"");
    }
    if recipe.model.base.is_none() {
        r.fault("lora", "rank", "[lora]: model.base is missing: expected the model to adapt");
    }
    if let Err(error) = lora.config().validate() {
        r.fault("lora", "dropout", format!("[lora]: {error}"));
    }
    if lora.mode == LoraMode::QatLora && weights != WeightQuant::Absmean {
        let message = "lora.mode = \"qat_lora\": expected a base with latent weights and quant.weights = \"absmean\"; mode = \"adapter\" \
                       takes any base, \"lota\" any ternary one";
        r.fault("lora", "mode", message);
    }
    for rate in &lora.learning_rates {
        if !lora.target_modules.contains(&rate.module) {
            let name = rate.module.module();
            r.fault(
                "lora",
                "learning_rates",
                format!("lora.learning_rates: {name} is not among target_modules"),
            );
        }
    }
}

/// Notes what a ternary adapter cannot have.
fn ternary(r: &mut Reader, recipe: &Recipe, lora: &Lora) {
    if recipe.quant.weights == WeightQuant::None {
        let message = "lora.mode = \"lota\": expected a base with ternary weights, whose codes it changes";
        r.fault("lora", "mode", message);
    }
    if recipe.quant.granularity != Granularity::Tensor {
        let message = format!(
            "lora.mode = \"lota\": expected a base with one scale a tensor, found quant.granularity = {}; modes \"adapter\" and \
             \"qat_lora\" take it",
            recipe.quant.granularity
        );
        r.fault("lora", "mode", message);
    }
    if let Some(sparsity) = recipe.quant.kept() {
        let message = format!(
            "lora.mode = \"lota\": it moves codes, which would no longer be {sparsity} sparse; modes \"adapter\" and \
             \"qat_lora\" take the base"
        );
        r.fault("lora", "mode", message);
    }
    if lora.alpha != lora.rank as f64 {
        let message = format!(
            "lora.alpha = {}: not used by lora.mode = \"lota\"; leave it out and set lora.threshold instead",
            lora.alpha
        );
        r.fault("lora", "alpha", message);
    }
    if recipe.ema.is_some() {
        r.fault(
            "ema",
            "decay",
            "[ema] contradicts lora.mode = \"lota\": an average of ternary matrices is not ternary",
        );
    }
    if !lora.learning_rates.is_empty() {
        let message = "lora.learning_rates: not supported by lora.mode = \"lota\", where optim.lr is the \
                       fraction of elements updated in every matrix";
        r.fault("lora", "learning_rates", message);
    }
}
