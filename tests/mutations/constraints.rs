//! JSON schemas, grammars and regular expressions for constrained decoding.

use tritforge_constrain::{Compiler, Grammar};
use tritforge_text::{SpecialTokens, Tokenizer};

use crate::harness::{Parser, Seed};

#[test]
fn schemas_and_grammars() {
    let tokenizer = Tokenizer::train_bpe(["ab"], 257, &SpecialTokens::default()).unwrap();
    let compiler = Compiler::new(&tokenizer, &tokenizer.end_ids(), tokenizer.vocab_size()).unwrap();
    let seeds = [
        r##"0{"type":"object","properties":{"a":{"type":"string","maxLength":9},"b":{"$ref":"#/$defs/x"},"c":{"enum":[1,"two",null]}},
            "required":["a"],"additionalProperties":{"type":"integer","minimum":-3,"maximum":7},"$defs":{"x":{"anyOf":[{"type":
            "array","items":{"$ref":"#/$defs/x"},"minItems":1},{"type":"number","multipleOf":0.5}]}}}"##,
        r#"0{"type":"string","pattern":"^(a|b)+[0-9]{2,5}$"}"#,
        r#"0{"type":"string","format":"date-time","x-guidance":{"whitespace_flexible":false}}"#,
        "1start: greeting (\", \" NAME)* \"!\"\ngreeting: \"hello\" | \"hi\"i\nNAME: /[A-Z][a-z]{1,9}/\n%ignore \" \"\n",
        "1start: %json {\"type\": \"integer\"} <|endoftext|> rest\nrest[lazy]: /(.|\\n)*end/\n",
        "2(yes|no), [a-f]{3,9}(\\d+\\.)?[^x]*",
    ];
    let words = [
        "\"type\"",
        "\"object\"",
        "\"properties\"",
        "\"items\"",
        "\"$ref\"",
        "\"#\"",
        "\"allOf\"",
        "\"oneOf\"",
        "\"not\"",
        "\"maxItems\"",
        "\"minLength\"",
        "\"patternProperties\"",
        "\"const\"",
        "start:",
        "%json",
        "%regex",
        "%ignore",
        "[lazy]",
        "~",
        "&",
        "|",
        "*",
        "+",
        "{1,999999}",
        "(?s:.*)",
        "\\p{L}",
        "\\b",
        "(?=",
        "<[0-99]>",
        "1e308",
        "-1",
        "9999999999",
    ];
    let parser = Parser {
        name: "schemas_and_grammars",
        seeds: seeds.map(Seed::whole).into(),
        words: &words,
        times: 4000,
        always: 192 << 20,
    };
    parser.check(|bytes| {
        let Some((kind, rest)) = bytes.split_first() else { return false };
        let Ok(text) = std::str::from_utf8(rest) else { return false };
        let grammar = match kind {
            b'0' => match serde_json::from_str(text) {
                Ok(schema) => Grammar::JsonSchema(schema),
                Err(_) => return false,
            },
            b'1' => Grammar::lark(text),
            _ => Grammar::Regex(text.to_string()),
        };
        let Ok(constraint) = compiler.compile(&grammar) else { return false };
        // The first tokens, of those that are allowed.
        let Ok(mut progress) = constraint.start() else { return false };
        for step in 0..8 {
            if progress.is_complete() {
                break;
            }
            let Ok(allowed) = progress.allowed() else { return false };
            let ids: Vec<u32> = (0..257).filter(|id| allowed.contains(*id)).collect();
            let Some(id) = ids.get(step * 7 % ids.len().max(1)) else {
                assert!(allowed.end(), "nothing may come, and not the end either");
                break;
            };
            if progress.accept(*id).is_err() {
                return false;
            }
        }
        true
    });
}
