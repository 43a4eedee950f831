//! The decoder: embedding, blocks, final norm, head; its parameters by name.

use std::collections::HashMap;

use rand::SeedableRng;
use rand::distr::Distribution;
use rand_chacha::ChaCha20Rng;
use tritforge_config::{Granularity, LoraConfig, LoraMode, ModelConfig, Projection, WeightQuant};
use tritforge_kernels::RopeTable;

use crate::block::{Block, quantize_linears};
use crate::linear::Linear;
use crate::lora::Adapter;
use crate::parameter::{DecayGroup, FROZEN, Parameter};
use crate::tables::{EMBEDDING, HEAD, Tables};
use crate::{ModelError, Tensor};

/// Token ids of equally long sequences, one after the other, and what should follow each.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Inputs, [sequences · length].
    pub ids: &'a [u32],
    /// The next token at each position, or [`crate::IGNORE_INDEX`].
    pub targets: &'a [u32],
    /// Number of sequences.
    pub sequences: usize,
    /// Positions in `ids` at which a document begins, ascending: attention does not look back over them, and
    /// positions count from them. Every sequence begins one, whether named or not; where there are no others,
    /// the slice may be empty.
    pub segments: &'a [usize],
}

/// Queries, keys and values of a layer as their projections give them: with biases and adapters, before norms
/// of heads and before RoPE; each [tokens, width].
pub type AttentionStates = [Vec<f32>; 3];

/// A decoder-only transformer with ternary projections.
#[derive(Debug)]
pub struct Decoder {
    config: ModelConfig,
    pub(crate) embedding: Tensor,
    pub(crate) head: Option<Tensor>,
    pub(crate) tables: Tables,
    pub(crate) norm: Tensor,
    pub(crate) blocks: Vec<Block>,
    pub(crate) rope: RopeTable,
    parameters: Vec<Parameter>,
    pub(crate) indices: Indices,
    pub(crate) lora: Option<LoraConfig>,
}

/// Which of the parameters the tensors outside the blocks are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Indices {
    pub(crate) embedding: usize,
    pub(crate) norm: usize,
    /// Of what makes logits: the head, or the embedding where they are tied.
    pub(crate) output: usize,
}

