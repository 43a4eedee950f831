//! A model on a target: what fits, or what would.

use serde::Serialize;
use tritforge_infer::EngineLayout;
use tritforge_kernels::{KvType, TernaryLayout};
use tritforge_support::counted;

use crate::budget::Load;
use crate::options::{Setting, settings};
use crate::{DeployError, Memory, Source, Speed, Target, readable};

/// Positions by which caches grow.
const STEP: usize = 256;

/// What is asked for beside the target; what is none is the target's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request {
    /// Tokens of a request, prompt and answer.
    pub context: Option<usize>,
    /// Requests at once.
    pub concurrency: Option<usize>,
    /// Bytes that the service may take.
    pub memory: Option<u64>,
    /// How keys and values are stored.
    pub kv: Option<KvType>,
}

/// How a model is served on a target.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The model as it was given.
    pub model: String,
    /// What it is.
    pub kind: &'static str,
    /// The GGUF file that is served.
    pub served: String,
    /// The command that makes it, if it is not there yet.
    pub export: Option<String>,
    /// How its projections and its tables are stored in the file.
    pub packing: String,
    /// How the ternary weights lie in memory.
    pub layout: String,
    /// The target.
    pub target: Target,
    /// Tokens of a request.
    pub context: usize,
    /// Requests at once.
    pub concurrency: usize,
    /// Memory by what takes it.
    pub memory: Memory,
    /// The most that it takes.
    pub peak: u64,
    /// Expected speed.
    pub speed: Speed,
    /// The options of the service that depend on model and target, and why.
    pub settings: Vec<Setting>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

/// Plans a model on a target.
///
/// # Errors
/// If it does not fit, which the error says with what would; if what is asked for is out of its range, or the engine does not
/// load the model.
pub fn plan(source: &Source, target: &Target, request: Request) -> Result<Plan, DeployError> {
    let mut target = target.clone();
    target.memory = request.memory.unwrap_or(target.memory);
    target.kv = request.kv.unwrap_or(target.kv);
    let longest = source.config.max_position_embeddings;
    let range = |option, found: Option<usize>, most: usize, what: &str| match found {
        Some(found) if !(1..=most).contains(&found) => {
            Err(DeployError::Option { option, found, expected: format!("1 to {most}, {what}") })
        }
        _ => Ok(()),
    };
    range("--context", request.context, longest, "the context of the model")?;
    range("--concurrency", request.concurrency, 256, "the most that the service runs at once")?;
    let context = request.context.unwrap_or(target.context.min(longest));
    let concurrency = request.concurrency.unwrap_or(target.concurrency);
    let layout = target.isa.layout();
    let load = Load {
        config: &source.config,
        model: source.memory(layout)?,
        vocabulary: source.vocabulary,
        cores: target.cores,
        kv: target.kv,
    };
    let memory = load.memory(context, concurrency);
    if memory.peak() > target.memory {
        return Err(DeployError::TooLarge {
            model: source.path.display().to_string(),
            target: target.name.clone(),
            context,
            concurrency,
            needed: readable(memory.peak()),
            memory: readable(target.memory),
            ways: ways(source, &load, &target, (context, concurrency)),
        });
    }
    let speed = Speed::new(&load, context, concurrency, target.bandwidth);
    let mut plan = Plan {
        model: source.path.display().to_string(),
        kind: source.kind,
        served: source.served.display().to_string(),
        export: source.export.clone(),
        packing: format!("{}, tables in {}", source.weights, source.tables),
        layout: layout_name(layout).to_string(),
        context,
        concurrency,
        memory,
        peak: memory.peak(),
        speed,
        settings: Vec::new(),
        notes: Vec::new(),
        target,
    };
    plan.settings = settings(&plan, load.request_kv(context))?;
    plan.notes = notes(source, &load, &plan, request);
    Ok(plan)
}

fn layout_name(layout: EngineLayout) -> &'static str {
    match layout.ternary {
        TernaryLayout::FiveTrits => "1.6 bits a weight",
        TernaryLayout::TwoBits => "2 bits a weight",
    }
}

/// What would fit, for people.
fn ways(source: &Source, load: &Load<'_>, target: &Target, (context, concurrency): (usize, usize)) -> String {
    let fits = |context: usize, concurrency: usize| load.memory(context, concurrency).peak() <= target.memory;
    let mut ways = Vec::new();
    let shorter =
        (1..=context / STEP).rev().map(|blocks| blocks * STEP).find(|shorter| fits(*shorter, concurrency));
    if let Some(shorter) = shorter.filter(|shorter| *shorter < context) {
        ways.push(format!("--context {shorter}"));
    }
    if let Some(fewer) = (1..concurrency).rev().find(|fewer| fits(context, *fewer)) {
        ways.push(format!("--concurrency {fewer}"));
    }
    if ways.is_empty() && concurrency > 1 {
        let both = (1..=context / STEP).rev().map(|blocks| blocks * STEP).find(|shorter| fits(*shorter, 1));
        ways.extend(both.map(|shorter| format!("--context {shorter} with --concurrency 1")));
    }
    let in_q8_0 = Load { kv: KvType::Q8_0, ..*load };
    if target.kv != KvType::Q8_0 && in_q8_0.memory(context, concurrency).peak() <= target.memory {
        ways.push("--kv q8_0".to_string());
    }
    if let Some(smaller) = source.memory_in_q8_0(target.isa.layout()) {
        let smaller = Load { model: smaller, ..*load };
        let needed = smaller.memory(context, concurrency).peak();
        if needed <= target.memory {
            let text = format!(
                "embedding and head in Q8_0 (tritforge export --embeddings q8_0), {}",
                readable(needed)
            );
            ways.push(text);
        }
    }
    let enough = format!("a target with {}", readable(load.memory(context, concurrency).peak()));
    match ways.is_empty() {
        true => format!(
            "a request of {STEP} tokens alone takes {}: expected a smaller model, or {enough}",
            readable(load.memory(STEP.min(context), 1).peak())
        ),
        false => format!("expected {}, or {enough}", ways.join(", or ")),
    }
}

/// What else is worth knowing.
fn notes(source: &Source, load: &Load<'_>, plan: &Plan, request: Request) -> Vec<String> {
    let mut notes = Vec::new();
    let target = &plan.target;
    if request.context.is_none() && plan.context < target.context {
        notes.push(format!(
            "the target asks for {} of context: the model has {}",
            counted(target.context, "token"),
            plan.context
        ));
    }
    if let Some(smaller) = source.memory_in_q8_0(target.isa.layout()) {
        let saved = plan
            .peak
            .saturating_sub(Load { model: smaller, ..*load }.memory(plan.context, plan.concurrency).peak());
        if saved > plan.peak / 20 {
            notes.push(format!(
                "embedding and head in Q8_0 (tritforge export --embeddings q8_0) would save {}",
                readable(saved)
            ));
        }
    }
    let pass_without_kv = plan.speed.weight_bytes as f64;
    if plan.concurrency as f64 * plan.speed.kv_bytes as f64 > pass_without_kv {
        notes.push(
            "keys and values are more to read than weights: more requests at once give little".to_string(),
        );
    }
    notes.push(
        "every packing of a file becomes the same layout in memory: the choice decides the size of the file and who else \
         loads it, not speed or memory here"
            .to_string(),
    );
    let in_q8_0 = Load { kv: KvType::Q8_0, ..*load }.memory(plan.context, plan.concurrency).peak();
    let saved = plan.peak.saturating_sub(in_q8_0);
    if saved > plan.peak / 20 {
        notes.push(format!("keys and values in q8_0 (--kv q8_0) would save {}", readable(saved)));
    }
    notes
}
