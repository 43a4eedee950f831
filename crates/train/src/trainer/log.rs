//! What a run says: to its log, to its sink, and on the page drawn from the log.

use tritforge_report::{Ending, Event, REPORT, Train, write_report};

use super::step::StepOutcome;
use super::{RunOutcome, Trainer};
use crate::TrainError;

impl Trainer<'_> {
    /// Writes an event to the run's log, and tells it.
    pub(super) fn event(&mut self, event: &Event) -> Result<(), TrainError> {
        self.log.event(event)?;
        self.sink.event(event);
        Ok(())
    }

    /// Says that training begins here, and how the weights are.
    pub(super) fn log_start(&mut self) -> Result<(), TrainError> {
        let run = Event::Run {
            step: self.progress.step,
            name: self.recipe.run.name.clone(),
            parameters: self.parameters(),
            threads: tritforge_kernels::threads(),
            gemm_flops: self.gemm_flops,
            backward: Some(self.model.grad_precision().name().to_string()),
            recipe: self.text.clone(),
        };
        self.event(&run)?;
        for group in self.recipe.group_summaries(self.model.config()) {
            self.sink.message(&format!("optim.groups: {group}"));
        }
        let matrices = self.monitor.observe(&self.model, self.progress.step).matrices;
        if self.progress.step == 0 && !matrices.is_empty() {
            self.event(&Event::Health { step: 0, steps: 0, matrices })?;
        }
        Ok(())
    }

    /// Says how the run ended. What ended it counts, and not that this cannot be written any more.
    pub(super) fn log_end(&mut self, ended: Result<RunOutcome, &TrainError>) -> Result<(), TrainError> {
        let (ending, reason) = match ended {
            Ok(RunOutcome::Finished | RunOutcome::OutOfPatience) => (Ending::Finished, String::new()),
            Ok(RunOutcome::Stopped) => (Ending::Stopped, String::new()),
            Err(error) => (Ending::Failed, error.to_string()),
        };
        let written = self.event(&Event::End { step: self.progress.step, ending, reason });
        if ended.is_err() { Ok(()) } else { written }
    }

    pub(super) fn log_step(
        &mut self,
        outcome: &StepOutcome,
        tokens_per_second: f64,
    ) -> Result<(), TrainError> {
        let resident = tritforge_machine::resident();
        let flops = 6.0 * self.parameters() as f64 * tokens_per_second;
        let metrics = self.loss_function.metrics(&outcome.sums);
        let train = Event::Train(Train {
            step: self.progress.step,
            loss: outcome.loss,
            lr: outcome.lr,
            grad_norm: outcome.grad_norm,
            tokens: self.progress.tokens,
            tokens_per_second,
            mfu: Some(flops / self.gemm_flops),
            rss: resident.map(|memory| memory.now),
            peak_rss: resident.map(|memory| memory.peak),
            metrics: metrics.into_iter().map(|(name, value)| (name.to_string(), value)).collect(),
        });
        self.event(&train)?;
        match self.loss_function.event(self.progress.step, false, &outcome.sums) {
            Some(event) => self.event(&event),
            None => Ok(()),
        }
    }

    /// Draws the run. It can be drawn again at any time: a fault is told, and training goes on.
    pub(super) fn write_report(&self) {
        let out = &self.recipe.run.out;
        if let Err(error) = write_report(&[out], &out.join(REPORT)) {
            self.sink.message(&format!("cannot write the report: {error}"));
        }
    }
}
