//! A full-precision teacher out of a directory in Hugging Face's layout, run by `candle-transformers`: Llama,
//! Qwen2 and Qwen3.
//!
//! Its models for text give the logits of the last token only; below them stands the model without a head,
//! which gives what the head multiplies at every position. A Llama is a Qwen2 whose three biases are 0. What
//! candle's models do not compute (scaled RoPE, heads of another width than the hidden size divided by their
//! number) is refused: this project's own models run it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{Linear, VarBuilder};
use candle_transformers::models::{qwen2, qwen3};
use serde::de::DeserializeOwned;
use serde_json::json;
use tritforge_config::{AttentionBias, HiddenAct, HuggingFaceConfig, ModelConfig, Projection, Quantization};
use tritforge_data::Hub;
use tritforge_support::counted;

use super::files::Files;
use crate::{TrainError, identity};

/// A model of `candle-transformers`.
#[derive(Debug)]
pub(super) struct Pretrained {
    config: ModelConfig,
    body: Body,
    /// Of the normed hidden states, [vocab_size, hidden_size].
    head: Linear,
    /// Which model it is.
    fingerprint: String,
    /// Fields of its `config.json` that nobody here knows.
    unknown: Vec<String>,
}

/// Everything before the head. It is never run itself: a clone, which shares the weights, is, and takes its
/// keys and values away with it.
#[derive(Debug)]
enum Body {
    Qwen2(qwen2::Model),
    Qwen3(qwen3::Model),
}

impl Pretrained {
    /// Reads a directory, or `hf://OWNER/NAME[@REVISION]` from the Hub.
    pub(super) fn open(path: &Path) -> Result<Self, TrainError> {
        let dir = match path.to_str().filter(|text| text.starts_with("hf://")) {
            Some(address) => Hub::from_env().model(address)?,
            None => path.to_path_buf(),
        };
        let text = match fs::read_to_string(dir.join("config.json")) {
            Ok(text) => text,
            Err(error) => {
                return Err(refused(format!(
                    "config.json: {error}; distill.engine = \"candle\" needs a Hugging Face directory or \
                     hf://OWNER/NAME"
                )));
            }
        };
        let HuggingFaceConfig { config, model_type, quantization, unknown } =
            HuggingFaceConfig::from_json(&text)?;
        check(&config, &model_type, quantization)?;
        let files = Files::open(&dir)?;
        let tensors = tensors(&config, &model_type, &files)?;
        let table = if config.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let head = Linear::new(tensors[table].clone(), None);
        let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let body = match model_type.as_str() {
            "qwen3" => Body::Qwen3(qwen3::Model::new(&candle_config(&config)?, weights)?),
            _ => Body::Qwen2(qwen2::Model::new(&candle_config(&config)?, weights)?),
        };
        let description = dir.join("config.json");
        let all = std::iter::once(description.as_path()).chain(files.paths.iter().map(PathBuf::as_path));
        let fingerprint = identity::of_files(all)?;
        Ok(Self { config, body, head, fingerprint, unknown })
    }

    pub(super) fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Fields of its `config.json` that were passed over.
    pub(super) fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// Which model this is: SHA-256 of its files.
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The logits of every token of one segment, [tokens, vocab_size].
    pub(super) fn logits(&self, ids: &[u32]) -> Result<Vec<f32>, TrainError> {
        let longest = self.config.max_position_embeddings;
        if ids.len() > longest {
            return Err(refused(format!(
                "{}, but the teacher's context length is {longest}",
                counted(ids.len(), "token")
            )));
        }
        let ids = Tensor::from_slice(ids, (1, ids.len()), &Device::Cpu)?;
        let hidden = match &self.body {
            Body::Qwen2(model) => model.clone().forward(&ids, 0, None)?,
            Body::Qwen3(model) => model.clone().forward(&ids, 0)?,
        };
        Ok(self.head.forward(&hidden)?.flatten_all()?.to_vec1()?)
    }
}

fn refused(message: String) -> TrainError {
    TrainError::State(message)
}

/// Whether candle's models compute this one.
fn check(config: &ModelConfig, model_type: &str, quantization: Quantization) -> Result<(), TrainError> {
    let other = "use distill.engine = \"tritforge\"";
    let fault = |message: String| Err(refused(format!("{message}; {other}")));
    if !["llama", "qwen2", "qwen3"].contains(&model_type) {
        return fault(format!(
            "model_type = \"{model_type}\": distill.engine = \"candle\" supports llama, qwen2 and qwen3"
        ));
    }
    if quantization != Quantization::Unsaid {
        return fault(
            "quantization_config: distill.engine = \"candle\" supports only full-precision weights"
                .to_string(),
        );
    }
    if config.rope_scaling.is_some() {
        return fault("RoPE scaling: not supported by distill.engine = \"candle\"".to_string());
    }
    if config.hidden_act != HiddenAct::Silu {
        return fault("hidden_act: distill.engine = \"candle\" supports only silu".to_string());
    }
    if model_type == "qwen3" {
        return Ok(());
    }
    let (heads, head_dim, width) = (config.num_attention_heads, config.head_dim, config.hidden_size);
    if heads * head_dim != width {
        return fault(format!(
            "{heads} heads of {head_dim} with a hidden size of {width}: distill.engine = \"candle\" requires \
             heads · head_dim = hidden size"
        ));
    }
    if config.attention_bias == AttentionBias::All {
        return fault(
            "attention_bias: distill.engine = \"candle\" does not support the bias of o_proj in llama"
                .to_string(),
        );
    }
    Ok(())
}

