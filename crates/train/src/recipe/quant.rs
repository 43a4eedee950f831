//! `[quant]`: how the architecture is quantized.

use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use tritforge_config::{ActivationQuant, Granularity, ModelConfig, Rotation, WeightQuant, WeightQuantizer};
use tritforge_model::GradPrecision;
use tritforge_recipe::{Model, Range, Reader};
use tritforge_ternary::{QUANTIZERS, QuantizerSettings, Sparsity, Ste};

/// `[quant]`: the quantization of the seven projections of each block.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Quant {
    /// `"absmean"` (ternary, the default), `"none"`, or `"ternary"`: as `model.base` stores them, never quantized again.
    #[schemars(with = "String")]
    pub weights: WeightQuant,
    /// What computes the codes and scales of latent weights, where `weights = "absmean"`: `"absmean"` (the default), `"absmedian"`,
    /// `"twn"` (threshold 0.75 · mean|W|, scale the mean of what is above it), `"rms"` (1.2240 · √(mean W²), of least squared error on a
    /// Gaussian), `"least_squares"` (the codes of absmean with the scale of least squared error), `"threshold"` (as `"twn"`, with
    /// `threshold` · mean|W|), `"binary"` (sign(W) · mean|W|, no zeros) or `"sherry"` (signs, but that the least of every four
    /// consecutive inputs is 0). The scales of `"lsq"` (from 2 · mean|W|) and `"seq"` (from max|W|; codes ±1 beyond a third of it) are
    /// trained parameters, without weight decay. `"dqt"` has no latent weights: they are ternary themselves, one scale a tensor, and rounded
    /// at random after every step, so that learning rates are about a tenth of others.
    #[serde(serialize_with = "display", skip_serializing_if = "is_default")]
    #[schemars(with = "String")]
    pub scale: WeightQuantizer,
    /// Which weights share a scale: `"tensor"` (one scale, the default), `"row"` (one an output), or groups of 32, 64, 128 or 256
    /// consecutive inputs, which must divide every width. Scales of rows and groups are f16 numbers.
    #[serde(serialize_with = "granularity", skip_serializing_if = "is_default")]
    #[schemars(with = "String")]
    pub granularity: Granularity,
    /// What of its gradient a latent weight gets: `"identity"` (all of it, the default), `"clip"` (none beyond 1.5 steps of the rounding,
    /// where the clamp sets in), `"trust"` (none where weight and value are more than half a step apart) or `"damp"` (half of it where
    /// the code is 0).
    #[serde(serialize_with = "display", skip_serializing_if = "is_default")]
    #[schemars(with = "String")]
    pub ste: Ste,
    /// `"absmax"` (int8, the default), `"int4"` (4 bits, -7 to 7) or `"none"`; by the largest magnitude of each token. Files of models with
    /// `"int4"` are of architecture `tritforge`, which other programs refuse.
    #[schemars(with = "String")]
    pub activations: ActivationQuant,
    /// How training multiplies the gradients of the projections: `"int24"` (rounded to 24 bits and multiplied by integers, about as
    /// precise as f32; in f32 where the forward multiplies no integers), `"f32"`, `"auto"` (the default: `"int24"` where that is faster, on
    /// processors with AVX-512 VNNI, else `"f32"`), or `"int16"` and `"int8"`, faster and noisier: rounded at random. These two need
    /// ternary weights and int8 activations.
    #[serde(serialize_with = "backward_name", skip_serializing_if = "is_auto")]
    #[schemars(with = "String")]
    pub backward: GradPrecision,
    /// `"none"` (the default) or `"hadamard"`: the inputs of `o_proj` and `down_proj` are multiplied by an orthonormal Hadamard matrix before
    /// they are quantized, in blocks of the largest power of two that divides their width, at most 256 (BitNet v2, arXiv 2504.18415); the
    /// weights of a base without it are folded with it. Files of such models are of architecture `tritforge`, which other programs refuse.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(with = "String")]
    pub rotation: Rotation,
    /// The part of each token's inputs of a projection that keep their codes, those of largest magnitude (Q-Sparse, arXiv 2407.10969; BitNet
    /// a4.8): above 0, below 1, rounded up to whole inputs; all of them by default. Gradients pass to all. Files of such models are of
    /// architecture `tritforge`, which other programs refuse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation_top_k: Option<f32>,
    /// Whether the embedding is ternary too, and which of its weights share a scale: `"none"` (full precision, the default),
    /// `"tensor"`, `"row"` (one a token) or the size of a group, as `granularity`. The quantizer is that of the projections. A
    /// tied head is the embedding.
    #[serde(serialize_with = "optional_granularity", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub embedding: Option<Granularity>,
    /// The same of a head that is not the embedding. Its input is int8 unless `activations = "none"`; its gradients are f32.
    #[serde(serialize_with = "optional_granularity", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub head: Option<Granularity>,
    /// N:M sparsity: of every M consecutive inputs the N weights of largest magnitude keep their codes, the others are 0, as in `"2:4"`; M
    /// is at most 32 and divides every row and group. Scales are those of all weights, and all get gradients. `"none"` by default;
    /// `scale = "sherry"` is 3:4 by definition.
    #[serde(serialize_with = "sparsity", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub sparsity: Option<Sparsity>,
    /// The threshold of `scale = "threshold"`, as a fraction of mean|W|; by default 0.7.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Which codes training's forward sees: `"round"` (those that are deployed, the default), `"stochastic"` (±1 with probability
    /// min(|w/step|, 1), drawn anew every step), `"soft"` (the mean code at a temperature: it sets in over the first fifth of the run
    /// and hardens until its end, as in Hestia) or `"residual"` (latent weights are added to the codes, in a part that rises over the first
    /// tenth of the run and falls to 0 until its end, as in Sherry's Arenas). Evaluated and deployed are the rounded codes in any case.
    #[serde(skip_serializing_if = "is_default")]
    pub codes: CodeChoice,
    /// The first temperature of `codes = "soft"`, for weights in units of the step; by default 0.36, at which the mean codes of
    /// normally distributed weights are nearest to these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// α of `codes = "soft"`: the temperature of each matrix is multiplied by exp(−α · score), with a score from 0 to 1 that says how much,
    /// among all matrices, the loss bends along its weights before the first step (Hestia, where it is 0.4): sensitive matrices harden
    /// earlier. 0 (the same temperature for all) by default; from -10 to 10.
    #[serde(skip_serializing_if = "is_default")]
    pub hessian_alpha: f64,
    /// The largest part of the latent weights that `codes = "residual"` adds to the codes; by default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub residual: Option<f64>,
    /// How strongly latent weights are pulled towards their ternary values Q after every step: `W ← W − lr · pull · (W − Q)`. 0 by
    /// default.
    #[serde(skip_serializing_if = "is_default")]
    pub pull: f64,
    /// λ of the bias that weights with code 0 make: λ times the sum of a row's dead weights is added to its output, so that they are
    /// heard and pulled at (Tequila, arXiv 2509.23809, where it is 0.001). Export makes it an ordinary bias, so that only projections
    /// of the attention can have it, and only in architectures with biases: `model.norm = "pre"` and a SiLU gate, or a base with
    /// biases, whose projections it is of then. From 0 (none, the default) to 1.
    #[serde(skip_serializing_if = "is_default")]
    pub dead_zone_bias: f64,
}

