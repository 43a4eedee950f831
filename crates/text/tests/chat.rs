//! Chat templates against what `transformers` renders.

use serde_json::{Value, json};
use tritforge_text::{
    ChatTemplate, Masked, Message, SpecialTokens, TemplateInputs, TextError, Tokenizer, Turn,
};

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
    let endless = "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% endfor %}{% endfor %}{% endfor %}";
    assert!(render(endless).unwrap_err().to_string().contains("more than"));
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

/// What the mask keeps of a conversation, and what the ids say.
fn learned(template: &ChatTemplate, learn: &[bool]) -> Result<(String, String), TextError> {
    let special = SpecialTokens {
        others: ["<|im_start|>", "<|im_end|>"].map(str::to_string).to_vec(),
        ..SpecialTokens::default()
    };
    let tokenizer = Tokenizer::train_bpe(["Be brief. Hello there, hello!"], 280, &special)?;
    let messages = conversation();
    let turns: Vec<Turn<'_, Message>> = messages
        .iter()
        .zip(learn)
        .map(|(message, learn)| Turn { message, answer: message.role == "assistant", learn: *learn })
        .collect();
    let Masked { ids, mask } = tokenizer.encode_turns(template, &turns)?;
    let kept: Vec<u32> = ids.iter().zip(&mask).filter(|(_, m)| **m).map(|(id, _)| *id).collect();
    Ok((tokenizer.decode(&kept)?, tokenizer.decode(&ids)?))
}

#[test]
fn answers_are_found_by_blocks_and_by_growing_conversations() {
    let chatml = ChatTemplate::named("chatml").unwrap();
    let only = [false, false, true, false];
    let (kept, whole) = learned(&chatml, &only).unwrap();
    assert_eq!(kept, "Hello!<|im_end|>");
    // As `encode_chat`, with BOS where the tokenizer begins with it.
    let rendered = chatml.render(&conversation(), false, None, None).unwrap();
    assert_eq!(whole, format!("<|endoftext|>{rendered}"));
    // Any turn may be learned; a question begins where the turn before it ends.
    assert_eq!(
        learned(&chatml, &[true, false, false, true]).unwrap().0,
        "<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\nBye<|im_end|>"
    );
    let blocks = ChatTemplate::new(
        "{%- for m in messages %}\n{{ '<|im_start|>' + m.role }}\n{% if m.role == 'assistant' %}\n\
         {%- generation -%}\n  {{ m.content }}<|im_end|>\n{%- endgeneration %}\n{% else %}{{ m.content }}{% endif %}\n\
         {% endfor %}",
    )
    .unwrap();
    assert!(blocks.has_generation() && !chatml.has_generation());
    let (kept, whole) = learned(&blocks, &only).unwrap();
    assert_eq!(kept, "Hello!<|im_end|>");
    assert!(!whole.contains(['\u{FDD0}', '\u{FDD1}']), "{whole}");
    assert_eq!(learned(&blocks, &[false; 4]).unwrap().0, "");
    let error = learned(&blocks, &[false, true, false, false]).unwrap_err().to_string();
    assert!(error.contains("message 2: only answers"), "{error}");
    // Without special tokens all white space belongs to the answer.
    assert_eq!(learned(&ChatTemplate::named("plain").unwrap(), &only).unwrap().0, " Hello!\n\n");
}

#[test]
fn a_template_that_rewrites_what_it_wrote_is_refused() {
    let count =
        ChatTemplate::new("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}")
            .unwrap();
    let error = learned(&count, &[false, false, true, false]).unwrap_err().to_string();
    assert!(error.contains("message 3: the conversation up to it"), "{error}");
}

#[test]
fn alpaca_is_that_of_stanford() {
    let alpaca = ChatTemplate::named("alpaca").unwrap();
    let render = |messages: &[Message], answer| alpaca.render(messages, answer, None, Some("</s>")).unwrap();
    assert_eq!(
        render(&[Message::new("user", "Add.")], true),
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\
         ### Instruction:\nAdd.\n\n### Response:\n"
    );
    let with_input = serde_json::json!([
        {"role": "user", "content": "Add.\n\n1 and 2", "instruction": "Add.", "input": "1 and 2"},
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": "Thanks"},
    ]);
    let messages = with_input.as_array().unwrap();
    assert_eq!(
        alpaca.render(messages, true, None, Some("</s>")).unwrap(),
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a \
         response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n\
         ### Response:\n3</s>\n\n### Instruction:\nThanks\n\n### Response:\n"
    );
    assert_eq!(
        render(&[Message::new("system", "Be brief."), Message::new("user", "Hi")], false),
        "Be brief.\n\n### Instruction:\nHi\n\n"
    );
}

