//! Configurations of models and adapters in Hugging Face's layout.

use serde_json::{Value as Json, json};
use tritforge_config::{HuggingFaceConfig, LoraConfig};

use crate::{Round, golden};

/// Every field of a JSON document with values of other types, beyond its range, and twice.
pub(crate) fn json_fields(
    round: &mut Round,
    name: &str,
    text: &str,
    read: impl Fn(&str) -> Result<String, String>,
) {
    let right = read(text).unwrap();
    let Json::Object(fields) = serde_json::from_str(text).unwrap() else { panic!("{name}") };
    let values =
        [json!(-1), json!("abc"), json!([]), json!({"a": 1}), json!(1e308), json!(u64::MAX), json!(0.5)];
    for (key, value) in &fields {
        for other in values.iter().filter(|other| *other != value) {
            let mut faulty = fields.clone();
            faulty.insert(key.clone(), other.clone());
            let found = read(&Json::Object(faulty).to_string());
            let label = format!("{name}: {key} = {other}");
            // A number of the right type in its range is a value like any other.
            match &found {
                Ok(_) if other.is_number() && value.is_number() => round.tried += 1,
                Ok(_) if other.is_string() && value.is_string() => round.tried += 1,
                _ => round.take(&label, found, &[key], &right),
            }
        }
    }
    for cut in (1..8).map(|part| text.len() * part / 8) {
        round.refused(&format!("{name}: cut at {cut}"), read(&text[..cut]), &["line", "EOF"]);
    }
}

#[test]
fn configurations_with_a_wrong_field() {
    let mut round = Round::default();
    for name in ["bitnet_tiny", "llama_tiny", "qwen2_tiny", "qwen3_tiny"] {
        let read = |text: &str| {
            HuggingFaceConfig::from_json(text).map(|config| format!("{config:?}")).map_err(|e| e.to_string())
        };
        json_fields(&mut round, name, &golden(&format!("{name}/config.json")), read);
    }
    for name in ["lora_bitnet", "lora_llama"] {
        let read = |text: &str| {
            LoraConfig::from_json(text).map(|config| format!("{config:?}")).map_err(|e| e.to_string())
        };
        json_fields(&mut round, name, &golden(&format!("{name}/adapter_config.json")), read);
    }
    round.end(200);
}
