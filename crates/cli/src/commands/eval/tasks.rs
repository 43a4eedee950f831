//! Tasks: which, on what files, and the table of what came of them.

use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tritforge_data::Hub;
use tritforge_eval::EvalModel;
use tritforge_eval::tasks::{Kind, Task, TaskData, TaskOptions, TaskResult, evaluate, find_python};

use crate::commands::ranges::{MOST_TOKENS, count};
use crate::table;

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Tasks to run, separated by commas (docs/evaluation.md).
    #[arg(long, value_name = "TASK,…", value_delimiter = ',')]
    tasks: Vec<String>,
    /// Directory of the task files: TASK.jsonl, TASK/test.jsonl, TASK/train.jsonl; also .json, .csv,
    /// .parquet.
    #[arg(long, value_name = "DIR", requires = "tasks")]
    data: Option<PathBuf>,
    /// File of a task: a local path or `hf://datasets/OWNER/NAME/FILE`; can be repeated.
    #[arg(long, value_name = "TASK=FILE", value_parser = super::named_file, requires = "tasks")]
    task_file: Vec<(String, String)>,
    /// File of a task's few-shot examples; default: its train split in `--data`.
    #[arg(long, value_name = "TASK=FILE", value_parser = super::named_file, requires = "tasks")]
    fewshot_file: Vec<(String, String)>,
    /// Evaluate only the first N samples of each task.
    #[arg(long, value_name = "N", requires = "tasks", value_parser = count(1..=usize::MAX))]
    limit: Option<usize>,
    /// Number of few-shot examples before each question.
    #[arg(long, value_name = "K", default_value_t = 0, requires = "tasks", value_parser = count(0..=10_000))]
    num_fewshot: usize,
    /// Random seed for choosing the few-shot examples.
    #[arg(long, default_value_t = 1234, requires = "tasks")]
    seed: u64,
    /// Format prompts with the model's chat template.
    #[arg(long, requires = "tasks")]
    apply_chat_template: bool,
    /// Maximum tokens per generated answer; default: 256 for gsm8k, 1024 for humaneval.
    #[arg(long, value_name = "N", requires = "tasks", value_parser = count(1..=MOST_TOKENS))]
    max_tokens: Option<usize>,
    /// Execute the programs that the model writes for humaneval. Resource limits guard against accidents but
    /// are not a sandbox: run in a container or virtual machine.
    #[arg(long, requires = "tasks")]
    allow_code_execution: bool,
    /// Write every sample with the model's answer and whether it is correct, as JSONL.
    #[arg(long, value_name = "FILE", requires = "tasks")]
    samples: Option<PathBuf>,
}

/// What came of all tasks.
pub(crate) struct Results(Vec<TaskResult>);

pub(crate) fn run(args: &Args, open: impl FnOnce() -> Result<EvalModel>) -> Result<Results> {
    // Everything that can be wrong with the files is found before the model is loaded.
    let jobs = args.tasks.iter().map(|name| Job::read(args, name)).collect::<Result<Vec<_>>>()?;
    for (name, _) in args.task_file.iter().chain(&args.fewshot_file) {
        if !args.tasks.contains(name) {
            bail!("a file is given for the task {name:?}, which is not in --tasks");
        }
    }
    let options = TaskOptions {
        num_fewshot: args.num_fewshot,
        seed: args.seed,
        apply_chat_template: args.apply_chat_template,
        max_tokens: args.max_tokens,
        python: args.allow_code_execution.then(find_python).transpose()?,
        ..TaskOptions::default()
    };
    let mut log = match &args.samples {
        Some(path) => {
            let file = File::create(path).with_context(|| format!("{}: cannot write", path.display()))?;
            Some(BufWriter::new(file))
        }
        None => None,
    };
    let model = open()?;
    let generates = |job: &Job| !matches!(job.task.kind, Kind::Choice { .. });
    if matches!(model, EvalModel::Trained { .. }) && jobs.iter().any(generates) {
        eprintln!(
            "Generating from a checkpoint is slow, since it has no KV cache; a GGUF file made by `tritforge \
             export` gives the same text faster."
        );
    }
    let mut results = Vec::new();
    for Job { task, data, examples } in &jobs {
        let bar = progress(task.name, data.records.len() as u64);
        let mut fault = None;
        let result = evaluate(&model, task, data, examples.as_ref(), &options, &mut |sample| {
            bar.inc(1);
            if let Some(log) = &mut log {
                let mut line = json!({"task": task.name});
                if let (Value::Object(line), Ok(Value::Object(sample))) =
                    (&mut line, serde_json::to_value(sample))
                {
                    line.extend(sample);
                }
                fault = fault.take().or(writeln!(log, "{line}").err());
            }
        })?;
        bar.finish_and_clear();
        if let Some(error) = fault {
            return Err(error).context("cannot write the samples");
        }
        results.push(result);
    }
    if let Some(mut log) = log {
        log.flush().context("cannot write the samples")?;
    }
    Ok(Results(results))
}

