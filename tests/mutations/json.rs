//! JSON files that describe a model: tokenizers, configurations, adapters.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use tritforge_config::{HuggingFaceConfig, LoraConfig, LoraMode, ModelConfig, Projection};
use tritforge_text::{ChatTemplate, SpecialTokens, TextError, TiktokenPattern, Tokenizer};

use crate::harness::{Parser, Seed};
use crate::{golden, repository, tiny};

/// The same document without the white space that takes most of it.
fn compact(json: &str) -> Vec<u8> {
    serde_json::from_str::<Value>(json).unwrap().to_string().into_bytes()
}

/// Every key of a document and every short string in it, quoted.
fn words(documents: &[&[u8]]) -> Vec<String> {
    fn collect(value: &Value, words: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(key, value)| {
                words.insert(format!("\"{key}\""));
                collect(value, words);
            }),
            Value::Array(items) => items.iter().take(40).for_each(|item| collect(item, words)),
            Value::String(text) if text.len() < 40 => {
                words.insert(format!("\"{text}\""));
            }
            _ => {}
        }
    }
    let mut words = BTreeSet::new();
    for document in documents {
        collect(&serde_json::from_slice(document).unwrap(), &mut words);
    }
    words.into_iter().collect()
}

/// Runs a parser of JSON documents whose words are those of its seeds.
fn check(name: &str, seeds: &[Vec<u8>], bounds: [usize; 2], read: impl FnMut(&[u8]) -> bool + Send) {
    let words = words(&seeds.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [times, always] = bounds;
    Parser { name, seeds: seeds.iter().cloned().map(Seed::whole).collect(), words: &words, times, always }
        .check(read);
}

/// A tokenizer that a parser made does what tokenizers do, or says why not.
fn sound(read: Result<Tokenizer, TextError>) -> bool {
    let Ok(tokenizer) = read else { return false };
    for text in ["", "  The fox, 1234 times.\n", "größe 世界 🙂 </s> <0x41>", "aaaa\u{0}▁▁ b"] {
        let Ok(ids) = tokenizer.encode(text, true) else { continue };
        assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()), "{ids:?}");
        let _ = tokenizer.decode(&ids);
    }
    true
}

#[test]
fn tokenizer_json() {
    let bpe = Tokenizer::train_bpe(
        ["the quick brown fox", "größe am größten 12 34"],
        264,
        &SpecialTokens::default(),
    );
    let characters = Tokenizer::characters(["abc äö"], &SpecialTokens::default());
    let unigram = r#"{"version":"1.0","added_tokens":[{"id":0,"content":"<unk>","special":true,"single_word":false,"lstrip":false,
        "rstrip":false,"normalized":false}],"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace",
        "pattern":{"Regex":" +"},"content":" "},{"type":"Prepend","prepend":"▁"}]},"pre_tokenizer":{"type":"Metaspace",
        "replacement":"▁","prepend_scheme":"always","split":true},"post_processor":null,"decoder":{"type":"Metaspace",
        "replacement":"▁","prepend_scheme":"always","split":true},"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0.0],
        ["▁",-1.0],["a",-2.0],["b",-2.5],["ab",-1.5]],"byte_fallback":false}}"#;
    let mut seeds = [bpe, characters].map(|t| compact(&t.unwrap().to_json().unwrap())).to_vec();
    seeds.push(compact(unigram));
    check("tokenizer_json", &seeds, [200, 2 << 20], |bytes| sound(Tokenizer::from_json(bytes)));
}

#[test]
fn tokenizer_config_json() {
    let made = Tokenizer::characters(["abc </s>"], &SpecialTokens::default()).unwrap();
    let file = made.to_json().unwrap();
    let seed = br#"{"add_bos_token":true,"bos_token":"<s>","eos_token":{"content":"</s>"},"pad_token":null,"eos_token_ids":[1,2],
        "added_tokens_decoder":{"1":{"content":"</s>","special":true}},"chat_template":"{{ messages[0].content }}",
        "model_max_length":1000000000000000019884624838656,"tokenizer_class":"LlamaTokenizer"}"#;
    let seeds = [seed.to_vec(), br#"{"chat_template":[{"name":"default","template":"x"}]}"#.to_vec()];
    check("tokenizer_config_json", &seeds, [100, 256 << 10], |bytes| {
        sound(Tokenizer::from_json(file.as_bytes()).unwrap().with_config(bytes))
    });
}

#[test]
fn sentencepiece_models() {
    let seeds = ["bpe", "plain", "unigram", "user"]
        .map(|name| Seed::whole(golden(&format!("tokenizers/{name}.model"))));
    let words = ["\u{1}", "\n", "\u{12}", "<unk>", "<0x00>", "▁", "nmt_nfkc"];
    let seeds = seeds.into();
    Parser { name: "sentencepiece_models", seeds, words: &words, times: 200, always: 2 << 20 }
        .check(|bytes| sound(Tokenizer::from_sentencepiece(bytes)));
}