/// Which codes training's forward sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CodeChoice {
    /// Those that are deployed.
    #[default]
    Round,
    /// Drawn at random.
    Stochastic,
    /// Mean codes at a temperature.
    Soft,
    /// Those that are deployed, with a part of the latent weights added.
    Residual,
}

impl Default for Quant {
    fn default() -> Self {
        Self {
            weights: WeightQuant::Absmean,
            scale: WeightQuantizer::default(),
            granularity: Granularity::Tensor,
            ste: Ste::Identity,
            activations: ActivationQuant::Absmax,
            backward: GradPrecision::Auto,
            embedding: None,
            head: None,
            sparsity: None,
            threshold: None,
            codes: CodeChoice::Round,
            temperature: None,
            hessian_alpha: 0.0,
            residual: None,
            pull: 0.0,
            dead_zone_bias: 0.0,
            rotation: Rotation::None,
            activation_top_k: None,
        }
    }
}

impl Quant {
    /// Reads the section.
    pub(super) fn read(r: &mut Reader) -> Self {
        super::refused::quantizations(r);
        let weights = [
            ("absmean", WeightQuant::Absmean),
            ("none", WeightQuant::None),
            ("ternary", WeightQuant::Ternary),
        ];
        let activations = ActivationQuant::ALL.map(|activations| (activations.name(), activations));
        let rotations = Rotation::ALL.map(|rotation| (rotation.name(), rotation));
        let quantizers = QUANTIZERS.map(|quantizer| (quantizer.name(), WeightQuantizer::new(quantizer)));
        let sizes = Granularity::GROUPS.map(|size| (size.to_string(), Granularity::Group(size)));
        let mut granularities = vec![("tensor", Granularity::Tensor), ("row", Granularity::Row)];
        granularities.extend(sizes.iter().map(|(name, granularity)| (name.as_str(), *granularity)));
        let tables: Vec<_> = std::iter::once(("none", None))
            .chain(granularities.iter().map(|(name, granularity)| (*name, Some(*granularity))))
            .collect();
        let estimators = Ste::ALL.map(|ste| (ste.name(), ste));
        let choices = [
            ("round", CodeChoice::Round),
            ("stochastic", CodeChoice::Stochastic),
            ("soft", CodeChoice::Soft),
            ("residual", CodeChoice::Residual),
        ];
        let backwards = GradPrecision::ALL.map(|backward| (backward.name(), backward));
        let default = Self::default();
        Self {
            weights: r.choice("quant", "weights", &weights).unwrap_or(default.weights),
            scale: r.choice("quant", "scale", &quantizers).unwrap_or(default.scale),
            granularity: r.choice("quant", "granularity", &granularities).unwrap_or(default.granularity),
            ste: r.choice("quant", "ste", &estimators).unwrap_or(default.ste),
            activations: r.choice("quant", "activations", &activations).unwrap_or(default.activations),
            backward: r.choice("quant", "backward", &backwards).unwrap_or(default.backward),
            embedding: r.choice("quant", "embedding", &tables).unwrap_or(default.embedding),
            head: r.choice("quant", "head", &tables).unwrap_or(default.head),
            sparsity: read_sparsity(r),
            threshold: r.number("quant", "threshold", Range::above(0.0).at_most(10.0)),
            codes: r.choice("quant", "codes", &choices).unwrap_or_default(),
            temperature: r.number("quant", "temperature", Range::at_least(1e-3).at_most(100.0)),
            hessian_alpha: r
                .number("quant", "hessian_alpha", Range::at_least(-10.0).at_most(10.0))
                .unwrap_or(0.0),
            residual: r.number("quant", "residual", Range::above(0.0).at_most(100.0)),
            pull: r.number("quant", "pull", Range::at_least(0.0)).unwrap_or(0.0),
            dead_zone_bias: r
                .number("quant", "dead_zone_bias", Range::at_least(0.0).at_most(1.0))
                .unwrap_or(0.0),
            rotation: r.choice("quant", "rotation", &rotations).unwrap_or(default.rotation),
            activation_top_k: r
                .number("quant", "activation_top_k", Range::above(0.0).below(1.0))
                .map(|part: f64| part as f32),
        }
    }

