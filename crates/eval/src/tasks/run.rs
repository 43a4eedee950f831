//! A task from its first sample to its metrics.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::few_shot::{PythonRandom, draw};
use super::prompt::Prompts;
use super::question::encode_pair;
use super::{Fields, Kind, Limits, Metric, Outcome, Question, Task, TaskData};
use super::{gsm8k, humaneval, python};
use crate::EvalError;
use crate::score::Scorer;

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
    /// The interpreter that may run the model's programs; without one they are not run, and `humaneval` is an error.
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
    pub right: Vec<(&'static str, bool)>,
    /// Whether the context was too long for the model and has lost its beginning.
    pub truncated: bool,
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

/// Asks every sample. All of them are read first, so that a damaged one is known before the model runs. `each` sees every
/// answer as it comes.
///
/// # Errors
/// If a sample is damaged or does not fit the model, examples are wanted and there are too few, programs may not be run, or
/// the model fails. The sample is named.
pub fn evaluate(
    scorer: &mut Scorer<'_>,
    task: &Task,
    data: &TaskData,
    examples: Option<&TaskData>,
    options: &TaskOptions,
    each: &mut dyn FnMut(&Sample),
) -> Result<TaskResult, EvalError> {
    let prompts = Prompts::new(scorer.subject().tokenizer(), options.apply_chat_template)?;
    let shots = Shots::read(task, data, examples, options)?;
    let mut asked: Asked<'_> = match task.kind {
        Kind::Choice { question, normalized } => choice(data, &prompts, question, normalized)?,
        Kind::Number => number(data, &prompts, options)?,
        Kind::Program => program(data, &prompts, options)?,
    };
    let mut random = PythonRandom::new(options.seed);
    let mut samples: Vec<Sample> = Vec::with_capacity(data.records.len());
    for (index, record) in data.records.iter().enumerate() {
        let fields = Fields::new(&data.path, record);
        let sample = shots.draw(&mut random, index).and_then(|shots| asked(scorer, index, &shots)).map_err(
            |error| match error {
                EvalError::Sample { .. } => error,
                other => fields.fault(other.to_string()),
            },
        )?;
        let sample = Sample { place: record.place.clone(), ..sample };
        each(&sample);
        samples.push(sample);
    }
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

/// The examples to draw from.
struct Shots {
    count: usize,
    texts: Vec<String>,
    /// The questions themselves with their answers, where they stand in the file of the examples.
    own: Vec<String>,
}

impl Shots {
    fn read(
        task: &Task,
        data: &TaskData,
        examples: Option<&TaskData>,
        options: &TaskOptions,
    ) -> Result<Self, EvalError> {
        let count = options.num_fewshot;
        if count == 0 {
            return Ok(Self { count, texts: Vec::new(), own: Vec::new() });
        }
        let Some(examples) = examples else {
            let name = task.name;
            let message =
                format!("{name}: no file with few-shot examples: name it, --fewshot-file {name}=FILE");
            return Err(EvalError::Input(message));
        };
        let texts = |data: &TaskData| match task.kind {
            Kind::Choice { question, .. } => data.each(|fields| Ok(question(fields)?.example())),
            Kind::Number => data.each(|fields| {
                let (question, answer) = gsm8k::gsm8k(fields)?;
                Ok(format!("{question} {answer}"))
            }),
            Kind::Program => {
                Err(EvalError::Input(format!("{} is asked without examples: --num-fewshot 0", task.name)))
            }
        };
        let own = if examples.path == data.path { texts(data)? } else { Vec::new() };
        Ok(Self { count, texts: texts(examples)?, own })
    }

    fn draw<'a>(&'a self, random: &mut PythonRandom, index: usize) -> Result<Vec<&'a str>, EvalError> {
        match self.count {
            0 => Ok(Vec::new()),
            count => draw(random, &self.texts, count, self.own.get(index).map(String::as_str)),
        }
    }
}

/// Asks the sample of an index, with examples before it.
type Asked<'a> = Box<dyn FnMut(&mut Scorer<'_>, usize, &[&str]) -> Result<Sample, EvalError> + 'a>;

