//! One optimizer step: its micro-batches, the sum of their gradients, and the update.

use tritforge_data::Packing;
use tritforge_kernels::CounterRng;
use tritforge_model::{Batch, tree_sum};

use super::Trainer;
use crate::convert::blend;
use crate::guard::Verdict;
use crate::optimizer::Step;
use crate::schedule::{learning_rate, weight_decay};
use crate::teacher::Teacher;
use crate::{PreferenceStats, TrainError, dpo_forward_backward};

/// What a step came to.
pub(super) struct StepOutcome {
    pub(super) loss: f64,
    /// What the step's pairs of answers came to.
    pub(super) preferences: Option<PreferenceStats>,
    /// How far the relations of tokens are from the teacher's, where they are learned.
    pub(super) relation: Option<f64>,
    pub(super) lr: f64,
    pub(super) grad_norm: f64,
    pub(super) verdict: Verdict,
}

impl Trainer<'_> {
    /// One optimizer step: all micro-batches, one update.
    pub(super) fn step(&mut self) -> Result<StepOutcome, TrainError> {
        let recipe = self.recipe;
        let size = recipe.train.batch_size;
        let micro_batches = recipe.train.gradient_accumulation;
        // Drawn beforehand: every micro-batch counts by its share of the step's targets, and padding has
        // none.
        let samples =
            (0..micro_batches).map(|_| self.batches.next_batch(size)).collect::<Result<Vec<_>, _>>()?;
        let targets: usize = samples.iter().map(|(batch, _)| batch.scored()).sum();
        let lr = learning_rate(&recipe.optim, recipe.train.steps, self.progress.step);
        self.gradients.clear();
        // Of each micro-batch, to be summed by the tree that sums the gradients.
        let (mut losses, mut preferences, mut relations) = (Vec::new(), Vec::new(), Vec::new());
        // What stands behind an answer is padding, which need not look at it.
        let learns_relations = self.teacher.as_ref().is_some_and(Teacher::learns_relations);
        let masked = match recipe.data.packing {
            Packing::Masked => true,
            Packing::Documents => self.reference.is_some() || learns_relations,
            Packing::Concat => false,
        };
        let noise = CounterRng::derive(recipe.run.seed, self.progress.step);
        let sequences = recipe.rows();
        let batches: Vec<Batch<'_>> = (samples.iter())
            .map(|(samples, _)| {
                let segments: &[usize] = if masked { &samples.segments } else { &[] };
                Batch { ids: &samples.inputs, targets: &samples.targets, sequences, segments }
            })
            .collect();
        let mut relation_rows = 0;
        if learns_relations {
            relation_rows = batches.iter().map(Batch::relation_rows).sum::<Result<usize, _>>()?;
        }
        for (i, (batch, (_, pairs))) in batches.iter().zip(&samples).enumerate() {
            self.workspace.set_noise(CounterRng::derive(noise, i as u64));
            let (workspace, gradients) = (&mut self.workspace, self.gradients.next_leaf());
            if let (Some(section), Some(reference)) = (&recipe.dpo, &self.reference) {
                let reference = reference.of(pairs);
                let normalizer = (size * micro_batches) as f32;
                let found = dpo_forward_backward(
                    &self.model,
                    workspace,
                    batch,
                    &reference,
                    section,
                    normalizer,
                    gradients,
                )?;
                preferences.push(found);
                continue;
            }
            let loss = match (&recipe.distill, &self.teacher) {
                (Some(distill), Some(teacher)) => {
                    let teacher_output = teacher.output(batch, self.progress.step, i)?;
                    let distillation = teacher_output.objective(distill, teacher, relation_rows);
                    let model = &self.model;
                    let found = model.forward_backward_distilled(
                        workspace,
                        batch,
                        &distillation,
                        targets as f32,
                        gradients,
                    )?;
                    relations.push(found.relation);
                    found.total
                }
                _ => match &self.tape {
                    Some(tape) => tape.forward_backward(&self.model, batch, targets as f32, gradients)?,
                    None => self.model.forward_backward(workspace, batch, targets as f32, gradients)?,
                },
            };
            losses.push(loss);
        }
        self.gradients.finish();
        let preferences = tree_sum(&preferences, PreferenceStats::plus);
        let loss = match &preferences {
            Some(preferences) => preferences.objective(),
            None => tree_sum(&losses, |a, b| a + b).unwrap_or_default(),
        };
        let relation = if learns_relations { tree_sum(&relations, |a, b| a + b) } else { None };
        let grad_norm = self.gradients.total().norm();
        let verdict = self.update(lr, loss, grad_norm)?;
        self.progress.step += 1;
        self.progress.tokens += targets as u64;
        self.progress.position = self.batches.position();
        Ok(StepOutcome { loss, preferences, relation, lr, grad_norm, verdict })
    }

    /// Moves the weights, unless loss or gradient speak against it.
    fn update(&mut self, lr: f64, loss: f64, grad_norm: f64) -> Result<Verdict, TrainError> {
        let (optim, train) = (&self.recipe.optim, &self.recipe.train);
        let done = self.progress.step;
        let last_good = self.last_good();
        let verdict = self.progress.guard.judge(train, done + 1, loss, grad_norm, &last_good)?;
        if verdict == Verdict::Take {
            let clip = optim.grad_clip;
            let gradient_scale = if clip > 0.0 && grad_norm > clip { clip / grad_norm } else { 1.0 };
            let step = Step { lr, weight_decay: weight_decay(optim, train.steps, done), gradient_scale };
            let gradients: Vec<_> = self.gradients.total().iter().collect();
            self.optimizer.step(self.model.parameters(), &gradients, step)?;
            self.progress.updates = self.optimizer.steps();
            if let Some(average) = &mut self.average {
                average.update(self.model.parameters(), self.optimizer.steps());
            }
        }
        let next = self
            .recipe
            .convert
            .as_ref()
            .map(|convert| blend(convert, done + 1, self.model.config().num_hidden_layers));
        if let Some(parts) = &next {
            self.model.set_blend(parts)?;
        }
        if verdict == Verdict::Take || next.is_some() {
            self.model.requantize()?;
        }
        Ok(verdict)
    }
}
