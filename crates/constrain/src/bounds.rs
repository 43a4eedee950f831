//! Numbers in schemas: `llguidance` makes regular expressions of them, digit by digit, and does not come to an end
//! where one has more digits than its integers. Of `multipleOf` it makes an automaton with a state for each remainder.

use serde_json::Value;

/// The keys whose numbers bound others.
const KEYS: [&str; 5] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
/// The largest magnitude of a bound: fifteen digits, which f64 holds exactly.
const LARGEST_BOUND: f64 = 1e15;
/// The largest magnitude of any other number, such as one in `enum`: below that of an i64.
const LARGEST: f64 = 9e18;
/// Remainders at most, of all `multipleOf` together: a few tenths of a second.
const MOST_REMAINDERS: u128 = 100_000;

/// What is wrong with the numbers of a schema, if anything is.
pub(crate) fn fault(schema: &Value) -> Option<String> {
    fault_under("a number", schema).or_else(|| {
        let mut steps = Vec::new();
        collect_steps(schema, &mut steps);
        (remainders(&steps)? > MOST_REMAINDERS).then(|| {
            let shown: Vec<String> = steps.iter().map(f64::to_string).collect();
            format!(
                "multipleOf = {}: expected a least common multiple of at most {MOST_REMAINDERS} in units of the last decimal",
                shown.join(", ")
            )
        })
    })
}

/// All numbers under `multipleOf`; any of them may apply to the same value.
fn collect_steps(value: &Value, steps: &mut Vec<f64>) {
    match value {
        Value::Object(fields) => {
            let step = fields.get("multipleOf").and_then(Value::as_f64);
            steps.extend(step.filter(|step| *step > 0.0));
            fields.values().for_each(|value| collect_steps(value, steps));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_steps(item, steps)),
        _ => {}
    }
}

/// The least common multiple of steps, in units of the last decimal that one of them has; as good as none beyond the
/// range of an integer. None without steps.
fn remainders(steps: &[f64]) -> Option<u128> {
    let texts: Vec<String> = steps.iter().map(f64::to_string).collect();
    let decimals = |text: &str| text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let most = texts.iter().map(|text| decimals(text)).max()?;
    let units = texts.iter().map(|text| {
        let digits = text.replace('.', "") + &"0".repeat(most - decimals(text));
        digits.parse::<u128>().unwrap_or(u128::MAX)
    });
    Some(units.fold(1, |all, step| {
        let (mut divisor, mut rest) = (all, step);
        while rest > 0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        (all / divisor).saturating_mul(step)
    }))
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
        // Each is small, and the remainders of all of them are not.
        for steps in [&[1_048_577.5][..], &[1e-9, 1.0], &[997.0, 991.0], &[1e-300, 1.0]] {
            let schema = json!({ "allOf": steps.iter().map(|step| json!({ "multipleOf": step })).collect::<Vec<_>>() });
            let found = fault(&schema);
            assert!(found.is_some_and(|found| found.starts_with("multipleOf = ")), "{steps:?}");
        }
        assert_eq!(remainders(&[0.25, 1.5, 10.0]), Some(3000));
        assert_eq!(fault(&json!({ "items": { "multipleOf": 0.01 }, "x": { "multipleOf": 100 } })), None);
        let grammar = "start: %json {\"type\": \"integer\", \"maximum\": 9223372036854775807} | \"x\"\n";
        assert!(fault_in_grammar(grammar).unwrap().starts_with("maximum = 9223372036854775807"));
        assert_eq!(fault_in_grammar("start: %json {\"minimum\": 3} %json {"), None);
    }
}
