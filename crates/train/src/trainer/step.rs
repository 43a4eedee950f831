//! One optimizer step: its micro-batches, the sum of their gradients, and the update.

use tritforge_data::Packing;
use tritforge_kernels::CounterRng;
use tritforge_model::{Batch, EmbeddingNoise, TrainingCodes, tree_sum};

use super::Trainer;
use crate::TrainError;
use crate::convert::blend;
use crate::guard::Verdict;
use crate::objective::{LossFunction, Pass};
use crate::optimizer::Step;
use crate::recipe::Recipe;
use crate::schedule::{decays, learning_rate};
use crate::training_codes::training_codes;

/// Tells the seeds of the embeddings' noise from all others.
const NEFTUNE: u64 = u64::from_be_bytes(*b"neftune ");

/// What a step came to.
pub(super) struct StepOutcome {
    pub(super) loss: f64,
    /// What its micro-batches came to, added up, for the objective to log.
    pub(super) sums: Vec<f64>,
    pub(super) lr: f64,
    pub(super) grad_norm: f64,
    pub(super) verdict: Verdict,
}

impl Trainer<'_> {
    /// One optimizer step: all micro-batches, one update.
    pub(super) fn step(&mut self) -> Result<StepOutcome, TrainError> {
        let recipe = self.recipe;
        if recipe.convert.as_ref().is_some_and(|convert| convert.resets(self.progress.step)) {
            self.optimizer.reset();
            self.progress.updates_before_reset = self.optimizer.steps();
        }
        let size = recipe.train.batch_size;
        let micro_batches = recipe.train.gradient_accumulation;
        // Drawn beforehand: every micro-batch counts by its share of the step's targets, and padding has
        // none.
        let samples =
            (0..micro_batches).map(|_| self.batches.next_batch(size)).collect::<Result<Vec<_>, _>>()?;
        let targets: usize = samples.iter().map(|(batch, _)| batch.scored()).sum();
        let lr = learning_rate(&recipe.optim, recipe.train.steps, self.progress.step);
        self.gradients.clear();
        let masked = masked(recipe, &*self.loss_function);
        let noise = CounterRng::derive(recipe.run.seed, self.progress.step);
        let sequences = recipe.rows();
        let embedding_noise = recipe.train.neftune_noise_alpha.map(|alpha| {
            let seed = CounterRng::derive(CounterRng::derive(recipe.run.seed, NEFTUNE), self.progress.step);
            EmbeddingNoise { alpha: alpha as f32, seed, first_row: 0 }
        });
        let batches: Vec<Batch<'_>> = (samples.iter())
            .map(|(samples, _)| {
                let segments: &[usize] = if masked { &samples.segments } else { &[] };
                Batch { ids: &samples.inputs, targets: &samples.targets, sequences, segments }
            })
            .collect();
        let drawn: Vec<usize> = samples.iter().flat_map(|(_, drawn)| drawn).copied().collect();
        self.loss_function.begin_step(&self.model, &batches, &drawn)?;
        // Of each micro-batch, to be summed by the tree that sums the gradients.
        let mut sums = Vec::with_capacity(batches.len());
        for (part, (batch, (_, pairs))) in batches.iter().zip(&samples).enumerate() {
            self.workspace.set_noise(CounterRng::derive(noise, part as u64));
            let rows = |noise| EmbeddingNoise { first_row: part * sequences, ..noise };
            self.workspace.set_embedding_noise(embedding_noise.map(rows));
            sums.push(self.loss_function.forward_backward(Pass {
                model: &self.model,
                workspace: &mut self.workspace,
                batch,
                pairs,
                step: self.progress.step,
                part,
                targets,
                samples: size * micro_batches,
                gradients: self.gradients.next_leaf(),
            })?);
        }
        self.gradients.finish();
        self.model.apply_ste(recipe.quant.ste, self.gradients.total_mut());
        let sums = tree_sums(&sums);
        let loss = self.loss_function.loss(&sums);
        let grad_norm = self.gradients.total().norm();
        let verdict = self.update(lr, loss, grad_norm)?;
        self.progress.step += 1;
        self.progress.tokens += targets as u64;
        self.progress.position = self.batches.position();
        Ok(StepOutcome { loss, sums, lr, grad_norm, verdict })
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
            let decays = decays(optim, train.steps, done);
            let step = Step { lr, weight_decay: optim.weight_decay, gradient_scale, decays };
            let gradients: Vec<_> = self.gradients.total().iter().collect();
            self.optimizer.step(self.model.parameters(), &gradients, step)?;
            let pull = lr * self.recipe.quant.pull;
            if pull > 0.0 {
                self.model.pull_towards_codes(pull.min(1.0) as f32)?;
            }
            self.model.round_onto_grid(CounterRng::derive(!self.recipe.run.seed, done))?;
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
        if let Some([weights, inputs]) = &next {
            self.model.set_blend(weights, inputs)?;
        }
        let codes = training_codes(self.recipe, done + 1);
        self.model.set_training_codes(codes, &self.temperature_factors)?;
        if verdict == Verdict::Take || next.is_some() || codes != TrainingCodes::Rounded {
            self.model.requantize()?;
        }
        Ok(verdict)
    }
}

/// Whether the segments of a sample do not see each other.
pub(super) fn masked(recipe: &Recipe, loss_function: &dyn LossFunction) -> bool {
    match recipe.data.packing {
        Packing::Masked => true,
        Packing::Documents => loss_function.separates_padding(),
        Packing::Concat => false,
    }
}

/// The numbers that micro-batches came to, each summed by the tree that sums their gradients.
fn tree_sums(parts: &[Vec<f64>]) -> Vec<f64> {
    let numbers = parts.first().map_or(0, Vec::len);
    let of = |number: usize| {
        let each: Vec<f64> = parts.iter().filter_map(|part| part.get(number).copied()).collect();
        tree_sum(&each, |a, b| a + b).unwrap_or_default()
    };
    (0..numbers).map(of).collect()
}
