//! Texts of a model with random weights that have to fit a grammar: they do, and are the same alone and in a crowd.

mod common;
#[path = "common/schema.rs"]
mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use common::{config, tokens};
use serde_json::{Value, json};
use tempfile::TempDir;
use tritforge_config::ModelConfig;
use tritforge_export::{ExportOptions, synth_gguf};
use tritforge_infer::{
    Finish, GenerateOptions, Generation, Grammar, Model, Sampling, Scheduler, SchedulerOptions, Sequence,
    Session, Vocabulary, generate,
};
use tritforge_text::{SpecialTokens, Tokenizer};

const CONTEXT: usize = 1024;

/// A model with random weights and a token a byte, `<|endoftext|>` besides.
fn model() -> (TempDir, Arc<Model>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let tokenizer = Tokenizer::train_bpe(["ab"], 257, &SpecialTokens::default()).unwrap();
    let config = ModelConfig { max_position_embeddings: CONTEXT, num_hidden_layers: 1, ..config() };
    synth_gguf(&config, &path, &ExportOptions::default(), 1, Some(&tokenizer)).unwrap();
    let model = Model::open(&path).unwrap();
    (dir, Arc::new(model))
}

fn schemas() -> Vec<Value> {
    vec![
        json!({
            "type": "object",
            "properties": {
                "name": { "type": "string", "minLength": 1, "maxLength": 12 },
                "age": { "type": "integer", "minimum": 0, "maximum": 120 },
                "tags": { "type": "array", "items": { "enum": ["a", "b\"c", "é"] }, "maxItems": 3 },
                "more": { "type": ["boolean", "null"] },
            },
            "required": ["name", "age", "tags"],
            "additionalProperties": false,
        }),
        json!({
            "$defs": { "point": {
                "type": "object",
                "properties": { "x": { "type": "integer", "minimum": -5, "maximum": 5 }, "y": { "const": 7 } },
                "required": ["x", "y"], "additionalProperties": false,
            } },
            "type": "array", "items": { "$ref": "#/$defs/point" }, "minItems": 1, "maxItems": 4,
        }),
        json!({ "anyOf": [{ "type": "string", "maxLength": 8 }, { "type": "number", "minimum": -1, "maximum": 1 }] }),
        json!({ "enum": ["red", "green", 3, null, ["x"]] }),
    ]
}

fn options(model: &Model, grammar: &Grammar, seed: u64) -> GenerateOptions {
    let sampling = Sampling { temperature: 1.0, seed, ..Sampling::default() };
    let constraint = Some(model.constraint(grammar).unwrap());
    GenerateOptions { sampling, max_tokens: CONTEXT, constraint, ..GenerateOptions::default() }
}

