//! `model.base`: the checkpoint that a run begins with. Its shape and its quantization are the recipe's,
//! unless the recipe says otherwise.

use std::path::Path;

use tritforge_checkpoint::Checkpoint;
use tritforge_config::{ADAPTER_MODEL, ActivationQuant, Granularity, HiddenAct, ModelConfig, WeightQuant};

use super::entries::{Entries, Entry, Value, parse_config};
use super::error::{Fault, Origin};
use super::reader;
use crate::init::checkpoint_of;

/// Puts the shape and quantization of the checkpoint that `model.base` names under the keys of `[model]` and
/// `[quant]`.
pub(super) fn include(path: &Path, entries: &mut Entries, faults: &mut Vec<Fault>) -> Option<ModelConfig> {
    let model = entries.sections.get_mut("model")?;
    let entry = model.get_mut("base")?;
    let mut fault = |origin: &Origin, message: String| {
        faults.push(Fault { origin: origin.clone(), message });
        None
    };
    let Value::Text(name) = &entry.value else {
        let (written, found) = (&entry.written, entry.value.type_name());
        let message = format!("model.base = {written}: found {found}, expected the path of a checkpoint");
        return fault(&entry.value_at.clone(), message);
    };
    let origin = entry.value_at.clone();
    let opened = checkpoint_of(&reader::resolve(path, name, &origin)).and_then(|dir| {
        // What is newest may be another one tomorrow.
        entry.value = Value::Text(dir.display().to_string());
        let checkpoint = Checkpoint::open(&dir).map_err(|e| e.to_string())?;
        if checkpoint.has(ADAPTER_MODEL) {
            let dir = dir.display();
            return Err(format!("{dir} is an adapter: merge it with `tritforge merge {dir} -o DIR`"));
        }
        checkpoint.config().map_err(|e| e.to_string())
    });
    let config = match opened {
        Ok(config) => config,
        Err(message) => return fault(&origin, format!("model.base: {message}")),
    };
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
        let keys = parse_config(path, &text).unwrap_or_default();
        let section = entries.sections.entry(section.to_string()).or_default();
        for (key, entry) in keys {
            let entry = Entry { key_at: origin.clone(), value_at: origin.clone(), ..entry };
            section.entry(key).or_insert(entry);
        }
    }
    Some(config)
}

/// The keys of `[model]` that a configuration gives.
fn shape(config: &ModelConfig) -> String {
    let act = match config.hidden_act {
        HiddenAct::Silu => "silu",
        HiddenAct::Relu2 => "relu2",
    };
    format!(
        "hidden_size = {}\nintermediate_size = {}\nnum_hidden_layers = {}\nnum_attention_heads = {}\nnum_key_value_heads = {}\n\
         head_dim = {}\nhidden_act = \"{act}\"\nmax_position_embeddings = {}\nrms_norm_eps = {:?}\nrope_theta = {:?}\n\
         tie_word_embeddings = {}\nuse_sub_norm = {}\ninitializer_range = {:?}\n",
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
    let activations = match config.activations {
        ActivationQuant::Absmax => "absmax",
        ActivationQuant::None => "none",
    };
    let granularity = match config.granularity {
        Granularity::Group(size) => size.to_string(),
        other => format!("\"{other}\""),
    };
    let quantizer = match config.weights {
        WeightQuant::Absmean => format!("scale = \"{}\"\n", config.quantizer),
        WeightQuant::Ternary | WeightQuant::None => String::new(),
    };
    let granularity = match config.weights {
        WeightQuant::None => String::new(),
        WeightQuant::Absmean | WeightQuant::Ternary => format!("granularity = {granularity}\n"),
    };
    format!("weights = \"{weights}\"\n{quantizer}{granularity}activations = \"{activations}\"\n")
}
