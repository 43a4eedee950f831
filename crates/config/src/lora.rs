//! `LoraConfig`: a low-rank adapter (LoRA, arXiv 2106.09685), and its `adapter_config.json` in the form of
//! peft.

use serde::{Deserialize, Serialize};

use crate::{AdapterConfig, ConfigError, Projection};

/// The file that says what an adapter is.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The file with an adapter's tensors.
pub const ADAPTER_MODEL: &str = "adapter_model.safetensors";

/// The metadata of a GGUF adapter that only one runtime reads rightly: its name. Ours; others pass over it.
pub const ADAPTER_RUNTIME: &str = "adapter.lora.runtime";

/// Where the low-rank product enters the forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraMode {
    /// Beside the projection: `y = W(x) + scaling · B(A(x))`, on the input before it is quantized, as peft
    /// does. The base stays as it is; the adapter is deployed beside it.
    Adapter,
    /// Inside the quantizer: `y = Q(W + scaling · B·A)(x)`. Merging is exact: the merged latent weight has
    /// the codes and the scale that the forward used. Needs a base with latent weights.
    QatLora,
    /// Experimental: ternary matrices that move ternary codes (LoTA-QAF, arXiv 2505.18724): `Ŵ = clip(Q +
    /// sign(ΔW)·1[|ΔW| > ω], -1, 1)` with `ΔW = B·A`, an integer from -rank to rank, and the base's scale.
    /// The forward multiplies Ŵ, and merging writes it: nothing is rounded, codes of the base are enough. The
    /// paper's offset μ moves the zero-point of an affine grid; a ternary grid has none, and nothing takes
    /// its place here.
    Lota,
}

/// [`LoraConfig::threshold`] where none is given. The paper has ω = 48 at rank 64, 0.75, and with it an
/// offset that changes the output where no code moves. Without the offset codes are all there is, and A
/// begins with little more than half its elements other than 0: no sum comes near 0.75 of the rank, and no
/// code would ever move.
pub const LOTA_THRESHOLD: f32 = 0.1;
/// `peft_type` of an adapter of [`LoraMode::Lota`], which peft does not know.
pub(crate) const LOTA: &str = "LOTA";

impl LoraMode {
    /// All of them.
    pub const ALL: [LoraMode; 3] = [LoraMode::Adapter, LoraMode::QatLora, LoraMode::Lota];

    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            LoraMode::Adapter => "adapter",
            LoraMode::QatLora => "qat_lora",
            LoraMode::Lota => "lota",
        }
    }
}

/// A low-rank adapter: for each target module two matrices, A [rank, in] and B [out, rank].
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// Where the product enters.
    pub mode: LoraMode,
    /// Inner width of the product; peft's `r`.
    pub rank: usize,
    /// Numerator of [`LoraConfig::scaling`]; peft's `lora_alpha`. Without meaning in [`LoraMode::Lota`],
    /// whose product is not scaled.
    pub alpha: f32,
    /// Share of the inputs of A that training drops; 0 inside the quantizer, where A has no input.
    pub dropout: f32,
    /// Whether the scaling is `alpha / √rank` (rsLoRA, arXiv 2312.03732) instead of `alpha / rank`.
    pub use_rslora: bool,
    /// The projections that have an adapter, in every block.
    pub target_modules: Vec<Projection>,
    /// For [`LoraMode::Lota`]: ω over the rank. A code moves where |ΔW| is larger than ω.
    pub threshold: f32,
}

impl LoraConfig {
    /// What the product is multiplied by.
    pub fn scaling(&self) -> f32 {
        let rank = self.rank as f32;
        self.alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// ω of [`LoraMode::Lota`]: what |ΔW| must exceed for a code to move.
    pub fn omega(&self) -> f32 {
        self.threshold * self.rank as f32
    }

    /// Names of the two matrices of a projection, without peft's prefix: `….q_proj.lora_A.weight` and
    /// `….lora_B.weight`.
    pub fn tensors(layer: usize, projection: Projection) -> [String; 2] {
        let weight = projection.hf_weight(layer);
        let module = weight.strip_suffix(".weight").unwrap_or(&weight);
        [format!("{module}.lora_A.weight"), format!("{module}.lora_B.weight")]
    }

    /// The name that peft gives a tensor of [`Self::tensors`].
    pub fn peft_name(tensor: &str) -> String {
        format!("base_model.model.{tensor}")
    }

    /// As peft's `adapter_config.json`; `base` is the path or name of the model that the adapter belongs to.
    /// Of [`LoraMode::Lota`] the `peft_type` is one that peft refuses.
    pub fn to_json(&self, base: &str) -> String {
        let lota = self.mode == LoraMode::Lota;
        let file = PeftConfig {
            peft_type: if lota { LOTA } else { "LORA" }.to_string(),
            task_type: Some("CAUSAL_LM".to_string()),
            base_model_name_or_path: Some(base.to_string()),
            r: self.rank,
            lora_alpha: self.alpha,
            lora_dropout: self.dropout,
            use_rslora: self.use_rslora,
            target_modules: self.target_modules.iter().map(|p| p.module().to_string()).collect(),
            bias: "none".to_string(),
            fan_in_fan_out: false,
            use_dora: false,
            modules_to_save: None,
            inference_mode: true,
            tritforge_mode: Some(self.mode),
            lota_threshold: lota.then_some(self.threshold),
        };
        serde_json::to_string_pretty(&file).unwrap_or_default()
    }

    /// Reads the `adapter_config.json` of an adapter that is the same in every block, as recipes train it;
    /// also returns what it names as its base. [`crate::AdapterConfig`] reads any.
    ///
    /// # Errors
    /// If it is no JSON of this form, or describes an adapter of another kind.
    pub fn from_json(text: &str) -> Result<(Self, Option<String>), ConfigError> {
        let config = AdapterConfig::from_json(text)?;
        Ok((config.uniform()?, config.base))
    }

    /// # Errors
    /// If a number is out of its range, or nothing is adapted.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |key: &'static str, found: String, expected: &str| {
            Err(ConfigError::Value { key, found, expected: expected.to_string() })
        };
        if self.rank == 0 || self.rank > 1 << 16 {
            return refuse("r", self.rank.to_string(), "from 1 to 65536");
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return refuse("lora_alpha", self.alpha.to_string(), "a number above 0");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse("lora_dropout", self.dropout.to_string(), "from 0 to less than 1");
        }
        if self.mode != LoraMode::Adapter && self.dropout > 0.0 {
            let expected = "0: inside the quantizer the adapter has no input of its own to apply dropout to";
            return refuse("lora_dropout", self.dropout.to_string(), expected);
        }
        if self.mode == LoraMode::Lota && self.use_rslora {
            return refuse("use_rslora", "true".to_string(), "false: the product of mode lota is not scaled");
        }
        if !(0.0..1.0).contains(&self.threshold) {
            let expected = "from 0 to less than 1, since no sum exceeds the rank";
            return refuse("threshold", self.threshold.to_string(), expected);
        }
        if self.target_modules.is_empty() {
            return refuse("target_modules", "none".to_string(), &module_names());
        }
        Ok(())
    }
}

