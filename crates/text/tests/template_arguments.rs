//! Variables that a chat template has wherever it is rendered: kept by files, outdone by others, refused by name.

use tritforge_text::{ChatTemplate, Message, SpecialTokens, TemplateArguments, TemplateInputs, Tokenizer};

/// A tokenizer whose template writes its variables, of which it has two.
fn tokenizer() -> Tokenizer {
    let arguments = TemplateArguments::from_json(r#"{"mode": "slow", "depth": 3}"#).unwrap();
    let template = ChatTemplate::new("{{ messages[0].content }} {{ mode }} {{ depth }}").unwrap();
    let plain = Tokenizer::train_bpe(["a b c"], 300, &SpecialTokens::default()).unwrap();
    plain.with_chat_template(Some(&template.with_arguments(arguments)))
}

fn rendered(tokenizer: &Tokenizer, given: Option<&str>) -> String {
    let template = tokenizer.chat_template().unwrap().unwrap();
    let given = given.map(|text| TemplateArguments::from_json(text).unwrap());
    let inputs = TemplateInputs { tools: &[], arguments: given.as_ref().map(TemplateArguments::entries) };
    template.render_with(&[Message::new("user", "hi")], inputs, true, None, None).unwrap().text
}

#[test]
fn they_hold_wherever_the_template_is_rendered_and_others_go_before_them() {
    let tokenizer = tokenizer();
    assert_eq!(rendered(&tokenizer, None), "hi slow 3");
    assert_eq!(rendered(&tokenizer, Some(r#"{"mode": "fast", "other": 1}"#)), "hi fast 3");
    // Another template has none of them.
    let other = ChatTemplate::named("plain").unwrap();
    let other = tokenizer.with_chat_template(Some(&other));
    assert!(other.chat_template().unwrap().unwrap().arguments().is_empty());
}

#[test]
fn files_keep_them() {
    let tokenizer = tokenizer();
    let dir = tempfile::tempdir().unwrap();
    tokenizer.save(dir.path()).unwrap();
    let read = Tokenizer::from_file(&dir.path().join("tokenizer.json")).unwrap();
    assert_eq!(rendered(&read, None), "hi slow 3");
    let mut metadata = tritforge_gguf::Metadata::default();
    for (key, value) in tokenizer.to_gguf(tokenizer.vocab_size()).unwrap() {
        metadata.insert(key, value);
    }
    assert_eq!(metadata.get_str("tokenizer.chat_template_kwargs").unwrap(), r#"{"mode":"slow","depth":3}"#);
    assert_eq!(rendered(&Tokenizer::from_gguf(&metadata).unwrap(), None), "hi slow 3");
}

#[test]
fn what_is_wrong_with_them_is_said_with_its_place() {
    for (text, expected) in [
        ("[]", "expected a JSON object"),
        ("{", "not JSON"),
        (r#"{"messages": []}"#, "no argument may be called \"messages\""),
        (r#"{"__input__": 1}"#, "no argument may be called \"__input__\""),
    ] {
        let error = TemplateArguments::from_json(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        let mut metadata = tritforge_gguf::Metadata::default();
        let tokenizer = tokenizer();
        for (key, value) in tokenizer.to_gguf(tokenizer.vocab_size()).unwrap() {
            metadata.insert(key, value);
        }
        metadata.insert("tokenizer.chat_template_kwargs", text);
        let error = Tokenizer::from_gguf(&metadata).unwrap_err().to_string();
        assert!(error.contains("tokenizer.chat_template_kwargs") && error.contains(expected), "{error}");
        let config = format!("{{\"chat_template_kwargs\": {}}}", if text == "{" { "3" } else { text });
        let error = tokenizer.with_config(config.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("tokenizer_config.json") && error.contains("chat_template_kwargs"), "{error}");
    }
}
