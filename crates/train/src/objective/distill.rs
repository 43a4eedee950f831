//! Distillation: its section of a recipe, and its run with a teacher beside the model.

mod teacher;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;
use tritforge_config::ModelConfig;
use tritforge_model::{Batch, Decoder};
use tritforge_report::Sink;

use self::teacher::Teacher;
use super::other_model::teacher_bytes;
use super::{Criterion, LossFunction, Objective, Pass, RunStart};
use crate::TrainError;
use crate::recipe::resume::OnResume;
use crate::recipe::{Range, Reader, Recipe};

/// A teacher whose output distributions the model learns from, in addition to the text: `ce · cross-entropy + kl · T² ·
/// KL(teacher ‖ model)`, and with `relation_weight` how tokens relate to each other in one of its layers (BitNet
/// Distillation, arXiv 2510.13998).
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Distill {
    /// A checkpoint, the directory of a run, a GGUF file, a Hugging Face directory, or an adapter with the base that it names, with the
    /// tokenizer of the model that is trained; with engine `"candle"` a directory in Hugging Face's layout or `hf://OWNER/NAME[@REVISION]`.
    pub teacher: PathBuf,
    /// What runs the teacher: `"tritforge"` (the default) or `"candle"`: candle-transformers, for Llama, Qwen2 and Qwen3 in full precision.
    pub engine: Engine,
    /// Weight of the cross-entropy; by default 1.
    pub ce: f64,
    /// Weight of the KL divergence; by default 1.
    pub kl: f64,
    /// Temperature: both models' logits are divided by it in the KL divergence; by default 1.
    pub temperature: f64,
    /// β of the generalized Jensen-Shannon divergence (generalized knowledge distillation, arXiv 2306.13649), which takes the place of the KL
    /// divergence: with m = β · teacher + (1 − β) · model it is β KL(teacher ‖ m) + (1 − β) KL(model ‖ m), in the limits KL(teacher ‖ model)
    /// for 0 (the default), KL(model ‖ teacher) for 1. Above 0 both distributions are those over the teacher's `top_k` tokens.
    pub jsd_beta: f64,
    /// Number of the teacher's most probable tokens to use; by default 64.
    pub top_k: usize,
    /// Directory in which the teacher's top-k logits are stored, for runs on the same data with the same
    /// seed; by default they are not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// γ: weight of the attention-relation loss; by default 0 (not computed).
    pub relation_weight: f64,
    /// The model's layer whose queries, keys and values relate the tokens, from 0; by default the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_layer: Option<usize>,
    /// The teacher's layer; by default the one at the same relative depth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_teacher_layer: Option<usize>,
    /// Number of parts into which queries, keys and values are split; by default the greatest common divisor
    /// of both models' key-value heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_heads: Option<usize>,
    /// τ: divides the cosines of both models before the softmax; by default the square root of the width of a
    /// part in the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_temperature: Option<f64>,
    /// α of the queries' relation; by default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_q: Option<f64>,
    /// α of the keys' relation; by default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_k: Option<f64>,
    /// α of the values' relation; by default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_v: Option<f64>,
}

/// What runs a teacher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// This project's own models: those of training for a checkpoint, those of inference for a GGUF file.
    #[default]
    Tritforge,
    /// candle-transformers.
    Candle,
}

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

impl Criterion for Distill {
    fn read(r: &mut Reader) -> Option<Objective> {
        let teacher = r.path("distill", "teacher");
        let engines = [("tritforge", Engine::Tritforge), ("candle", Engine::Candle)];
        let engine = r.choice("distill", "engine", &engines);
        let weight = Range::at_least(0.0);
        let ce = r.number("distill", "ce", weight);
        let kl = r.number("distill", "kl", weight);
        let temperature = r.number("distill", "temperature", Range::above(0.0).at_most(100.0));
        let jsd_beta = r.number("distill", "jsd_beta", Range::at_least(0.0).at_most(1.0)).unwrap_or(0.0);
        let top_k = r.size("distill", "top_k", 1);
        let cache = r.path("distill", "cache");
        let relation_weight = r.number("distill", "relation_weight", weight).unwrap_or(0.0);
        let relation_layer = r.size("distill", "relation_layer", 0);
        let relation_teacher_layer = r.size("distill", "relation_teacher_layer", 0);
        let relation_heads = r.size("distill", "relation_heads", 1);
        let relation_temperature =
            r.number("distill", "relation_temperature", Range::above(0.0).at_most(100.0));
        let relation_q = r.number("distill", "relation_q", weight);
        let relation_k = r.number("distill", "relation_k", weight);
        let relation_v = r.number("distill", "relation_v", weight);
        if teacher.is_none() && r.has_any("distill") && !r.given("distill", "teacher") {
            r.fault(
                "distill",
                "teacher",
                "distill.teacher is missing: expected a checkpoint, a run directory, or a GGUF file",
            );
        }
        Some(Objective::Distill(Self {
            teacher: teacher?,
            engine: engine.unwrap_or_default(),
            ce: ce.unwrap_or(1.0),
            kl: kl.unwrap_or(1.0),
            temperature: temperature.unwrap_or(1.0),
            jsd_beta,
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
        }))
    }

