//! What happens at an evaluation: what is held out is scored, a text is written, the ternary weights are
//! looked at, the report is drawn.

use tritforge_model::{Batch, Decoder, Score};
use tritforge_report::Event;

use super::Trainer;
use crate::documents::DocumentSums;
use crate::health::Health;
use crate::objective::{LossFunction, Objective};
use crate::training_data::TrainingData;
use crate::{TrainError, sample};

/// Windows that one evaluation pass takes at once, at most.
const MOST_SEQUENCES: usize = 8;
/// Logits of a pass, about at most: 64 MiB.
const MOST_LOGITS: usize = 16 << 20;

/// Windows of `seq_len` tokens that one evaluation pass takes at once: all their logits exist together.
pub(crate) fn eval_sequences(seq_len: usize, vocab_size: usize) -> usize {
    (MOST_LOGITS / (seq_len * vocab_size).max(1)).clamp(1, MOST_SEQUENCES)
}

impl Trainer<'_> {
    /// Held-out loss and bits a byte; writes a sample too. `eval_tokens` limits evaluations on the way, not
    /// the last one: its figures are those that a run is known by. Evaluations are compared with each other
    /// by what all of them score.
    pub(super) fn evaluate(&mut self) -> Result<(f64, f64), TrainError> {
        let recipe = self.recipe;
        let last = self.progress.step == recipe.train.steps;
        let limit = recipe.train.eval_tokens.unwrap_or(usize::MAX);
        self.deploy_average()?;
        self.loss_function.begin_evaluation(&self.model, limit)?;
        let held_out = &self.prepared.data;
        let (seq_len, objective) = (recipe.data.seq_len, self.loss_function.as_ref());
        let mut documents = match held_out {
            TrainingData::Text(text)
                if last && self.document_losses && matches!(recipe.objective, Objective::CrossEntropy(_)) =>
            {
                DocumentSums::new(text)
            }
            _ => None,
        };
        let (part, whole) =
            held_out_score(&self.model, held_out, seq_len, limit, last, objective, documents.as_mut())?;
        if let Some(documents) = documents {
            documents.write(&recipe.run.out)?;
        }
        let [compared, loss] =
            [&part, &whole].map(|found| objective.held_out_loss(&found.score, &found.sums));
        if let Some(value) = [loss, compared, whole.score.mean()].into_iter().find(|loss| !loss.is_finite()) {
            let (step, checkpoint) = (self.progress.step, self.last_good());
            return Err(TrainError::NotFinite { step, what: "held-out loss", value, checkpoint });
        }
        let sample = sample::sample(&self.model, self.prepared, recipe)?;
        self.deploy_average()?;
        let bits_per_byte = whole.score.mean() / std::f64::consts::LN_2 / held_out.bytes_per_token();
        let step = self.progress.step;
        self.event(&Event::Eval { step, loss, bits_per_byte, sample })?;
        if let Some(event) = self.loss_function.event(step, true, &whole.sums) {
            self.event(&event)?;
        }
        let Health { steps, matrices } = self.monitor.observe(&self.model, step);
        if !matrices.is_empty() {
            self.event(&Event::Health { step, steps, matrices })?;
        }
        self.write_report();
        let progress = &mut self.progress;
        if progress.best_loss.is_none_or(|best| compared < best) {
            (progress.best_loss, progress.best_step) = (Some(compared), Some(step));
        }
        if progress.reference_loss.is_none_or(|reference| compared < reference - recipe.train.min_delta) {
            (progress.reference_loss, progress.stale_evaluations) = (Some(compared), 0);
        } else {
            progress.stale_evaluations += 1;
        }
        Ok((loss, bits_per_byte))
    }

    /// Exchanges the weights and their average, if the average is what is evaluated.
    fn deploy_average(&mut self) -> Result<(), TrainError> {
        let deploys = self.recipe.ema.is_some_and(|ema| ema.deploy);
        if let Some(average) = self.average.as_mut().filter(|_| deploys) {
            average.swap(self.model.parameters());
            self.model.requantize()?;
        }
        Ok(())
    }
}

/// What an evaluation found.
#[derive(Debug, Clone, Default)]
struct HeldOut {
    /// The targets; of pairs of answers, those of the chosen ones.
    score: Score,
    /// What else the objective adds up.
    sums: Vec<f64>,
    /// Rows that were scored.
    rows: usize,
}

impl HeldOut {
    /// Scores the batch that comes next.
    fn add(
        &mut self,
        model: &Decoder,
        batch: &Batch<'_>,
        loss_function: &dyn LossFunction,
        documents: Option<&mut DocumentSums>,
    ) -> Result<(), TrainError> {
        let sums = match documents {
            Some(documents) => {
                self.score.add(documents.score(model, batch)?);
                Vec::new()
            }
            None => loss_function.score(model, batch, self.rows, &mut self.score)?,
        };
        self.sums.resize(sums.len(), 0.0);
        self.sums.iter_mut().zip(sums).for_each(|(sum, more)| *sum += more);
        self.rows += batch.sequences;
        Ok(())
    }
}

/// Scores what is held out: the first windows with about `limit` targets, and with `all` the rest too. With `documents` the
/// cross-entropy is also added up for each of them.
fn held_out_score(
    model: &Decoder,
    data: &TrainingData,
    seq_len: usize,
    limit: usize,
    all: bool,
    loss_function: &dyn LossFunction,
    mut documents: Option<&mut DocumentSums>,
) -> Result<(HeldOut, HeldOut), TrainError> {
    let sequences = eval_sequences(seq_len, model.config().vocab_size);
    let (mut part, mut whole) = (HeldOut::default(), HeldOut::default());
    for windows in data.held_out(seq_len, sequences)? {
        let within = whole.score.targets < limit;
        if !within && !all {
            break;
        }
        let windows = windows?;
        let batch = crate::training_data::rows(&windows, seq_len);
        whole.add(model, &batch, loss_function, documents.as_deref_mut())?;
        if within {
            part = whole.clone();
        }
    }
    Ok((part, whole))
}
