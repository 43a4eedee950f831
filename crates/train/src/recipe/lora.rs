//! `[lora]`: read and checked.

use tritforge_config::{Granularity, LoraMode, Projection, WeightQuant};

use super::Recipe;
use super::entries::Value;
use super::error::Fault;
use super::kind::{Kind, Range};
use super::reader::Reader;
use super::sections::{Lora, ModuleRate};
use crate::optimizer::Rule;

/// What a learning rate may be.
const RATES: Range = Range::above(0.0).at_most(10.0);

/// The projections by the names of their modules.
fn modules() -> [(&'static str, Projection); 7] {
    Projection::ALL.map(|projection| (projection.module(), projection))
}

/// Reads the section; none where no rank is given.
pub(super) fn lora(r: &mut Reader) -> Option<Lora> {
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
        if r.has_section("lora") && !r.given("lora", "rank") {
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
    Some(Lora {
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
                r.faults.push(Fault { origin, message });
            }
        }
    }
    rates
}

/// Notes what contradicts the section.
pub(super) fn check(r: &mut Reader, recipe: &Recipe) {
    let weights = recipe.quant.weights;
    let ternary_optimizer = matches!(recipe.optim.rule, Rule::TSignSgd(_));
    let Some(lora) = &recipe.lora else {
        if weights == WeightQuant::Ternary {
            let message = "quant.weights = \"ternary\": packed ternary weights cannot be trained directly; \
                           add [lora] with mode = \"adapter\" or \"lota\", or import the model with \
                           --latent";
            r.fault("quant", "weights", message);
        }
        if ternary_optimizer {
            let message = "optim.kind = \"t-sign-sgd\": only for [lora] with mode = \"lota\", which trains \
                           ternary matrices";
            r.fault("optim", "kind", message);
        }
        return;
    };
    let lota = lora.mode == LoraMode::Lota;
    if lota != ternary_optimizer {
        let message = "optim.kind: lora.mode = \"lota\" and optim.kind = \"t-sign-sgd\" must be used \
                       together, since no other optimizer trains ternary matrices; leave optim.kind out";
        r.fault("optim", "kind", message);
    }
    if lota {
        ternary(r, recipe, lora);
    } else if lora.threshold.is_some() {
        r.fault("lora", "threshold", "lora.threshold: only for lora.mode = \"lota\"");
    }
    if recipe.model.base.is_none() {
        r.fault("lora", "rank", "[lora]: model.base is missing: expected the model to adapt");
    }
    if let Err(error) = lora.config().validate() {
        r.fault("lora", "dropout", format!("[lora]: {error}"));
    }
    if lora.mode == LoraMode::QatLora && weights != WeightQuant::Absmean {
        let message = "lora.mode = \"qat_lora\": expected a base with latent weights and quant.weights = \"absmean\"; mode = \"adapter\" \
                       takes any base, \"lota\" any ternary one";
        r.fault("lora", "mode", message);
    }
    for rate in &lora.learning_rates {
        if !lora.target_modules.contains(&rate.module) {
            let name = rate.module.module();
            r.fault(
                "lora",
                "learning_rates",
                format!("lora.learning_rates: {name} is not among target_modules"),
            );
        }
    }
}

/// Notes what a ternary adapter cannot have.
fn ternary(r: &mut Reader, recipe: &Recipe, lora: &Lora) {
    if recipe.quant.weights == WeightQuant::None {
        let message = "lora.mode = \"lota\": expected a base with ternary weights, whose codes it changes";
        r.fault("lora", "mode", message);
    }
    if recipe.quant.granularity != Granularity::Tensor {
        let message = format!(
            "lora.mode = \"lota\": expected a base with one scale a tensor, found quant.granularity = {}; modes \"adapter\" and \
             \"qat_lora\" take it",
            recipe.quant.granularity
        );
        r.fault("lora", "mode", message);
    }
    if lora.alpha != lora.rank as f64 {
        let message = format!(
            "lora.alpha = {}: not used by lora.mode = \"lota\"; leave it out and set lora.threshold instead",
            lora.alpha
        );
        r.fault("lora", "alpha", message);
    }
    if recipe.ema.is_some() {
        r.fault(
            "ema",
            "decay",
            "[ema] contradicts lora.mode = \"lota\": an average of ternary matrices is not ternary",
        );
    }
    if !lora.learning_rates.is_empty() {
        let message = "lora.learning_rates: not supported by lora.mode = \"lota\", where optim.lr is the \
                       fraction of elements updated in every matrix";
        r.fault("lora", "learning_rates", message);
    }
}
