//! `[model]`: the architecture.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use tritforge_config::{ActivationQuant, HiddenAct, ModelConfig, WeightQuant};

use crate::{Entries, Fault, Kind, Range, Reader, RecipeError, Value, parse_keys, read_text, resolve};

/// `[model]`: the architecture, by the names of Hugging Face. In a recipe, `config` may name a file with these keys;
/// keys in the recipe go before it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Model {
    /// A model to start from, with its weights, shape and tokenizer: a checkpoint, the directory of a run, a Hugging Face
    /// directory or a GGUF file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
    /// What the base's `config.json` says.
    #[serde(skip)]
    #[schemars(skip)]
    pub base_config: Option<ModelConfig>,
    /// Rows of the embedding; by default the tokenizer's vocabulary. If given, the tokenizer must have it exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward network.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; by default the number of query heads.
    pub num_key_value_heads: usize,
    /// Width of a head; by default `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// The gate's activation by its name in `transformers`: `"silu"` (the default), `"relu2"`, `"relu"`, `"gelu"` (exact) or
    /// `"gelu_pytorch_tanh"`. GGUF files of the last three are of architecture `tritforge`, which other programs refuse.
    #[schemars(with = "String")]
    pub hidden_act: HiddenAct,
    /// The longest context; by default `data.seq_len`.
    pub max_position_embeddings: usize,
    /// ε of every RMSNorm; by default 1e-5.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding; by default 10000.
    pub rope_theta: f64,
    /// Whether the output head shares the embedding's weights; by default true.
    pub tie_word_embeddings: bool,
    /// `"pre"` (norms before attention and feed-forward network only), `"sub"` (also before `o_proj` and `down_proj`, the default), the
    /// two values of `use_sub_norm`, or `"projection"`: before `o_proj` and `down_proj`, and one more with a weight of its own before each of
    /// the other five projections. Files of models with `"projection"` are of architecture `tritforge`, which other programs refuse.
    #[serde(rename = "norm", serialize_with = "norm_name", skip_serializing_if = "std::ops::Not::not")]
    #[schemars(with = "String")]
    pub projection_norms: bool,
    /// Whether to apply an RMSNorm before `o_proj` and `down_proj` (sub-norms); by default true.
    pub use_sub_norm: bool,
    /// Whether to apply an RMSNorm to the queries and keys of every head before RoPE, as Qwen3 does; by default false. Not together with
    /// sub-norms, which no architecture of GGUF files has beside it.
    pub use_qk_norm: bool,
    /// Standard deviation of the initial weights; by default 0.02.
    pub initializer_range: f64,
}

impl Model {
    /// Reads the section of a recipe whose samples have `seq_len` tokens.
    pub fn read(r: &mut Reader, seq_len: usize) -> Self {
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
        if head_dim.is_none() && !hidden_size.is_multiple_of(num_attention_heads) && r.faults().is_empty() {
            let message = format!(
                "model.num_attention_heads = {num_attention_heads}: it must divide model.hidden_size = {hidden_size}, \
                 or model.head_dim must be given"
            );
            r.fault("model", "num_attention_heads", message);
        }
        let acts = HiddenAct::ALL.map(|act| (act.name(), act));
        let hidden_act = r.choice("model", "hidden_act", &acts).unwrap_or(default.hidden_act);
        let max_position_embeddings = r.size("model", "max_position_embeddings", 1).unwrap_or(seq_len);
        let rms_norm_eps = r.number("model", "rms_norm_eps", Range::above(0.0)).unwrap_or(1e-5);
        let rope_theta = r.number("model", "rope_theta", Range::above(1.0)).unwrap_or(10_000.0);
        let tied = r.flag("model", "tie_word_embeddings");
        let tie_word_embeddings = tied.unwrap_or(default.tie_word_embeddings);
        let (use_sub_norm, projection_norms) = norms(r);
        Self {
            base,
            base_config: None,
            vocab_size,
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim: head_dim.unwrap_or(hidden_size / num_attention_heads),
            hidden_act,
            max_position_embeddings,
            rms_norm_eps,
            rope_theta,
            tie_word_embeddings,
            projection_norms,
            use_sub_norm: use_sub_norm.unwrap_or(default.use_sub_norm),
            use_qk_norm: r.flag("model", "use_qk_norm").unwrap_or(default.use_qk_norm),
            initializer_range: r.number("model", "initializer_range", Range::above(0.0)).unwrap_or(0.02),
        }
    }

