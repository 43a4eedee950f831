//! What contradicts `quant.dead_zone_bias` in a recipe.

use tritforge_config::Architecture;
use tritforge_recipe::{Reader, TrainEngine};

use super::{CodeChoice, Recipe};

/// Notes what contradicts the key.
pub(super) fn check(r: &mut Reader, recipe: &Recipe) {
    let config = recipe.quant.config(&recipe.model, recipe.model.vocab_size.unwrap_or(1));
    let Some(lambda) = config.dead_zone_bias else { return };
    let mut fault = |why: String| {
        r.fault("quant", "dead_zone_bias", format!("quant.dead_zone_bias = {lambda}: {why}"));
    };
    if let Some(why) = config.dead_zone_fault() {
        fault(why);
    }
    if recipe.quant.codes != CodeChoice::Round {
        fault("contradicts quant.codes: the dead zone is that of the deployed codes".to_string());
    }
    if recipe.lora.is_some() {
        fault(
            "contradicts [lora], which does not train the latent weights that make the bias: export the base and import the file, \
             in which it is an ordinary bias"
                .to_string(),
        );
    }
    if recipe.train.engine == TrainEngine::Candle {
        fault(
            "contradicts train.engine = \"candle\", whose modules have no such bias: expected \"fused\""
                .to_string(),
        );
    }
    if let Err(error) = Architecture::of(&config) {
        fault(format!(
            "its biases need a place in GGUF files, but with them {error}. Set model.norm = \"pre\", with \
             model.hidden_act = \"silu\" and without model.use_qk_norm, for a file of architecture llama"
        ));
    }
}
