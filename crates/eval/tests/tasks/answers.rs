//! Numbers and programs in text that the model writes, against greedy text computed here.

use tritforge_eval::EvalModel;
use tritforge_eval::tasks::{TaskOptions, find_python};

use super::{CONTEXT, ask, largest, model, value};

/// Greedy text without special tokens, the whole sequence again for each character.
fn greedy(model: &EvalModel, prompt: &str, characters: usize) -> String {
    let tokenizer = model.tokenizer().unwrap();
    let mut ids = tokenizer.encode(prompt, tokenizer.adds_bos()).unwrap();
    let (begin, vocab) = (ids.len(), model.config().vocab_size);
    for _ in 0..characters {
        let logits = model.logits(&ids).unwrap();
        let last: Vec<f64> =
            logits[logits.len() - vocab..][..tokenizer.vocab_size()].iter().map(|x| f64::from(*x)).collect();
        let best = largest(&last) as u32;
        if tokenizer.eos() == Some(best) {
            break;
        }
        ids.push(best);
    }
    let written: Vec<u32> = ids[begin..].iter().copied().filter(|id| !tokenizer.is_special(*id)).collect();
    tokenizer.decode(&written).unwrap()
}

#[test]
fn numbers_are_read_from_greedy_text() {
    let model = model();
    let options = TaskOptions { max_tokens: Some(20), ..TaskOptions::default() };
    let record = |answer: &str| format!(r#"{{"question":"1+1?","answer":"It is {answer}.\n#### {answer}"}}"#);
    let (result, samples) = ask(&model, "gsm8k", &record("2"), None, &options).unwrap();
    assert_eq!(samples[0].context, "Question: 1+1?\nAnswer:");
    let text = greedy(&model, &samples[0].context, 20);
    assert_eq!(samples[0].answer["text"], text);
    assert_eq!(
        result.metrics.iter().map(|m| m.name).collect::<Vec<_>>(),
        ["exact_match,strict-match", "exact_match,flexible-extract"]
    );
    let error = ask(&model, "gsm8k", r#"{"question":"q","answer":"2"}"#, None, &options).unwrap_err();
    assert!(
        error.contains("test.jsonl: line 1: field \"answer\" is \"2\": expected \"#### NUMBER\""),
        "{error}"
    );
    let options = TaskOptions { max_tokens: Some(CONTEXT), ..options };
    let error = ask(&model, "gsm8k", &record("2"), None, &options).unwrap_err();
    assert!(error.contains("context of 96 tokens leaves no room"), "{error}");
}

#[test]
fn programs_run_only_where_it_is_allowed() {
    let model = model();
    // Whatever the model adds, the prompt's function comes first and leaves the rest in a string or a
    // comment.
    let record = serde_json::json!({
        "task_id": "t/0", "prompt": "def one():\n    return 1\n#", "entry_point": "one",
        "test": "\ndef check(f):\n    assert f() == 1\n",
    });
    let options = TaskOptions { max_tokens: Some(8), ..TaskOptions::default() };
    let error = ask(&model, "humaneval", &record.to_string(), None, &options).unwrap_err();
    assert!(error.contains("--allow-code-execution"), "{error}");
    let Ok(python) = find_python() else { return };
    let options = TaskOptions { python: Some(python), ..options };
    let mut wrong = record.clone();
    wrong["test"] = "\ndef check(f):\n    assert f() == 2\n".into();
    let (result, samples) =
        ask(&model, "humaneval", &format!("{record}\n{wrong}\n"), None, &options).unwrap();
    let text = samples[0].answer["text"].as_str().unwrap();
    assert!(!text.contains('\n') && greedy(&model, &samples[0].context, 8).starts_with(text), "{text:?}");
    assert_eq!(samples[0].answer["outcome"], "passed");
    assert_eq!(samples[1].answer["outcome"], "AssertionError: ");
    assert_eq!(value(&result, "pass@1"), (0.5, 0.5));
}