    /// The configuration with this quantization and a vocabulary of `vocab_size`, unchecked.
    pub fn config(
        &self,
        weights: WeightQuant,
        activations: ActivationQuant,
        vocab_size: usize,
    ) -> ModelConfig {
        ModelConfig {
            vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            hidden_act: self.hidden_act,
            max_position_embeddings: self.max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps as f32,
            rope_theta: self.rope_theta as f32,
            tie_word_embeddings: self.tie_word_embeddings,
            use_sub_norm: self.use_sub_norm,
            projection_norms: self.projection_norms,
            use_qk_norm: self.use_qk_norm,
            weights,
            activations,
            initializer_range: self.initializer_range as f32,
            // Biases, scaled RoPE: a base may have them, new models do not.
            ..self.base_config.clone().unwrap_or_default()
        }
    }
}

/// Whether there are sub-norms, as `model.norm` or `use_sub_norm` say, and whether there are norms before all projections. What the
/// recipe itself says goes before what `model.config` or `model.base` say.
fn norms(r: &mut Reader) -> (Option<bool>, bool) {
    let inline = ["norm", "use_sub_norm"].map(|key| r.has_inline("model", key));
    let names = [("pre", "pre"), ("sub", "sub"), (PROJECTION, PROJECTION)];
    let norm = r.choice("model", "norm", &names);
    let flag = r.flag("model", "use_sub_norm");
    let by_name = norm.map(|name| name != "pre");
    let all = norm == Some(PROJECTION);
    let (Some(name), Some(sub_norms), Some(by_flag)) = (norm, by_name, flag) else {
        return (by_name.or(flag), all);
    };
    match inline {
        [true, false] => (by_name, all),
        [false, true] => (flag, all && by_flag),
        _ => {
            if sub_norms != by_flag {
                let message = format!(
                    "model.norm = \"{name}\" contradicts model.use_sub_norm = {by_flag}; give only one of them"
                );
                r.fault("model", "norm", message);
            }
            (by_name, all)
        }
    }
}

/// The value of `model.norm` that `use_sub_norm` does not have.
const PROJECTION: &str = "projection";

fn norm_name<S: Serializer>(_: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(PROJECTION)
}

/// Puts the keys of the file that `model.config` names under those of `[model]`.
///
/// # Errors
/// If the file cannot be read.
pub fn include_config(
    path: &Path,
    entries: &mut Entries,
    faults: &mut Vec<Fault>,
) -> Result<(), RecipeError> {
    let Some(model) = entries.sections.get_mut("model") else { return Ok(()) };
    let Some(entry) = model.remove("config") else { return Ok(()) };
    let Value::Text(name) = &entry.value else {
        let (written, found) = (&entry.written, entry.value.type_name());
        let message = format!("model.config = {written}: found {found}, expected the path of a TOML file");
        faults.push(Fault { origin: entry.value_at, message });
        return Ok(());
    };
    let file = resolve(path, name, &entry.value_at, Path::exists);
    if !file.is_file() {
        let beside = path.parent().unwrap_or(Path::new("")).join(name);
        let message =
            format!("model.config: no file {} and no {name} in the working directory", beside.display());
        faults.push(Fault { origin: entry.value_at, message });
        return Ok(());
    }
    match parse_keys(&file, &read_text(&file)?) {
        Ok(keys) => keys.into_iter().for_each(|(key, entry)| {
            model.entry(key).or_insert(entry);
        }),
        Err(found) => faults.extend(found),
    }
    Ok(())
}