fn choice<'a>(
    data: &TaskData,
    prompts: &'a Prompts<'_>,
    question: fn(&Fields<'_>) -> Result<Question, EvalError>,
    normalized: bool,
) -> Result<Asked<'a>, EvalError> {
    let questions = data.each(question)?;
    Ok(Box::new(move |scorer, index, shots| {
        let question = &questions[index];
        let tokenizer = scorer.subject().tokenizer();
        let (mut sequences, mut truncated, mut shown) = (Vec::new(), false, String::new());
        for (context, continuation) in question.pairs() {
            let context = prompts.context(shots, context, "")?;
            let continuation = format!("{}{continuation}", prompts.delimiter());
            let (scored, cut) =
                encode_pair(tokenizer, &context, &continuation, prompts.chat(), scorer.longest())?;
            sequences.push(scored);
            truncated |= cut;
            if shown.is_empty() {
                shown = context;
            }
        }
        let scores = scorer.score(&sequences)?;
        let preferred = question.preferred(&scores);
        let mut right = vec![("acc", preferred.summed == question.gold)];
        if normalized {
            right.push(("acc_norm", preferred.per_character == question.gold));
            right.push(("acc_bytes", preferred.per_byte == question.gold));
        }
        let nats: Vec<f64> = scores.iter().map(|score| score.nats).collect();
        let answer = json!({
            "choices": question.choices(),
            "log_likelihoods": nats,
            "chosen": preferred.summed,
            "target": question.gold,
        });
        Ok(sample(shown, answer, right, truncated))
    }))
}

fn number<'a>(
    data: &TaskData,
    prompts: &'a Prompts<'_>,
    options: &TaskOptions,
) -> Result<Asked<'a>, EvalError> {
    let problems = data.each(gsm8k::gsm8k)?;
    let max_tokens = options.max_tokens.unwrap_or(256);
    let stop = gsm8k::STOP.map(String::from);
    Ok(Box::new(move |scorer, index, shots| {
        let (question, answer) = &problems[index];
        let context = prompts.context(shots, question, "")?;
        let (text, truncated) = generate(scorer, prompts, &context, max_tokens, &stop)?;
        let right = vec![
            ("exact_match,strict-match", gsm8k::matches(gsm8k::strict(&text), answer)),
            ("exact_match,flexible-extract", gsm8k::matches(gsm8k::flexible(&text), answer)),
        ];
        Ok(sample(context, json!({"text": text, "target": answer}), right, truncated))
    }))
}

fn program<'a>(
    data: &TaskData,
    prompts: &'a Prompts<'_>,
    options: &'a TaskOptions,
) -> Result<Asked<'a>, EvalError> {
    let Some(python) = &options.python else {
        let message = "humaneval runs programs that the model writes, on this machine: allow it with \
                       --allow-code-execution, in a container or a virtual machine";
        return Err(EvalError::Input(message.to_string()));
    };
    let problems = data.each(humaneval::humaneval)?;
    let max_tokens = options.max_tokens.unwrap_or(1024);
    let mut stop = humaneval::STOP.map(String::from).to_vec();
    if prompts.chat() {
        stop.extend(humaneval::CHAT_STOP.map(String::from));
    }
    Ok(Box::new(move |scorer, index, shots| {
        let problem = &problems[index];
        let (question, begin) = match prompts.chat() {
            true => problem.chat(),
            false => (problem.prompt.clone(), String::new()),
        };
        let context = prompts.context(shots, &question, &begin)?;
        let (text, truncated) = generate(scorer, prompts, &context, max_tokens, &stop)?;
        let outcome = python::run(Path::new(python), &problem.program(&text), options.limits)?;
        let said = match &outcome {
            Outcome::Passed => "passed",
            Outcome::Failed(message) => message.as_str(),
            Outcome::Ended(why) => why,
        };
        let right = vec![("pass@1", outcome == Outcome::Passed)];
        Ok(sample(context, json!({"text": text, "outcome": said}), right, truncated))
    }))
}

/// The model's text, and whether the context has lost its beginning to make room for it.
fn generate(
    scorer: &mut Scorer<'_>,
    prompts: &Prompts<'_>,
    context: &str,
    max_tokens: usize,
    stop: &[String],
) -> Result<(String, bool), EvalError> {
    let model = scorer.longest() - 1;
    let room = model.checked_sub(max_tokens).filter(|room| *room > 0).ok_or_else(|| {
        EvalError::Input(format!(
            "the model's context of {model} tokens has no room for a question beside an answer of {max_tokens}: lower \
             --max-tokens"
        ))
    })?;
    let (ids, truncated) = prompts.encode(context, room)?;
    Ok((scorer.generate(&ids, max_tokens, stop)?, truncated))
}

fn sample(context: String, answer: Value, right: Vec<(&'static str, bool)>, truncated: bool) -> Sample {
    let answer = match answer {
        Value::Object(answer) => answer,
        _ => Map::new(),
    };
    Sample { place: String::new(), context, answer, right, truncated }
}
