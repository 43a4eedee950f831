//! Tasks on a small random model, against log-likelihoods and greedy text computed here from all its logits.

mod answers;
mod files;

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use tritforge_config::ModelConfig;
use tritforge_eval::EvalModel;
use tritforge_eval::tasks::{Sample, Task, TaskData, TaskOptions, TaskResult, evaluate};
use tritforge_model::Decoder;
use tritforge_text::{ChatTemplate, SpecialTokens, Tokenizer};

const CONTEXT: usize = 96;

/// A random model of characters.
fn model() -> EvalModel {
    let characters: String = (' '..='~').chain(['\n', 'ä', '_']).collect();
    let template =
        ChatTemplate::new("{% for m in messages %}<{{ m.role }}> {{ m.content }}{% endfor %}{{ '\\n' }}=> ")
            .unwrap();
    let tokenizer = Tokenizer::characters([characters], &SpecialTokens::default()).unwrap();
    let config = ModelConfig {
        vocab_size: tokenizer.vocab_size() + 3,
        hidden_size: 32,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 16,
        max_position_embeddings: CONTEXT,
        initializer_range: 0.3,
        ..ModelConfig::default()
    };
    EvalModel::Trained {
        decoder: Box::new(Decoder::init(&config, 5).unwrap()),
        tokenizer: Some(Box::new(tokenizer.with_chat_template(Some(&template)))),
    }
}

