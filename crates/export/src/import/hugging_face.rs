//! Checkpoints in Hugging Face's layout: `config.json`, safetensors in one file or in shards, tokenizer.
//!
//! Packed ternary weights come with a `weight_scale` that divides or multiplies, as `config.json` says and
//! nothing else can ([`Quantization`]). A BitNet checkpoint whose `config.json` says nothing is refused:
//! `transformers` would run it without quantization, which its authors hardly meant.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use tritforge_checkpoint::{Dtype, Tensors};
use tritforge_config::{
    ActivationQuant, Granularity, HuggingFaceConfig, ModelConfig, Quantization, WeightQuant,
};
use tritforge_support::counted;
use tritforge_ternary::{FloatType, Scales, TernaryTensor, check_finite_bytes, unpack_stripes};
use tritforge_text::Tokenizer;

use super::files::{self, WeightFiles};
use super::{Assume, Stored};
use crate::ExportError;
use crate::plan::{TensorPlan, TensorRole, items};

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Names of 1bitLLM's checkpoints where they differ: ours, theirs.
const OLDER: [(&str, &str); 2] =
    [("self_attn.attn_sub_norm", "self_attn.inner_attn_ln"), ("mlp.ffn_sub_norm", "mlp.ffn_layernorm")];

/// A checkpoint of Hugging Face.
pub(crate) struct HuggingFaceSource {
    pub(super) directory: PathBuf,
    files: Vec<Tensors>,
    /// Tensor → which file.
    index: HashMap<String, usize>,
    quantization: Quantization,
    pub(super) config: ModelConfig,
    /// Fields of `config.json` that are not known.
    pub(super) unknown: Vec<String>,
    pub(super) description: String,
}

impl HuggingFaceSource {
    pub(super) fn open(path: &Path, assume: Option<Assume>) -> Result<Self, ExportError> {
        let directory = match path.is_dir() {
            true => path.to_path_buf(),
            false => path.parent().map(Path::to_path_buf).unwrap_or_default(),
        };
        let fault = |path: &Path, message: String| ExportError::Import { path: path.to_path_buf(), message };
        let WeightFiles { files, index } = files::open(path, &directory)?;
        let config_path = directory.join("config.json");
        let text = fs::read_to_string(&config_path).map_err(|e| {
            fault(
                &config_path,
                format!(
                    "cannot read: {e}; it describes the model's \
                                                      architecture"
                ),
            )
        })?;
        let HuggingFaceConfig { mut config, model_type, quantization, unknown } =
            HuggingFaceConfig::from_json(&text)
                .map_err(|e| fault(&config_path, e.to_string().replacen("config.json: ", "", 1)))?;
        let quantization = match (assume, quantization) {
            (Some(Assume::FullPrecision), _) => Quantization::Unsaid,
            (Some(Assume::Ternary(quantization)), _) => quantization,
            (None, Quantization::Unsaid) if config.use_sub_norm => {
                return Err(fault(
                    &config_path,
                    "a BitNet model without quantization_config, which transformers would run unquantized. \
                     Say what its weights are with --assume: online (latent weights, quantized in every \
                     forward pass), divides or multiplies (packed codes, and how weight_scale is applied), \
                     or full-precision"
                        .to_string(),
                ));
            }
            (None, quantization) => quantization,
        };
        (config.weights, config.activations) = match quantization {
            Quantization::Unsaid => (WeightQuant::None, ActivationQuant::None),
            Quantization::Online => (WeightQuant::Absmean, ActivationQuant::Absmax),
            Quantization::Divides | Quantization::Multiplies => {
                (WeightQuant::Ternary, ActivationQuant::Absmax)
            }
        };
        let kind = match quantization {
            Quantization::Unsaid => "full precision",
            Quantization::Online => "latent weights of a ternary model",
            Quantization::Divides => "packed ternary weights, weight_scale divides",
            Quantization::Multiplies => "packed ternary weights, weight_scale multiplies",
        };
        let mut source = Self {
            directory,
            files,
            index,
            quantization,
            config,
            unknown,
            description: format!("{model_type}, {kind}"),
        };
        if source.config.weights == WeightQuant::Ternary {
            source.config.granularity = source.granularity()?;
        }
        for field in &source.unknown {
            log::warn!("{}: unknown field {field} is ignored", config_path.display());
        }
        if source.config.tie_word_embeddings && source.has_own_head()? {
            log::warn!(
                "{}: tie_word_embeddings = true, but {HEAD} differs from {EMBEDDING}: the stored head is \
                 kept, as in transformers 5",
                config_path.display()
            );
            source.config.tie_word_embeddings = false;
        }
        if let [first, ..] = &source.unexpected_tensors(&items(&source.config))[..] {
            let message = match first.strip_suffix("_scale") {
                Some(weight) => format!(
                    "tensor {weight} is packed (it has a {first}), and config.json does not say how: expected a \
                     quantization_config of quant_method \"bitnet\" whose quantization_mode is \"offline\""
                ),
                None => format!("tensor {first} is not part of the model that config.json describes"),
            };
            return Err(fault(path, message));
        }
        Ok(source)
    }

