//! A task from its first sample to its metrics.

use std::path::PathBuf;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::few_shot::Shots;
use super::prompt::Prompts;
use super::{Fields, Kind, Limits, Metric, Task, TaskData, answers};
use crate::{EvalError, EvalModel};

/// How to ask.
#[derive(Debug, Clone)]
pub struct TaskOptions {
    /// Examples before each question.
    pub num_fewshot: usize,
    /// Seed of their choice.
    pub seed: u64,
    /// Ask by the model's chat template.
    pub apply_chat_template: bool,
    /// Most tokens of a generated answer; 256 for numbers and 1024 for programs by default.
    pub max_tokens: Option<usize>,
    /// The interpreter that may run the model's programs; without one they are not run, and `humaneval` is an
    /// error.
    pub python: Option<PathBuf>,
    /// What these programs may use.
    pub limits: Limits,
}

impl Default for TaskOptions {
    /// No examples, and the seed of lm-evaluation-harness.
    fn default() -> Self {
        Self {
            num_fewshot: 0,
            seed: 1234,
            apply_chat_template: false,
            max_tokens: None,
            python: None,
            limits: Limits::default(),
        }
    }
}

/// One question, answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// Where it stands in its file.
    pub place: String,
    /// What the model saw before its answer.
    pub context: String,
    /// What it answered, and what would have been right: log-likelihoods of the choices, or a text.
    #[serde(flatten)]
    pub answer: Map<String, Value>,
    /// Whether it is right, for each metric.
    #[serde(serialize_with = "by_name")]
    pub right: Vec<(&'static str, bool)>,
    /// Whether the context was too long for the model and has lost its beginning.
    pub truncated: bool,
}

fn by_name<S: Serializer>(right: &[(&'static str, bool)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(right.iter().copied())
}

/// What a model reached in a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskResult {
    /// The task's name.
    pub task: &'static str,
    /// The file.
    pub file: PathBuf,
    /// Samples asked.
    pub samples: usize,
    /// Examples before each.
    pub num_fewshot: usize,
    /// Samples whose context was too long for the model and has lost its beginning.
    pub truncated: usize,
    /// What was measured.
    pub metrics: Vec<Metric>,
}

impl TaskResult {
    /// As JSON: every metric by its name, with `NAME_stderr` beside.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        for metric in &self.metrics {
            out.insert(metric.name.to_string(), json!(metric.value));
            out.insert(stderr_name(metric.name), json!(metric.stderr));
        }
        out.insert("samples".to_string(), json!(self.samples));
        out.insert("num_fewshot".to_string(), json!(self.num_fewshot));
        out.insert("truncated".to_string(), json!(self.truncated));
        out.insert("file".to_string(), json!(self.file.display().to_string()));
        Value::Object(out)
    }
}

/// `acc_stderr`, `exact_match_stderr,strict-match`: as lm-evaluation-harness writes them.
fn stderr_name(name: &str) -> String {
    match name.split_once(',') {
        Some((metric, filter)) => format!("{metric}_stderr,{filter}"),
        None => format!("{name}_stderr"),
    }
}

/// Asks every sample. All of them are read first, so that a damaged one is known before the model runs.
/// `each` sees every answer, in order.
///
/// # Errors
/// If a sample is damaged or does not fit the model, examples are wanted and there are too few, programs may
/// not be run, or the model fails. The sample is named.
pub fn evaluate(
    model: &EvalModel,
    task: &Task,
    data: &TaskData,
    examples: Option<&TaskData>,
    options: &TaskOptions,
    each: &mut dyn FnMut(&Sample),
) -> Result<TaskResult, EvalError> {
    let prompts = Prompts::new(model.text_tokenizer()?, options.apply_chat_template)?;
    let shots = Shots::read(task, data, examples, options)?;
    let named = |(index, error): (usize, EvalError)| match (error, data.records.get(index)) {
        (error @ EvalError::Sample { .. }, _) | (error, None) => error,
        (other, Some(record)) => Fields::new(&data.path, record).fault(other.to_string()),
    };
    let shots = shots.draw(data.records.len(), options.seed).map_err(named)?;
    let mut answers = Answers { data, samples: Vec::new(), next: 0, each };
    answers.samples.resize_with(data.records.len(), || None);
    let mut take = |index: usize, sample: Sample| answers.take(index, sample);
    match task.kind {
        Kind::Choice { question, normalized } => {
            let questions = data.each(question)?;
            answers::choices(model, &questions, &shots, &prompts, normalized, &mut take).map_err(named)?;
        }
        Kind::Number => {
            let problems = data.each(super::gsm8k::gsm8k)?;
            answers::numbers(model, &problems, &shots, &prompts, options, &mut take).map_err(named)?;
        }
        Kind::Program => {
            let Some(python) = &options.python else {
                let message = "humaneval executes programs written by the model on this machine: allow it \
                               with --allow-code-execution, preferably in a container or virtual machine";
                return Err(EvalError::Input(message.to_string()));
            };
            let problems = data.each(super::humaneval::humaneval)?;
            answers::programs(model, &problems, &prompts, python, options, &mut take).map_err(named)?;
        }
    }
    let samples: Vec<Sample> = answers.samples.into_iter().flatten().collect();
    let names: Vec<&'static str> =
        samples.first().map(|first| first.right.iter().map(|(name, _)| *name).collect()).unwrap_or_default();
    let metric = |(at, name): (usize, &&'static str)| {
        let right: Vec<bool> = samples.iter().map(|sample| sample.right[at].1).collect();
        Metric::of(name, &right)
    };
    Ok(TaskResult {
        task: task.name,
        file: data.path.clone(),
        samples: samples.len(),
        num_fewshot: options.num_fewshot,
        truncated: samples.iter().filter(|sample| sample.truncated).count(),
        metrics: names.iter().enumerate().map(metric).collect(),
    })
}

/// The answers so far; they come in any order and are handed on in that of the file.
struct Answers<'a> {
    data: &'a TaskData,
    samples: Vec<Option<Sample>>,
    /// The first that has not been handed on.
    next: usize,
    each: &'a mut dyn FnMut(&Sample),
}

impl Answers<'_> {
    fn take(&mut self, index: usize, sample: Sample) {
        self.samples[index] = Some(Sample { place: self.data.records[index].place.clone(), ..sample });
        while let Some(Some(sample)) = self.samples.get(self.next) {
            (self.each)(sample);
            self.next += 1;
        }
    }
}
