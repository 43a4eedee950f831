//! Ids and masks of conversations against those of `transformers` (`tests/golden/make_chat_masks.py`).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use tritforge_text::{ChatTemplate, Masked, TextError, Tokenizer, Turn};

#[derive(Deserialize)]
struct Golden {
    conversations: Vec<Vec<Map<String, Value>>>,
    templates: BTreeMap<String, Sources>,
    /// By tokenizer and template, for each conversation.
    cases: BTreeMap<String, BTreeMap<String, Vec<Option<Case>>>>,
}

#[derive(Deserialize)]
struct Sources {
    marked: String,
    plain: String,
}

#[derive(Deserialize)]
struct Case {
    ids: Vec<u32>,
    runs: Vec<(usize, usize)>,
}

fn golden() -> (Golden, impl Fn(&str) -> Tokenizer) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/chat_masks");
    let golden = serde_json::from_slice(&std::fs::read(dir.join("masks.json")).unwrap()).unwrap();
    (golden, move |name| Tokenizer::from_file(&dir.join(format!("{name}.json"))).unwrap())
}

/// Encodes a conversation of which the answers `learn` are to be learned.
fn encode(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[Map<String, Value>],
    learn: impl Fn(usize) -> bool,
) -> Result<Masked, TextError> {
    let mut answers = 0;
    let turns: Vec<_> = messages
        .iter()
        .map(|message| {
            let answer = message["role"] == "assistant";
            let learn = answer && learn(answers);
            answers += usize::from(answer);
            Turn { message, answer, learn }
        })
        .collect();
    tokenizer.encode_turns(template, &turns)
}

/// The ranges of a mask that are true.
fn runs(mask: &[bool]) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (i, bit) in mask.iter().enumerate().filter(|(_, bit)| **bit) {
        match found.last_mut() {
            Some((_, end)) if *end == i => *end = i + usize::from(*bit),
            _ => found.push((i, i + 1)),
        }
    }
    found
}

#[test]
fn ids_and_masks_are_those_of_transformers_with_and_without_blocks() {
    let (golden, tokenizer) = golden();
    let mut compared = 0;
    for (name, templates) in &golden.cases {
        let tokenizer = tokenizer(name);
        for (template, cases) in templates {
            let sources = &golden.templates[template];
            let marked = ChatTemplate::new(&sources.marked).unwrap();
            let mut ways = vec![marked, ChatTemplate::new(&sources.plain).unwrap()];
            // Those that the crate has itself.
            ways.extend(ChatTemplate::named(template));
            assert_eq!(
                ways.iter().map(ChatTemplate::has_generation).filter(|has| *has).count(),
                1,
                "{template}"
            );
            let stride = golden.conversations.len().div_ceil(cases.len());
            let conversations = golden.conversations.iter().step_by(stride);
            assert_eq!(conversations.len(), cases.len());
            for (i, (messages, case)) in conversations.zip(cases).enumerate() {
                for (way, chat) in ways.iter().enumerate() {
                    let place = format!("{name}, {template} {way}, conversation {i}");
                    match (encode(&tokenizer, chat, messages, |_| true), case) {
                        (Ok(found), Some(case)) => {
                            assert_eq!(found.ids, case.ids, "{place}");
                            assert_eq!(runs(&found.mask), case.runs, "{place}");
                            compared += 1;
                        }
                        (Err(_), None) => {}
                        (Ok(_), None) => panic!("{place}: transformers refuses it"),
                        (Err(error), Some(_)) => panic!("{place}: {error}"),
                    }
                }
            }
        }
    }
    assert!(compared > 800, "{compared}");
}

#[test]
fn one_answer_of_several_is_learned_alone() {
    let (golden, tokenizer) = golden();
    let tokenizer = tokenizer("byte_level");
    let mut compared = 0;
    for (template, cases) in &golden.cases["byte_level"] {
        let sources = &golden.templates[template];
        for source in [&sources.marked, &sources.plain] {
            let template = ChatTemplate::new(source).unwrap();
            for (messages, case) in golden.conversations.iter().zip(cases) {
                let Some(case) = case.as_ref().filter(|case| case.runs.len() > 1) else { continue };
                for (answer, run) in case.runs.iter().enumerate() {
                    let found = encode(&tokenizer, &template, messages, |at| at == answer).unwrap();
                    assert_eq!((runs(&found.mask), &found.ids), (vec![*run], &case.ids));
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 300, "{compared}");
}
