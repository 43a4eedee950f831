//! Tasks: which, on what files, and the table of what came of them.

use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tritforge_data::Hub;
use tritforge_eval::Subject;
use tritforge_eval::tasks::{Kind, Task, TaskData, TaskOptions, TaskResult, evaluate, find_python};

use crate::commands::ranges::{MOST_TOKENS, count};
use crate::table;

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Tasks, separated by commas: multiple choice, word problems, programs (docs/evaluation.md).
    #[arg(long, value_name = "TASK,…", value_delimiter = ',')]
    tasks: Vec<String>,
    /// The directory with the tasks' files: TASK.jsonl, TASK/test.jsonl, TASK/train.jsonl; also .json, .csv, .parquet.
    #[arg(long, value_name = "DIR", requires = "tasks")]
    data: Option<PathBuf>,
    /// A task's file, on this machine or `hf://datasets/OWNER/NAME/FILE`; can be given again.
    #[arg(long, value_name = "TASK=FILE", value_parser = super::named_file, requires = "tasks")]
    task_file: Vec<(String, String)>,
    /// The file with a task's few-shot examples; its train split in `--data` by default.
    #[arg(long, value_name = "TASK=FILE", value_parser = super::named_file, requires = "tasks")]
    fewshot_file: Vec<(String, String)>,
    /// Ask at most this many samples of each task, the first ones.
    #[arg(long, value_name = "N", requires = "tasks", value_parser = count(1..=usize::MAX))]
    limit: Option<usize>,
    /// Examples before each question.
    #[arg(long, value_name = "K", default_value_t = 0, requires = "tasks", value_parser = count(0..=10_000))]
    num_fewshot: usize,
    /// Seed of the choice of examples.
    #[arg(long, default_value_t = 1234, requires = "tasks")]
    seed: u64,
    /// Ask by the model's chat template.
    #[arg(long, requires = "tasks")]
    apply_chat_template: bool,
    /// Most tokens of a generated answer; by default 256 for gsm8k and 1024 for humaneval.
    #[arg(long, value_name = "N", requires = "tasks", value_parser = count(1..=MOST_TOKENS))]
    max_tokens: Option<usize>,
    /// Run the programs that the model writes for humaneval. Limits hold off accidents; they are no sandbox: use a container
    /// or a virtual machine.
    #[arg(long, requires = "tasks")]
    allow_code_execution: bool,
    /// Write every sample, its answer and whether it is right, a JSON object a line.
    #[arg(long, value_name = "FILE", requires = "tasks")]
    samples: Option<PathBuf>,
}

/// What came of all tasks.
pub(crate) struct Results(Vec<TaskResult>);

pub(crate) fn run(args: &Args, open: impl FnOnce() -> Result<Subject>) -> Result<Results> {
    // Everything that can be wrong with the files is found before the model is loaded.
    let jobs = args.tasks.iter().map(|name| Job::read(args, name)).collect::<Result<Vec<_>>>()?;
    for (name, _) in args.task_file.iter().chain(&args.fewshot_file) {
        if !args.tasks.contains(name) {
            bail!("a file for the task {name:?}, which is not among --tasks");
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
    let subject = open()?;
    let generates = |job: &Job| !matches!(job.task.kind, Kind::Choice { .. });
    if matches!(subject, Subject::Checkpoint { .. }) && jobs.iter().any(generates) {
        eprintln!(
            "A checkpoint writes text without a cache, the whole sequence again for every token; a file made by `tritforge \
             export` gives the same text faster."
        );
    }
    let mut results = Vec::new();
    for Job { task, data, examples } in &jobs {
        let bar = progress(task.name, data.records.len() as u64);
        let mut fault = None;
        let result = evaluate(&subject, task, data, examples.as_ref(), &options, &mut |sample| {
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
                    "no file of the task {name}: name it, --task-file {name}=FILE, or its directory, --data DIR"
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
                "{}: {} of {} contexts are longer than the model's and have lost their beginning",
                result.task, result.truncated, result.samples
            );
        }
    }
}
