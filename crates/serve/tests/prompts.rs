//! Prompts in every form, choices and ends, with a real model.

mod common;

use common::{CHAT, COMPLETIONS, app, messages, model, ok, refused, with};
use serde_json::{Value, json};
use tritforge_serve::Engine;

fn greedy(prompt: &Value, more: &Value) -> Value {
    with(json!({ "prompt": prompt, "temperature": 0, "max_tokens": 12, "ignore_eos": true }), more)
}

fn text(answer: &Value, index: usize) -> &str {
    answer["choices"][index]["text"].as_str().unwrap()
}

#[tokio::test]
async fn token_ids_say_what_their_text_says() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    let tokenizer = model.tokenizer();
    let ids = |text: &str| tokenizer.encode(text, tokenizer.adds_bos()).unwrap();
    let alone = |prompt: Value| greedy(&prompt, &json!({}));
    let (one, two) = (
        ok(&app, COMPLETIONS, &alone(json!("once"))).await,
        ok(&app, COMPLETIONS, &alone(json!("upon"))).await,
    );
    assert_ne!(text(&one, 0), text(&two, 0));
    for prompt in [json!(["once"]), json!(ids("once")), json!([ids("once")])] {
        let answer = ok(&app, COMPLETIONS, &alone(prompt)).await;
        assert_eq!((text(&answer, 0), &answer["usage"]), (text(&one, 0), &one["usage"]));
    }
    for prompt in [json!(["once", "upon"]), json!([ids("once"), ids("upon")])] {
        let answer = ok(&app, COMPLETIONS, &alone(prompt)).await;
        assert_eq!([text(&answer, 0), text(&answer, 1)], [text(&one, 0), text(&two, 0)]);
    }
    for (prompt, named) in
        [(json!([257]), "257"), (json!([9999]), "9999"), (json!([vec![1; 300]]), "context")]
    {
        let error = refused(&app, COMPLETIONS, &alone(prompt)).await;
        assert!(error["message"].as_str().unwrap().contains(named), "{error}");
    }
}

#[tokio::test]
async fn the_name_of_a_special_token_is_that_token() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    let tokenizer = model.tokenizer();
    let special = tokenizer.eos().unwrap();
    let name = tokenizer.token(special).unwrap();
    let plain = tokenizer.encode("a", tokenizer.adds_bos()).unwrap().len();
    let answer = ok(&app, COMPLETIONS, &greedy(&json!(format!("a{name}")), &json!({}))).await;
    assert_eq!(answer["usage"]["prompt_tokens"], plain + 1);
}

#[tokio::test]
async fn echo_puts_the_prompt_before_the_text() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    let tokenizer = model.tokenizer();
    let ids = tokenizer.encode("once", tokenizer.adds_bos()).unwrap();
    for (prompt, begins) in
        [(json!("once"), "once".to_string()), (json!(ids), tokenizer.decode(&ids).unwrap())]
    {
        let plain = ok(&app, COMPLETIONS, &greedy(&prompt, &json!({}))).await;
        let body = greedy(&prompt, &json!({ "echo": true }));
        let answer = ok(&app, COMPLETIONS, &body).await;
        assert_eq!(text(&answer, 0), format!("{begins}{}", text(&plain, 0)));
        assert_eq!(answer["usage"], plain["usage"]);
        let events = common::events(&app, COMPLETIONS, &body).await;
        let streamed: String = events.iter().map(|e| e["choices"][0]["text"].as_str().unwrap()).collect();
        assert_eq!(streamed, text(&answer, 0));
    }
    // A prompt that is too long is refused before any of it is said.
    let long = greedy(&json!("x".repeat(400)), &json!({ "echo": true, "stream": true }));
    let error = refused(&app, COMPLETIONS, &long).await;
    assert_eq!((&error["code"], &error["param"]), (&json!("context_length_exceeded"), &json!("prompt")));
    let long = json!({ "messages": [{ "role": "user", "content": "x".repeat(400) }] });
    let error = refused(&app, CHAT, &long).await;
    assert_eq!((&error["code"], &error["param"]), (&json!("context_length_exceeded"), &json!("messages")));
}

#[tokio::test]
async fn each_choice_has_the_next_seed() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    let drawn = |more: Value| {
        with(json!({ "prompt": "once", "max_tokens": 12, "temperature": 1.5, "seed": 5 }), &more)
    };
    let all = ok(&app, COMPLETIONS, &drawn(json!({ "n": 3 }))).await;
    for (index, seed) in [(0, 5), (1, 6), (2, 7)] {
        let alone = ok(&app, COMPLETIONS, &drawn(json!({ "seed": seed }))).await;
        assert_eq!(text(&all, index), text(&alone, 0));
    }
    assert_ne!(text(&all, 0), text(&all, 1));
}