    /// The first temperature of soft codes.
    pub(crate) fn temperature(&self) -> f64 {
        self.temperature.unwrap_or(0.36)
    }

    /// The largest residual.
    pub(crate) fn residual(&self) -> f64 {
        self.residual.unwrap_or(1.0)
    }

    /// The quantizer of latent weights with all that belongs to it.
    pub(super) fn quantizer(&self) -> WeightQuantizer {
        let default = QuantizerSettings::default();
        let threshold = self.threshold.map_or(default.threshold, |threshold| threshold as f32);
        self.scale.with(QuantizerSettings { threshold, sparsity: self.sparsity })
    }

    /// How many of every few consecutive codes may differ from 0, if latent weights are quantized so.
    pub(super) fn kept(&self) -> Option<Sparsity> {
        self.quantizer().kept().filter(|_| self.weights == WeightQuant::Absmean)
    }

    /// The configuration of a model with this quantization and a vocabulary of `vocab_size`, unchecked.
    pub(super) fn config(&self, model: &Model, vocab_size: usize) -> ModelConfig {
        ModelConfig {
            quantizer: self.quantizer(),
            granularity: self.granularity,
            ternary_embedding: self.embedding,
            // What is said of a tied head is checked apart.
            ternary_head: self.head.filter(|_| !model.tie_word_embeddings),
            rotation: self.rotation,
            activation_top_k: self.activation_top_k,
            dead_zone_bias: Some(self.dead_zone_bias as f32).filter(|lambda| *lambda > 0.0),
            ..model.config(self.weights, self.activations, vocab_size)
        }
    }

