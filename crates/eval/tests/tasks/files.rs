//! Files of tasks: where they are found, and what is wrong with them.

use std::fs;

use tritforge_eval::tasks::{Task, TaskOptions};

use super::{Files, ask, model};

#[test]
fn damaged_samples_are_named() {
    let model = model();
    let good = r#"{"goal":"g","sol1":"a","sol2":"b","label":0}"#;
    for (task, bad, expected) in [
        (
            "piqa",
            r#"{"goal":"g","sol1":"a","label":0}"#,
            "line 2: no field \"sol2\": found goal, sol1, label",
        ),
        (
            "piqa",
            r#"{"goal":"g","sol1":"a","sol2":"b","label":2}"#,
            "line 2: field \"label\" is 2: expected an integer from 0 to 1",
        ),
        (
            "piqa",
            r#"{"goal":3,"sol1":"a","sol2":"b","label":1}"#,
            "line 2: field \"goal\" is 3: expected a string",
        ),
        ("piqa", "{", "line 2: not JSON"),
        ("arc_easy", "", "line 1: no field \"question\""),
        ("nothing", "", "no task \"nothing\": expected one of arc_easy, "),
    ] {
        let error =
            ask(&model, task, &format!("{good}\n{bad}\n"), None, &TaskOptions::default()).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    for (task, record, expected) in [
        (
            "arc_easy",
            r#"{"question":"q","choices":{"text":["a","b"],"label":["A","B"]},"answerKey":"C"}"#,
            "field \"answerKey\" is \"C\": expected A or B",
        ),
        (
            "arc_easy",
            r#"{"instruction":"x: q\n\nAnswer1: a Answer format: answer1/answer2","answer":"answer1"}"#,
            "has no \"Answer2:\"",
        ),
        (
            "winogrande",
            r#"{"sentence":"s","option1":"a","option2":"b","answer":"1"}"#,
            "the sentence has no blank (_)",
        ),
        (
            "winogrande",
            r#"{"sentence":"s _","option1":"a","option2":"b","answer":""}"#,
            "field \"answer\" is \"\"",
        ),
    ] {
        let error = ask(&model, task, record, None, &TaskOptions::default()).unwrap_err();
        assert!(error.contains("test.jsonl: line 1: ") && error.contains(expected), "{error}");
    }
}

#[test]
fn files_are_found_by_the_names_of_tasks_and_of_their_folders() {
    let files = Files::new();
    let dir = files.0.path();
    fs::create_dir(dir.join("ARC-Easy")).unwrap();
    files.write("ARC-Easy/test.json", "[]");
    files.write("ARC-Easy/train.json", "[]");
    files.write("piqa.csv", "");
    let task = Task::named("arc_easy").unwrap();
    assert_eq!(task.test_file(dir).unwrap(), dir.join("ARC-Easy/test.json"));
    assert_eq!(task.train_file(dir), Some(dir.join("ARC-Easy/train.json")));
    assert_eq!(Task::named("piqa").unwrap().test_file(dir).unwrap(), dir.join("piqa.csv"));
    let error = Task::named("boolq").unwrap().test_file(dir).unwrap_err().to_string();
    assert!(error.contains("boolq.jsonl or boolq/test.jsonl"), "{error}");
}
