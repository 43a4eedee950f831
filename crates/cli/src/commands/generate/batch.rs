//! `generate --batch`: a file of prompts to a file of texts, in the same order.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value;
use tritforge_data::json_lines;
use tritforge_infer::{
    Finish, GenerateOptions, Generation, Proposals, Scheduler, SchedulerOptions, Sequence, Vocabulary,
};
use tritforge_support::counted;

use super::request::{Defaults, Entry, Request, entries};
use super::{Args, place, read};
use crate::commands::draft_args::accepted;
use crate::commands::ranges::count;
use crate::commands::sampling_args::chat_template;
use crate::interrupt;

/// Options of a batch.
#[derive(ClapArgs)]
pub(super) struct BatchArgs {
    /// With --batch: JSONL file to write; default: standard output.
    #[arg(short, long, value_name = "FILE", requires = "batch")]
    output: Option<PathBuf>,
    /// With --batch: number of prompts to run at a time.
    #[arg(long, value_name = "N", default_value_t = 8, requires = "batch", value_parser = count(1..=4096))]
    parallel: usize,
    /// With --batch: for an invalid line, write an object with `error` and continue.
    #[arg(long, requires = "batch")]
    skip_errors: bool,
    /// With --batch: chat template for `messages`: a file, or one of chatml, llama3, plain; default: the
    /// model's own.
    #[arg(long, value_name = "NAME|FILE", requires = "batch")]
    template: Option<String>,
}

/// A line of the result.
#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Done {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Value>,
        text: &'a str,
        finish_reason: &'static str,
        prompt_tokens: usize,
        completion_tokens: usize,
    },
    Failed {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Value>,
        line: usize,
        error: &'a str,
    },
}

pub(super) fn run(args: &Args, mut options: GenerateOptions, file: &Path) -> Result<ExitCode> {
    let batch = &args.batch;
    if batch.parallel == 0 {
        bail!("--parallel 0: expected at least 1");
    }
    let lines = json_lines(Path::new(&place(file)), read(file)?)?;
    let model = args.model.open()?;
    options.constraint = args.grammar.constraint(&model)?;
    let draft = args.draft.open(&model, &args.model.device)?;
    let most = model.config().max_position_embeddings;
    let context = args.context.unwrap_or(most);
    if context == 0 || context > most {
        bail!("--context {context}: expected 1 to the model's context length, {most}");
    }
    let template = chat_template(&model, batch.template.as_deref())?;
    let defaults = Defaults { model: &model, template: template.as_ref(), options: &options, context };
    let entries = entries(&lines, &defaults);
    if !batch.skip_errors
        && let Some((line, error)) = entries.iter().find_map(|e| Some((e.line, e.request.as_ref().err()?)))
    {
        bail!("{}:{line}: {error} (--skip-errors skips such lines)", place(file));
    }
    if entries.is_empty() {
        bail!(
            "{}: no prompts: expected one JSON object per line, such as {{\"prompt\": \"Hello\"}}",
            place(file)
        );
    }
    let requests = || entries.iter().enumerate().filter_map(|(i, e)| Some((i, e.request.as_ref().ok()?)));

    let mut results = Results::new(&entries, batch.output.as_deref(), args.quiet)?;
    interrupt::install()?;
    let work = interrupt::Work::begin();
    let options = SchedulerOptions { context, kv: args.kv, ..SchedulerOptions::of(&model, batch.parallel) };
    let mut scheduler = Scheduler::new(&model, options)?.with_draft(draft)?;
    let vocabulary = Vocabulary::of(&model);
    let sequences = requests().map(|(index, Request { ids, options })| -> Result<_> {
        Ok((index, Sequence::new(vocabulary, ids, options.clone(), 0..context)?))
    });
    let begin = Instant::now();
    results.write_ready()?;
    scheduler.run(sequences, || work.stopped(), |index, generation| results.take(index, generation?))?;
    let seconds = begin.elapsed().as_secs_f64();
    let stopped = work.stopped();
    results.finish()?;
    if !args.quiet {
        let Results { prompt_tokens, completion_tokens, done, lookup, draft, .. } = results;
        let (prompts, failed) = (requests().count(), entries.len() - requests().count());
        eprintln!(
            "[{done} of {prompts}, {failed}; {prompt_tokens} and \
             {completion_tokens} generated in {seconds:.1} s, {:.0} tokens/s generated{}{}]",
            completion_tokens as f64 / seconds,
            accepted("look-up", args.prompt_lookup > 0, lookup),
            accepted("draft", args.draft.is_on(), draft),
            prompt_tokens = counted(prompt_tokens, "prompt token"),
            failed = counted(failed, "invalid line"),
            prompts = counted(prompts, "prompt")
        );
    }
    Ok(if stopped { ExitCode::from(interrupt::EXIT_CODE) } else { ExitCode::SUCCESS })
}

