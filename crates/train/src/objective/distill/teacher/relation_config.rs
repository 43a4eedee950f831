//! Which layers of model and teacher the attention-relation loss compares, and in how many heads.

use tritforge_config::ModelConfig;
use tritforge_model::{AttentionStates, Relation};

use crate::objective::Distill;

/// The loss as a recipe has it, for a model and a teacher of given shapes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RelationConfig {
    /// The model's layer, from 0.
    layer: usize,
    /// The teacher's.
    pub(super) teacher_layer: usize,
    heads: usize,
    temperature: Option<f32>,
    weight: f32,
    alphas: [f32; 3],
}

impl RelationConfig {
    /// None where the recipe gives the loss no weight.
    ///
    /// # Errors
    /// If a layer does not exist, or the heads do not divide the widths of both; the message names key and
    /// widths.
    pub(super) fn new(
        distill: &Distill,
        model: &ModelConfig,
        teacher: &ModelConfig,
    ) -> Result<Option<Self>, String> {
        if distill.relation_weight == 0.0 {
            return Ok(None);
        }
        let (layers, theirs) = (model.num_hidden_layers, teacher.num_hidden_layers);
        let layer = distill.relation_layer.unwrap_or(layers - 1);
        // As deep in the teacher: its last for the model's last.
        let as_deep = ((layer + 1) * theirs).div_ceil(layers).clamp(1, theirs) - 1;
        let teacher_layer = distill.relation_teacher_layer.unwrap_or(as_deep);
        for (key, layer, layers, whose) in [
            ("relation_layer", layer, layers, "the model"),
            ("relation_teacher_layer", teacher_layer, theirs, "the teacher"),
        ] {
            if layer >= layers {
                return Err(format!("distill.{key} = {layer}: {whose} has layers 0 to {}", layers - 1));
            }
        }
        let common = gcd(model.num_key_value_heads, teacher.num_key_value_heads);
        let heads = distill.relation_heads.unwrap_or(common);
        for (name, ours, theirs) in [
            ("queries", model.q_size(), teacher.q_size()),
            ("keys and values", model.kv_size(), teacher.kv_size()),
        ] {
            if !ours.is_multiple_of(heads) || !theirs.is_multiple_of(heads) {
                return Err(format!(
                    "distill.relation_heads = {heads}: the {name} are {ours} wide in the model and {theirs} \
                     in the teacher; expected a divisor of both, such as {common}"
                ));
            }
        }
        let alpha = |alpha: Option<f64>| alpha.unwrap_or(1.0) as f32;
        Ok(Some(Self {
            layer,
            teacher_layer,
            heads,
            temperature: distill.relation_temperature.map(|t| t as f32),
            weight: distill.relation_weight as f32,
            alphas: [distill.relation_q, distill.relation_k, distill.relation_v].map(alpha),
        }))
    }

    /// What a pass is to learn from the teacher's states, one of the passes of a step with `rows` rows.
    pub(super) fn objective<'a>(&self, states: &'a AttentionStates, rows: usize) -> Relation<'a> {
        let [q, k, v] = states;
        let Self { layer, heads, temperature, weight, alphas, .. } = *self;
        Relation { layer, states: [q, k, v], heads, temperature, weight, alphas, rows }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::objective::Engine;

    fn distill() -> Distill {
        Distill {
            teacher: PathBuf::new(),
            engine: Engine::Tritforge,
            ce: 1.0,
            kl: 1.0,
            temperature: 1.0,
            jsd_beta: 0.0,
            top_k: 8,
            cache: None,
            relation_weight: 10.0,
            relation_layer: None,
            relation_teacher_layer: None,
            relation_heads: None,
            relation_temperature: None,
            relation_q: None,
            relation_k: None,
            relation_v: Some(2.0),
        }
    }

    fn shape(layers: usize, heads: usize, kv_heads: usize, head_dim: usize) -> ModelConfig {
        ModelConfig {
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            ..ModelConfig::default()
        }
    }

    #[test]
    fn what_is_not_said_is_the_last_layer_and_the_heads_that_both_have() {
        let (model, teacher) = (shape(4, 8, 4, 16), shape(30, 12, 6, 64));
        let of = |distill: &Distill| RelationConfig::new(distill, &model, &teacher).unwrap().unwrap();
        let found = of(&distill());
        assert_eq!(
            (found.layer, found.teacher_layer, found.heads, found.alphas),
            (3, 29, 2, [1.0, 1.0, 2.0])
        );
        let layers =
            (0..4).map(|layer| of(&Distill { relation_layer: Some(layer), ..distill() }).teacher_layer);
        assert_eq!(layers.collect::<Vec<_>>(), [7, 14, 22, 29]);
        let off = Distill { relation_weight: 0.0, ..distill() };
        assert_eq!(RelationConfig::new(&off, &model, &teacher), Ok(None));
        // A model with more layers than the teacher.
        let deep = RelationConfig::new(&Distill { relation_layer: Some(0), ..distill() }, &teacher, &model);
        assert_eq!(deep.unwrap().unwrap().teacher_layer, 0);
    }

    #[test]
    fn layers_and_heads_that_do_not_exist_are_named() {
        let (model, teacher) = (shape(4, 8, 4, 16), shape(3, 12, 6, 64));
        let fault = |distill: &Distill| RelationConfig::new(distill, &model, &teacher).unwrap_err();
        let found = fault(&Distill { relation_layer: Some(4), ..distill() });
        assert_eq!(found, "distill.relation_layer = 4: the model has layers 0 to 3");
        let found = fault(&Distill { relation_teacher_layer: Some(3), ..distill() });
        assert_eq!(found, "distill.relation_teacher_layer = 3: the teacher has layers 0 to 2");
        let found = fault(&Distill { relation_heads: Some(3), ..distill() });
        assert!(found.contains("128 wide in the model and 768 in the teacher"), "{found}");
        let found = fault(&Distill { relation_heads: Some(128), ..distill() });
        assert!(found.contains("keys and values are 64 wide in the model and 384 in the teacher"), "{found}");
    }
}
