//! Grammars over vocabularies of every kind: whatever is chosen of what is allowed, the text fits.

use std::collections::BTreeSet;
use std::path::Path;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use serde_json::{Value, json};
use tritforge_constrain::{Compiler, ConstrainError, Grammar, literal};
use tritforge_text::{SpecialTokens, Tokenizer};

/// A vocabulary of bytes and merges, one of characters, and two of sentencepiece.
fn tokenizers() -> Vec<(&'static str, Tokenizer)> {
    let corpus = ["{\"name\": \"value\", \"number\": 12}, true, false, yes, no, maybe\n[1, 2, 3] aé ✓"; 4];
    let golden = |name: &str| {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tokenizers");
        Tokenizer::from_sentencepiece(&std::fs::read(dir.join(name)).unwrap()).unwrap()
    };
    vec![
        ("bytes", Tokenizer::train_bpe(corpus, 320, &SpecialTokens::default()).unwrap()),
        ("characters", Tokenizer::characters(corpus, &SpecialTokens::default()).unwrap()),
        ("bpe", golden("bpe.model")),
        ("user", golden("user.model")),
    ]
}

/// A text of tokens chosen at random of those that are allowed.
fn text(tokenizer: &Tokenizer, grammar: &Grammar, seed: u64) -> Result<String, ConstrainError> {
    let size = tokenizer.vocab_size() + 3;
    let compiler = Compiler::new(tokenizer, &tokenizer.end_ids(), size).unwrap();
    random_text(tokenizer, &compiler, grammar, seed)
}

fn random_text(
    tokenizer: &Tokenizer,
    compiler: &Compiler,
    grammar: &Grammar,
    seed: u64,
) -> Result<String, ConstrainError> {
    let mut random = ChaCha20Rng::seed_from_u64(seed);
    let mut progress = compiler.compile(grammar)?.start()?;
    let mut stream = tokenizer.stream();
    let mut text = String::new();
    while !progress.is_complete() {
        let allowed = progress.allowed()?;
        let ids: Vec<u32> =
            (0..tokenizer.vocab_size() as u32 + 9).filter(|id| allowed.contains(*id)).collect();
        assert!(ids.iter().all(|id| tokenizer.text_bytes(*id).is_some()), "{ids:?}");
        if allowed.end() && (ids.is_empty() || random.random_range(0..4) == 0) {
            break;
        }
        let id = ids[random.random_range(0..ids.len())];
        progress.accept(id)?;
        text += &stream.push(id).unwrap().unwrap_or_default();
    }
    Ok(text + &stream.finish().unwrap().unwrap_or_default())
}

#[test]
fn texts_fit_their_grammar_in_every_kind_of_vocabulary() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 10 },
            "number": { "type": "integer", "minimum": 1, "maximum": 12 },
        },
        "required": ["name", "number"],
        "additionalProperties": false,
    });
    for (name, tokenizer) in tokenizers() {
        let compiler = Compiler::new(&tokenizer, &tokenizer.end_ids(), tokenizer.vocab_size()).unwrap();
        let text = |grammar: &Grammar, seed| {
            let text = random_text(&tokenizer, &compiler, grammar, seed);
            text.unwrap_or_else(|error| panic!("{name}: {grammar:?}: {error}"))
        };
        let mut numbers = BTreeSet::new();
        for seed in 0..40 {
            let found = text(&Grammar::JsonSchema(schema.clone()), seed);
            let value: Value =
                serde_json::from_str(&found).unwrap_or_else(|e| panic!("{name}: {e}: {found:?}"));
            let number = value["number"].as_i64().unwrap();
            assert!((1..=12).contains(&number), "{name}: {found}");
            assert!(value["name"].as_str().unwrap().chars().count() <= 10, "{name}: {found}");
            assert_eq!(value.as_object().unwrap().len(), 2, "{name}: {found}");
            numbers.insert(number);
        }
        // The characters have three digits.
        assert!(numbers.len() >= 5, "{name}: {numbers:?}");
        let choices = ["yes", "no", "maybe", "yes, maybe"].map(str::to_string);
        let found: BTreeSet<String> =
            (0..300).map(|seed| text(&Grammar::Choice(choices.to_vec()), seed)).collect();
        assert_eq!(found, choices.into_iter().collect(), "{name}");
        for seed in 0..20 {
            let found = text(&Grammar::Regex("(true|false)(, (true|false)){2}".to_string()), seed);
            let parts: Vec<&str> = found.split(", ").collect();
            assert!(parts.len() == 3 && parts.iter().all(|part| ["true", "false"].contains(part)), "{found}");
        }
    }
}

