//! Numbers in schemas: `llguidance` makes regular expressions of them, digit by digit, and does not come to an end
//! where one has more digits than its integers.

use serde_json::Value;

/// The keys whose numbers bound others.
const KEYS: [&str; 5] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
/// The largest magnitude of a bound: fifteen digits, which f64 holds exactly.
const LARGEST_BOUND: f64 = 1e15;
/// The largest magnitude of any other number, such as one in `enum`: below that of an i64.
const LARGEST: f64 = 9e18;

/// What is wrong with the numbers of a schema, if anything is.
pub(crate) fn fault(schema: &Value) -> Option<String> {
    fault_under("a number", schema)
}

/// The same of what stands under a key.
fn fault_under(key: &str, value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => {
            let largest = if KEYS.contains(&key) { LARGEST_BOUND } else { LARGEST };
            let fits = number.as_f64().is_some_and(|number| number.abs() <= largest);
            (!fits).then(|| format!("{key} = {number}: expected a magnitude of at most {largest:e}"))
        }
        Value::Object(fields) => fields.iter().find_map(|(key, value)| fault_under(key, value)),
        Value::Array(items) => items.iter().find_map(|item| fault_under(key, item)),
        _ => None,
    }
}

/// The same of all schemas that stand in a grammar (`%json {…}`).
pub(crate) fn fault_in_grammar(text: &str) -> Option<String> {
    let schemas = text.match_indices("%json").map(|(at, mark)| &text[at + mark.len()..]);
    schemas
        .filter_map(|rest| serde_json::Deserializer::from_str(rest).into_iter::<Value>().next()?.ok())
        .find_map(|schema| fault(&schema))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bounds_of_too_many_digits_are_named_wherever_they_stand() {
        let nested =
            json!({ "properties": { "a": { "anyOf": [{ "type": "integer", "minimum": -1e308 }] } } });
        let found = fault(&nested).unwrap();
        assert!(found.starts_with("minimum = -1e"), "{found}");
        assert_eq!(fault(&json!({ "minimum": -1_000_000_000_000_000i64, "maximum": 1e15 })), None);
        assert!(fault(&json!({ "exclusiveMaximum": i64::MAX })).is_some());
        // A constant is a range, too.
        let found = fault(&json!({ "enum": [1, i64::MIN] })).unwrap();
        assert!(
            found.starts_with("enum = -9223372036854775808: expected a magnitude of at most 9e18"),
            "{found}"
        );
        assert_eq!(fault(&json!({ "const": 1_234_567_890_123_456_789i64, "maxItems": 3 })), None);
        let grammar = "start: %json {\"type\": \"integer\", \"maximum\": 9223372036854775807} | \"x\"\n";
        assert!(fault_in_grammar(grammar).unwrap().starts_with("maximum = 9223372036854775807"));
        assert_eq!(fault_in_grammar("start: %json {\"minimum\": 3} %json {"), None);
    }
}
