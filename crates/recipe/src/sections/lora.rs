//! `[lora]`: a low-rank adapter.

use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use tritforge_config::{LOTA_THRESHOLD, LoraConfig, LoraMode, Projection};

use crate::{Kind, Range, Reader, Value};

/// `[lora]`: a low-rank adapter on `model.base`, which stays as it is; kept where `rank` is given.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Lora {
    /// `"adapter"` (the default: beside the projections, deployed beside the base), `"qat_lora"` (inside the quantizer: merged
    /// exactly, needs latent weights) or, experimental, `"lota"` (ternary, moves codes: merged exactly, codes are enough).
    #[serde(serialize_with = "mode_name")]
    #[schemars(with = "String")]
    pub mode: LoraMode,
    /// Rank of the adapter.
    pub rank: usize,
    /// LoRA alpha: B·A is scaled by alpha / rank; by default 2 × rank. Not for `"lota"`.
    pub alpha: f64,
    /// Dropout probability on the adapter's inputs; by default 0. Only for `"adapter"`.
    pub dropout: f64,
    /// Whether to scale B·A by `alpha / √rank` (rsLoRA) instead of `alpha / rank`; by default false. Not for
    /// `"lota"`.
    pub use_rslora: bool,
    /// For `"lota"`: the share of `rank` that a weight's sum must exceed for its code to move; by default 0.1. Sums are seldom large: at the
    /// paper's 0.75, without its offset, hardly any code moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// The projections with an adapter: `"q_proj"`, `"k_proj"`, `"v_proj"`, `"o_proj"`, `"gate_proj"`, `"up_proj"`, `"down_proj"`; by
    /// default all seven.
    #[serde(serialize_with = "module_names")]
    #[schemars(with = "Vec<String>")]
    pub target_modules: Vec<Projection>,
    /// Learning rate of the B matrices relative to `optim.lr` (LoRA+, arXiv 2402.12354); by default 1.
    pub lr_ratio_b: f64,
    /// `[[lora.learning_rates]]`: peak learning rates of single projections; by default `optim.lr`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub learning_rates: Vec<ModuleRate>,
}

/// `[[lora.learning_rates]]`: the learning rate of a projection's adapter.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ModuleRate {
    /// The projection, as in `target_modules`.
    #[serde(serialize_with = "module_name")]
    #[schemars(with = "String")]
    pub module: Projection,
    /// Its peak learning rate, instead of `optim.lr`.
    pub lr: f64,
}

/// What a learning rate may be.
const RATES: Range = Range::above(0.0).at_most(10.0);

/// The projections by the names of their modules.
fn modules() -> [(&'static str, Projection); 7] {
    Projection::ALL.map(|projection| (projection.module(), projection))
}

impl Lora {
    /// Reads the section; none where no rank is given.
    pub fn read(r: &mut Reader) -> Option<Self> {
        let modes = LoraMode::ALL.map(|mode| (mode.name(), mode));
        let mode = r.choice("lora", "mode", &modes);
        let rank = r.size("lora", "rank", 1);
        let alpha = r.number("lora", "alpha", Range::above(0.0));
        let dropout = r.number("lora", "dropout", Range::at_least(0.0).below(1.0));
        let use_rslora = r.flag("lora", "use_rslora");
        let target_modules = r.choices("lora", "target_modules", &modules());
        let threshold = r.number("lora", "threshold", Range::at_least(0.0).below(1.0));
        let lr_ratio_b = r.number("lora", "lr_ratio_b", Range::above(0.0));
        let learning_rates = learning_rates(r);
        let Some(rank) = rank else {
            if r.has_any("lora") && !r.given("lora", "rank") {
                r.fault(
                    "lora",
                    "rank",
                    "lora.rank is missing: expected the rank of the adapter, as in rank = 16",
                );
            }
            return None;
        };
        let mode = mode.unwrap_or(LoraMode::Adapter);
        let lota = mode == LoraMode::Lota;
        Some(Self {
            mode,
            rank,
            // A product that is not scaled: alpha / rank = 1.
            alpha: alpha.unwrap_or(if lota { 1.0 } else { 2.0 } * rank as f64),
            dropout: dropout.unwrap_or(0.0),
            use_rslora: use_rslora.unwrap_or(false),
            target_modules: target_modules.unwrap_or_else(|| Projection::ALL.to_vec()),
            threshold: threshold.or(lota.then_some(0.1)),
            lr_ratio_b: lr_ratio_b.unwrap_or(1.0),
            learning_rates,
        })
    }

    /// The adapter that the section describes.
    pub fn config(&self) -> LoraConfig {
        LoraConfig {
            mode: self.mode,
            rank: self.rank,
            alpha: self.alpha as f32,
            dropout: self.dropout as f32,
            use_rslora: self.use_rslora,
            target_modules: self.target_modules.clone(),
            threshold: self.threshold.map_or(LOTA_THRESHOLD, |threshold| threshold as f32),
        }
    }

    /// How many times `lr`, the recipe's learning rate, a parameter learns with.
    pub fn rate(&self, parameter: &str, lr: f64) -> f64 {
        let module = self.learning_rates.iter().find(|rate| parameter.contains(rate.module.module()));
        let of_matrix = if parameter.contains("lora_B") { self.lr_ratio_b } else { 1.0 };
        of_matrix * module.map_or(1.0, |rate| rate.lr / lr)
    }
}

fn learning_rates(r: &mut Reader) -> Vec<ModuleRate> {
    let names = modules().map(|(name, _)| name.to_string()).to_vec();
    let keys = [("module", Kind::Choice(names)), ("lr", Kind::Number(RATES))];
    let tables = r.tables("lora", "learning_rates", &keys).unwrap_or_default();
    let mut rates = Vec::new();
    for (origin, table) in tables {
        let module = match table.get("module").map(|entry| &entry.value) {
            Some(Value::Text(name)) => modules().into_iter().find(|(known, _)| known == name).map(|(_, p)| p),
            _ => None,
        };
        let lr = match table.get("lr").map(|entry| &entry.value) {
            Some(Value::Float(lr)) => Some(*lr),
            Some(Value::Integer(lr)) => Some(*lr as f64),
            _ => None,
        };
        match (module, lr.filter(|lr| RATES.holds(*lr)), table.len()) {
            (Some(module), Some(lr), 2) => rates.push(ModuleRate { module, lr }),
            _ => {
                let names = modules().map(|(name, _)| name).join(", ");
                let message = format!(
                    "lora.learning_rates: expected module = one of {names}, and lr = a number {RATES}"
                );
                r.fault_at(origin, message);
            }
        }
    }
    rates
}

fn mode_name<S: Serializer>(mode: &LoraMode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(mode.name())
}

fn module_name<S: Serializer>(module: &Projection, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(module.module())
}

fn module_names<S: Serializer>(modules: &[Projection], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(modules.iter().map(|module| module.module()))
}
