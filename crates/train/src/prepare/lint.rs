//! What template and tokenizer say of examples, each of them whatever is wrong with the others.

use std::path::Path;

use rayon::prelude::*;
use tritforge_data::{Body, ChatTurn, Example, Finding, FindingKind, Report, Truncation};
use tritforge_report::{Progress, Sink};
use tritforge_support::counted;
use tritforge_text::Tokenizer;

use super::checks::{all_is_written, learns_all};
use super::samples::{Read, unlearned_end};
use crate::TrainError;
use crate::recipe::{Loss, Recipe};

/// Examples that are encoded between two reports of progress.
const CHUNK: usize = 1024;

/// Encodes training and held-out examples as in training, and tells what is wrong with each.
///
/// # Errors
/// If template or tokenizer cannot be had.
pub(crate) fn lint_samples(
    recipe: &Recipe,
    dir: &Path,
    (train, held_out): (&[Example], &[Example]),
    sink: &dyn Sink,
) -> Result<Vec<Finding>, TrainError> {
    std::fs::create_dir_all(dir).map_err(TrainError::io(dir, "create"))?;
    let read = Read::with(recipe, dir, sink, train.to_vec(), held_out.to_vec(), Report::default())?;
    let examples: Vec<&Example> = train.iter().chain(held_out).collect();
    let (total, mut done, mut found) = (examples.len() as u64, 0, Vec::new());
    for chunk in examples.chunks(CHUNK) {
        let more: Vec<Vec<Finding>> = chunk.par_iter().map(|example| look(recipe, &read, example)).collect();
        found.extend(more.into_iter().flatten());
        done += chunk.len() as u64;
        sink.progress(&Progress { task: "encoding examples", done, total });
    }
    Ok(found)
}

fn look(recipe: &Recipe, read: &Read, example: &Example) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut find = |kind, detail: String| {
        let detail = detail.strip_prefix(&format!("{}: ", example.source)).unwrap_or(&detail).to_string();
        found.push(Finding { kind, source: example.source.clone(), detail, other: None });
    };
    let loss = recipe.data.samples.loss;
    let refused = all_is_written(example, read.template.source())
        .and_then(|()| if loss == Loss::All { learns_all(example) } else { Ok(()) });
    if let Err(error) = refused {
        find(FindingKind::Refused, error.to_string());
        return found;
    }
    let whole = |prompt: &[ChatTurn], answer: &[ChatTurn]| {
        Body::Turns(prompt.iter().chain(answer).cloned().collect())
    };
    let bodies = match &example.body {
        Body::Preference { prompt, chosen, rejected } => {
            vec![("chosen: ", whole(prompt, chosen)), ("rejected: ", whole(prompt, rejected))]
        }
        Body::Labelled { turns, .. } => vec![("", Body::Turns(turns.clone()))],
        other => vec![("", other.clone())],
    };
    for (name, body) in bodies {
        let (ids, mut mask) = match read.encode(loss, &body, &example.supplied) {
            Ok(encoded) => encoded,
            Err(error) => {
                find(FindingKind::Refused, format!("{name}{error}"));
                continue;
            }
        };
        // Nothing precedes the first.
        mask.iter_mut().take(1).for_each(|target| *target = false);
        if !mask.contains(&true) {
            find(FindingKind::NothingToLearn, format!("{name}no token is in the loss"));
            continue;
        }
        let most = recipe.data.seq_len + 1;
        if ids.len() > most {
            let what = match recipe.data.samples.truncation {
                Truncation::Error => "training ends with an error",
                Truncation::Drop => "it is dropped",
                Truncation::Right => "its end is cut off, and the answer has none",
                Truncation::Left => "its beginning is cut off",
            };
            let tokens = counted(ids.len(), "token");
            find(FindingKind::TooLong, format!("{name}{tokens}, data.seq_len allows {most}: {what}"));
        }
        if let Some(why) = no_end(read, &ids, &mask) {
            find(FindingKind::NoEnd, format!("{name}{why}"));
        }
    }
    found
}

/// Why the last answer has no end that is learned.
fn no_end(read: &Read, ids: &[u32], mask: &[bool]) -> Option<String> {
    if let Some(token) = unlearned_end(&read.tokenizer, ids, mask) {
        return Some(format!("the template writes {token} after the answer but leaves it out of the loss"));
    }
    let last = mask.iter().rposition(|target| *target)?;
    // A text by which the template ends answers is as good as a token.
    if read.tokenizer.is_special(ids[last]) || read.ends_answers {
        return None;
    }
    Some(format!(
        "neither the template nor an end-of-text token ends the answer: it ends with {}",
        token(&read.tokenizer, ids[last])
    ))
}

fn token(tokenizer: &Tokenizer, id: u32) -> String {
    tokenizer.token(id).map_or_else(|| format!("id {id}"), |token| format!("{token:?}"))
}
