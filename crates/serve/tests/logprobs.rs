//! Log-probabilities against the softmax of the model's logits.

mod common;

use std::sync::Arc;

use common::{CHAT, COMPLETIONS, app, events, messages, model, ok, with};
use serde_json::{Value, json};
use tritforge_infer::{LogitsRequest, Model, Session};
use tritforge_serve::Engine;

/// Of each of the next `count` greedy tokens after a prompt: all ids, the most probable first, with ln of
/// their probabilities.
fn expected(model: &Arc<Model>, prompt: &[u32], count: usize) -> Vec<Vec<(u32, f64)>> {
    let mut session = Session::new(Arc::clone(model), 256).unwrap();
    let mut logits = session.forward(prompt, LogitsRequest::Last).unwrap();
    let mut all = Vec::new();
    for _ in 0..count {
        let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        let mut ranked: Vec<(u32, f64)> =
            (0u32..).zip(&logits).map(|(id, logit)| (id, f64::from(*logit) - sum.ln())).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        logits = session.forward(&[ranked[0].0], LogitsRequest::Last).unwrap();
        all.push(ranked);
    }
    all
}

fn close(found: &Value, right: f64) {
    let found = found.as_f64().unwrap_or_else(|| panic!("{found}"));
    assert!((found - right).abs() < 1e-4, "{found} for {right}");
}

#[tokio::test]
async fn a_completions_log_probabilities_are_the_models() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    let tokenizer = model.tokenizer();
    let prompt = tokenizer.encode("once", tokenizer.adds_bos()).unwrap();
    let right = expected(&model, &prompt, 6);
    let name = |id: u32| String::from_utf8_lossy(&tokenizer.bytes(id).unwrap()).into_owned();
    let body =
        json!({ "prompt": "once", "temperature": 0, "max_tokens": 6, "logprobs": 3, "ignore_eos": true });
    let answer = ok(&app, COMPLETIONS, &body).await;
    let found = &answer["choices"][0]["logprobs"];
    let mut offset = 0;
    for (i, ranked) in right.iter().enumerate() {
        assert_eq!(found["tokens"][i], name(ranked[0].0));
        assert_eq!(found["text_offset"][i], offset);
        offset += name(ranked[0].0).chars().count();
        close(&found["token_logprobs"][i], ranked[0].1);
        // Tokens that are parts of characters have the same text, of which the more probable one stands
        // there.
        let top = found["top_logprobs"][i].as_object().unwrap();
        for (id, logprob) in ranked[..3].iter().rev() {
            if name(*id) != char::REPLACEMENT_CHARACTER.to_string() {
                close(&top[&name(*id)], *logprob);
            }
        }
        assert!(top.len() <= 3);
    }
    // A penalty, a bias or a temperature changes which token comes, not what the model thought of it.
    let first = right[0][0].0.to_string();
    let more = json!({ "logit_bias": { first: -100 }, "max_tokens": 1, "presence_penalty": 1 });
    let answer = ok(&app, COMPLETIONS, &with(body.clone(), &more)).await;
    let found = &answer["choices"][0]["logprobs"];
    assert_eq!(found["tokens"][0], name(right[0][1].0));
    close(&found["token_logprobs"][0], right[0][1].1);
    // Without them the answer is the same.
    let mut plain = body;
    plain.as_object_mut().unwrap().remove("logprobs");
    let plain = ok(&app, COMPLETIONS, &plain).await;
    assert!(plain["choices"][0]["logprobs"].is_null());
}

#[tokio::test]
async fn a_chat_has_bytes_and_the_most_probable_tokens_also_in_a_stream() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    let body = json!({
        "messages": messages("once"), "temperature": 0, "max_tokens": 8, "logprobs": true, "top_logprobs": 2,
        "ignore_eos": true,
    });
    let answer = ok(&app, CHAT, &body).await;
    let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), 8);
    for item in content {
        assert_eq!(item["top_logprobs"].as_array().unwrap().len(), 2);
        assert_eq!(
            (&item["top_logprobs"][0]["token"], &item["top_logprobs"][0]["logprob"]),
            (&item["token"], &item["logprob"])
        );
        assert!(item["top_logprobs"][1]["logprob"].as_f64() <= item["logprob"].as_f64());
    }
    let bytes: Vec<u8> = content
        .iter()
        .flat_map(|item| item["bytes"].as_array().unwrap())
        .map(|byte| byte.as_u64().unwrap() as u8)
        .collect();
    assert_eq!(String::from_utf8_lossy(&bytes), answer["choices"][0]["message"]["content"].as_str().unwrap());
    let streamed: Vec<Value> = events(&app, CHAT, &body)
        .await
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(&streamed, content);
}

