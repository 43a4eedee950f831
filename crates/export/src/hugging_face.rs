//! A checkpoint to a directory in Hugging Face's layout that `transformers` loads: weights packed, in bf16 or
//! in f32, with `config.json`, `generation_config.json`, tokenizer, chat template and a model card.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use tritforge_checkpoint::{
    Checkpoint, MODEL, TOKENIZER, TOKENIZER_CONFIG, TensorFile, TensorSpec, TensorType, Tensors,
};
use tritforge_config::{AttentionBias, ModelConfig, WeightQuant};
use tritforge_support::counted;
use tritforge_ternary::{TernaryTensor, pack_stripes};
use tritforge_text::Tokenizer;

use crate::ExportError;
use crate::card::model_card;
use crate::import::latent_weights;
use crate::plan::{TensorPlan, TensorRole, items};
use crate::tensor_data::{bf16_bytes, check, check_stored, f32_bytes, numbers, ternary_tensor};

/// What to write.
#[derive(Debug, Clone)]
pub struct HuggingFaceOptions {
    /// Pack ternary weights, 2 bits each, with the scale beside them: what runs is what was trained. Else
    /// they are latent weights, quantized by whoever loads them.
    pub packed: bool,
    /// Whether all other numbers are stored as bf16 and not as f32.
    pub bf16: bool,
    /// The model's name, for its card.
    pub name: String,
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct HuggingFaceReport {
    /// The class of `transformers` that loads it.
    pub class: String,
    /// Bytes of the weights.
    pub bytes: u64,
    /// Ternary tensors that were packed.
    pub packed_tensors: usize,
    /// The largest difference that storing numbers as bf16 made.
    pub rounding: f32,
    /// Codes that quantizing the rounded latent weights gives otherwise than quantizing the trained ones.
    pub codes_changed: usize,
}

/// Writes a checkpoint as a directory that does not exist yet. Peak memory is that of the largest tensor.
///
/// # Errors
/// If no class of `transformers` computes the model, the checkpoint is damaged, or the directory exists or
/// cannot be written; nothing is left under its name then.
pub fn export_hugging_face(
    checkpoint: &Checkpoint,
    out: &Path,
    options: &HuggingFaceOptions,
) -> Result<HuggingFaceReport, ExportError> {
    let config = checkpoint.config()?;
    let ternary = config.weights != WeightQuant::None;
    if ternary != config.activations.is_integer() {
        return Err(ExportError::NotTernary {
            weights: format!("{:?}", config.weights).to_lowercase(),
            activations: format!("{:?}", config.activations).to_lowercase(),
        });
    }
    if options.packed && !ternary {
        let message = "the model is full-precision, so there is nothing to pack: export it as bf16 or f32";
        return Err(ExportError::Import {
            path: checkpoint.dir().to_path_buf(),
            message: message.to_string(),
        });
    }
    if options.packed && config.deployed_bias() != AttentionBias::None {
        let message = "transformers would multiply the biases of packed linear layers by the weight scale: \
                       export as bf16 or f32";
        return Err(ExportError::Import {
            path: checkpoint.dir().to_path_buf(),
            message: message.to_string(),
        });
    }
    let io = |action| ExportError::io(out, action);
    if out.exists() {
        return Err(io("create")(std::io::ErrorKind::AlreadyExists.into()));
    }
    let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = out.with_file_name(format!(".tmp-{name}"));
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(io("remove the temporary directory of"))?;
    }
    fs::create_dir_all(&temporary).map_err(io("create"))?;
    let written = write_all(checkpoint, &config, &temporary, options);
    match written {
        Ok(report) => fs::rename(&temporary, out).map_err(io("rename into")).map(|()| report),
        Err(error) => {
            // The first error is the one to tell.
            let _ = fs::remove_dir_all(&temporary);
            Err(error)
        }
    }
}

fn write_all(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    directory: &Path,
    options: &HuggingFaceOptions,
) -> Result<HuggingFaceReport, ExportError> {
    let put = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        fs::write(&path, bytes).map_err(ExportError::io(&path, "write"))
    };
    let tokenizer = match checkpoint.has(TOKENIZER) {
        true => {
            let (json, roles) = (checkpoint.file(TOKENIZER)?, checkpoint.file(TOKENIZER_CONFIG)?);
            put(TOKENIZER, &json)?;
            put(TOKENIZER_CONFIG, &roles)?;
            Some(Tokenizer::from_json(&json)?.with_config(&roles)?)
        }
        false => None,
    };
    let ids = special_ids(tokenizer.as_ref());
    let dtype = if options.bf16 { "bfloat16" } else { "float32" };
    let json = config.to_hugging_face(options.packed, dtype, ids.clone())?;
    put("config.json", json.as_bytes())?;
    put("generation_config.json", generation_config(ids, tokenizer.as_ref()).as_bytes())?;
    put("README.md", model_card(checkpoint, config, options).as_bytes())?;

    let tensors = checkpoint.model_tensors()?;
    let items = items(config);
    let mut report = HuggingFaceReport {
        class: serde_json::from_str::<Value>(&json)
            .ok()
            .and_then(|json| Some(json["architectures"][0].as_str()?.to_string()))
            .unwrap_or_default(),
        bytes: 0,
        packed_tensors: 0,
        rounding: 0.0,
        codes_changed: 0,
    };
    let specs = items.iter().flat_map(|item| specs_of(item, options)).collect();
    let path = directory.join(MODEL);
    let mut file = TensorFile::create(&path, specs)?;
    for spec in file.specs().to_vec() {
        let weight = spec.name.strip_suffix("_scale").unwrap_or(&spec.name);
        let Some(item) = items.iter().find(|item| item.source == weight) else { continue };
        let bytes = if item.role == TensorRole::Projection && options.packed {
            let tensor = ternary_tensor(&tensors, config, &item.source, item.matrix())?;
            packed_bytes(item, &spec, &tensor, &mut report)?
        } else {
            number_bytes(&tensors, config, item, options, &mut report)?
        };
        file.write(&spec.name, &bytes)?;
        tensors.release(&item.source);
    }
    file.finish()?;
    report.bytes = fs::metadata(&path).map(|m| m.len()).unwrap_or_default();
    Ok(report)
}