/// The results as they come, written in the order of the file.
struct Results<'a> {
    entries: &'a [Entry],
    generations: Vec<Option<Generation>>,
    /// Entries before this one are written.
    written: usize,
    out: Box<dyn Write>,
    /// What messages call it.
    place: String,
    bar: ProgressBar,
    prompt_tokens: usize,
    completion_tokens: usize,
    lookup: Proposals,
    draft: Proposals,
    /// Prompts that came to their own end.
    done: usize,
}

impl<'a> Results<'a> {
    fn new(entries: &'a [Entry], output: Option<&Path>, quiet: bool) -> Result<Self> {
        let out: Box<dyn Write> = match output {
            Some(path) => Box::new(BufWriter::new(
                File::create(path).with_context(|| format!("{}: cannot write", path.display()))?,
            )),
            None => Box::new(crate::out::stdout()),
        };
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(entries.len() as u64) };
        let style = "{bar:30} {pos}/{len} prompts, {msg} tokens, {elapsed} (left {eta})";
        bar.set_style(ProgressStyle::with_template(style)?);
        let generations = entries.iter().map(|_| None).collect();
        let place = output.map_or_else(String::new, |path| format!("{}: ", path.display()));
        Ok(Self {
            entries,
            generations,
            written: 0,
            out,
            place,
            bar,
            prompt_tokens: 0,
            completion_tokens: 0,
            lookup: Proposals::default(),
            draft: Proposals::default(),
            done: 0,
        })
    }

    fn take(&mut self, index: usize, generation: Generation) -> Result<()> {
        self.prompt_tokens += generation.prompt_tokens;
        self.completion_tokens += generation.tokens.len();
        self.lookup += generation.lookup;
        self.draft += generation.draft;
        self.done += usize::from(generation.finish != Finish::Cancelled);
        self.generations[index] = Some(generation);
        self.bar.set_message(self.completion_tokens.to_string());
        self.bar.inc(1);
        self.write_ready()
    }

    /// Writes all lines whose turn has come.
    fn write_ready(&mut self) -> Result<()> {
        while self.written < self.entries.len() && self.write(self.written)? {
            self.written += 1;
        }
        self.out.flush().with_context(|| format!("{}cannot write the results", self.place))
    }

    /// Writes what is left after a stop, without the prompts that were not begun.
    fn finish(&mut self) -> Result<()> {
        for index in self.written..self.entries.len() {
            self.write(index)?;
        }
        self.bar.finish_and_clear();
        self.out.flush().with_context(|| format!("{}cannot write the results", self.place))
    }

    /// Writes one line; false if there is nothing to write yet.
    fn write(&mut self, index: usize) -> Result<bool> {
        let Entry { line, id, request } = &self.entries[index];
        let id = id.as_ref();
        let result = match (request, self.generations[index].take()) {
            (Err(error), _) => serde_json::to_string(&Line::Failed { id, line: *line, error }),
            (Ok(_), Some(generation)) => serde_json::to_string(&Line::Done {
                id,
                text: &generation.text,
                finish_reason: reason(generation.finish),
                prompt_tokens: generation.prompt_tokens,
                completion_tokens: generation.tokens.len(),
            }),
            (Ok(_), None) => return Ok(false),
        };
        writeln!(self.out, "{}", result?)
            .with_context(|| format!("{}cannot write the results", self.place))?;
        Ok(true)
    }
}

pub(super) fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Eos => "eos",
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::ContextFull => "context_full",
        Finish::Cancelled => "cancelled",
        Finish::Withheld => "withheld",
    }
}
