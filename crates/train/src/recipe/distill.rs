//! `[distill]`: read and checked.

use super::Recipe;
use super::kind::Range;
use super::reader::Reader;
use super::sections::{Distill, Engine};

/// Tokens that are kept of a teacher's distribution where the recipe does not say.
const TOP_K: usize = 64;

/// The keys that mean nothing without `relation_weight`.
const RELATION: [&str; 7] = [
    "relation_layer",
    "relation_teacher_layer",
    "relation_heads",
    "relation_temperature",
    "relation_q",
    "relation_k",
    "relation_v",
];

/// Reads the section; none where no teacher is given.
pub(super) fn distill(r: &mut Reader) -> Option<Distill> {
    let teacher = r.path("distill", "teacher");
    let engines = [("tritforge", Engine::Tritforge), ("candle", Engine::Candle)];
    let engine = r.choice("distill", "engine", &engines);
    let weight = Range::at_least(0.0);
    let ce = r.number("distill", "ce", weight);
    let kl = r.number("distill", "kl", weight);
    let temperature = r.number("distill", "temperature", Range::above(0.0).at_most(100.0));
    let top_k = r.size("distill", "top_k", 1);
    let cache = r.path("distill", "cache");
    let relation_weight = r.number("distill", "relation_weight", weight).unwrap_or(0.0);
    let relation_layer = r.size("distill", "relation_layer", 0);
    let relation_teacher_layer = r.size("distill", "relation_teacher_layer", 0);
    let relation_heads = r.size("distill", "relation_heads", 1);
    let relation_temperature = r.number("distill", "relation_temperature", Range::above(0.0).at_most(100.0));
    let relation_q = r.number("distill", "relation_q", weight);
    let relation_k = r.number("distill", "relation_k", weight);
    let relation_v = r.number("distill", "relation_v", weight);
    if teacher.is_none() && r.has_section("distill") && !r.given("distill", "teacher") {
        r.fault(
            "distill",
            "teacher",
            "distill.teacher is missing: expected a checkpoint, a run directory, or a GGUF file",
        );
    }
    Some(Distill {
        teacher: teacher?,
        engine: engine.unwrap_or_default(),
        ce: ce.unwrap_or(1.0),
        kl: kl.unwrap_or(1.0),
        temperature: temperature.unwrap_or(1.0),
        top_k: top_k.unwrap_or(TOP_K),
        cache,
        relation_weight,
        relation_layer,
        relation_teacher_layer,
        relation_heads,
        relation_temperature,
        relation_q,
        relation_k,
        relation_v,
    })
}

/// Notes what contradicts the section.
pub(super) fn check(r: &mut Reader, recipe: &Recipe) {
    let Some(distill) = &recipe.distill else { return };
    let weights = [distill.ce, distill.kl, distill.relation_weight];
    if weights == [0.0; 3] {
        let message =
            "distill.ce, distill.kl and distill.relation_weight are all 0: at least one loss is needed";
        r.fault("distill", "kl", message);
    }
    if distill.engine == Engine::Tritforge && distill.teacher.starts_with("hf://") {
        let teacher = distill.teacher.display();
        let message = format!(
            "distill.teacher = \"{teacher}\": set distill.engine = \"candle\", or import the teacher first \
             with `tritforge import {teacher} -o DIR`"
        );
        r.fault("distill", "teacher", message);
    }
    if distill.relation_weight == 0.0 {
        for key in RELATION.into_iter().filter(|key| r.given("distill", key)).collect::<Vec<_>>() {
            let message = format!("distill.{key}: has no effect without distill.relation_weight");
            r.fault("distill", key, message);
        }
        return;
    }
    if distill.engine == Engine::Candle {
        let message = "distill.relation_weight contradicts distill.engine = \"candle\": candle-transformers \
                       does not expose queries, keys and values; import the teacher with `tritforge import` \
                       and leave distill.engine out";
        r.fault("distill", "relation_weight", message);
    }
    if [distill.relation_q, distill.relation_k, distill.relation_v] == [Some(0.0); 3] {
        let message = "distill.relation_q, relation_k and relation_v are all 0: at least one must be above 0";
        r.fault("distill", "relation_q", message);
    }
    let layers = recipe.model.num_hidden_layers;
    if let Some(layer) = distill.relation_layer.filter(|layer| *layer >= layers) {
        let message = format!("distill.relation_layer = {layer}: the model has layers 0 to {}", layers - 1);
        r.fault("distill", "relation_layer", message);
    }
}