#[tokio::test]
async fn the_tokens_of_a_stop_string_are_not_shown() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    let id = |text: &str| model.tokenizer().encode(text, false).unwrap()[0].to_string();
    let body = json!({
        "prompt": "x", "temperature": 0, "max_tokens": 9, "logprobs": 0, "stop": "bb", "min_tokens": 0,
        "logit_bias": { id("a"): 100, id("b"): 98 }, "frequency_penalty": 1,
    });
    // The penalty alternates between the two: what comes is no stop string as long as a and b take turns.
    let answer = ok(&app, COMPLETIONS, &body).await;
    let tokens = answer["choices"][0]["logprobs"]["tokens"].as_array().unwrap();
    let text: String = tokens.iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(text, answer["choices"][0]["text"].as_str().unwrap());
    let only = json!({ "logit_bias": { id("b"): 100 }, "frequency_penalty": 0, "stop": "bbb" });
    let answer = ok(&app, COMPLETIONS, &with(body, &only)).await;
    assert_eq!(
        (&answer["choices"][0]["text"], &answer["choices"][0]["logprobs"]["tokens"]),
        (&json!(""), &json!([]))
    );
}

#[tokio::test]
async fn a_prompt_that_is_echoed_has_its_own() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    let tokenizer = model.tokenizer();
    let text = "once upon a time there was a very long sentence, longer than what is run at once with logits";
    let ids = tokenizer.encode(text, tokenizer.adds_bos()).unwrap();
    let mut session = Session::new(Arc::clone(&model), 256).unwrap();
    let logits = session.forward(&ids, LogitsRequest::All).unwrap();
    let right: Vec<f64> = logits
        .chunks_exact(model.config().vocab_size)
        .zip(&ids[1..])
        .map(|(row, id)| {
            let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
            f64::from(row[*id as usize]) - sum.ln()
        })
        .collect();
    for (prompt, stream) in [(json!(text), false), (json!(ids), false), (json!(text), true)] {
        let body = json!({
            "prompt": prompt, "echo": true, "logprobs": 1, "max_tokens": 3, "temperature": 0, "ignore_eos": true,
        });
        let mut found: Vec<Value> = vec![json!([]); 4];
        let mut whole = String::new();
        let choices = match stream {
            false => vec![ok(&app, COMPLETIONS, &body).await["choices"][0].clone()],
            true => events(&app, COMPLETIONS, &body).await.iter().map(|e| e["choices"][0].clone()).collect(),
        };
        for choice in choices {
            whole += choice["text"].as_str().unwrap();
            for (all, key) in
                found.iter_mut().zip(["tokens", "token_logprobs", "top_logprobs", "text_offset"])
            {
                let more = choice["logprobs"][key].as_array().cloned().unwrap_or_default();
                all.as_array_mut().unwrap().extend(more);
            }
        }
        let [tokens, logprobs, tops, offsets] = &found[..] else { unreachable!() };
        assert_eq!(tokens.as_array().unwrap().len(), ids.len() + 3);
        assert!(logprobs[0].is_null() && tops[0].is_null(), "{logprobs}");
        for (i, right) in right.iter().enumerate() {
            close(&logprobs[i + 1], *right);
            assert!(!tops[i + 1].as_object().unwrap().is_empty());
        }
        // The tokens of the text are those that come without its echo.
        let plain =
            ok(&app, COMPLETIONS, &with(body.clone(), &json!({ "echo": false, "prompt": ids }))).await;
        let plain = &plain["choices"][0]["logprobs"];
        assert_eq!(&tokens.as_array().unwrap()[ids.len()..], &plain["tokens"].as_array().unwrap()[..]);
        assert!(whole.starts_with(text) || prompt.is_array());
        if tokens.as_array().unwrap().iter().all(|token| token.as_str().unwrap().is_ascii()) {
            let joined: String =
                tokens.as_array().unwrap().iter().map(|token| token.as_str().unwrap()).collect();
            assert_eq!(
                (joined, offsets[ids.len()].as_u64().unwrap() as usize),
                (whole.clone(), whole.len() - 3)
            );
        }
    }
}