#[test]
fn a_message_that_the_template_leaves_out_is_an_error() {
    let tokenizer = Tokenizer::train_bpe(["ab"], 256, &SpecialTokens::none()).unwrap();
    let users =
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}";
    let users = ChatTemplate::new(users).unwrap();
    let user = Message::new("user", "Hi");
    assert!(tokenizer.encode_chat(&users, &[user.clone(), Message::new("assistant", "thought")]).is_ok());
    for role in ["system", "developer", "tool"] {
        let messages = [Message::new(role, "Be \"brief\"."), user.clone()];
        let error = tokenizer.encode_chat(&users, &messages).unwrap_err().to_string();
        assert!(error.contains(&format!("{role:?}")), "{error}");
        // Trimmed, and as JSON, it is there.
        for content in ["m['content'] | trim", "m['content'] | tojson"] {
            let all = format!("{{% for m in messages %}}{{{{ {content} }}}}{{% endfor %}}");
            assert!(tokenizer.encode_chat(&ChatTemplate::new(all).unwrap(), &messages).is_ok(), "{content}");
        }
        // Without content there is nothing to leave out.
        assert!(tokenizer.encode_chat(&users, &[Message::new(role, " "), user.clone()]).is_ok());
    }
}

#[test]
fn tags_whose_ends_share_a_character_are_refused_without_a_panic() {
    for source in ["{%}", "a {%} b", "{%}{% generation %}x{% endgeneration %}", "{{}", "{#}"] {
        let rendered =
            ChatTemplate::new(source).and_then(|t| t.render(&[Message::new("user", "x")], true, None, None));
        if let Err(error) = rendered {
            assert!(!error.to_string().is_empty());
        }
    }
    assert!(ChatTemplate::new("{%}").is_err());
}

/// Lists within lists, a list of a list twice, forty times over, and a namespace that contains itself.
#[test]
fn values_without_an_end_have_a_text_that_ends_or_are_refused() {
    let grow = |step: &str| {
        format!(
            "{{% set ns = namespace(x=1) %}}{{% for i in range(40) %}}{{% set ns.x = {step} %}}{{% endfor %}}"
        )
    };
    let render = |source: &str| {
        let template = ChatTemplate::new(source).unwrap();
        template.render(&[Message::new("user", "x")], true, None, None).map_err(|e| e.to_string())
    };
    let nested = render(&(grow("[ns.x]") + "{{ ns.x }}")).unwrap();
    assert_eq!(nested, format!("{}1{}", "[".repeat(40), "]".repeat(40)));
    let twice = render(&(grow("[ns.x, ns.x]") + "{{ ns.x | string | length }}")).unwrap_err();
    assert!(twice.contains("MB of text and lists"), "{twice}");
    let itself = render("{% set ns = namespace(n=0) %}{% set ns.n = ns %}{{ ns }}").unwrap_err();
    assert!(itself.contains("namespace"), "{itself}");
}

#[test]
fn expressions_at_which_the_engine_panics_are_errors() {
    for source in ["{{ ''[::-1] }}", "{{ messages[:0][::-1] }}", "{{ '%(\u{fffd})s' % {'a': 1} }}"] {
        let found = ChatTemplate::new(source).unwrap().render(&[Message::new("user", "x")], true, None, None);
        assert!(!matches!(found, Ok(text) if text.contains('x')), "{source}");
    }
}

#[test]
fn line_ends_of_files_are_newlines() {
    // jinja2 reads every line end of a template as "\n"; what a message says stays as it is.
    let template = "{% for m in messages %}\nA\n{{ m.content }}\n{%- endfor %}\nend\n";
    let messages = [Message::new("user", "x\r\ny\rz")];
    let render =
        |source: String| ChatTemplate::new(source).unwrap().render(&messages, false, None, None).unwrap();
    let expected = render(template.to_string());
    assert_eq!(expected, "A\nx\r\ny\rzend");
    for end in ["\r\n", "\r"] {
        assert_eq!(render(template.replace('\n', end)), expected);
    }
    // The source is the file's, byte for byte.
    let source = template.replace('\n', "\r\n");
    assert_eq!(ChatTemplate::new(source.clone()).unwrap().source(), source);
}

#[test]
fn arguments_are_variables_but_for_those_of_the_conversation() {
    let source = "{{ tools | length if tools else 'no tools' }} {{ documents }} {{ thinking is defined and not thinking }}";
    let template = ChatTemplate::new(source).unwrap();
    let render = |tools: &[Value], arguments: Value| {
        let arguments = arguments.as_object().unwrap().clone();
        let inputs = TemplateInputs { tools, arguments: Some(&arguments) };
        template.render_with(&[Message::new("user", "x")], inputs, false, None, None).map(|found| found.text)
    };
    assert_eq!(render(&[], json!({})).unwrap(), "no tools None False");
    let given = json!({"thinking": false, "documents": ["d"]});
    assert_eq!(render(&[json!({}), json!({})], given).unwrap(), "2 ['d'] True");
    for name in TemplateInputs::RESERVED {
        let error = render(&[], json!({ name: 1 })).unwrap_err().to_string();
        assert!(error.contains(&format!("no argument may be called {name:?}")), "{error}");
    }
}