/// Every tensor of the model in f32, by name; biases that a Llama does not have are 0.
fn tensors(
    config: &ModelConfig,
    model_type: &str,
    files: &Files,
) -> Result<HashMap<String, Tensor>, TrainError> {
    let mut tensors = HashMap::new();
    let mut take = |name: String, shape: &[usize]| {
        let values = files.f32(&name, shape)?;
        tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
        Ok::<_, TrainError>(())
    };
    let (table, width) = ([config.vocab_size, config.hidden_size], [config.hidden_size]);
    take("model.embed_tokens.weight".to_string(), &table)?;
    if !config.tie_word_embeddings {
        take("lm_head.weight".to_string(), &table)?;
    }
    take("model.norm.weight".to_string(), &width)?;
    for layer in 0..config.num_hidden_layers {
        let prefix = format!("model.layers.{layer}");
        take(format!("{prefix}.input_layernorm.weight"), &width)?;
        take(format!("{prefix}.post_attention_layernorm.weight"), &width)?;
        if config.use_qk_norm {
            take(format!("{prefix}.self_attn.q_norm.weight"), &[config.head_dim])?;
            take(format!("{prefix}.self_attn.k_norm.weight"), &[config.head_dim])?;
        }
        for projection in Projection::ALL {
            take(projection.hf_weight(layer), &config.projection_shape(projection))?;
            if config.attention_bias.has(projection) {
                take(projection.hf_bias(layer), &config.projection_shape(projection)[..1])?;
            }
        }
    }
    if model_type == "llama" {
        for layer in 0..config.num_hidden_layers {
            for projection in [Projection::Q, Projection::K, Projection::V] {
                let [rows, _] = config.projection_shape(projection);
                let zero = Tensor::zeros(rows, DType::F32, &Device::Cpu)?;
                tensors.entry(projection.hf_bias(layer)).or_insert(zero);
            }
        }
    }
    Ok(tensors)
}