impl Decoder {
    /// A new model: matrices from N(0, `initializer_range`²), norms 1, biases 0, in an order that depends on
    /// the seed alone.
    ///
    /// # Errors
    /// If the configuration is impossible.
    pub fn init(config: &ModelConfig, seed: u64) -> Result<Self, ModelError> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let deviation = config.initializer_range;
        let normal = StandardNormal;
        // What scales are learned for: each weight is asked for before its scales.
        let mut latest = (Vec::new(), [0, 0]);
        Self::build(config, None, |name, shape| {
            let n: usize = shape.iter().product();
            let values = match shape {
                _ if config.learned_scales(name).is_some() => {
                    let (weights, matrix) = &latest;
                    let initial = config.quantizer.initial_scales(config.granularity, weights, *matrix)?;
                    initial.unwrap_or_default()
                }
                [_] if name.ends_with(".bias") => vec![0f32; n],
                [_] => vec![1f32; n],
                _ => (0..n).map(|_| normal.sample(&mut rng) as f32 * deviation).collect(),
            };
            if let ([rows, cols], true) = (shape, config.learns_scales()) {
                latest = (values.clone(), [*rows, *cols]);
            }
            Tensor::new(values, shape)
        })
    }

    /// A model whose parameters `load` gives by name and shape, row-major.
    ///
    /// # Errors
    /// If the configuration is impossible, or `load` fails or gives a wrong number of values.
    pub fn load(
        config: &ModelConfig,
        mut load: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, ModelError>,
    ) -> Result<Self, ModelError> {
        Self::build(config, None, |name, shape| loaded(name, shape, load(name, shape)?))
    }

    /// A base model that is never changed, with an adapter: `load` gives the base's tensors, `adapter` the
    /// adapter's ([`LoraConfig::tensors`]), by name and shape, row-major. The adapter's matrices are the only
    /// parameters.
    ///
    /// # Errors
    /// As [`Self::load`], and if the adapter does not fit the base: inside the quantizer it needs latent
    /// weights, a ternary one codes, and its own numbers must be -1, 0 and 1.
    pub fn load_adapted(
        config: &ModelConfig,
        lora: &LoraConfig,
        mut load: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, ModelError>,
        mut adapter: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, ModelError>,
    ) -> Result<Self, ModelError> {
        lora.validate()?;
        if lora.mode == LoraMode::QatLora && config.weights != WeightQuant::Absmean {
            return Err(ModelError::Input {
                what: "a base for mode qat_lora",
                found: format!("weights {:?}", config.weights),
                expected: "latent weights quantized by absmean; adapters of mode adapter need none"
                    .to_string(),
            });
        }
        if lora.mode == LoraMode::Lota && config.weights == WeightQuant::None {
            return Err(ModelError::Input {
                what: "a base for mode lota",
                found: "full-precision weights".to_string(),
                expected: "ternary ones: the adapter moves codes".to_string(),
            });
        }
        if lora.mode == LoraMode::Lota && config.granularity != Granularity::Tensor {
            return Err(ModelError::Input {
                what: "a base for mode lota",
                found: format!("scales of granularity {}", config.granularity),
                expected: "one scale a tensor: the adapter's numbers are in its units".to_string(),
            });
        }
        if let Some(lambda) = config.dead_zone_bias {
            return Err(ModelError::Input {
                what: "a base for an adapter",
                found: format!("dead_zone_bias = {lambda}"),
                expected: "biases that do not change: export the base and import the file, in which they are ordinary ones"
                    .to_string(),
            });
        }
        let mut model =
            Self::build(config, Some(lora), |name, shape| loaded(name, shape, load(name, shape)?))?;
        for block in &mut model.blocks {
            for projection in &lora.target_modules {
                let [rows, cols] = config.projection_shape(*projection);
                let index = model.parameters.len();
                let mut matrix = |name: String, shape: [usize; 2]| {
                    let values = adapter(&name, &shape)?;
                    if lora.mode == LoraMode::Lota {
                        check_ternary(&name, &values)?;
                    }
                    let tensor = loaded(&name, &shape, values)?;
                    model.parameters.push(Parameter {
                        name,
                        tensor: tensor.clone(),
                        group: DecayGroup::Decay,
                        frozen: false,
                    });
                    Ok::<_, ModelError>(tensor)
                };
                let [a, b] = LoraConfig::tensors(block.shape.layer, *projection);
                let shape = [lora.rank, cols];
                let (a, b) = (matrix(a, shape)?, matrix(b, [rows, lora.rank])?);
                let LoraConfig { mode, dropout, .. } = *lora;
                let (scaling, omega) = (lora.scaling(), lora.omega());
                let adapter = Adapter { a, b, shape, index, mode, scaling, dropout, omega };
                block.projections[*projection as usize].adapt(adapter);
            }
        }
        model.quantize()?;
        Ok(model)
    }

    pub(crate) fn build(
        config: &ModelConfig,
        lora: Option<&LoraConfig>,
        mut tensor: impl FnMut(&str, &[usize]) -> Result<Tensor, ModelError>,
    ) -> Result<Self, ModelError> {
        config.validate()?;
        let mut parameters = Vec::new();
        let mut named = |name: &str, shape: &[usize]| {
            let tensor = tensor(name, shape)?;
            if lora.is_some() {
                return Ok::<_, ModelError>((tensor, FROZEN));
            }
            let projection = Projection::ALL.iter().any(|p| name.contains(p.hf_name()));
            let matrix = projection && name.ends_with(".weight") && !name.ends_with(".norm.weight");
            let group = if matrix { DecayGroup::Decay } else { DecayGroup::NoDecay };
            let name = name.to_string();
            parameters.push(Parameter { name, tensor: tensor.clone(), group, frozen: false });
            Ok((tensor, parameters.len() - 1))
        };
        // An adapter inside the quantizer needs the weight that it changes.
        let keep_codes = |projection: Projection| {
            lora.is_some_and(|lora| {
                lora.mode != LoraMode::QatLora || !lora.target_modules.contains(&projection)
            })
        };
        let table = [config.vocab_size, config.hidden_size];
        let (embedding, embedding_index) = named(EMBEDDING, &table)?;
        let blocks = (0..config.num_hidden_layers)
            .map(|layer| Block::new(config, layer, keep_codes, &mut named))
            .collect::<Result<Vec<_>, _>>()?;
        let (norm, norm_index) = named("model.norm.weight", &[config.hidden_size])?;
        let (head, output) = match config.tie_word_embeddings {
            true => (None, embedding_index),
            false => named(HEAD, &table).map(|(head, index)| (Some(head), index))?,
        };
        let indices = Indices { embedding: embedding_index, norm: norm_index, output };
        let rope = rope_table(config);
        let tables = Tables::new(config, &embedding, head.as_ref(), lora.is_some())?;
        let lora = lora.cloned();
        let config = config.clone();
        let mut model =
            Self { config, embedding, head, tables, norm, blocks, rope, parameters, indices, lora };
        model.quantize()?;
        Ok(model)
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// All trainable tensors, always in the same order: with an adapter, its matrices alone.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Says which parameters training is to leave as they are, by name.
    pub fn freeze(&mut self, frozen: impl Fn(&str) -> bool) {
        for parameter in &mut self.parameters {
            parameter.frozen = frozen(&parameter.name);
        }
    }

    /// The projection of a block.
    pub fn projection(&self, layer: usize, projection: Projection) -> &crate::Linear {
        &self.blocks[layer].projections[projection as usize]
    }

    /// The tensor that makes logits: the head's, or the embedding's where they are tied; [vocab_size,
    /// hidden_size].
    pub fn output_weight(&self) -> &Tensor {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Quantizes the weights anew: to be called after every change of a parameter, before the next forward.
    ///
    /// # Errors
    /// If weights that are to be ternary as they stand are not.
    pub fn requantize(&mut self) -> Result<(), ModelError> {
        self.linears().for_each(Linear::invalidate);
        self.quantize()
    }

    /// All quantized matrices: the projections, and a ternary embedding and head.
    fn linears(&mut self) -> impl Iterator<Item = &mut Linear> {
        let tables = self.tables.embedding.iter_mut().chain(&mut self.tables.head);
        self.blocks.iter_mut().flat_map(|b| &mut b.projections).chain(tables)
    }

    fn quantize(&mut self) -> Result<(), ModelError> {
        quantize_linears(self.linears())
    }

    /// The length of the sequences that the ids are.
    ///
    /// # Errors
    /// If the ids do not divide into `sequences`, a sequence is longer than the context, or an id is unknown.
    pub(crate) fn sequence_length(&self, ids: &[u32], sequences: usize) -> Result<usize, ModelError> {
        let longest = self.config.max_position_embeddings;
        let fault = |expected: String| ModelError::Input {
            what: "token ids",
            found: format!("{} in {sequences} sequences", ids.len()),
            expected,
        };
        if ids.is_empty() || sequences == 0 || !ids.len().is_multiple_of(sequences) {
            return Err(fault("at least one, in sequences of equal length".to_string()));
        }
        let length = ids.len() / sequences;
        if length > longest {
            return Err(fault(format!("at most max_position_embeddings = {longest} per sequence")));
        }
        let vocab = self.config.vocab_size;
        if let Some(bad) = ids.iter().find(|id| **id as usize >= vocab) {
            let expected = format!("below the vocabulary's {vocab}");
            return Err(ModelError::Input { what: "token id", found: bad.to_string(), expected });
        }
        Ok(length)
    }

    /// A copy of a parameter's values, row-major; none if the model has no such parameter.
    pub fn values(&self, name: &str) -> Option<Vec<f32>> {
        self.parameters.iter().find(|p| p.name == name).map(|p| p.tensor.read().to_vec())
    }

    /// Gives a parameter other values, row-major; no second copy of the model is made.
    ///
    /// # Errors
    /// If there is no such parameter, or the number of values is another.
    pub fn replace(&mut self, name: &str, values: &[f32]) -> Result<(), ModelError> {
        let fault = |message: String| ModelError::Tensor { name: name.to_string(), message };
        let parameter = self.parameters.iter().find(|p| p.name == name);
        let parameter = parameter.ok_or_else(|| fault("the model has no such parameter".to_string()))?;
        if values.len() != parameter.tensor.len() {
            return Err(fault(format!("{} values, expected {}", values.len(), parameter.tensor.len())));
        }
        parameter.tensor.write().copy_from_slice(values);
        let table = (name == EMBEDDING && self.tables.embedding.is_some())
            || (name == HEAD && self.tables.head.is_some());
        match parameter.group {
            DecayGroup::NoDecay if !table && self.config.learned_scales(name).is_none() => Ok(()),
            _ => self.requantize(),
        }
    }

    /// Every parameter's values by name, copied: what a checkpoint keeps.
    pub fn snapshot(&self) -> HashMap<String, Vec<f32>> {
        self.parameters.iter().map(|p| (p.name.clone(), p.tensor.read().to_vec())).collect()
    }
}

/// Refuses the matrix of a ternary adapter that has other numbers than -1, 0 and 1.
fn check_ternary(name: &str, values: &[f32]) -> Result<(), ModelError> {
    match values.iter().find(|x| ![-1.0, 0.0, 1.0].contains(*x)) {
        None => Ok(()),
        Some(x) => {
            let message = format!("{x}: expected -1, 0 or 1 in a matrix of mode lota");
            Err(ModelError::Tensor { name: name.to_string(), message })
        }
    }
}

/// The cosines and sines of a model's RoPE.
pub(crate) fn rope_table(config: &ModelConfig) -> RopeTable {
    let mut frequencies = RopeTable::frequencies(config.head_dim, config.rope_theta);
    let scaling = config.rope_scaling.as_ref();
    let factor = scaling.map_or(1.0, |scaling| scaling.apply(&mut frequencies, config.rope_theta));
    RopeTable::with_frequencies(&frequencies, factor, config.max_position_embeddings)
}

/// A tensor of the values that were loaded.
pub(crate) fn loaded(name: &str, shape: &[usize], values: Vec<f32>) -> Result<Tensor, ModelError> {
    let expected: usize = shape.iter().product();
    if values.len() != expected {
        let message = format!("{} values, expected {expected} for shape {shape:?}", values.len());
        return Err(ModelError::Tensor { name: name.to_string(), message });
    }
    Tensor::new(values, shape)
}

/// N(0, 1) by Box–Muller in f64; kept here because initial weights must never change under a dependency's
/// update.
pub(crate) struct StandardNormal;

impl Distribution<f64> for StandardNormal {
    fn sample<R: rand::Rng + ?Sized>(&self, rng: &mut R) -> f64 {
        // 1 − u is in (0, 1]: its logarithm is finite.
        let (u, v) = (1.0 - rng.random::<f64>(), rng.random::<f64>());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}
