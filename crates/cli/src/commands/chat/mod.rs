//! `tritforge chat`: a conversation with a model.

mod command;
mod conversation;
mod input;
mod prompt;
mod transcript;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use tritforge_infer::{Finish, GenerateOptions, KvType, Session};
use tritforge_support::counted;

use self::command::{Command, HELP};
use self::conversation::{Answer, Conversation};
use self::input::Input;
use super::draft_args::DraftArgs;
use super::grammar_args::GrammarArgs;
use super::model_args::ModelArgs;
use super::ranges::{MOST_TOKENS, count};
use super::sampling_args::{SamplingArgs, chat_template, no_template};
use crate::{interrupt, out};

#[derive(ClapArgs)]
#[command(after_help = format!("Examples:\n  \
    tritforge chat model.gguf --system 'Answer in one sentence.'\n  \
    tritforge chat model.gguf --template chatml --temperature 0\n  \
    tritforge chat model.gguf --json-schema answer.json\n  \
    tritforge chat 2b.gguf --draft-model 125m.gguf\n  \
    printf 'Hello\\nAnd now?\\n/stats\\n' | tritforge chat model.gguf\n\n\
    Each line is a message or a command:\n{HELP}"))]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// System prompt.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Chat template: a file, or one of chatml, llama3, plain; default: the model's own.
    #[arg(long, value_name = "NAME|FILE")]
    template: Option<String>,
    /// Context length; default: the model's.
    #[arg(long, value_name = "N", value_parser = count(1..=MOST_TOKENS))]
    context: Option<usize>,
    /// Type of the KV cache: f16; f32, which reproduces the logits of training bit for bit; or q8_0, half of f16's memory.
    #[arg(long, value_name = "f16|f32|q8_0", default_value_t = KvType::F16)]
    kv: KvType,
    /// Fail when the context is full instead of dropping the oldest turns.
    #[arg(long)]
    no_context_shift: bool,
    /// Maximum tokens per answer.
    #[arg(short = 'n', long, default_value_t = 1024, value_parser = count(0..=MOST_TOKENS))]
    max_tokens: usize,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    grammar: GrammarArgs,
    #[command(flatten)]
    draft: DraftArgs,
    /// Stop an answer before this string; can be repeated.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Ignore end-of-generation tokens such as EOS and keep generating.
    #[arg(long)]
    ignore_eos: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut options = GenerateOptions {
        max_tokens: args.max_tokens,
        sampling: args.sampling.sampling()?,
        stop: args.stop.clone(),
        ignore_eos: args.ignore_eos,
        ..GenerateOptions::default()
    };
    let model = args.model.open()?;
    options.constraint = args.grammar.constraint(&model)?;
    let template = chat_template(&model, args.template.as_deref())?.with_context(|| no_template(&model))?;
    let context = args.context.unwrap_or(model.config().max_position_embeddings);
    let mut session = Session::with_kv(Arc::clone(&model), context, args.kv)?;
    session.set_draft(args.draft.open(&model, &args.model.device)?.as_ref())?;
    let mut conversation = Conversation::new(&model, template, options, session, !args.no_context_shift);
    conversation.set_system(args.system.as_deref().unwrap_or_default());
    interrupt::install()?;
    let mut input = Input::new()?;
    if input.is_terminal() {
        println!("{}, {context} tokens of context. /help shows the commands.", args.model.model.display());
    }
    let mut failed = false;
    while let Some(line) = input.line()? {
        let result = match Command::parse(&line) {
            Ok(None) => Ok(()),
            Ok(Some(Command::Exit)) => break,
            Ok(Some(Command::Say(text))) => say(&mut conversation, &text),
            Ok(Some(command)) => obey(&mut conversation, command),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            // Nobody would read the next answer.
            if out::is_output(&error) {
                return Err(error);
            }
            eprintln!("error: {}", crate::message(&error));
            failed = true;
        }
    }
    // Whoever types has seen what failed; a script needs to be told.
    Ok(if failed && !input.is_terminal() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Has a message answered, and the answer printed as it comes.
fn say(conversation: &mut Conversation, text: &str) -> Result<()> {
    let mut out = out::stdout();
    let work = interrupt::Work::begin();
    let answer = conversation.say(text, |piece| {
        let written = write!(out, "{piece}").and_then(|()| out.flush());
        written.is_ok() && !work.stopped()
    });
    writeln!(out)?;
    drop(out);
    let Answer { finish, left_out } = answer?;
    if left_out > 0 {
        eprintln!("[the context was full: dropped the {left_out} oldest messages]");
    }
    match finish {
        Finish::Cancelled => eprintln!("[stopped]"),
        Finish::Length => eprintln!("[stopped at --max-tokens]"),
        Finish::ContextFull => eprintln!("[stopped: the context is full; /reset starts over]"),
        Finish::Eos | Finish::Stop | Finish::Withheld => {}
    }
    Ok(())
}

fn obey(conversation: &mut Conversation, command: Command) -> Result<()> {
    match command {
        Command::Help => println!("{HELP}"),
        Command::Reset => conversation.reset(),
        Command::Undo => conversation.undo()?,
        Command::System(text) => conversation.set_system(&text),
        Command::Stats => print!("{}", conversation.stats()),
        Command::Save(path) => {
            transcript::save(&path, &conversation.messages())?;
            eprintln!("[saved {}]", path.display());
        }
        Command::Load(path) => {
            let messages = transcript::load(&path)?;
            eprintln!("[loaded {}]", counted(messages.len(), "message"));
            conversation.set_messages(messages);
        }
        // The loop handles these.
        Command::Say(_) | Command::Exit => {}
    }
    Ok(())
}