#[test]
fn a_grammar_may_name_special_tokens_and_schemas() {
    let (_, tokenizer) = tokenizers().remove(0);
    let end = tokenizer.eos().unwrap();
    let compiler = Compiler::new(&tokenizer, &[], tokenizer.vocab_size()).unwrap();
    let grammar = Grammar::Lark {
        text: format!("start: {} @number <|endoftext|> \"!\"", literal("n = ")),
        schemas: vec![("number".to_string(), json!({ "enum": [1, 2] }))],
    };
    let mut progress = compiler.compile(&grammar).unwrap().start().unwrap();
    for id in tokenizer.encode("n = 2", false).unwrap() {
        assert!(progress.allowed().unwrap().contains(id) && !progress.allowed().unwrap().contains(end));
        progress.accept(id).unwrap();
    }
    assert!(progress.allowed().unwrap().contains(end) && !progress.allowed().unwrap().end());
    progress.accept(end).unwrap();
    progress.accept(tokenizer.encode("!", false).unwrap()[0]).unwrap();
    assert!(progress.is_complete());
}

#[test]
fn wrong_grammars_say_what_and_where() {
    let (_, tokenizer) = tokenizers().remove(0);
    let compiler = Compiler::new(&tokenizer, &[], tokenizer.vocab_size()).unwrap();
    let schema = |value: Value| Grammar::JsonSchema(value);
    for (grammar, parts) in [
        (schema(json!({ "type": "strong" })), ["the JSON schema cannot be used", "strong"]),
        (schema(json!("string")), ["the JSON schema", "must be an object"]),
        (schema(json!({ "type": "object", "if": {} })), ["the JSON schema", "if"]),
        (schema(json!({ "$ref": "#/$defs/none" })), ["the JSON schema", "none"]),
        (schema(json!({ "type": "string", "pattern": "(" })), ["the JSON schema", "("]),
        (schema(json!({ "type": "integer", "minimum": 3, "maximum": 2 })), ["the JSON schema", "3"]),
        (Grammar::Regex("a(".to_string()), ["the regular expression", "a("]),
        (Grammar::Regex("(?=a)b".to_string()), ["the regular expression", "look"]),
        (Grammar::Regex("^$".to_string()), ["the regular expression", "empty"]),
        (Grammar::Choice(Vec::new()), ["the list of choices", "empty"]),
        (Grammar::lark("start: \"a"), ["the grammar cannot be used", "1("]),
        (Grammar::lark("begin: \"a\""), ["the grammar", "start"]),
        (Grammar::lark("start: other"), ["the grammar", "other"]),
        (Grammar::lark("start: <|unknown|>"), ["the grammar", "unknown"]),
        (Grammar::lark("root ::= \"a\""), ["the grammar", "GBNF"]),
        (Grammar::lark(""), ["the grammar", "start"]),
    ] {
        let error = compiler.compile(&grammar).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{grammar:?}: {error}");
        }
        assert!(!error.contains("backtrace") && !error.contains("<state>"), "{error}");
    }
}

#[test]
fn a_text_that_the_vocabulary_cannot_spell_is_a_dead_end() {
    let tokenizer = Tokenizer::characters(["abc"], &SpecialTokens::default()).unwrap();
    assert_eq!(text(&tokenizer, &Grammar::Regex("ab".to_string()), 1).unwrap(), "ab");
    let error = text(&tokenizer, &Grammar::Regex("abx".to_string()), 1).unwrap_err();
    assert_eq!(error, ConstrainError::DeadEnd { text: "ab".to_string() });
}

#[test]
fn what_one_text_has_read_changes_nothing_for_another() {
    let (_, tokenizer) = tokenizers().remove(0);
    let compiler = Compiler::new(&tokenizer, &tokenizer.end_ids(), tokenizer.vocab_size()).unwrap();
    let grammar = Grammar::JsonObject;
    let masks = |seed: u64, others: usize| {
        let mut random = ChaCha20Rng::seed_from_u64(seed);
        let constraint = compiler.compile(&grammar).unwrap();
        let mut all: Vec<_> = (0..=others).map(|_| constraint.start().unwrap()).collect();
        let mut masks = Vec::new();
        for _ in 0..30 {
            if all[0].is_complete() {
                break;
            }
            let allowed = all[0].allowed().unwrap();
            let ids: Vec<u32> =
                (0..tokenizer.vocab_size() as u32).filter(|id| allowed.contains(*id)).collect();
            masks.push(allowed);
            let Some(id) = ids.get(random.random_range(0..ids.len().max(1))) else { break };
            all[0].accept(*id).unwrap();
            for (i, other) in all.iter_mut().enumerate().skip(1) {
                if other.is_complete() {
                    continue;
                }
                let allowed = other.allowed().unwrap();
                let id = (0..tokenizer.vocab_size() as u32)
                    .cycle()
                    .skip(97 * i)
                    .take(2000)
                    .find(|id| allowed.contains(*id));
                if let Some(id) = id {
                    other.accept(id).unwrap();
                }
            }
        }
        masks
    };
    for seed in 0..5 {
        assert_eq!(masks(seed, 0), masks(seed, 7));
    }
}