#[tokio::test]
async fn tokens_and_their_numbers_end_a_text() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    // The tokens that come by themselves, as log-probabilities name them.
    let body = |more: Value| greedy(&json!("once"), &more);
    let free = ok(&app, COMPLETIONS, &body(json!({ "logprobs": 0 }))).await;
    let bias = |id: u32, bias: f32| json!({ "logit_bias": { id.to_string(): bias } });
    let prompt = model.tokenizer().encode("once", model.tokenizer().adds_bos()).unwrap();
    let mut session = tritforge_infer::Session::new(std::sync::Arc::clone(&model), 64).unwrap();
    let logits = session.forward(&prompt, tritforge_infer::LogitsRequest::Last).unwrap();
    let first = (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best }) as u32;
    assert_eq!(free["usage"]["completion_tokens"], 12);
    // `stop_token_ids` ends the text even with `ignore_eos`, and the token is no part of it.
    let stopped = ok(&app, COMPLETIONS, &body(json!({ "stop_token_ids": [first] }))).await;
    assert_eq!((text(&stopped, 0), &stopped["choices"][0]["finish_reason"]), ("", &json!("stop")));
    // Before `min_tokens` it is not chosen at all.
    let late = ok(&app, COMPLETIONS, &body(json!({ "stop_token_ids": [first], "min_tokens": 5 }))).await;
    assert!(late["usage"]["completion_tokens"].as_u64().unwrap() >= 5, "{late}");
    // A bias takes it away, or makes it the only one.
    let other =
        ok(&app, COMPLETIONS, &body(with(bias(first, -100.0), &json!({ "max_tokens": 1, "logprobs": 0 }))))
            .await;
    let logprob = |answer: &Value| answer["choices"][0]["logprobs"]["token_logprobs"][0].as_f64().unwrap();
    assert!(logprob(&other) < logprob(&free), "{other}");
    let a = model.tokenizer().encode("a", false).unwrap()[0];
    let only = ok(&app, COMPLETIONS, &body(bias(a, 100.0))).await;
    assert_eq!(text(&only, 0), "a".repeat(12));
    for more in [bias(257, 1.0), json!({ "stop_token_ids": [257] })] {
        let error = refused(&app, COMPLETIONS, &body(more)).await;
        assert!(error["message"].as_str().unwrap().contains("token 257, of a vocabulary of 257"), "{error}");
    }
}

#[tokio::test]
async fn a_chat_goes_to_the_end_of_the_context_and_a_stop_string_waits_for_min_tokens() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    let a = model.tokenizer().encode("a", false).unwrap()[0];
    let only_a = json!({ "temperature": 0, "logit_bias": { a.to_string(): 100 } });
    let chat = with(json!({ "messages": messages("once") }), &only_a);
    let answer = ok(&app, CHAT, &chat).await;
    let total = answer["usage"]["total_tokens"].as_u64().unwrap();
    assert!((256..=257).contains(&total), "{total}");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let completion = |more: Value| with(with(json!({ "prompt": "x" }), &only_a), &more);
    let answer = ok(&app, COMPLETIONS, &completion(json!({}))).await;
    assert_eq!(answer["usage"]["completion_tokens"], 16);
    let answer = ok(&app, COMPLETIONS, &completion(json!({ "stop": "aa" }))).await;
    assert_eq!((text(&answer, 0), &answer["usage"]["completion_tokens"]), ("", &json!(2)));
    let answer = ok(&app, COMPLETIONS, &completion(json!({ "stop": "aa", "min_tokens": 6 }))).await;
    assert_eq!((text(&answer, 0), &answer["usage"]["completion_tokens"]), ("aaaaa", &json!(7)));
}

#[tokio::test]
async fn parts_of_a_message_are_its_text() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    let part = |text: &str| json!({ "type": "text", "text": text });
    let chat = |content: Value| json!({ "messages": [{ "role": "user", "content": content }], "temperature": 0, "max_tokens": 8 });
    let plain = ok(&app, CHAT, &chat(json!("once upon"))).await;
    let parts = ok(&app, CHAT, &chat(json!([part("once"), part(" upon")]))).await;
    assert_eq!(parts["choices"], plain["choices"]);
    assert_eq!(parts["usage"], plain["usage"]);
}

#[tokio::test]
async fn a_text_is_filled_in_by_models_that_have_tokens_for_it() {
    let (_dir, plain) = model();
    let body =
        json!({ "prompt": "ab", "suffix": "cd", "temperature": 0, "max_tokens": 5, "ignore_eos": true });
    let error = refused(&app(Engine::of(&plain).unwrap()), COMPLETIONS, &body).await;
    assert_eq!(error["param"], "suffix");
    assert!(error["message"].as_str().unwrap().contains("no tokens to fill in"), "{error}");
    let names = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"];
    let (_dir, model) = common::model_with_specials(&names);
    let app = app(Engine::of(&model).unwrap());
    let id = |name: &str| model.tokenizer().id(name).unwrap();
    let text = |text: &str| model.tokenizer().encode(text, false).unwrap();
    let bos = model.tokenizer().bos().filter(|_| model.tokenizer().adds_bos());
    let by_hand: Vec<u32> = [
        bos.into_iter().collect(),
        vec![id(names[0])],
        text("ab"),
        vec![id(names[1])],
        text("cd"),
        vec![id(names[2])],
    ]
    .concat();
    let filled = ok(&app, COMPLETIONS, &body).await;
    let right = ok(&app, COMPLETIONS, &with(body.clone(), &json!({ "prompt": by_hand, "suffix": "" }))).await;
    assert_eq!((&filled["choices"], &filled["usage"]), (&right["choices"], &right["usage"]));
    for more in [json!({ "prompt": [1] }), json!({ "echo": true })] {
        assert_eq!(refused(&app, COMPLETIONS, &with(body.clone(), &more)).await["param"], "suffix");
    }
}