fn alone(model: &Arc<Model>, prompt: &[u32], options: &GenerateOptions) -> Generation {
    let mut session = Session::new(Arc::clone(model), CONTEXT).unwrap();
    generate(&mut session, prompt, options, |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn five_hundred_generations_fit_their_schemas() {
    let (_dir, model) = model();
    let schemas = schemas();
    let limits = SchedulerOptions { max_idle: 4, ..SchedulerOptions::of(&model, 32) };
    let mut scheduler = Scheduler::new(&model, limits).unwrap();
    let sequences = (0..500usize).map(|i| {
        let grammar = Grammar::JsonSchema(schemas[i % schemas.len()].clone());
        let options = options(&model, &grammar, i as u64);
        Ok((i, Sequence::new(Vocabulary::of(&model), &tokens(3, i as u32), options, 0..CONTEXT).unwrap()))
    });
    let mut texts: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    let done = scheduler.run(
        sequences,
        || false,
        |i, generation| {
            let Generation { text, finish, .. } = generation.unwrap();
            assert!(matches!(finish, Finish::Stop | Finish::Eos), "{i}: {finish:?}: {text:?}");
            let value = schema::check(&schemas[i % schemas.len()], &text);
            texts.entry(i % schemas.len()).or_default().insert(value.to_string());
            Ok::<(), ()>(())
        },
    );
    assert!(done.is_ok());
    // They are not one text again and again.
    assert!(texts.values().take(3).all(|texts| texts.len() > 50), "{texts:?}");
    assert_eq!(texts[&3].len(), 5);
}

#[test]
fn a_constrained_text_is_the_same_alone_and_in_a_crowd() {
    let (_dir, model) = model();
    let mut requests: Vec<(Vec<u32>, GenerateOptions)> = Vec::new();
    for (i, schema) in (0u64..).zip(schemas().into_iter().cycle().take(12)) {
        let mut constrained = options(&model, &Grammar::JsonSchema(schema), i);
        // Of three one is greedy, with an end to its text.
        if i % 3 == 0 {
            constrained.sampling.temperature = 0.0;
            constrained.max_tokens = 40;
        }
        constrained.sampling.presence_penalty = 0.5;
        requests.push((tokens(1 + 7 * i as usize, i as u32), constrained));
        let free = GenerateOptions {
            constraint: None,
            max_tokens: 30,
            ignore_eos: true,
            ..options(&model, &Grammar::JsonObject, i)
        };
        requests.push((tokens(5, i as u32), free));
    }
    let right: Vec<Generation> =
        requests.iter().map(|(prompt, options)| alone(&model, prompt, options)).collect();
    let limits = SchedulerOptions { max_pass_tokens: 50, ..SchedulerOptions::of(&model, 9) };
    let mut scheduler = Scheduler::new(&model, limits).unwrap();
    for (tag, (prompt, options)) in requests.iter().enumerate() {
        let sequence = Sequence::new(Vocabulary::of(&model), prompt, options.clone(), 0..CONTEXT).unwrap();
        scheduler.submit(tag, sequence, model.adapters());
    }
    let mut ended = 0;
    while !scheduler.is_empty() {
        for (tag, generation) in scheduler.pass(|_, _| ControlFlow::Continue(())) {
            let generation = generation.unwrap();
            assert_eq!(
                (&generation.text, &generation.tokens),
                (&right[tag].text, &right[tag].tokens),
                "{tag}"
            );
            assert_eq!(generation.finish, right[tag].finish, "{tag}");
            ended += 1;
        }
    }
    assert_eq!(ended, requests.len());
}

#[test]
fn a_text_ends_where_its_grammar_does_and_not_before() {
    let (_dir, model) = model();
    let text = |grammar: &Grammar, change: &dyn Fn(&mut GenerateOptions)| {
        let mut options = options(&model, grammar, 3);
        change(&mut options);
        let generation = alone(&model, &tokens(4, 1), &options);
        (generation.text, generation.finish)
    };
    let five = Grammar::Regex("[ab]{5}".to_string());
    let (found, finish) = text(&five, &|_| ());
    assert!(found.len() == 5 && found.bytes().all(|byte| b"ab".contains(&byte)) && finish == Finish::Stop);
    // The end of the grammar is an end whatever else is asked for, and its own end comes first.
    let (found, finish) = text(&five, &|options| (options.min_tokens, options.ignore_eos) = (9, true));
    assert_eq!((found.len(), finish), (5, Finish::Stop));
    let (found, finish) = text(&five, &|options| options.max_tokens = 5);
    assert_eq!((found.len(), finish), (5, Finish::Stop));
    let (found, finish) = text(&five, &|options| options.max_tokens = 4);
    assert_eq!((found.len(), finish), (4, Finish::Length));
    // A token that ends the text comes only where the text may end: made as probable as can be, at once there.
    let end = model.tokenizer().eos().unwrap();
    let eager = |options: &mut GenerateOptions| {
        options.sampling.logit_bias.insert(end, 100.0);
    };
    let (found, finish) = text(&Grammar::Regex("[ab]{2,9}".to_string()), &eager);
    assert_eq!((found.len(), finish), (2, Finish::Eos));
    // Before the least number of tokens it does not, though it may.
    let (found, finish) = text(&Grammar::Regex("[ab]{2,9}".to_string()), &|options| {
        eager(options);
        options.min_tokens = 4;
    });
    assert_eq!((found.len(), finish), (4, Finish::Eos));
    // Nor where it is no end.
    let (found, _) = text(&Grammar::Regex("[ab]{2,9}".to_string()), &|options| {
        eager(options);
        options.ignore_eos = true;
    });
    assert_eq!(found.len(), 9);
    // Stop strings, bias and penalties are as ever.
    let b = model.tokenizer().encode("b", false).unwrap()[0];
    let (found, finish) = text(&Grammar::Regex("a+b+c".to_string()), &|options| {
        options.stop = vec!["bb".to_string()];
        options.sampling.logit_bias.insert(b, 100.0);
    });
    assert_eq!((found.as_str(), finish), ("a", Finish::Stop));
}

#[test]
fn what_cannot_be_spelled_is_an_error_that_says_where() {
    let (_dir, model) = model();
    let mut options = options(&model, &Grammar::Regex("xyz".to_string()), 1);
    options.suppress_ids = model.tokenizer().encode("y", false).unwrap();
    let mut session = Session::new(Arc::clone(&model), CONTEXT).unwrap();
    let error = generate(&mut session, &[1], &options, |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().contains("no token is left"), "{error}");
}
