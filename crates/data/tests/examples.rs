//! Records of every layout and format become the same examples, and what is wrong with a record is said with
//! its place.

mod messages;

use std::fs;

use messages::write_messages;
use tritforge_data::{
    Body, ChatTurn, Columns, Example, Examples, OnBadSample, ReadOptions, Reason, RecordKind, Split,
    TextSource, split_examples,
};

fn read(name: &str, text: &str, options: &ReadOptions) -> Result<Examples, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    Examples::read(&[TextSource::new(path)], options).map_err(|e| e.to_string())
}

fn turns(example: &Example) -> Vec<(String, String, bool)> {
    let Body::Turns(said) = &example.body else { panic!("{example:?}") };
    let turn =
        |said: &ChatTurn| (said.role().to_string(), said.content().unwrap_or("-").to_string(), said.learn);
    said.iter().map(turn).collect()
}

fn turn(role: &str, content: &str, learn: bool) -> (String, String, bool) {
    (role.to_string(), content.to_string(), learn)
}

#[test]
fn every_layout_is_known_by_its_columns() {
    let asked = [turn("user", "Add", false), turn("assistant", "3", true)];
    for record in [
        r#"{"instruction":"Add","output":"3"}"#,
        r#"{"instruction":"Add","input":"","output":"3","system":null}"#,
        r#"{"input":"Add","output":"3","id":7}"#,
        r#"{"prompt":"Add","completion":"3"}"#,
        r#"{"prompt":[{"role":"user","content":"Add"}],"completion":[{"role":"assistant","content":"3"}]}"#,
        r#"{"messages":[{"role":"user","content":"Add"},{"role":"assistant","content":"3"}],"text":"other"}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"Ad"},{"type":"text","text":"d"}]},
            {"role":"assistant","content":"3"}]}"#,
        r#"{"conversations":[{"from":"human","value":"Add"},{"from":"gpt","value":"3"}],"tools":[]}"#,
        r#"{"conversations":[{"role":"user","content":"Add"},{"role":"assistant","content":"3"}]}"#,
    ] {
        let found = read("a.jsonl", &record.replace('\n', " "), &ReadOptions::default()).unwrap();
        assert_eq!(turns(&found.examples[0]), asked, "{record}");
    }
    let alpaca = r#"[{"instruction":"Add","input":"1 2","output":"3","system":"Be brief"}]"#;
    let found = read("a.json", alpaca, &ReadOptions::default()).unwrap();
    let system = turn("system", "Be brief", false);
    assert_eq!(turns(&found.examples[0]), [system, turn("user", "Add\n\n1 2", false), asked[1].clone()]);
    let Body::Turns(said) = &found.examples[0].body else { panic!() };
    assert_eq!((&said[1].message["instruction"], &said[1].message["input"]), (&"Add".into(), &"1 2".into()));
    let found = read("a.csv", "text\n\"two\nlines\"\n", &ReadOptions::default()).unwrap();
    assert_eq!(found.examples[0].body, Body::Text("two\nlines".to_string()));
    assert_eq!(
        read("a.txt", "all", &ReadOptions::default()).unwrap().examples[0].body,
        Body::Text("all".to_string())
    );
    // Named columns, and a layout that is given, in a table of strings.
    let mut columns = Columns::default();
    columns.0.insert("messages".to_string(), "chat".to_string());
    let options = ReadOptions { columns, kind: RecordKind::Messages, ..ReadOptions::default() };
    let csv = "chat\n\"[{\"\"role\"\":\"\"user\"\",\"\"content\"\":\"\"Add\"\"},{\"\"role\"\":\"\"assistant\"\",\"\"content\"\":\"\"3\"\"}]\"\n";
    assert_eq!(turns(&read("a.csv", csv, &options).unwrap().examples[0]), asked);
}