/// A task with its files, read.
struct Job {
    task: &'static Task,
    data: TaskData,
    examples: Option<TaskData>,
}

impl Job {
    fn read(args: &Args, name: &str) -> Result<Self> {
        let task = Task::named(name)?;
        let given = |files: &[(String, String)]| {
            files.iter().find(|(task, _)| task == name).map(|(_, file)| local(file)).transpose()
        };
        let path = match (given(&args.task_file)?, &args.data) {
            (Some(path), _) => path,
            (None, Some(dir)) => task.test_file(dir)?,
            (None, None) => {
                bail!(
                    "no file for the task {name}: give --task-file {name}=FILE, or a directory with --data \
                     DIR"
                )
            }
        };
        let mut examples = None;
        if args.num_fewshot > 0 {
            let train = || args.data.as_deref().and_then(|dir| task.train_file(dir));
            if let Some(path) = given(&args.fewshot_file)?.or_else(train) {
                examples = Some(TaskData::read(&path, None)?);
            }
        }
        Ok(Self { task, data: TaskData::read(&path, args.limit)?, examples })
    }
}

/// A file on this machine.
fn local(file: &str) -> Result<PathBuf> {
    if file.starts_with("hf://") {
        return Ok(Hub::from_env().dataset_file(file)?);
    }
    Ok(PathBuf::from(file))
}

fn progress(task: &'static str, samples: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len}, {eta} left");
    ProgressBar::new(samples)
        .with_prefix(task)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

impl Results {
    /// `{"model": …, "results": {TASK: {METRIC: …, METRIC_stderr: …}}}`.
    pub(crate) fn to_json(&self, model: &Path) -> Value {
        let results: Map<String, Value> =
            self.0.iter().map(|result| (result.task.to_string(), result.to_json())).collect();
        json!({"model": model.display().to_string(), "results": results})
    }

    /// A table for the terminal.
    pub(crate) fn print(&self) {
        let number = |x: f64| format!("{x:.4}");
        let rows = self.0.iter().flat_map(|result| {
            // acc_bytes is acc_norm but where letters take several bytes.
            let shown = result.metrics.iter().filter(|metric| metric.name != "acc_bytes");
            shown.map(|metric| {
                vec![
                    result.task.to_string(),
                    result.num_fewshot.to_string(),
                    metric.name.to_string(),
                    number(metric.value),
                    metric.stderr.map_or_else(String::new, number),
                    result.samples.to_string(),
                ]
            })
        });
        table::print(&["task", "shots", "metric", "value", "± stderr", "samples"], &rows.collect::<Vec<_>>());
        for result in self.0.iter().filter(|result| result.truncated > 0) {
            println!(
                "{}: {} of {} contexts exceed the model's context length and were truncated on the left",
                result.task, result.truncated, result.samples
            );
        }
    }
}