    /// Notes what contradicts it.
    pub(super) fn check(&self, r: &mut Reader, model: &Model) {
        if model.tie_word_embeddings && self.head.is_some() && self.head != self.embedding {
            let message = "quant.head contradicts model.tie_word_embeddings = true: the head is the embedding; set \
                           quant.embedding";
            r.fault("quant", "head", message);
        }
        for (key, table) in [("embedding", self.embedding), ("head", self.head)] {
            if table.is_some() && self.weights == WeightQuant::None {
                let message = format!(
                    "quant.{key}: expected quant.weights = \"absmean\": a ternary {key} is quantized as the projections are"
                );
                r.fault("quant", key, message);
            }
        }
        let integers = self.weights != WeightQuant::None && self.activations.is_integer();
        if self.backward.needs_integers() && !integers {
            let message = format!(
                "quant.backward = \"{}\": expected quant.weights = \"absmean\" and quant.activations = \
                 \"absmax\" or \"int4\", since only then the forward pass uses integers",
                self.backward.name()
            );
            r.fault("quant", "backward", message);
        }
        if self.weights != WeightQuant::Absmean && self.scale != WeightQuantizer::default() {
            let message = format!(
                "quant.scale = \"{}\": expected quant.weights = \"absmean\": no latent weights are quantized",
                self.scale
            );
            r.fault("quant", "scale", message);
        }
        if self.weights != WeightQuant::Absmean && self.ste != Ste::Identity {
            let message = format!(
                "quant.ste = \"{}\": expected quant.weights = \"absmean\": only latent weights have an estimator",
                self.ste
            );
            r.fault("quant", "ste", message);
        }
        if self.scale.learned().is_some() && self.ste != Ste::Identity {
            let message = format!(
                "quant.ste = \"{}\" contradicts quant.scale = \"{}\", whose learned scales have an estimator of their own",
                self.ste, self.scale
            );
            r.fault("quant", "ste", message);
        }
        if let Some(sparsity) = self.sparsity {
            if self.weights != WeightQuant::Absmean {
                let message = format!(
                    "quant.sparsity = \"{sparsity}\": expected quant.weights = \"absmean\": no latent weights are quantized"
                );
                r.fault("quant", "sparsity", message);
            }
            if let Some(own) = self.scale.sparsity().filter(|own| *own != sparsity) {
                let message = format!(
                    "quant.sparsity = \"{sparsity}\" contradicts quant.scale = \"{}\", which is {own} by definition",
                    self.scale
                );
                r.fault("quant", "sparsity", message);
            }
        }
        if let Some(threshold) = self.threshold.filter(|_| self.scale.name() != "threshold") {
            let message = format!(
                "quant.threshold = {threshold}: expected quant.scale = \"threshold\": {} has a threshold of its own",
                self.scale
            );
            r.fault("quant", "threshold", message);
        }
        self.check_codes(r);
        if let Some(part) = self.activation_top_k.filter(|_| !self.activations.is_integer()) {
            let message = format!(
                "quant.activation_top_k = {part}: expected quant.activations = \"absmax\" or \"int4\": the codes of the others are 0"
            );
            r.fault("quant", "activation_top_k", message);
        }
        if self.pull > 0.0 && self.weights != WeightQuant::Absmean {
            let message = format!(
                "quant.pull = {}: expected quant.weights = \"absmean\": only latent weights can be pulled towards their codes",
                self.pull
            );
            r.fault("quant", "pull", message);
        }
        if self.weights == WeightQuant::None && self.granularity != Granularity::Tensor {
            let message = "quant.granularity: expected quant.weights = \"absmean\": full-precision weights have no scales";
            r.fault("quant", "granularity", message);
        }
    }
}

/// N:M, or none.
fn read_sparsity(r: &mut Reader) -> Option<Sparsity> {
    let text = r.text("quant", "sparsity").filter(|text| text != "none")?;
    let parsed = text.parse::<Sparsity>();
    if parsed.is_err() {
        let message = format!(
            "quant.sparsity = \"{text}\": expected N:M with 1 ≤ N < M ≤ 32, such as \"2:4\", or \"none\""
        );
        r.fault("quant", "sparsity", message);
    }
    parsed.ok()
}

fn sparsity<S: Serializer>(sparsity: &Option<Sparsity>, serializer: S) -> Result<S::Ok, S::Error> {
    match sparsity {
        Some(sparsity) => serializer.collect_str(sparsity),
        None => serializer.serialize_str("none"),
    }
}

fn backward_name<S: Serializer>(backward: &GradPrecision, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(backward.name())
}

fn display<S: Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The size of a group as a number, the rest as text.
fn granularity<S: Serializer>(granularity: &Granularity, serializer: S) -> Result<S::Ok, S::Error> {
    match granularity {
        Granularity::Group(size) => serializer.serialize_u64(*size as u64),
        other => serializer.collect_str(other),
    }
}

/// As [`granularity`]; none is not written.
fn optional_granularity<S: Serializer>(
    value: &Option<Granularity>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => granularity(value, serializer),
        None => serializer.serialize_str("none"),
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

// serde hands references to `skip_serializing_if`.
fn is_auto(backward: &GradPrecision) -> bool {
    *backward == GradPrecision::Auto
}
