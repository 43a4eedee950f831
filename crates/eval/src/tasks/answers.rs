//! Asking a model: prompts to answers to right and wrong.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::humaneval::Problem;
use super::prompt::Prompts;
use super::question::encode_pair;
use super::{Example, Outcome, Question, Sample, TaskOptions, gsm8k, humaneval, python};
use crate::greedy::{GreedyOptions, generate_greedy};
use crate::score::Scorer;
use crate::{EvalError, EvalModel};

/// A failure and the sample at which it happened.
type SampleError = (usize, EvalError);

/// Takes the answer to the sample of this number.
type OnSample<'a> = dyn FnMut(usize, Sample) + 'a;

/// Scores the choices of every question; `shots` are the examples before each.
pub(super) fn choices(
    model: &EvalModel,
    questions: &[Question],
    shots: &[Vec<&Example>],
    prompts: &Prompts<'_>,
    normalized: bool,
    on_sample: &mut OnSample<'_>,
) -> Result<(), SampleError> {
    let mut scorer = Scorer::new(model).map_err(|error| (0, error))?;
    for (index, (question, shots)) in questions.iter().zip(shots).enumerate() {
        let sample = choice(&mut scorer, question, shots, prompts, normalized);
        on_sample(index, sample.map_err(|error| (index, error))?);
    }
    Ok(())
}

fn choice(
    scorer: &mut Scorer<'_>,
    question: &Question,
    shots: &[&Example],
    prompts: &Prompts<'_>,
    normalized: bool,
) -> Result<Sample, EvalError> {
    let tokenizer = scorer.model().text_tokenizer()?;
    let (mut sequences, mut truncated, mut shown) = (Vec::new(), false, String::new());
    // How many sequences each choice has: one, unless it is longer than the model's context.
    let mut counts = Vec::new();
    for (context, continuation) in question.pairs() {
        let context = prompts.context(shots, context, "")?;
        let continuation = format!("{}{continuation}", prompts.delimiter());
        let (pieces, cut) =
            encode_pair(tokenizer, &context, &continuation, prompts.chat(), scorer.longest())?;
        counts.push(pieces.len());
        sequences.extend(pieces);
        truncated |= cut;
        if shown.is_empty() {
            shown = context;
        }
    }
    let mut scores = scorer.score(&sequences)?.into_iter();
    let nats: Vec<f64> =
        counts.into_iter().map(|count| scores.by_ref().take(count).map(|score| score.nats).sum()).collect();
    let preferred = question.preferred(&nats);
    let mut right = vec![("acc", preferred.summed == question.gold)];
    if normalized {
        right.push(("acc_norm", preferred.per_character == question.gold));
        right.push(("acc_bytes", preferred.per_byte == question.gold));
    }
    let answer = json!({
        "choices": question.choices(),
        "log_likelihoods": nats,
        "chosen": preferred.summed,
        "target": question.gold,
    });
    Ok(sample(shown, answer, right, truncated))
}

/// Has the model solve every word problem, a prompt and its answer.
pub(super) fn numbers(
    model: &EvalModel,
    problems: &[(String, String)],
    shots: &[Vec<&Example>],
    prompts: &Prompts<'_>,
    options: &TaskOptions,
    on_sample: &mut OnSample<'_>,
) -> Result<(), SampleError> {
    let contexts =
        problems.iter().zip(shots).map(|((question, _), shots)| prompts.context(shots, question, ""));
    let writing = GreedyOptions {
        max_tokens: options.max_tokens.unwrap_or(256),
        stop: gsm8k::STOP.map(String::from).into_iter().chain(prompts.stop()).collect(),
    };
    write(model, contexts, prompts, &writing, |index, context, text, truncated| {
        let answer = &problems[index].1;
        let right = vec![
            ("exact_match,strict-match", gsm8k::matches(gsm8k::strict(&text), answer)),
            ("exact_match,flexible-extract", gsm8k::matches(gsm8k::flexible(&text), answer)),
        ];
        on_sample(index, sample(context, json!({"text": text, "target": answer}), right, truncated));
        Ok(())
    })
}

/// Has the model write every program, and runs it.
pub(super) fn programs(
    model: &EvalModel,
    problems: &[Problem],
    prompts: &Prompts<'_>,
    python: &Path,
    options: &TaskOptions,
    on_sample: &mut OnSample<'_>,
) -> Result<(), SampleError> {
    let contexts = problems.iter().map(|problem| match prompts.chat() {
        true => {
            let (question, begin) = problem.chat();
            prompts.context(&[], &question, &begin)
        }
        false => prompts.context(&[], &problem.prompt, ""),
    });
    let mut stop = humaneval::STOP.map(String::from).to_vec();
    if prompts.chat() {
        stop.extend(humaneval::CHAT_STOP.map(String::from).into_iter().chain(prompts.stop()));
    }
    let writing = GreedyOptions { max_tokens: options.max_tokens.unwrap_or(1024), stop };
    write(model, contexts, prompts, &writing, |index, context, text, truncated| {
        let outcome = python::run(python, &problems[index].program(&text), options.limits)?;
        let said = match &outcome {
            Outcome::Passed => "passed",
            Outcome::Failed(message) => message.as_str(),
            Outcome::Ended(why) => why,
        };
        let right = vec![("pass@1", outcome == Outcome::Passed)];
        on_sample(index, sample(context, json!({"text": text, "outcome": said}), right, truncated));
        Ok(())
    })
}

/// The model's text after every context. `done` gets its number, the context, the text, and whether the
/// context has lost its beginning to make room for it.
fn write(
    model: &EvalModel,
    contexts: impl Iterator<Item = Result<String, EvalError>>,
    prompts: &Prompts<'_>,
    writing: &GreedyOptions,
    mut done: impl FnMut(usize, String, String, bool) -> Result<(), EvalError>,
) -> Result<(), SampleError> {
    let (context_length, most) = (model.config().max_position_embeddings, writing.max_tokens);
    let room = context_length.checked_sub(most).filter(|room| *room > 0).ok_or_else(|| {
        let message = format!(
            "the model's context of {context_length} tokens leaves no room for a question with an answer of {most} \
             tokens: lower --max-tokens"
        );
        (0, EvalError::Input(message))
    })?;
    let (mut asked, mut ids) = (Vec::new(), Vec::new());
    for (index, context) in contexts.enumerate() {
        let encoded = context.and_then(|context| {
            let (own, truncated) = prompts.encode(&context, room)?;
            Ok((own, (context, truncated)))
        });
        let (own, context) = encoded.map_err(|error| (index, error))?;
        ids.push(own);
        asked.push(context);
    }
    generate_greedy(model, &ids, writing, |index, text| {
        let (context, truncated) = std::mem::take(&mut asked[index]);
        done(index, context, text, truncated)
    })
}

fn sample(context: String, answer: Value, right: Vec<(&'static str, bool)>, truncated: bool) -> Sample {
    let answer = match answer {
        Value::Object(answer) => answer,
        _ => Map::new(),
    };
    Sample { place: String::new(), context, answer, right, truncated }
}
