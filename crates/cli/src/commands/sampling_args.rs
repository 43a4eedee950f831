//! Options that `generate` and `chat` share: how to choose each token, and which chat template.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use tritforge_infer::{Model, Sampling};
use tritforge_text::ChatTemplate;

use super::ranges::{above_zero, number};

/// How to choose each token.
#[derive(ClapArgs)]
pub(crate) struct SamplingArgs {
    /// Sampling temperature; 0 is greedy.
    #[arg(long, default_value_t = 0.8, value_parser = number(0.0..=f32::MAX))]
    temperature: f32,
    /// Sample from the k most probable tokens; 0 disables.
    #[arg(long, default_value_t = 40)]
    top_k: usize,
    /// Sample from the most probable tokens whose probabilities add up to p.
    #[arg(long, default_value_t = 0.95, value_parser = number(0.0..=1.0))]
    top_p: f32,
    /// Drop tokens less probable than this fraction of the most probable token's probability.
    #[arg(long, default_value_t = 0.0, value_parser = number(0.0..=1.0))]
    min_p: f32,
    /// Penalty on recent tokens; values above 1 make them less probable.
    #[arg(long, default_value_t = 1.0, value_parser = above_zero)]
    repetition_penalty: f32,
    /// Random seed for sampling.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl SamplingArgs {
    /// The options, each in its range.
    pub(crate) fn sampling(&self) -> Result<Sampling> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            ..Sampling::default()
        };
        sampling.validate()?;
        Ok(sampling)
    }
}

/// The template that `--template` names or, without it, the model's own; none if it has none.
pub(crate) fn chat_template(model: &Model, named: Option<&str>) -> Result<Option<ChatTemplate>> {
    let Some(named) = named else {
        let place = || format!("{}: tokenizer.chat_template", model.path().display());
        return model.tokenizer().chat_template().with_context(place);
    };
    if let Some(template) = ChatTemplate::named(named) {
        return Ok(Some(template));
    }
    if !Path::new(named).is_file() {
        let names = ChatTemplate::names().join(", ");
        bail!("--template {named}: expected a file or one of {names}");
    }
    let source = std::fs::read_to_string(named).with_context(|| format!("{named}: cannot read"))?;
    // Editors end a file with a line break; templates in models do not.
    let source = source.strip_suffix('\n').unwrap_or(&source);
    Ok(Some(ChatTemplate::new(source).with_context(|| named.to_string())?))
}

/// What to say where a conversation needs a template and there is none.
pub(crate) fn no_template(model: &Model) -> String {
    format!(
        "{}: the model has no chat template: give a file or one of {} with --template",
        model.path().display(),
        ChatTemplate::names().join(", ")
    )
}