    /// The files that it is read from.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let weights = self.files.iter().map(|file| file.path().to_path_buf());
        std::iter::once(self.directory.join("config.json")).chain(weights).collect()
    }

    /// Whether a head is stored whose numbers are not those of the embedding.
    fn has_own_head(&self) -> Result<bool, ExportError> {
        let stored = |name: &str| {
            let file = self.index.get(name).map(|file| &self.files[*file]);
            file.map(|file| Ok::<_, ExportError>((file, file.raw(name)?))).transpose()
        };
        let (Some((_, head)), Some((_, embedding))) = (stored(HEAD)?, stored(EMBEDDING)?) else {
            return Ok(false);
        };
        if head.0 == embedding.0 {
            return Ok((&head.1, head.2) != (&embedding.1, embedding.2));
        }
        // Another type: the same head if no number is lost in it.
        let shape = [self.config.vocab_size, self.config.hidden_size];
        let values = |name: &str| self.files[self.index[name]].f32(name, &shape);
        Ok(values(HEAD)? != values(EMBEDDING)?)
    }

    /// The file that holds a tensor, and the tensor's name there.
    fn find(&self, item: &TensorPlan) -> Result<(&Tensors, String), ExportError> {
        for name in names(item) {
            if let Some(file) = self.index.get(&name) {
                return Ok((&self.files[*file], name));
            }
        }
        Err(ExportError::Tensor {
            tensor: item.source.clone(),
            message: format!("missing; by config.json the model has it with shape {:?}", item.shape),
        })
    }

    pub(super) fn stored(&self, item: &TensorPlan) -> Result<Stored, ExportError> {
        let (file, name) = self.find(item)?;
        match file.raw(&name)?.0 {
            Dtype::U8 => Ok(Stored::Ternary),
            Dtype::BF16 => Ok(Stored::Bf16),
            Dtype::F32 | Dtype::F16 => Ok(Stored::F32),
            other => Err(ExportError::Tensor {
                tensor: name,
                message: format!("type {other:?}, expected F32, F16, BF16, or U8 for packed ternary weights"),
            }),
        }
    }

    pub(super) fn storage(&self, item: &TensorPlan) -> Result<(String, u64), ExportError> {
        let (file, name) = self.find(item)?;
        let (dtype, _, bytes) = file.raw(&name)?;
        let scale = self.index.get(&format!("{name}_scale")).filter(|_| dtype == Dtype::U8);
        let scale = scale.map(|file| self.files[*file].raw(&format!("{name}_scale"))).transpose()?;
        Ok((format!("{dtype:?}"), (bytes.len() + scale.map_or(0, |(_, _, bytes)| bytes.len())) as u64))
    }

    /// The numbers as they are stored, NaN and infinity among them.
    pub(super) fn dense(&self, item: &TensorPlan) -> Result<Cow<'_, [f32]>, ExportError> {
        let (file, name) = self.find(item)?;
        let values = file.f32_as_stored(&name, &item.shape)?;
        match name.strip_suffix(".bias") {
            // transformers' AutoBitLinear adds the bias before it multiplies.
            Some(linear) if self.quantization == Quantization::Multiplies => {
                let scales = self.scales_of(&format!("{linear}.weight"), [values.len(), 1])?;
                let scaled = |(row, bias): (usize, &f32)| bias * scales.row(row)[0];
                Ok(Cow::Owned(values.iter().enumerate().map(scaled).collect()))
            }
            _ => Ok(values),
        }
    }

    /// The bytes of a tensor of bf16, none of them NaN or infinity; none where its numbers have to be
    /// changed.
    pub(super) fn bf16(&self, item: &TensorPlan) -> Result<Option<&[u8]>, ExportError> {
        let (file, name) = self.find(item)?;
        let (dtype, shape, bytes) = file.raw(&name)?;
        let changed = name.ends_with(".bias") && self.quantization == Quantization::Multiplies;
        if dtype != Dtype::BF16 || shape != item.shape || changed {
            return Ok(None);
        }
        check_finite_bytes(FloatType::Bf16, bytes, item.matrix()[1])
            .map_err(|e| ExportError::Tensor { tensor: name, message: e.to_string() })?;
        Ok(Some(bytes))
    }

    /// Which weights share a scale, by the shapes of the scales; the finest of all. A scale that is missing is an error
    /// where it is read.
    fn granularity(&self) -> Result<Granularity, ExportError> {
        let mut finest = Granularity::Tensor;
        for item in items(&self.config).iter().filter(|item| item.role == TensorRole::Projection) {
            let Ok((_, name)) = self.find(item) else { continue };
            if let Some(file) = self.index.get(&format!("{name}_scale")) {
                let (_, shape, _) = self.files[*file].raw(&format!("{name}_scale"))?;
                let found = Granularity::of_shape(&shape, item.matrix());
                finest = found.map_or(finest, |found| finest.finer(found));
            }
        }
        Ok(finest)
    }

    /// The scales that multiply the codes, whatever the file's do.
    pub(super) fn scales(&self, item: &TensorPlan) -> Result<Scales, ExportError> {
        self.scales_of(&self.find(item)?.1, item.matrix())
    }

    fn scales_of(&self, weight: &str, matrix: [usize; 2]) -> Result<Scales, ExportError> {
        let name = format!("{weight}_scale");
        let fault = |message: String| ExportError::Tensor { tensor: name.clone(), message };
        let Some(file) = self.index.get(&name) else {
            return Err(fault("missing; packed weights cannot be read without it".to_string()));
        };
        let file = &self.files[*file];
        let (_, shape, _) = file.raw(&name)?;
        let granularity =
            Granularity::of_shape(&shape, matrix).map_err(|source| fault(source.to_string()))?;
        let stored = file.f32(&name, &shape)?;
        let divides = self.quantization == Quantization::Divides;
        let scales = stored.iter().map(|stored| if divides { 1.0 / stored } else { *stored }).collect();
        Scales::new(granularity, matrix, scales)
            .and_then(|scales| scales.refined(self.config.granularity.finer(granularity), matrix))
            .map_err(|source| fault(source.to_string()))
    }

    pub(super) fn ternary(&self, item: &TensorPlan) -> Result<TernaryTensor, ExportError> {
        let (file, name) = self.find(item)?;
        let [rows, cols] = item.matrix();
        let (_, shape, bytes) = file.raw(&name)?;
        let packed = [rows.div_ceil(4), cols];
        if shape != packed {
            let message = format!("packed shape {shape:?}, expected {packed:?}");
            return Err(ExportError::Tensor { tensor: name, message });
        }
        let scales = self.scales(item)?;
        unpack_stripes(bytes, rows, cols)
            .and_then(|codes| TernaryTensor::from_codes(codes, rows, cols, scales))
            .map_err(|source| ExportError::Ternary { tensor: name, source })
    }

    pub(super) fn release(&self, item: &TensorPlan) {
        if let Ok((file, name)) = self.find(item) {
            file.release(&name);
        }
    }

    fn unexpected_tensors(&self, items: &[TensorPlan]) -> Vec<String> {
        let mut rest: Vec<&String> = self.index.keys().collect();
        let packed = matches!(self.quantization, Quantization::Divides | Quantization::Multiplies);
        let mut known: Vec<String> = items.iter().flat_map(names).collect();
        if packed {
            known.extend(items.iter().flat_map(names).map(|name| format!("{name}_scale")));
        }
        known.sort();
        rest.retain(|name| {
            // Buffers that older versions saved, and the head of a tied model, which is the embedding once
            // more.
            let ignored =
                name.ends_with("rotary_emb.inv_freq") || (self.config.tie_word_embeddings && *name == HEAD);
            !ignored && known.binary_search(name).is_err()
        });
        let mut rest: Vec<String> = rest.into_iter().cloned().collect();
        rest.sort();
        rest
    }

    /// The tokenizer and the content of its `tokenizer.json`, if the checkpoint has one; of a
    /// `tokenizer.model` or a tiktoken file without `tokenizer.json` that of one which encodes as they do.
    pub(super) fn tokenizer(&self) -> Result<Option<(Tokenizer, Vec<u8>)>, ExportError> {
        let Some(path) = Tokenizer::file_in(&self.directory) else {
            return match files::other_tokenizer(&self.directory) {
                None => Ok(None),
                Some(other) => Err(ExportError::Import {
                    path: other,
                    message: "this file is not supported, and there is no tokenizer.json. Create one with \
                         transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
                        .to_string(),
                }),
            };
        };
        let tokenizer = Tokenizer::from_file(&path)?;
        if tokenizer.vocab_size() > self.config.vocab_size {
            log::warn!(
                "{}: {}, but the embedding has {}: ids from {} on cannot be used",
                path.display(),
                counted(tokenizer.vocab_size(), "token id"),
                counted(self.config.vocab_size, "row"),
                self.config.vocab_size
            );
        }
        let bytes = if path.extension().is_some_and(|e| e == "json") && !tokenizer.is_extended() {
            fs::read(&path).map_err(|e| ExportError::Import {
                path: path.clone(),
                message: format!("cannot read: {e}"),
            })?
        } else {
            tokenizer.to_json()?.into_bytes()
        };
        Ok(Some((tokenizer, bytes)))
    }
}

/// The names that a tensor may have.
fn names(item: &TensorPlan) -> Vec<String> {
    let older = OLDER.iter().find(|(ours, _)| item.source.contains(ours));
    let older = older.map(|(ours, theirs)| item.source.replace(ours, theirs));
    [item.source.clone()].into_iter().chain(older).collect()
}