    fn check(&self, recipe: &Recipe, r: &mut Reader) {
        let weights = [self.ce, self.kl, self.relation_weight];
        if weights == [0.0; 3] {
            let message =
                "distill.ce, distill.kl and distill.relation_weight are all 0: at least one loss is needed";
            r.fault("distill", "kl", message);
        }
        if self.jsd_beta > 0.0 && self.kl == 0.0 {
            r.fault("distill", "jsd_beta", "distill.jsd_beta: has no effect with distill.kl = 0");
        }
        if self.jsd_beta > 0.0 && self.top_k == 1 {
            let message = "distill.top_k = 1: the divergence of distill.jsd_beta is over these tokens alone and would be 0: expected at least 2";
            r.fault("distill", "top_k", message);
        }
        if self.engine == Engine::Tritforge && self.teacher.starts_with("hf://") {
            let teacher = self.teacher.display();
            let message = format!(
                "distill.teacher = \"{teacher}\": set distill.engine = \"candle\", or import the teacher first \
                 with `tritforge import {teacher} -o DIR`"
            );
            r.fault("distill", "teacher", message);
        }
        if self.relation_weight == 0.0 {
            for key in RELATION.into_iter().filter(|key| r.given("distill", key)).collect::<Vec<_>>() {
                let message = format!("distill.{key}: has no effect without distill.relation_weight");
                r.fault("distill", key, message);
            }
            return;
        }
        if self.engine == Engine::Candle {
            let message = "distill.relation_weight contradicts distill.engine = \"candle\": candle-transformers \
                           does not expose queries, keys and values; import the teacher with `tritforge import` \
                           and leave distill.engine out";
            r.fault("distill", "relation_weight", message);
        }
        if [self.relation_q, self.relation_k, self.relation_v] == [Some(0.0); 3] {
            let message =
                "distill.relation_q, relation_k and relation_v are all 0: at least one must be above 0";
            r.fault("distill", "relation_q", message);
        }
        let layers = recipe.model.num_hidden_layers;
        if let Some(layer) = self.relation_layer.filter(|layer| *layer >= layers) {
            let message =
                format!("distill.relation_layer = {layer}: the model has layers 0 to {}", layers - 1);
            r.fault("distill", "relation_layer", message);
        }
    }

    fn on_resume(&self, key: &str) -> OnResume {
        match key {
            "teacher" => OnResume::Content,
            "engine" => OnResume::Fixed,
            _ => OnResume::Free,
        }
    }

    /// The teacher's weights, which stay beside those of the model.
    fn memory(&self, _: &ModelConfig, sink: &dyn Sink) -> Result<u64, TrainError> {
        if self.teacher.starts_with("hf://") {
            let teacher = self.teacher.display();
            sink.message(&format!(
                "the memory of the teacher {teacher} is not included: a dry run does not download files"
            ));
            return Ok(0);
        }
        teacher_bytes(&self.teacher).map_err(|e| TrainError::State(format!("distill.teacher: {e}")))
    }

    fn start(&self, run: &RunStart<'_>) -> Result<Box<dyn LossFunction>, TrainError> {
        run.check_targets()?;
        let (recipe, data) = (run.recipe, &run.prepared.fingerprint);
        let (seq_len, batch_size) = (recipe.data.seq_len, recipe.train.batch_size);
        let batches = format!("{data} seed {} rows {batch_size} of {seq_len}", recipe.order_seed());
        let teacher = Teacher::open(self, run.config, &batches)?;
        let message = "distill.teacher is not the teacher that the run was started with: its files have \
                       different contents; set distill.teacher to the original model";
        run.same_model(teacher.fingerprint(), message)?;
        for field in teacher.unknown() {
            run.sink.message(&format!(
                "warning: the teacher's config.json has an unknown field {field}, which is ignored"
            ));
        }
        Ok(Box::new(DistillLoss { section: self.clone(), teacher, relation_rows: 0 }))
    }
}

/// The loss against a teacher.
#[derive(Debug)]
struct DistillLoss {
    section: Distill,
    teacher: Teacher,
    /// Rows of the relations of all micro-batches of the step.
    relation_rows: usize,
}

impl LossFunction for DistillLoss {
    fn other_model(&self) -> Option<&str> {
        Some(self.teacher.fingerprint())
    }

    /// What relates to each other are the tokens of the text, not those of the padding.
    fn separates_padding(&self) -> bool {
        self.teacher.learns_relations()
    }

    fn begin_step(&mut self, _: &Decoder, batches: &[Batch<'_>], _: &[usize]) -> Result<(), TrainError> {
        if self.teacher.learns_relations() {
            self.relation_rows = batches.iter().map(Batch::relation_rows).sum::<Result<usize, _>>()?;
        }
        Ok(())
    }

    fn forward_backward(&mut self, pass: Pass<'_>) -> Result<Vec<f64>, TrainError> {
        let Pass { model, workspace, batch, step, part, targets, gradients, .. } = pass;
        let output = self.teacher.output(batch, step, part)?;
        let distillation = output.distillation(&self.section, &self.teacher, self.relation_rows);
        let targets = targets as f32;
        let found = model.forward_backward_distilled(workspace, batch, &distillation, targets, gradients)?;
        Ok(vec![found.total, found.relation])
    }

    fn metrics(&self, sums: &[f64]) -> Vec<(&'static str, f64)> {
        match *sums {
            [_, relation] if self.teacher.learns_relations() => vec![("relation", relation)],
            _ => Vec::new(),
        }
    }
}
