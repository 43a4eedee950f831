//! Chat templates against what `transformers` renders.

use tritforge_text::{ChatTemplate, Message, SpecialTokens, TextError, Tokenizer};

fn conversation() -> Vec<Message> {
    vec![
        Message::new("system", "Be brief."),
        Message::new("user", "<b>Hi</b> "),
        Message::new("assistant", "Hello!"),
        Message::new("user", "Bye"),
    ]
}

fn render(source: &str) -> Result<String, TextError> {
    ChatTemplate::new(source)?.render(&conversation(), true, Some("<s>"), Some("</s>"))
}

#[test]
fn built_in_templates() {
    let render =
        |name| ChatTemplate::named(name).unwrap().render(&conversation(), true, Some("<s>"), None).unwrap();
    assert_eq!(
        render("chatml"),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<b>Hi</b> <|im_end|>\n\
         <|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        render("llama3"),
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\n<b>Hi</b><|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n"
    );
    assert_eq!(
        render("plain"),
        "System: Be brief.\n\nUser: <b>Hi</b>\n\nAssistant: Hello!\n\nUser: Bye\n\nAssistant:"
    );
    for name in ChatTemplate::names() {
        assert!(ChatTemplate::named(name).is_some());
    }
    assert!(ChatTemplate::named("nothing").is_none());
}

#[test]
fn blocks_are_trimmed_as_jinja_is_told_to() {
    let source = "{% for m in messages %}\n    {% if m.role == 'user' %}\n{{ loop.index0 }}{{ eos_token }}\n    {% endif %}\n{% endfor %}\n";
    assert_eq!(render(source).unwrap(), "1</s>\n3</s>\n");
}

#[test]
fn python_is_at_hand() {
    assert_eq!(render("{{ messages[1].content.strip().upper() }}").unwrap(), "<B>HI</B>");
    assert_eq!(render("{{ messages[1] | tojson }}").unwrap(), r#"{"role": "user", "content": "<b>Hi</b> "}"#);
    assert_eq!(render("{{ [1] | tojson(indent=4) }}").unwrap(), "[\n    1\n]");
    assert_eq!(
        render(
            "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role[0] }}{% endfor %}"
        )
        .unwrap(),
        "uau"
    );
    assert_eq!(render("{% if tools is none and not undefined_thing %}none{% endif %}").unwrap(), "none");
    let year: u32 = render("{{ strftime_now('%Y') }}").unwrap().parse().unwrap();
    assert!((2024..2200).contains(&year));
}

#[test]
fn errors_name_the_line() {
    let error = render("a\nb\n{{ raise_exception('roles must alternate') }}").unwrap_err();
    assert!(matches!(error, TextError::Template { line: Some(3), .. }), "{error}");
    assert!(error.to_string().contains("roles must alternate"), "{error}");
    let error = ChatTemplate::new("a\n{% for x in %}").unwrap_err();
    assert!(matches!(error, TextError::Template { line: Some(2), .. }), "{error}");
    assert!(render("{{ strftime_now('%Q') }}").unwrap_err().to_string().contains("%Q"));
}

#[test]
fn a_template_that_does_not_end_is_stopped() {
    let endless = "{% for a in range(100000) %}{% for b in range(100000) %}{% for c in range(100000) %}{% endfor %}{% endfor %}{% endfor %}";
    assert!(render(endless).unwrap_err().to_string().contains("fuel"));
}

#[test]
fn a_conversation_becomes_ids_with_its_marks() {
    let specials = SpecialTokens {
        eos: Some("<|im_end|>".to_string()),
        others: vec!["<|im_start|>".to_string()],
        ..SpecialTokens::default()
    };
    let template = ChatTemplate::named("chatml").unwrap();
    let tokenizer =
        Tokenizer::train_bpe(["user"], 300, &specials).unwrap().with_chat_template(Some(&template));
    assert_eq!(tokenizer.chat_template().unwrap().unwrap().source(), template.source());
    let ids = tokenizer.encode_chat(&template, &[Message::new("user", "Hi")]).unwrap();
    let start = tokenizer.id("<|im_start|>").unwrap();
    assert_eq!(ids.iter().filter(|id| **id == start).count(), 2);
    assert_eq!(ids.iter().filter(|id| Some(**id) == tokenizer.eos()).count(), 1);
    assert_eq!(ids.iter().filter(|id| Some(**id) == tokenizer.bos()).count(), 1);
    assert_eq!(ids[..2], [tokenizer.bos().unwrap(), start]);
}