#[test]
fn messages_say_what_is_to_be_learned() {
    let record = r#"{"messages":[
        {"role":"user","content":"a","train":true},{"role":"assistant","content":"b","weight":0,"name":"x"},
        {"role":"tool","content":"c"},{"role":"assistant","content":null,"tool_calls":[{"name":"f","arguments":"{}"}],"weight":1}]}"#;
    let found = read("a.jsonl", &record.replace('\n', " "), &ReadOptions::default()).unwrap();
    let learn = [true, false, false, true];
    assert_eq!(turns(&found.examples[0]).iter().map(|turn| turn.2).collect::<Vec<_>>(), learn);
    let Body::Turns(said) = &found.examples[0].body else { panic!() };
    // Templates see the rest of a message, not the flags and not what is null.
    let keys = |said: &ChatTurn| said.message.keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(
        [keys(&said[0]), keys(&said[1]), keys(&said[3])],
        ["role content", "role content name", "role tool_calls"]
    );
}

#[test]
fn pairs_share_a_prompt_however_they_are_written() {
    let user = r#"{"role":"user","content":"q"}"#;
    let (yes, no) = (r#"{"role":"assistant","content":"yes"}"#, r#"{"role":"assistant","content":"no"}"#);
    for record in [
        r#"{"prompt":"q","chosen":"yes","rejected":"no"}"#.to_string(),
        format!(r#"{{"prompt":[{user}],"chosen":[{yes}],"rejected":[{no}]}}"#),
        format!(r#"{{"prompt":"q","chosen":[{user},{yes}],"rejected":[{user},{no}],"messages":[{user}]}}"#),
        format!(r#"{{"chosen":[{user},{yes}],"rejected":[{user},{no}]}}"#),
    ] {
        let found = read("a.jsonl", &record, &ReadOptions::default()).unwrap();
        let Body::Preference { prompt, chosen, rejected } = &found.examples[0].body else {
            panic!("{record}")
        };
        assert_eq!((prompt.len(), prompt[0].content(), prompt[0].learn), (1, Some("q"), false), "{record}");
        assert_eq!((chosen[0].content(), chosen[0].learn, chosen.len()), (Some("yes"), true, 1), "{record}");
        assert_eq!((rejected[0].content(), rejected.len()), (Some("no"), 1), "{record}");
    }
}

#[test]
fn answers_may_be_judged_in_a_column_of_any_name_and_form() {
    let judged = |text: &str, name: &str, options: &ReadOptions| -> Vec<(usize, bool)> {
        let found = read(name, text, options).unwrap();
        let of = |example: &Example| {
            let Body::Labelled { turns, desirable } = &example.body else { panic!("{example:?}") };
            assert_eq!((turns[0].learn, turns.last().unwrap().learn), (false, true));
            (turns.len(), *desirable)
        };
        found.examples.iter().map(of).collect()
    };
    let json = r#"{"prompt":"q","completion":"yes","label":true}
{"prompt":[{"role":"system","content":"s"},{"role":"user","content":"q"}],"completion":[{"role":"assistant","content":"no"}],"label":false}
"#;
    assert_eq!(judged(json, "a.jsonl", &ReadOptions::default()), [(2, true), (3, false)]);
    let csv = "prompt,completion,label\nq,yes,True\nq,no,false\nq,no,0\n";
    assert_eq!(judged(csv, "a.csv", &ReadOptions::default()), [(2, true), (2, false), (2, false)]);
    let columns = Columns([("label".to_string(), "kto_tag".to_string())].into());
    let options = ReadOptions { kind: RecordKind::UnpairedPreference, columns, ..ReadOptions::default() };
    let json = "{\"prompt\":\"q\",\"completion\":\"yes\",\"kto_tag\":1}\n";
    assert_eq!(judged(json, "a.jsonl", &options), [(2, true)]);
    for (value, found) in [("2", "a number"), ("\"good\"", "a string"), ("null", "null")] {
        let json = json.replace('1', value);
        let error = read("a.jsonl", &json, &options).unwrap_err();
        let expected = format!("line 1: column \"kto_tag\" is {found}, expected true or false");
        assert!(error.contains(&expected), "{error}");
    }
    let error = read("a.jsonl", "{\"prompt\":\"q\",\"completion\":\"yes\"}", &options).unwrap_err();
    assert!(error.contains("no column \"kto_tag\": found prompt, completion"), "{error}");
    // A column that the recipe names judges whatever its form, and is not passed over by a layout without verdicts.
    let auto = ReadOptions { kind: RecordKind::Auto, ..options.clone() };
    assert_eq!(judged(&json.replace(":1", ":0"), "a.jsonl", &auto), [(2, false)]);
    let plain = ReadOptions { kind: RecordKind::PromptCompletion, ..options };
    let error = read("a.jsonl", json, &plain).unwrap_err();
    assert!(error.contains("line 1: column \"kto_tag\" is a number"), "{error}");
    for column in ["score", "label"] {
        let columns = Columns([("label".to_string(), column.to_string())].into());
        let options = ReadOptions { columns, ..plain.clone() };
        let error = read("a.jsonl", &json.replace("kto_tag", column), &options).unwrap_err();
        assert!(error.contains(&format!("line 1: column {column:?} is a number")), "{error}");
    }
    // A class of a text is no verdict.
    let class = "{\"prompt\":\"q\",\"completion\":\"yes\",\"label\":1}";
    assert_eq!(turns(&read("a.jsonl", class, &ReadOptions::default()).unwrap().examples[0]).len(), 2);
}

#[test]
fn what_is_wrong_is_said_with_file_and_line() {
    for (name, text, expected) in [
        (
            "a.jsonl",
            "{\"instruction\":\"a\",\"output\":\"b\"}\n\n{\"instruction\":1,\"output\":\"b\"}",
            "a.jsonl: line 3: column \"instruction\" is a number",
        ),
        ("a.jsonl", "{\"messages\":[{\"role\":\"user\"}]}", "line 1: message 1: it has no \"content\""),
        ("a.jsonl", "{\"messages\":[{\"content\":\"x\"}]}", "line 1: message 1: it has no \"role\""),
        ("a.jsonl", "{\"messages\":[]}", "line 1: column \"messages\" is an empty list"),
        ("a.jsonl", "{\"messages\":\"hi\"}", "line 1: column \"messages\" is not JSON"),
        (
            "a.jsonl",
            "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
            "a part of its content is image",
        ),
        (
            "a.jsonl",
            "{\"conversations\":[{\"from\":\"narrator\",\"value\":\"x\"}]}",
            "from = \"narrator\": expected human",
        ),
        (
            "a.jsonl",
            "{\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"weight\":0.5}]}",
            "weight = 0.5: expected",
        ),
        (
            "a.jsonl",
            "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[{}]}",
            "line 1: column \"tools\": tool 1: it has no name",
        ),
        (
            "a.jsonl",
            "{\"chosen\":\"a\",\"rejected\":\"b\"}",
            "no column \"prompt\", and the two answers do not begin",
        ),
        ("a.jsonl", "{\"a\":1}", "unknown columns a: map them"),
        ("a.json", "[{\"text\":\"a\"},\n {\"text\":\n1}]", "a.json: line 2: column \"text\" is a number"),
        ("a.json", "[{\"text\":\"a\"}\n {\"text\":\"b\"}]", "a.json: line 2: expected , or ]"),
        ("a.json", "[{\"text\":\"a\"},\n{\"text\":\n,}]", "a.json: line 3: not JSON"),
        ("a.json", "[{\"text\":\"a\"}", "a.json: line 1: the array is not closed"),
        ("a.json", "[{\"text\":\"a\"}]\n]", "a.json: line 1: text after the end"),
        ("a.json", "[]", "no examples in"),
        ("a.csv", "text,b\nx\n", "a.csv: line 2: 1 field, but the header has 2"),
        ("a.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "no examples in"),
    ] {
        let error = read(name, text, &ReadOptions::default()).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn filters_count_what_they_leave_out() {
    let record = |q: &str, a: &str| format!("{{\"prompt\":\"{q}\",\"completion\":\"{a}\"}}\n");
    let text = [
        record("a", "1"),
        record("b", " "),
        record("a", "1"),
        "[]\n".to_string(),
        record("c", "3"),
        record("d", "4"),
    ];
    let options = ReadOptions {
        on_bad: OnBadSample::Skip,
        drop_duplicates: true,
        max_samples: Some(2),
        ..ReadOptions::default()
    };
    let found = read("a.jsonl", &text.concat(), &options).unwrap();
    assert_eq!((found.examples.len(), found.report.records, found.report.limited), (2, 5, true));
    let counts: Vec<_> =
        found.report.counts().into_iter().map(|(r, n, first)| (r, n, first.source.clone())).collect();
    let (reasons, places): (Vec<_>, Vec<_>) =
        counts.iter().map(|(r, n, source)| ((*r, *n), source.rsplit(": ").next().unwrap())).unzip();
    assert_eq!(reasons, [(Reason::Malformed, 1), (Reason::EmptyAnswer, 1), (Reason::Duplicate, 1)]);
    assert_eq!(places, ["line 4", "line 2", "line 3"]);
    let summary = found.report.summary();
    assert!(
        summary.contains("dropped 1: empty answer (first: ")
            && summary.ends_with("the rest was not read (max_samples)"),
        "{summary}"
    );
    let kept = read(
        "a.jsonl",
        &text.concat(),
        &ReadOptions { keep_empty: true, on_bad: OnBadSample::Skip, ..ReadOptions::default() },
    );
    assert_eq!(kept.unwrap().examples.len(), 5);
}

#[test]
fn parquet_may_hold_lists_of_messages() {
    let dir = tempfile::tempdir().unwrap();
    write_messages(&dir.path().join("a.parquet"));
    let found = Examples::read(&[TextSource::new(dir.path())], &ReadOptions::default()).unwrap();
    assert_eq!(turns(&found.examples[0]), [turn("user", "Add", false), turn("assistant", "3", true)]);
    assert!(found.examples[0].source.ends_with("a.parquet: row 1"));
}

#[test]
fn examples_stay_on_their_side_and_no_side_is_empty() {
    let example = |i: usize| Example::new(format!("line {i}"), Body::Text(format!("text {i}")));
    let all: Vec<_> = (0..1000).map(example).collect();
    let by_hash = Split::ByDocument { fraction: 0.1, seed: 1 };
    let (train, held_out) = split_examples(all.clone(), by_hash).unwrap();
    assert!((70..130).contains(&held_out.len()), "{}", held_out.len());
    let (more, _) = split_examples(all[..500].to_vec(), by_hash).unwrap();
    assert!(more.iter().all(|example| train.contains(example)));
    let (train, held_out) = split_examples(all[..10].to_vec(), Split::Contiguous { fraction: 0.2 }).unwrap();
    assert_eq!((train.len(), held_out[0].source.as_str()), (8, "line 8"));
    for fraction in [0.001, 0.999] {
        let (train, held_out) =
            split_examples(all[..3].to_vec(), Split::ByDocument { fraction, seed: 1 }).unwrap();
        assert!(!train.is_empty() && !held_out.is_empty());
    }
    assert!(split_examples(all[..1].to_vec(), by_hash).is_err());
}

/// A conversation with more in the record, or in its answer.
fn conversation(record: &str, answer: &str) -> String {
    format!(
        r#"{{"messages":[{{"role":"user","content":"a"}},{{"role":"assistant","content":"b"{answer}}}]{record}}}"#
    )
}

#[test]
fn columns_that_change_the_meaning_are_read_or_refused_by_name() {
    let options = ReadOptions::default();
    for name in [
        "tools",
        "functions",
        "images",
        "image",
        "videos",
        "video",
        "audio",
        "audios",
        "kto_tag",
        "input_ids",
        "completion_mask",
        "assistant_masks",
        "loss_mask",
        "chat_template",
        "chat_template_kwargs",
        "rejected_response",
        "rejected_messages",
        "positive_messages",
        "negative_messages",
        "objects",
        "teacher_prompt",
        "ref_chosen_logps",
        "ref_rejected_logps",
        "history",
    ] {
        let error = read("a.jsonl", &conversation(&format!(r#","{name}":["x"]"#), ""), &options).unwrap_err();
        assert!(error.contains(&format!("line 1: column {name:?}")), "{error}");
        for nothing in ["null", "[]", "\"\"", "{}"] {
            let record = conversation(&format!(r#","{name}":{nothing}"#), "");
            assert_eq!(read("a.jsonl", &record, &options).unwrap().examples.len(), 1, "{record}");
        }
    }
    for name in ["images", "image", "videos", "audio", "audios", "train_detail", "mask", "loss_mask"] {
        let error = read("a.jsonl", &conversation("", &format!(r#","{name}":[1]"#)), &options).unwrap_err();
        assert!(error.contains(&format!("message 2: it has {name:?}")), "{error}");
    }
    for flag in ["train", "weight", "training", "train_detail", "training_detail"] {
        let parts = format!(r#"[{{"type":"text","text":"b","{flag}":0}}]"#);
        let record = conversation("", "").replace("\"b\"", &parts);
        let error = read("a.jsonl", &record, &options).unwrap_err();
        assert!(error.contains(&format!("message 2: a part of its content has {flag:?}")), "{error}");
    }
    // A verdict on an answer is learned from, or refused where the layout has none.
    for (column, value) in [("label", "true"), ("label", "\"False\""), ("kto_tag", "false")] {
        let error =
            read("a.jsonl", &conversation(&format!(",\"{column}\":{value}"), ""), &options).unwrap_err();
        let expected = format!("line 1: column \"{column}\" is a ");
        assert!(error.contains(&expected) && error.contains("[kto]"), "{error}");
    }
    // A class is no verdict on an answer, and a weight of one changes nothing.
    for record in [r#","label":"sports""#, r#","label":3"#, r#","weight":1"#, r#","weight":1.0"#] {
        assert_eq!(read("a.jsonl", &conversation(record, ""), &options).unwrap().examples.len(), 1);
    }
    assert!(
        read("a.jsonl", &conversation(r#","weight":0.5"#, ""), &options).unwrap_err().contains("\"weight\"")
    );
}

#[test]
fn flags_of_messages_agree_or_are_refused() {
    let options = ReadOptions { keep_empty: true, ..ReadOptions::default() };
    for name in ["train", "training", "train_on_turn", "weight", "loss", "loss_scale"] {
        let two = format!(
            r#"{{"messages":[{{"role":"user","content":"a","{name}":1}},{{"role":"assistant","content":"b","{name}":0}}]}}"#
        );
        let found = read("a.jsonl", &two, &options).unwrap();
        assert_eq!(turns(&found.examples[0]), [turn("user", "a", true), turn("assistant", "b", false)]);
    }
    let error = read("a.jsonl", &conversation("", r#","loss_scale":0.5"#), &options).unwrap_err();
    assert!(error.contains("loss_scale = 0.5: expected true or false, 1 or 0"), "{error}");
    let error = read("a.jsonl", &conversation("", r#","train":true,"weight":0"#), &options).unwrap_err();
    assert!(error.contains("weight = false contradicts train = true"), "{error}");
}

#[test]
fn earlier_turns_and_system_prompts_come_first() {
    let options = ReadOptions::default();
    let record = r#"{"instruction":"c","output":"d","system":"s","history":[["a","b"]]}"#;
    let said = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")];
    let said = said.map(|(role, text)| turn(role, text, role == "assistant"));
    assert_eq!(turns(&read("a.jsonl", record, &options).unwrap().examples[0]), said);
    let error = read("a.jsonl", &record.replace("[[\"a\",\"b\"]]", "[\"a\"]"), &options).unwrap_err();
    assert!(error.contains("column \"history\": expected a list of [question, answer]"), "{error}");
    let prompt = r#"{"prompt":"c","completion":"d","system":"s"}"#;
    let found = read("a.jsonl", prompt, &options).unwrap();
    assert_eq!(turns(&found.examples[0]), [said[0].clone(), said[3].clone(), said[4].clone()]);
    let two =
        r#"{"system":"s","messages":[{"role":"system","content":"t"},{"role":"assistant","content":"d"}]}"#;
    assert!(read("a.jsonl", two, &options).unwrap_err().contains("two different system prompts"));
    assert_eq!(read("a.jsonl", &two.replace("\"t\"", "\"s\""), &options).unwrap().examples.len(), 1);
}

#[test]
fn text_files_are_no_records_of_a_given_layout() {
    let options = ReadOptions { kind: RecordKind::Alpaca, ..ReadOptions::default() };
    let error = read("a.txt", "text", &options).unwrap_err();
    assert!(error.contains("a.txt") && error.contains("data.records expects records"), "{error}");
}