#[test]
fn tiktoken_files() {
    let file = golden("tokenizers/toy.tiktoken");
    let specials = [(420, "<|end|>".to_string())];
    let words = ["IA==", "AA== 0", "====", " 0\n", "/w== 255\n"];
    Parser {
        name: "tiktoken_files",
        seeds: vec![Seed::whole(file)],
        words: &words,
        times: 200,
        always: 2 << 20,
    }
    .check(|bytes| sound(Tokenizer::from_tiktoken(bytes, TiktokenPattern::O200k, &specials)));
}

#[test]
fn config_json() {
    let mut seeds: Vec<Vec<u8>> =
        ["bitnet_tiny", "llama_tiny", "qwen2_tiny", "qwen3_tiny", "bitnet_packed/bitlinear"]
            .map(|name| golden(&format!("{name}/config.json")))
            .to_vec();
    seeds.push(
        br#"{"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":64,"intermediate_size":64,"vocab_size":64,
        "num_hidden_layers":1,"num_attention_heads":4,"rms_norm_eps":1e-5,"hidden_act":"silu","rope_scaling":{"rope_type":"llama3",
        "factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192},"rope_theta":500000.0}"#
            .to_vec(),
    );
    check("config_json", &seeds, [60, 64 << 10], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        match HuggingFaceConfig::from_json(&text) {
            Ok(_) => true,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                false
            }
        }
    });
}

/// The `config.json` of a checkpoint.
#[test]
fn checkpoint_config_json() {
    check("checkpoint_config_json", &[tiny().to_json().into_bytes()], [60, 64 << 10], |bytes| {
        let Ok(config) = ModelConfig::from_json(&String::from_utf8_lossy(bytes)) else { return false };
        // What is accepted is a possible model: its sizes do not wrap.
        assert!(config.validate().is_ok() && config.parameters().total() > 0);
        true
    });
}

#[test]
fn adapter_config_json() {
    let ours = LoraConfig {
        mode: LoraMode::QatLora,
        rank: 8,
        alpha: 16.0,
        dropout: 0.0,
        use_rslora: true,
        target_modules: vec![Projection::Q, Projection::Down],
        threshold: 0.1,
    };
    let seeds = [
        golden("lora_bitnet/adapter_config.json"),
        golden("lora_llama/adapter_config.json"),
        ours.to_json("runs/base").into_bytes(),
    ];
    // An expression over names of modules becomes an automaton.
    check("adapter_config_json", &seeds, [60, 1 << 20], |bytes| {
        let Ok((config, _)) = LoraConfig::from_json(&String::from_utf8_lossy(bytes)) else { return false };
        assert!(config.scaling().is_finite(), "{config:?}");
        true
    });
}

/// Templates as their authors wrote them: parsed, and rendered with a conversation. A template is a program: what it writes follows from
/// its loops, whose steps and widths have bounds, not from its length.
#[test]
fn chat_templates() {
    let corpus: Value =
        serde_json::from_slice(&fs::read(repository("tests/golden/jinja/templates.json")).unwrap()).unwrap();
    let messages = corpus["messages"].as_array().unwrap();
    let mut seeds: Vec<Seed> = ChatTemplate::names()
        .iter()
        .map(|name| Seed::whole(ChatTemplate::named(name).unwrap().source()))
        .collect();
    let entries = corpus["entries"].as_array().unwrap().iter();
    let rendered =
        |source: &str| ChatTemplate::new(source).is_ok_and(|t| t.render(messages, true, None, None).is_ok());
    seeds.extend(entries.filter_map(|e| e["template"].as_str()).filter(|t| rendered(t)).map(Seed::whole));
    let words = [
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        "{%-",
        "-%}",
        "'",
        "|",
        "~",
        "%",
        "+",
        "*",
        "**",
        "//",
        "[::-1]",
        "[:-1]",
        "messages",
        "message['content']",
        "loop.index0",
        "namespace(x='a')",
        "for m in messages",
        "endfor",
        "if",
        "endif",
        "else",
        "set x = ",
        "macro f(a)",
        "endmacro",
        "call",
        "filter upper",
        "range(100000)",
        "generation",
        "endgeneration",
        "| tojson(indent=4)",
        "| indent(99999)",
        "| trim",
        "| join",
        "| center(99999)",
        "|replace('a','aaaaaaaa')",
        ".split('')",
        ".ljust(99999)",
        ".zfill(99999)",
        "'%99999d' % 1",
        "raise_exception('x')",
        "strftime_now('%Y')",
        "|batch(0)",
        "|slice(0)",
        "|round(400)",
        "|format(1)",
        "| dictsort",
        "| wordwrap(0)",
        "recursive",
        "loop(messages)",
    ];
    Parser { name: "chat_templates", seeds, words: &words, times: 400, always: 64 << 20 }.check(|bytes| {
        let source = String::from_utf8_lossy(bytes).into_owned();
        match ChatTemplate::new(source) {
            Ok(template) => template.render(messages, true, Some("<s>"), Some("</s>")).is_ok(),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                false
            }
        }
    });
}
