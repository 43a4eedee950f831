//! Runs, several at a time. What has a result already is not run again, whoever made it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tritforge_support::duration;

use crate::child::{self, Ended};
use crate::experiment::{Outputs, Setting};
use crate::finish::finish;
use crate::fork::fork;
use crate::journal::{Journal, Record};
use crate::plan::{FrozenRun, Plan};
use crate::store::{self, RunResult};
use crate::{AblateError, Program};

/// One run that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// Its arm.
    pub arm: usize,
    /// The point of the arm.
    pub point: usize,
    /// Its seed.
    pub seed: u64,
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It has a result, which may be that it diverged.
    Ran(Box<RunResult>),
    /// It has none, and why.
    Failed(String),
}

impl Outcome {
    /// The result, if there is one.
    pub fn result(&self) -> Option<&RunResult> {
        match self {
            Self::Ran(result) => Some(result),
            Self::Failed(_) => None,
        }
    }
}

/// How runs are made.
pub(crate) struct Runner<'a> {
    /// What they are.
    pub(crate) plan: &'a Plan,
    /// What they are made with.
    pub(crate) program: &'a Program,
    /// What is kept of them.
    pub(crate) outputs: &'a Outputs,
    /// How many at a time.
    pub(crate) jobs: usize,
    /// Threads of each.
    pub(crate) threads: usize,
    /// What happens is written here.
    pub(crate) journal: &'a Mutex<Journal>,
    /// Once this is true, runs write a checkpoint and end.
    pub(crate) stop: &'a AtomicBool,
    /// Hears what goes on.
    pub(crate) say: &'a (dyn Fn(&str) + Sync),
}

