//! A conversation as the model sees it.

mod common;

use common::{CHAT, app, messages, model, ok, refused};
use serde_json::json;
use tritforge_serve::Engine;

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_rendered_and_tokenized_as_for_an_answer() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    let talk = messages("how <|endoftext|> are you");
    let prompt = ok(&app, "/apply-template", &json!({ "messages": talk })).await["prompt"].clone();
    assert_eq!(prompt, "<|im_start|>user\nhow <|endoftext|> are you<|im_end|>\n<|im_start|>assistant\n");
    let tokens = ok(&app, "/tokenize", &json!({ "messages": talk })).await;
    let usage = ok(&app, CHAT, &json!({ "messages": talk, "max_tokens": 1 })).await["usage"].clone();
    assert_eq!(tokens["count"], usage["prompt_tokens"]);
    // The same as the tokens of the text.
    let text = ok(&app, "/tokenize", &json!({ "prompt": prompt })).await;
    assert_eq!(text["tokens"], tokens["tokens"]);
    let back = ok(&app, "/detokenize", &json!({ "tokens": tokens["tokens"] })).await;
    // With the token that begins a sequence.
    assert_eq!(back["content"], format!("<|endoftext|>{}", prompt.as_str().unwrap()));
    // Names of special tokens can be read as text: a token a byte.
    let plain = ok(&app, "/tokenize", &json!({ "content": "<|endoftext|>", "parse_special": false })).await;
    assert_eq!(plain["count"], 13);
    let back = ok(&app, "/detokenize", &json!({ "tokens": plain["tokens"] })).await;
    assert_eq!(back["content"], "<|endoftext|>");
    let special = ok(&app, "/tokenize", &json!({ "content": "<|endoftext|>" })).await;
    assert_eq!(special["tokens"], json!([0]));
    let error =
        refused(&app, "/apply-template", &json!({ "messages": [{ "role": "judge", "content": 1 }] })).await;
    assert_eq!(error["param"], "messages[0].content");
}
