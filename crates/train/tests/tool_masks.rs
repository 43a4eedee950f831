//! Conversations with tools from the records to ids and masks, against those of `transformers` for templates of real
//! models (`tests/golden/make_tool_masks.py`), and what is refused with its place.

mod tiny;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tiny::recipe_text;
use tritforge_data::Against;
use tritforge_data::FindingKind::{Refused, UndeclaredTool};
use tritforge_train::recipe::Recipe;
use tritforge_train::{Prepared, Silent, lint_recipe, prepare};

#[derive(Deserialize)]
struct Run {
    template: String,
    /// A file beside it.
    records: String,
    arguments: Map<String, Value>,
    /// By record; none where it cannot be trained on.
    cases: Vec<Option<Case>>,
}

#[derive(Deserialize)]
struct Case {
    ids: Vec<u32>,
    runs: Vec<(usize, usize)>,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tool_masks")
}

fn template(name: &str) -> String {
    golden().join(format!("templates/{name}.jinja")).display().to_string()
}

/// A recipe with records at `data`.
fn recipe(dir: &Path, data: &Path, template: &str, more: &[String]) -> Recipe {
    let sections = format!(
        "[tokenizer]\nkind = \"file\"\npath = '{}'\n[data]\ntrain = '{}'\nrecords = \"messages\"\ntemplate = '{template}'\n\
         held_out = 0.2\nseq_len = 4096\n[train]\nsteps = 4\n",
        golden().join("tokenizer.json").display(),
        data.display()
    );
    let text = recipe_text(&dir.join("out"), &sections)
        .replace("[quant]", "max_position_embeddings = 4096\n[quant]");
    Recipe::from_toml(&dir.join("r.toml"), &text, more).unwrap()
}

/// The ids and the mask of a record, by its number in the file; none if it was left out.
fn of_record(prepared: &Prepared, number: usize) -> Option<(&[u32], &[bool])> {
    let data = prepared.samples().unwrap();
    let place = format!(": line {}", number + 1);
    let sample = data.train.iter().chain(&data.held_out).find(|sample| sample.source.ends_with(&place))?;
    Some((&sample.ids, &sample.mask))
}

#[test]
fn ids_and_masks_of_sixty_conversations_are_those_of_transformers() {
    let runs: Vec<Run> = serde_json::from_slice(&fs::read(golden().join("masks.json")).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut compared = Vec::new();
    for Run { template: name, records, arguments, cases } in &runs {
        let mut more = vec!["data.on_bad_sample=skip".to_string()];
        more.extend(arguments.iter().map(|(key, value)| format!("data.chat_template_kwargs.{key}={value}")));
        let recipe = recipe(dir.path(), &golden().join(records), &template(name), &more);
        assert_eq!(recipe.data.samples.chat_template_kwargs, *arguments);
        let prepared = prepare(&recipe, &Silent).unwrap();
        assert_eq!(cases.len(), 60);
        let mut learned = 0;
        for (number, case) in cases.iter().enumerate() {
            let place = format!("{name} {arguments:?}, record {}", number + 1);
            let (found, case) = match (of_record(&prepared, number), case) {
                (Some(found), Some(case)) => (found, case),
                (None, None) => continue,
                (found, _) => panic!("{place}: found {found:?}"),
            };
            let mut ids = case.ids.clone();
            let mut mask = vec![false; ids.len()];
            case.runs.iter().for_each(|(first, end)| mask[*first..*end].fill(true));
            // GLM's own template ends an answer by what follows it: behind the last one stands EOS.
            if name == "glm4moe" {
                ids.extend(prepared.tokenizer.eos());
                mask.push(true);
            }
            assert_eq!((found.0, found.1), (&ids[..], &mask[..]), "{place}");
            learned += 1;
        }
        compared.push(learned);
    }
    assert!(compared.iter().sum::<usize>() > 400 && compared.iter().all(|count| *count >= 6), "{compared:?}");
}

/// One record of a user's question, a call, what came of it, and the answer.
fn record(change: impl Fn(&mut Value)) -> String {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}});
    let mut record = json!({
        "messages": [
            {"role": "user", "content": "Where?"},
            {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "find", "arguments": {}}}]},
            {"role": "tool", "content": "here"},
            {"role": "assistant", "content": "There."},
        ],
        "tools": [tool("find"), tool("lose")],
    });
    change(&mut record);
    record.to_string() + "\n"
}

