//! `/v1/embeddings` against vectors that are computed by hand from the engine's hidden states.

mod common;

use std::sync::Arc;

use common::{app, model, ok, refused};
use serde_json::{Value, json};
use tritforge_infer::{LogitsRequest, Model, Pooling, SequenceInput, Session, hidden_states};
use tritforge_serve::{Engine, ServeOptions, router};

const PATH: &str = "/v1/embeddings";

/// The mean of a text's states, or the last one, of length 1.
fn expected(model: &Arc<Model>, text: &str, last: bool) -> Vec<f64> {
    let ids = model.tokenizer().encode(text, model.tokenizer().adds_bos()).unwrap();
    let width = model.config().hidden_size;
    let mut session = Session::new(Arc::clone(model), 256).unwrap();
    // One token after the other.
    let mut states: Vec<Vec<f32>> = Vec::new();
    for id in &ids {
        let part = SequenceInput { session: &mut session, ids: &[*id], request: LogitsRequest::None };
        states.extend(hidden_states(&mut [part]).unwrap());
    }
    let used = if last { &states[states.len() - 1..] } else { &states[..] };
    let mut vector: Vec<f64> = (0..width)
        .map(|i| used.iter().map(|state| f64::from(state[i])).sum::<f64>() / used.len() as f64)
        .collect();
    let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    vector.iter_mut().for_each(|x| *x /= length);
    vector
}

fn vector(answer: &Value, index: usize) -> Vec<f64> {
    let item = &answer["data"][index];
    assert_eq!((&item["object"], &item["index"]), (&json!("embedding"), &json!(index)));
    item["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn close(found: &[f64], right: &[f64]) {
    assert_eq!(found.len(), right.len());
    assert!(found.iter().zip(right).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {right:?}");
}

#[tokio::test]
async fn vectors_are_those_of_the_hidden_states_alone_and_in_a_batch() {
    let (_dir, model) = model();
    let texts = ["once", "a", "upon a time, in a place that is far away", "<|endoftext|>"];
    for (pooling, last) in [(Pooling::Mean, false), (Pooling::Last, true)] {
        let options = ServeOptions { pooling, ..ServeOptions::default() };
        let app = router(Engine::of(&model).unwrap(), &options);
        let all = ok(&app, PATH, &json!({ "input": texts, "encoding_format": "float" })).await;
        assert_eq!((&all["object"], all["data"].as_array().unwrap().len()), (&json!("list"), 4));
        let mut tokens = 0;
        for (i, text) in texts.iter().enumerate() {
            let alone = ok(&app, PATH, &json!({ "input": text })).await;
            assert_eq!(alone["data"][0]["embedding"], all["data"][i]["embedding"], "{text}");
            close(&vector(&alone, 0), &expected(&model, text, last));
            tokens += alone["usage"]["prompt_tokens"].as_u64().unwrap();
        }
        assert_eq!(all["usage"], json!({ "prompt_tokens": tokens, "total_tokens": tokens }));
    }
}

#[tokio::test]
async fn every_form_of_input_and_of_vectors() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    let ids = model.tokenizer().encode("once", model.tokenizer().adds_bos()).unwrap();
    let text = ok(&app, PATH, &json!({ "input": "once" })).await;
    for input in [json!(["once"]), json!(ids), json!([ids])] {
        assert_eq!(ok(&app, PATH, &json!({ "input": input })).await, text);
    }
    let width = model.config().hidden_size;
    let body = json!({ "input": "once", "encoding_format": "base64", "dimensions": width, "user": "x" });
    let base64 = ok(&app, PATH, &body).await;
    let found = base64["data"][0]["embedding"].as_str().unwrap();
    let floats = text["data"][0]["embedding"].as_array().unwrap();
    let bytes: Vec<u8> = floats.iter().flat_map(|x| (x.as_f64().unwrap() as f32).to_le_bytes()).collect();
    assert_eq!(found, tritforge_text::base64(&bytes));
    // As they are, they are longer or shorter than 1, in the same direction.
    let raw = vector(&ok(&app, PATH, &json!({ "input": "once", "embd_normalize": -1 })).await, 0);
    let length = raw.iter().map(|x| x * x).sum::<f64>().sqrt();
    close(&raw.iter().map(|x| x / length).collect::<Vec<_>>(), &vector(&text, 0));
    assert!((length - 1.0).abs() > 0.1);
}

#[tokio::test]
async fn what_cannot_be_embedded_is_refused_by_name() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    for (body, param) in [
        (json!({}), "input"),
        (json!({ "input": [] }), "input"),
        (json!({ "input": ["a", 3] }), "input"),
        (json!({ "input": [999] }), "input"),
        (json!({ "input": "a".repeat(300) }), "input"),
        (json!({ "input": "a", "dimensions": 16 }), "dimensions"),
        (json!({ "input": "a", "encoding_format": "int8" }), "encoding_format"),
        (json!({ "input": "a", "embd_normalize": 1 }), "embd_normalize"),
        (json!({ "input": "a", "prompt": "a" }), "prompt"),
    ] {
        let error = refused(&app, PATH, &body).await;
        let message = error["message"].as_str().unwrap();
        assert!(error["param"] == param || message.contains("999"), "{body}: {error}");
    }
    let (status, answer) = common::post(&app, PATH, &json!({ "input": "a", "model": "other" })).await;
    assert_eq!((status, &answer["error"]["param"]), (404, &json!("model")), "{answer}");
}