/// The configuration of one of candle's models, each of which reads the fields that it knows.
fn candle_config<C: DeserializeOwned>(config: &ModelConfig) -> Result<C, TrainError> {
    let fields = json!({
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "head_dim": config.head_dim,
        "attention_bias": config.attention_bias == AttentionBias::All,
        "num_key_value_heads": config.num_key_value_heads,
        "max_position_embeddings": config.max_position_embeddings,
        // The mask of Qwen2 has one always: as long as the context it hides nothing.
        "sliding_window": config.max_position_embeddings,
        "max_window_layers": config.num_hidden_layers,
        "tie_word_embeddings": config.tie_word_embeddings,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.rms_norm_eps,
        "use_sliding_window": false,
        "hidden_act": "silu",
    });
    serde_json::from_value(fields).map_err(|error| refused(format!("candle's configuration: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::Map;
    use tritforge_export::{ImportOptions, LoadedModel, import};
    use tritforge_model::Decoder;

    use super::*;
    use crate::objective::distill::teacher::files::{INDEX, SINGLE};

    fn llama() -> ModelConfig {
        ModelConfig {
            vocab_size: 40,
            hidden_size: 32,
            intermediate_size: 48,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 8,
            max_position_embeddings: 24,
            rope_theta: 500.0,
            tie_word_embeddings: false,
            use_sub_norm: false,
            weights: tritforge_config::WeightQuant::None,
            activations: tritforge_config::ActivationQuant::None,
            initializer_range: 0.3,
            ..ModelConfig::default()
        }
    }

    /// A directory in Hugging Face's layout with a model of this shape, in so many files.
    fn write(dir: &Path, config: &ModelConfig, files: usize) {
        fs::create_dir_all(dir).unwrap();
        let json = config.to_hugging_face(false, "float32", Map::new()).unwrap();
        fs::write(dir.join("config.json"), json).unwrap();
        let model = Decoder::init(config, 7).unwrap();
        let mut shards = vec![HashMap::new(); files];
        let mut index = Map::new();
        for (i, parameter) in model.parameters().iter().enumerate() {
            // Norms are not all 1, nor biases 0.
            let mut values = model.values(&parameter.name).unwrap();
            values.iter_mut().enumerate().for_each(|(j, x)| *x += 0.2 * ((i * 31 + j) as f32).sin());
            let tensor = Tensor::from_vec(values, parameter.tensor.dims(), &Device::Cpu).unwrap();
            shards[i % files].insert(parameter.name.clone(), tensor);
            index.insert(parameter.name.clone(), json!(format!("part-{}.safetensors", i % files)));
        }
        if let [whole] = &shards[..] {
            candle_core::safetensors::save(whole, dir.join(SINGLE)).unwrap();
            return;
        }
        for (i, shard) in shards.iter().enumerate() {
            candle_core::safetensors::save(shard, dir.join(format!("part-{i}.safetensors"))).unwrap();
        }
        fs::write(dir.join(INDEX), json!({ "weight_map": index }).to_string()).unwrap();
    }

    fn log_softmax(logits: &[f32]) -> Vec<f64> {
        let sum: f64 = logits.iter().map(|z| f64::from(*z).exp()).sum();
        logits.iter().map(|z| f64::from(*z) - sum.ln()).collect()
    }

    #[test]
    fn log_probabilities_are_those_of_the_imported_model() {
        let qwen2 = ModelConfig { attention_bias: AttentionBias::Qkv, tie_word_embeddings: true, ..llama() };
        let qwen3 = ModelConfig { use_qk_norm: true, head_dim: 12, ..llama() };
        let biased = ModelConfig { attention_bias: AttentionBias::All, ..qwen3.clone() };
        let tied = ModelConfig { tie_word_embeddings: true, num_key_value_heads: 4, ..llama() };
        for (config, files) in [(llama(), 1), (tied, 2), (qwen2, 1), (qwen3, 3), (biased, 1)] {
            let temp = tempfile::tempdir().unwrap();
            let (source, out) = (temp.path().join("hf"), temp.path().join("ours"));
            write(&source, &config, files);
            import(&source, &out, &ImportOptions::default()).unwrap();
            let ours = LoadedModel::open(&out, &ImportOptions::default()).unwrap().decoder().unwrap();
            let candle = Pretrained::open(&source).unwrap();
            assert_eq!(candle.config(), ours.config());
            let whole: Vec<u32> = (0..24).map(|i| i * i % 40).collect();
            let first = candle.logits(&whole).unwrap();
            // Nothing is left of a sequence when the next one comes.
            for ids in [&whole[..1], &whole[5..12], &whole[..]] {
                let found = candle.logits(ids).unwrap();
                let expected = ours.logits(ids, 1, None).unwrap();
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.chunks_exact(40).zip(expected.chunks_exact(40)) {
                    for (a, b) in log_softmax(found).into_iter().zip(log_softmax(expected)) {
                        assert!((a - b).abs() < 1e-4, "{config:?}: {a} {b}");
                    }
                }
            }
            assert_eq!(first, candle.logits(&whole).unwrap());
            let found = candle.logits(&[1; 25]).unwrap_err().to_string();
            assert!(found.contains("25 tokens, but the teacher's context length is 24"), "{found}");
        }
    }

    #[test]
    fn what_candle_does_not_compute_is_refused() {
        let golden = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name);
        let temp = tempfile::tempdir().unwrap();
        let narrow = temp.path().join("narrow");
        write(&narrow, &ModelConfig { head_dim: 16, ..llama() }, 1);
        let biased = temp.path().join("biased");
        write(&biased, &ModelConfig { attention_bias: AttentionBias::All, ..llama() }, 1);
        for (dir, expected) in [
            (golden("llama_tiny"), "RoPE scaling"),
            (golden("qwen2_tiny"), "RoPE scaling"),
            (golden("bitnet_tiny"), "model_type = \"bitnet\""),
            (narrow, "4 heads of 16 with a hidden size of 32"),
            (biased, "the bias of o_proj"),
        ] {
            let found = Pretrained::open(&dir).unwrap_err().to_string();
            assert!(found.contains(expected) && found.contains("distill.engine = \"tritforge\""), "{found}");
        }
        let empty = temp.path().join("empty");
        fs::create_dir(&empty).unwrap();
        let found = |dir: &Path| Pretrained::open(dir).unwrap_err().to_string();
        assert!(found(&empty).contains("a Hugging Face directory"));
        write(&empty, &llama(), 1);
        fs::remove_file(empty.join(SINGLE)).unwrap();
        assert!(found(&empty).contains("neither model.safetensors"));
        fs::write(empty.join(INDEX), r#"{"weight_map": {"a": "../b.safetensors"}}"#).unwrap();
        assert!(found(&empty).contains("is not the name of a file in the same directory"));
        let missing = temp.path().join("missing");
        write(&missing, &llama(), 1);
        write(&missing, &ModelConfig { tie_word_embeddings: true, ..llama() }, 1);
        let json = llama().to_hugging_face(false, "float32", Map::new()).unwrap();
        fs::write(missing.join("config.json"), json).unwrap();
        assert!(found(&missing).contains("tensor lm_head.weight: missing"));
    }
}