/// The modules that may be targets, for messages.
pub(crate) fn module_names() -> String {
    Projection::ALL.map(Projection::module).join(", ")
}

/// What is written of an `adapter_config.json`; peft writes more. [`AdapterConfig`] reads it.
#[derive(Serialize)]
struct PeftConfig {
    peft_type: String,
    task_type: Option<String>,
    base_model_name_or_path: Option<String>,
    r: usize,
    lora_alpha: f32,
    lora_dropout: f32,
    use_rslora: bool,
    target_modules: Vec<String>,
    bias: String,
    fan_in_fan_out: bool,
    use_dora: bool,
    modules_to_save: Option<Vec<String>>,
    inference_mode: bool,
    /// Ours; peft passes over it with a warning.
    #[serde(skip_serializing_if = "Option::is_none")]
    tritforge_mode: Option<LoraMode>,
    /// Ours too.
    #[serde(skip_serializing_if = "Option::is_none")]
    lota_threshold: Option<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> LoraConfig {
        LoraConfig {
            mode: LoraMode::QatLora,
            rank: 16,
            alpha: 32.0,
            dropout: 0.0,
            use_rslora: false,
            target_modules: vec![Projection::Q, Projection::Down],
            threshold: LOTA_THRESHOLD,
        }
    }

    #[test]
    fn a_config_survives_its_file() {
        let (read, base) = LoraConfig::from_json(&config().to_json("runs/base")).unwrap();
        assert_eq!((read, base.as_deref()), (config(), Some("runs/base")));
    }

    #[test]
    fn a_lota_config_survives_its_file_and_is_none_of_pefts() {
        let lota = LoraConfig { mode: LoraMode::Lota, threshold: 0.6, ..config() };
        let file = lota.to_json("runs/base");
        assert!(file.contains("\"LOTA\"") && !file.contains("\"LORA\""), "{file}");
        assert_eq!(LoraConfig::from_json(&file).unwrap().0, lota);
        assert!((lota.omega() - 9.6).abs() < 1e-5);
        // Neither kind passes for the other.
        let plain = config().to_json("runs/base");
        assert!(LoraConfig::from_json(&plain.replace("LORA", "LOTA")).is_err());
        assert!(LoraConfig::from_json(&file.replace("LOTA", "LORA")).is_err());
        assert!(LoraConfig { use_rslora: true, ..lota.clone() }.validate().is_err());
        assert!(LoraConfig { dropout: 0.1, ..lota.clone() }.validate().is_err());
        assert!(LoraConfig { threshold: 1.0, ..lota }.validate().is_err());
    }

    #[test]
    fn scaling_divides_by_the_rank_or_its_root() {
        assert_eq!(config().scaling(), 2.0);
        assert_eq!(LoraConfig { use_rslora: true, ..config() }.scaling(), 8.0);
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        let peft = |extra: &str| {
            format!(
                r#"{{"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]{extra}}}"#
            )
        };
        let (read, base) = LoraConfig::from_json(&peft("")).unwrap();
        assert_eq!((read.mode, read.rank, base), (LoraMode::Adapter, 8, None));
        for (extra, key) in [
            (r#", "use_dora": true"#, "use_dora"),
            (r#", "rank_pattern": {"q_proj": 4}"#, "rank_pattern"),
            (r#", "bias": "all""#, "bias"),
            (r#", "modules_to_save": ["lm_head"]"#, "modules_to_save"),
            (r#", "lora_dropout": 1.5"#, "lora_dropout"),
            (r#", "tritforge_mode": "qat_lora", "lora_dropout": 0.1"#, "lora_dropout"),
        ] {
            let error = LoraConfig::from_json(&peft(extra)).unwrap_err().to_string();
            assert!(error.contains(key), "{extra}: {error}");
        }
        for (extra, key) in
            [(r#", "use_dora": 1"#, "use_dora"), (r#", "lora_dropout": 1e308"#, "lora_dropout")]
        {
            let error = LoraConfig::from_json(&peft(extra)).unwrap_err().to_string();
            assert!(error.contains(key) && !error.contains("line"), "{extra}: {error}");
        }
    }
}
