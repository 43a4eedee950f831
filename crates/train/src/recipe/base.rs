//! `model.base`: the model that a run begins with. Its shape and its quantization are the recipe's, unless the
//! recipe says otherwise. The parser of recipes opens nothing: this comes after it, before the keys are read.

use std::path::Path;

use tritforge_config::{Granularity, ModelConfig, QuantizerSettings, WeightQuant};
use tritforge_recipe::{Entries, Entry, Fault, Origin, Value, parse_keys, resolve};

use crate::init;

/// Puts the shape and quantization of the model that `model.base` names under the keys of `[model]` and `[quant]`.
pub(super) fn include(path: &Path, entries: &mut Entries, faults: &mut Vec<Fault>) -> Option<ModelConfig> {
    let model = entries.sections.get_mut("model")?;
    let entry = model.get_mut("base")?;
    let mut fault = |origin: &Origin, message: String| {
        faults.push(Fault { origin: origin.clone(), message });
        None
    };
    let Value::Text(name) = &entry.value else {
        let (written, found) = (&entry.written, entry.value.type_name());
        let message = format!("model.base = {written}: found {found}, expected the path of a model");
        return fault(&entry.value_at.clone(), message);
    };
    let origin = entry.value_at.clone();
    let (base, config) = match init::base_config(&resolve(path, name, &origin, Path::exists)) {
        Ok(found) => found,
        Err(error) => return fault(&origin, format!("model.base: {error}")),
    };
    // What is newest in a run may be another one tomorrow.
    entry.value = Value::Text(base.display().to_string());
    if let Some(other) = model.get("config") {
        let origin = other.key_at.clone();
        return fault(
            &origin,
            "model.config contradicts model.base, which already defines the architecture: give only one of \
             them"
                .to_string(),
        );
    }
    for (section, text) in [("model", shape(&config)), ("quant", quantization(&config))] {
        let mut keys = parse_keys(path, &text).unwrap_or_default();
        let section = entries.sections.entry(section.to_string()).or_default();
        if section.contains_key("scale") {
            // What belongs to the base's quantizer means nothing to another.
            keys.retain(|key, _| key != "threshold");
        }
        for (key, entry) in keys {
            let entry = Entry { key_at: origin.clone(), value_at: origin.clone(), ..entry };
            section.entry(key).or_insert(entry);
        }
    }
    Some(config)
}

/// The keys of `[model]` that a configuration gives.
fn shape(config: &ModelConfig) -> String {
    let act = config.hidden_act.name();
    let norm = if config.projection_norms { "norm = \"projection\"\n" } else { "" };
    format!(
        "hidden_size = {}\nintermediate_size = {}\nnum_hidden_layers = {}\nnum_attention_heads = {}\nnum_key_value_heads = {}\n\
         head_dim = {}\nhidden_act = \"{act}\"\nmax_position_embeddings = {}\nrms_norm_eps = {:?}\nrope_theta = {:?}\n\
         tie_word_embeddings = {}\n{norm}use_sub_norm = {}\nuse_qk_norm = {}\ninitializer_range = {:?}\n",
        config.hidden_size,
        config.intermediate_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        config.max_position_embeddings,
        config.rms_norm_eps,
        config.rope_theta,
        config.tie_word_embeddings,
        config.use_sub_norm,
        config.use_qk_norm,
        config.initializer_range,
    )
}

/// The keys of `[quant]` that a configuration gives.
fn quantization(config: &ModelConfig) -> String {
    let weights = match config.weights {
        WeightQuant::Absmean => "absmean",
        WeightQuant::Ternary => "ternary",
        WeightQuant::None => "none",
    };
    let (activations, rotation) = (config.activations.name(), config.rotation.name());
    let quantizer = match config.weights {
        WeightQuant::Absmean => {
            let (settings, default) = (config.quantizer.settings(), QuantizerSettings::default());
            let mut keys = format!("scale = \"{}\"\n", config.quantizer);
            if let Some(sparsity) = settings.sparsity {
                keys += &format!("sparsity = \"{sparsity}\"\n");
            }
            if settings.threshold != default.threshold {
                keys += &format!("threshold = {:?}\n", settings.threshold);
            }
            if let Some(lambda) = config.dead_zone_bias {
                keys += &format!("dead_zone_bias = {lambda:?}\n");
            }
            keys
        }
        WeightQuant::Ternary | WeightQuant::None => String::new(),
    };
    let granularity = |key: &str, granularity: Option<Granularity>| match granularity {
        None => String::new(),
        Some(Granularity::Group(size)) => format!("{key} = {size}\n"),
        Some(other) => format!("{key} = \"{other}\"\n"),
    };
    let projections = (config.weights != WeightQuant::None).then_some(config.granularity);
    let granularities = [
        granularity("granularity", projections),
        granularity("embedding", config.ternary_embedding),
        granularity("head", config.ternary_head),
    ]
    .concat();
    let top_k =
        config.activation_top_k.map(|part| format!("activation_top_k = {part:?}\n")).unwrap_or_default();
    format!(
        "weights = \"{weights}\"\n{quantizer}{granularities}activations = \"{activations}\"\nrotation = \"{rotation}\"\n{top_k}"
    )
}