/// ln p(continuation | context), from the logits of everything: the tokens of the text, then those beyond the
/// context's.
fn log_likelihood(model: &EvalModel, context: &str, continuation: &str) -> f64 {
    let encode = |text: &str| {
        let tokenizer = model.tokenizer().unwrap();
        tokenizer.encode(text, tokenizer.adds_bos()).unwrap()
    };
    let all = encode(&format!("{context}{continuation}"));
    let from = encode(context).len();
    let dropped = all.len().saturating_sub(CONTEXT + 1);
    let (all, from) = (&all[dropped..], from - dropped);
    let vocab = model.config().vocab_size;
    let logits = model.logits(&all[..all.len() - 1]).unwrap();
    (from..all.len())
        .map(|at| {
            let row = &logits[(at - 1) * vocab..at * vocab];
            let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
            f64::from(row[all[at] as usize]) - total.ln()
        })
        .sum()
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn ask(
    model: &EvalModel,
    task: &str,
    text: &str,
    examples: Option<&str>,
    options: &TaskOptions,
) -> Result<(TaskResult, Vec<Sample>), String> {
    let files = Files::new();
    let data = TaskData::read(&files.write("test.jsonl", text), None).map_err(|e| e.to_string())?;
    let examples = examples.map(|text| TaskData::read(&files.write("train.jsonl", text), None).unwrap());
    let mut samples = Vec::new();
    let mut each = |sample: &Sample| samples.push(sample.clone());
    let task = Task::named(task).map_err(|e| e.to_string())?;
    let result = evaluate(model, task, &data, examples.as_ref(), options, &mut each);
    Ok((result.map_err(|e| e.to_string())?, samples))
}

fn value(result: &TaskResult, name: &str) -> (f64, f64) {
    let metric = result.metrics.iter().find(|m| m.name == name).unwrap();
    (metric.value, metric.stderr.unwrap())
}

fn log_likelihoods(sample: &Sample) -> Vec<f64> {
    sample.answer["log_likelihoods"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn largest(values: &[f64]) -> usize {
    (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap()
}

#[test]
fn accuracies_are_those_of_log_likelihoods_computed_apart() {
    let model = model();
    let words = ["heat", "a large stone", "ice", "säure", "the moon above", "x"];
    let (mut text, mut questions) = (String::new(), Vec::new());
    for i in 0..12 {
        let choices: Vec<&str> = (0..3).map(|c| words[(i * 5 + c * (1 + i / 6)) % 6]).collect();
        let question = format!("What is number {i}?");
        let labels = if i % 2 == 0 { ["A", "B", "C"] } else { ["1", "2", "3"] };
        let gold = (i * 7 / 2) % 3;
        let record = serde_json::json!({
            "question": question, "choices": {"text": choices, "label": labels}, "answerKey": labels[gold],
        });
        text.push_str(&format!("{record}\n"));
        questions.push((question, choices, gold));
    }
    let (result, samples) = ask(&model, "arc_easy", &text, None, &TaskOptions::default()).unwrap();

    let mut right = [Vec::new(), Vec::new(), Vec::new()];
    for ((question, choices, gold), sample) in questions.iter().zip(&samples) {
        let context = format!("Question: {question}\nAnswer:");
        assert_eq!(sample.context, context);
        let expected: Vec<f64> =
            choices.iter().map(|choice| log_likelihood(&model, &context, &format!(" {choice}"))).collect();
        for (found, expected) in log_likelihoods(sample).iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
        let over = |length: fn(&str) -> usize| -> Vec<f64> {
            expected.iter().zip(choices).map(|(ll, choice)| ll / length(choice) as f64).collect()
        };
        right[0].push(largest(&expected) == *gold);
        right[1].push(largest(&over(|choice| choice.chars().count())) == *gold);
        right[2].push(largest(&over(str::len)) == *gold);
    }
    for (name, right) in ["acc", "acc_norm", "acc_bytes"].into_iter().zip(&right) {
        let p = right.iter().filter(|r| **r).count() as f64 / 12.0;
        // The variance of zeros and ones, with n − 1.
        let stderr = (p * (1.0 - p) * 12.0 / 11.0).sqrt() / 12f64.sqrt();
        let (found, found_stderr) = value(&result, name);
        assert!((found - p).abs() < 1e-12 && (found_stderr - stderr).abs() < 1e-12, "{name}");
    }
    // The test sees a difference between the measures.
    assert!(right[0] != right[1], "{right:?}");
}

/// A task, a record, the contexts of its first two choices, the continuations, and which is right.
type Case<'a> = (&'a str, &'a str, [&'a str; 2], &'a [&'a str], u64);

/// Each task's prompt, its continuations, and which is right: as the harness's templates write them.
#[test]
fn prompts_are_those_of_the_harness() {
    let model = model();
    let cases: [Case<'_>; 14] = [
        (
            "arc_challenge",
            r#"{"question":{"stem":"Q?","choices":[{"text":"a","label":"A"},{"text":"b","label":"B"}]},"answerKey":"B"}"#,
            ["Question: Q?\nAnswer:"; 2],
            &[" a", " b"],
            1,
        ),
        (
            "openbookqa",
            r#"{"question_stem":"The sun","choices":{"text":["is hot","is cold"],"label":["A","B"]},"answerKey":" A"}"#,
            ["The sun"; 2],
            &[" is hot", " is cold"],
            0,
        ),
        (
            "boolq",
            r#"{"passage":"P.","question":"is it","label":1}"#,
            ["P.\nQuestion: is it?\nAnswer:"; 2],
            &[" no", " yes"],
            1,
        ),
        (
            "boolq",
            r#"{"passage":"P.","question":"is it","answer":false}"#,
            ["P.\nQuestion: is it?\nAnswer:"; 2],
            &[" no", " yes"],
            0,
        ),
        (
            "boolq",
            r#"{"instruction":"Please answer the following question with true or false, question: is it?\n\nAnswer format: true/false","input":"","answer":"true"}"#,
            ["Question: is it?\nAnswer:"; 2],
            &[" no", " yes"],
            1,
        ),
        (
            "piqa",
            r#"{"goal":"open it","sol1":"pull","sol2":"push","label":"1"}"#,
            ["Question: open it\nAnswer:"; 2],
            &[" pull", " push"],
            1,
        ),
        (
            "piqa",
            r#"{"instruction":"Please choose the correct solution to the question: open it\n\nSolution1: pull \n\nSolution2: push\n\nAnswer format: solution1/solution2","answer":"solution2"}"#,
            ["Question: open it\nAnswer:"; 2],
            &[" pull", " push"],
            1,
        ),
        (
            "winogrande",
            r#"{"sentence":"Ann met Bo and _ was glad.","option1":"Ann","option2":"Bo","answer":"2"}"#,
            ["Ann met Bo and Ann", "Ann met Bo and Bo"],
            &[" was glad.", " was glad."],
            1,
        ),
        (
            "hellaswag",
            r#"{"activity_label":"Baking","ctx_a":"A man bakes. ","ctx_b":"he THEN","endings":["eats [x]it."," rests."],"label":"0"}"#,
            ["Baking: A man bakes. He then"; 2],
            &[" eats it.", " rests."],
            0,
        ),
        (
            "social_iqa",
            r#"{"context":"Al left.","question":"Why?","answerA":"x","answerB":"y","answerC":"z","label":"3"}"#,
            ["Q: Al left. Why?\nA:"; 2],
            &[" x", " y", " z"],
            2,
        ),
        (
            "social_iqa",
            r#"{"instruction":"Please choose the correct answer to the question: Al left. Why?\n\nAnswer1: x Answer2: y Answer3: z\n\nAnswer format: answer1/answer2/answer3","answer":"answer1"}"#,
            ["Q: Al left. Why?\nA:"; 2],
            &[" x", " y", " z"],
            0,
        ),
        (
            "arc_easy",
            r#"{"instruction":"Please choose the correct answer to the question: Why: because?\n\nAnswer1: x y Answer2: z\n\nAnswer format: answer1/answer2","answer":"answer2"}"#,
            ["Question: Why: because?\nAnswer:"; 2],
            &[" x y", " z"],
            1,
        ),
        (
            "winogrande",
            r#"{"instruction":"Please choose the correct answer to fill in the blank to complete the given sentence: It was _ .\n\nOption1: A Option2: B Answer format: option1/option2","answer":"option1"}"#,
            ["It was A", "It was B"],
            &[" .", " ."],
            0,
        ),
        (
            "instruction",
            r#"{"instruction":"True: x?\n\nAnswer format: true/false","input":"","answer":"false"}"#,
            ["True: x?\n\nAnswer format: true/false"; 2],
            &[" the correct answer is true", " the correct answer is false"],
            1,
        ),
    ];
    for (task, record, contexts, continuations, gold) in cases {
        let (_, samples) = ask(&model, task, record, None, &TaskOptions::default()).unwrap();
        assert_eq!(samples[0].context, contexts[0], "{task}");
        assert_eq!(samples[0].answer["target"], gold, "{task} {record}");
        let contexts = contexts.into_iter().chain([contexts[1]]);
        for (found, (context, continuation)) in
            log_likelihoods(&samples[0]).iter().zip(contexts.zip(continuations))
        {
            let expected = log_likelihood(&model, context, continuation);
            assert!((found - expected).abs() < 1e-4, "{task} {continuation}: {found} {expected}");
        }
    }
}

const ONE: &str = r#"{"goal":"g","sol1":"one","sol2":"two","label":1}"#;

#[test]
fn examples_stand_before_the_question_and_the_file_itself_gives_all_but_it() {
    let model = model();
    let options = TaskOptions { num_fewshot: 2, ..TaskOptions::default() };
    let train: String = (0..4)
        .map(|i| format!("{{\"goal\":\"e{i}\",\"sol1\":\"a\",\"sol2\":\"b\",\"label\":{}}}\n", i % 2))
        .collect();
    let (result, samples) = ask(&model, "piqa", ONE, Some(&train), &options).unwrap();
    // random.Random(1234).sample(range(4), 3) == [3, 0, 2], one more than is shown where a data set has no
    // test split.
    let examples = "Question: e3\nAnswer: b\n\nQuestion: e0\nAnswer: a\n\n";
    assert_eq!(samples[0].context, format!("{examples}Question: g\nAnswer:"));
    assert_eq!((result.num_fewshot, result.truncated), (2, 0));
    let error = ask(&model, "piqa", ONE, None, &options).unwrap_err();
    assert_eq!(error, "piqa: no file with few-shot examples: give --fewshot-file piqa=FILE");
    let error = ask(&model, "piqa", ONE, Some(ONE), &options).unwrap_err();
    assert!(
        error.ends_with(
            "test.jsonl: line 1: 2 few-shot examples requested, but the file has only 0 besides \
                         the question"
        ),
        "{error}"
    );
}

#[test]
fn chat_models_are_asked_by_their_template() {
    let model = model();
    let options = TaskOptions { apply_chat_template: true, ..TaskOptions::default() };
    let (_, samples) = ask(&model, "piqa", ONE, None, &options).unwrap();
    assert_eq!(samples[0].context, "<user> Question: g\nAnswer:\n=> ");
    // The context's last space goes to the answer; there is no other one between them.
    let expected = log_likelihood(&model, "<user> Question: g\nAnswer:\n=>", " one");
    assert!((log_likelihoods(&samples[0])[0] - expected).abs() < 1e-4);
    let shot = TaskOptions { num_fewshot: 1, ..options.clone() };
    let (_, samples) = ask(&model, "piqa", ONE, Some(&ONE.replace("\"g\"", "\"h\"")), &shot).unwrap();
    let context = "<user> Question: h\nAnswer:<assistant> two<user> Question: g\nAnswer:\n=> ";
    assert_eq!(samples[0].context, context);
    let EvalModel::Trained { decoder, tokenizer: Some(tokenizer) } = model else { unreachable!() };
    let tokenizer = Some(Box::new(tokenizer.with_chat_template(None)));
    let error = ask(&EvalModel::Trained { decoder, tokenizer }, "piqa", ONE, None, &options).unwrap_err();
    assert_eq!(error, "the model has no chat template: leave out --apply-chat-template");
}

#[test]
fn long_contexts_lose_their_beginning_and_are_counted() {
    let model = model();
    let record = format!(r#"{{"goal":"{}","sol1":"one","sol2":"three","label":1}}"#, "long ".repeat(30));
    let (result, samples) = ask(&model, "piqa", &record, None, &TaskOptions::default()).unwrap();
    assert_eq!(result.truncated, 1);
    for (found, choice) in log_likelihoods(&samples[0]).iter().zip([" one", " three"]) {
        let expected = log_likelihood(&model, &samples[0].context, choice);
        assert!((found - expected).abs() < 1e-4, "{choice}: {found} {expected}");
    }
}

#[test]
fn choices_longer_than_the_context_are_scored_in_pieces() {
    let model = model();
    let long = "a b ".repeat(40);
    let record = format!(r#"{{"goal":"g","sol1":"one","sol2":"{long}","label":1}}"#);
    let (result, samples) = ask(&model, "piqa", &record, None, &TaskOptions::default()).unwrap();
    assert_eq!(result.truncated, 1);
    // Every character once, each behind no more than the context holds.
    let whole = format!("Question: g\nAnswer: {long}");
    let (begin, piece) = ("Question: g\nAnswer:".len(), CONTEXT.div_ceil(2));
    let expected: f64 = (begin..whole.len())
        .step_by(piece)
        .map(|from| {
            let to = whole.len().min(from + piece);
            log_likelihood(&model, &whole[..from], &whole[from..to])
        })
        .sum();
    let found = log_likelihoods(&samples[0])[1];
    assert!((found - expected).abs() < 1e-3, "{found} {expected}");
}