/// The ids of tokens with a role, under the names of `config.json`.
fn special_ids(tokenizer: Option<&Tokenizer>) -> Map<String, Value> {
    // Without a tokenizer they are null: a class would take others for granted.
    let roles = [
        ("bos_token_id", tokenizer.and_then(Tokenizer::bos)),
        ("eos_token_id", tokenizer.and_then(Tokenizer::eos)),
        ("pad_token_id", tokenizer.and_then(Tokenizer::pad)),
    ];
    roles.into_iter().map(|(key, id)| (key.to_string(), json!(id))).collect()
}

/// `generation_config.json`: those ids, and under `eos_token_id` all that end a generation, EOS first; a
/// number where it is one.
fn generation_config(mut ids: Map<String, Value>, tokenizer: Option<&Tokenizer>) -> String {
    if let Some(tokenizer) = tokenizer {
        let mut ends = tokenizer.end_ids();
        ends.sort_by_key(|id| (tokenizer.eos() != Some(*id), *id));
        let value = match ends[..] {
            [] => Value::Null,
            [one] => json!(one),
            _ => json!(ends),
        };
        ids.insert("eos_token_id".to_string(), value);
    }
    format!("{:#}\n", Value::Object(ids))
}

fn specs_of(item: &TensorPlan, options: &HuggingFaceOptions) -> Vec<TensorSpec> {
    let ty = if options.bf16 { TensorType::Bf16 } else { TensorType::F32 };
    if item.role != TensorRole::Projection || !options.packed {
        return vec![TensorSpec { name: item.source.clone(), shape: item.shape.clone(), ty }];
    }
    let [rows, cols] = item.matrix();
    vec![
        TensorSpec { name: item.source.clone(), shape: vec![rows.div_ceil(4), cols], ty: TensorType::U8 },
        // In f32 whatever the rest is: it is one number, and exact.
        TensorSpec { name: format!("{}_scale", item.source), shape: vec![1], ty: TensorType::F32 },
    ]
}

fn packed_bytes(
    item: &TensorPlan,
    spec: &TensorSpec,
    tensor: &TernaryTensor,
    report: &mut HuggingFaceReport,
) -> Result<Vec<u8>, ExportError> {
    if spec.ty == TensorType::F32 {
        return Ok(f32_bytes(tensor.scales().values()).into_owned());
    }
    if !tensor.rows().is_multiple_of(4) {
        let message = format!(
            "{}: transformers can only unpack multiples of 4; export as bf16 or f32",
            counted(tensor.rows(), "row")
        );
        return Err(ExportError::Tensor { tensor: item.source.clone(), message });
    }
    report.packed_tensors += 1;
    pack_stripes(tensor.codes(), tensor.rows(), tensor.cols())
        .map_err(|source| ExportError::Ternary { tensor: item.source.clone(), source })
}

fn number_bytes(
    tensors: &Tensors,
    config: &ModelConfig,
    item: &TensorPlan,
    options: &HuggingFaceOptions,
    report: &mut HuggingFaceReport,
) -> Result<Vec<u8>, ExportError> {
    let projection = item.role == TensorRole::Projection && config.weights != WeightQuant::None;
    let values = match config.weights {
        WeightQuant::Ternary if projection => {
            latent_weights(&ternary_tensor(tensors, config, &item.source, item.matrix())?).into()
        }
        _ => numbers(tensors, config, item)?,
    };
    if !options.bf16 {
        return Ok(f32_bytes(&values).into_owned());
    }
    let bytes = bf16_bytes(&values);
    let rounded = || bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32());
    check(&item.source, &values, item.matrix()[1])?;
    check_stored(&item.source, &values, rounded(), item.matrix()[1], "bf16")?;
    report.rounding = values.iter().zip(rounded()).fold(report.rounding, |m, (a, b)| m.max((a - b).abs()));
    if projection {
        let fault = |source| ExportError::Ternary { tensor: item.source.clone(), source };
        let [rows, cols] = item.matrix();
        let quantize = |values: &[f32]| {
            TernaryTensor::quantize_by(config.quantizer, config.granularity, values, [rows, cols])
        };
        let trained = quantize(&values).map_err(fault)?;
        let stored = quantize(&rounded().collect::<Vec<_>>()).map_err(fault)?;
        report.codes_changed += trained.codes().iter().zip(stored.codes()).filter(|(a, b)| a != b).count();
    }
    Ok(bytes)
}