impl Runner<'_> {
    /// Runs all tasks, in order as far as several at a time have one. Runs that fail do not stop the others.
    ///
    /// # Errors
    /// If it was asked to stop, or a file cannot be written.
    pub(crate) fn run(&self, tasks: &[Task]) -> Result<Vec<Outcome>, AblateError> {
        let queue: Mutex<VecDeque<usize>> = Mutex::new((0..tasks.len()).collect());
        let found: Mutex<Vec<Option<Outcome>>> = Mutex::new(vec![None; tasks.len()]);
        let fault = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.clamp(1, tasks.len().max(1)) {
                scope.spawn(|| {
                    while let Some(next) = self.next(&queue, &fault) {
                        match self.one(tasks[next], next + 1, tasks.len()) {
                            Ok(outcome) => held(&found)[next] = Some(outcome),
                            Err(error) => {
                                held(&fault).get_or_insert(error);
                            }
                        }
                    }
                });
            }
        });
        match (fault.into_inner().unwrap_or_else(PoisonError::into_inner), self.stop.load(Ordering::Relaxed))
        {
            (Some(error), _) => return Err(error),
            (None, true) => return Err(AblateError::Stopped),
            (None, false) => {}
        }
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(found.into_iter().flatten().collect())
    }

    /// The next task; none after a fault that is not a run's own, or once it was asked to stop.
    fn next(&self, queue: &Mutex<VecDeque<usize>>, fault: &Mutex<Option<AblateError>>) -> Option<usize> {
        let ends = self.stop.load(Ordering::Relaxed) || held(fault).is_some();
        if ends { None } else { held(queue).pop_front() }
    }

    fn one(&self, task: Task, number: usize, of: usize) -> Result<Outcome, AblateError> {
        let arm = &self.plan.arms[task.arm];
        let settings: Vec<String> = arm.points[task.point].settings.iter().map(Setting::short).collect();
        let settings = settings.join(", ");
        let run = self.plan.run(task.arm, task.point, task.seed)?;
        let named = match settings.is_empty() {
            true => format!("[{number}/{of}] {}, seed {}", arm.name, task.seed),
            false => format!("[{number}/{of}] {} ({settings}), seed {}", arm.name, task.seed),
        };
        if let Some(result) = self.known(&run)? {
            self.write(Record::Reused { id: run.id.clone() })?;
            (self.say)(&format!("{named}: {}, reused from {}", described(&result), run.dir.display()));
            return Ok(Outcome::Ran(Box::new(result)));
        }
        let recipe = store::freeze(&run)?;
        let output = match self.claim(&run, &named)? {
            Claim::Ours(output) => output,
            Claim::Theirs(result) => return Ok(Outcome::Ran(result)),
        };
        let before = self.plan.before(task.arm, task.point, task.seed)?;
        if let Some((shorter, step)) = before
            && fork(&shorter.dir, step, &run.dir)?
        {
            (self.say)(&format!("{named}: goes on from step {step} of {}", shorter.dir.display()));
        }
        let kept = self.plan.kept_step(task.arm, task.point)?;
        let (id, seed) = (run.id.clone(), task.seed);
        self.write(Record::Run { id, arm: arm.name.clone(), seed, settings: settings.clone() })?;
        let begin = Instant::now();
        // The lock stays with this process until the result is kept.
        let lock = output.try_clone().map_err(AblateError::io(&run.dir, "lock a file in"))?;
        let tags = run.recipe.log.as_ref().map_or_else(Vec::new, |_| tags(&arm.name, &settings, seed));
        let ended = child::train(self.program, &run, &recipe, output, kept, &tags, self.threads, self.stop)?;
        let finished = match ended {
            Ended::Trained => finish(&run, None, self.outputs, kept.is_some())?,
            Ended::Diverged(message) => finish(&run, Some(message), self.outputs, false)?,
            Ended::Failed(message) => return self.failed(&run, &named, message),
            Ended::Stopped => None,
        };
        drop(lock);
        match finished {
            Some(result) => {
                self.write(Record::Done { id: run.id.clone(), diverged: result.diverged.is_some() })?;
                let took = duration(begin.elapsed().as_secs_f64());
                (self.say)(&format!("{named}: {}, {took}", described(&result)));
                Ok(Outcome::Ran(Box::new(result)))
            }
            None if self.stop.load(Ordering::Relaxed) => Err(AblateError::Stopped),
            None => self.failed(&run, &named, "it ended before its last step".to_string()),
        }
    }

    /// The result that a run has.
    fn known(&self, run: &FrozenRun) -> Result<Option<RunResult>, AblateError> {
        let result = store::result(&run.dir)?;
        match &result {
            Some(found) if found.id != run.id => Err(AblateError::Damaged {
                path: run.dir.clone(),
                line: 0,
                message: format!("holds the run {}: delete the directory", found.id),
            }),
            _ => Ok(result),
        }
    }

    /// Takes a run's directory, or waits for whoever has it.
    fn claim(&self, run: &FrozenRun, named: &str) -> Result<Claim, AblateError> {
        let mut told = false;
        loop {
            if let Some(file) = store::claim(&run.dir)? {
                // Whoever had it may just have ended.
                return Ok(match self.known(run)? {
                    Some(result) => Claim::Theirs(Box::new(result)),
                    None => Claim::Ours(file),
                });
            }
            if !told {
                (self.say)(&format!("{named}: another process trains {}; waiting for it", run.dir.display()));
                told = true;
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(AblateError::Stopped);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn failed(&self, run: &FrozenRun, named: &str, message: String) -> Result<Outcome, AblateError> {
        (self.say)(&format!("{named}: FAILED: {message} ({})", run.dir.display()));
        self.write(Record::Failed { id: run.id.clone(), message: message.clone() })?;
        Ok(Outcome::Failed(message))
    }

    fn write(&self, record: Record) -> Result<(), AblateError> {
        held(self.journal).write(record)
    }
}

/// What a run is in its experiment, for the server that its recipe names; there it has a name that people understand.
fn tags(arm: &str, settings: &str, seed: u64) -> Vec<(&'static str, String)> {
    let named = if settings.is_empty() { arm.to_string() } else { format!("{arm} ({settings})") };
    vec![
        ("mlflow.runName", format!("{named}, seed {seed}")),
        ("tritforge.arm", named),
        ("tritforge.seed", seed.to_string()),
    ]
}

/// Who trains a run.
enum Claim {
    Ours(std::fs::File),
    Theirs(Box<RunResult>),
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a run reached, in words.
fn described(result: &RunResult) -> String {
    match (result.bits_per_byte, result.held_out_loss) {
        (Some(bits), Some(loss)) => format!("{bits:.4} bits/byte, loss {loss:.4}"),
        _ => format!("diverged at step {}", result.steps),
    }
}