/// What preparing two records says, of which the second is changed.
fn prepared(template: &str, more: &[&str], change: impl Fn(&mut Value)) -> Result<Prepared, String> {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("d.jsonl");
    fs::write(&data, record(|r| r["messages"][0]["content"] = "Who?".into()) + &record(change)).unwrap();
    let more: Vec<String> = more.iter().map(|text| text.to_string()).collect();
    prepare(&recipe(dir.path(), &data, template, &more), &Silent).map_err(|e| e.to_string())
}

#[test]
fn what_a_template_cannot_write_is_refused_with_its_place() {
    let (qwen, llama) = (template("qwen2_5"), template("llama3_1"));
    assert_eq!(prepared(&qwen, &[], |_| ()).map(|_| ()), Ok(()));
    let thinks: fn(&mut Value) = |r| r["messages"][3]["reasoning_content"] = "Hm.".into();
    let asks: fn(&mut Value) = |r| r["chat_template_kwargs"] = json!({"enable_thinking": false});
    let reads: fn(&mut Value) = |r| r["documents"] = json!([{"title": "t", "text": "x"}]);
    let speaks: fn(&mut Value) = |r| r["messages"][1]["content"] = "I look.".into();
    let twice: fn(&mut Value) = |r| {
        let call = r["messages"][1]["tool_calls"][0].clone();
        r["messages"][1]["tool_calls"] = json!([call, call]);
    };
    for (template, change, expected) in [
        // Of the names of templates all know messages alone, but for hermes.
        (
            "llama3",
            (|_| ()) as fn(&mut Value),
            "d.jsonl: line 1: the record has \"tools\", which data.template does not use",
        ),
        ("chatml", |_| (), "d.jsonl: line 1: the record has \"tools\""),
        (&qwen, thinks, "d.jsonl: line 2: message 4 has \"reasoning_content\""),
        (&qwen, asks, "d.jsonl: line 2: the record has \"enable_thinking\""),
        (&qwen, reads, "d.jsonl: line 2: the record has \"documents\""),
        (
            &llama,
            speaks,
            "d.jsonl: line 2: chat template: the chat template drops what an answer says beside its calls",
        ),
        (&llama, twice, "d.jsonl: line 2: chat template"),
    ] {
        let error = prepared(template, &[], change).unwrap_err();
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    }
    let error = prepared(&qwen, &["data.chat_template_kwargs.enable_thinking=false"], |_| ()).unwrap_err();
    assert!(
        error.contains("data.chat_template_kwargs.enable_thinking: data.template does not use it"),
        "{error}"
    );
    // A record's own argument goes before the recipe's.
    let date = ["data.chat_template_kwargs.date_string=today"];
    let own = prepared(&llama, &date, |r| r["chat_template_kwargs"] = json!({"date_string": "now"})).unwrap();
    let text = |number| own.tokenizer.decode(of_record(&own, number).unwrap().0).unwrap();
    assert!(text(0).contains("Today Date: today\n") && text(1).contains("Today Date: now\n"), "{}", text(1));
}

#[test]
fn data_lint_finds_calls_of_undeclared_tools() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("d.jsonl");
    let none = record(|r| r["tools"] = Value::Null);
    let other = record(|r| {
        r["messages"][1]["tool_calls"][0]["function"]["name"] = "seek".into();
        r["messages"][1]["content"] = "I look it up in the second of the drawers, under the".into();
    });
    fs::write(&data, record(|_| ()) + &none + &other).unwrap();
    let recipe = recipe(dir.path(), &data, &template("llama3_1"), &[]);
    let found = lint_recipe(&recipe, &Against::default(), Default::default(), &Silent).unwrap();
    let of = |kind| -> Vec<(&str, &str)> {
        let found = found.of(kind).map(|f| (f.source.rsplit(": ").next().unwrap(), f.detail.as_str()));
        let mut found: Vec<_> = found.collect();
        found.sort_unstable();
        found
    };
    assert_eq!(
        of(UndeclaredTool),
        [
            ("line 2", "message 2: assistant calls find, the record has no tools"),
            ("line 3", "message 2: assistant calls seek, tools are find, lose"),
        ]
    );
    // Llama's template leaves the text beside the call out.
    assert_eq!(of(Refused).len(), 1, "{:?}", found.findings);
    // Texts before calls may end in any way.
    assert_eq!(found.findings.len(), 3 + found.findings.iter().filter(|f| f.other.is_some()).count());
}
