//! `prompt`, and `input` of embeddings: a string, a list of strings, token ids, or a list of lists of these.

use serde_json::Value;
use tritforge_support::counted;

use super::values::{display, expected, integer};
use super::{MOST_CHOICES, RequestError, TextOrIds};

const FORMS: &str = "a string, a list of strings, a list of token ids, or a list of lists of token ids";

pub(super) fn read(name: &'static str, value: &Value) -> Result<Vec<TextOrIds>, RequestError> {
    let list = match value {
        Value::String(text) => return Ok(vec![TextOrIds::Text(text.clone())]),
        Value::Array(list) if !list.is_empty() => list,
        _ => return Err(expected(name, value, FORMS)),
    };
    if list.iter().all(Value::is_number) {
        return Ok(vec![TextOrIds::Ids(ids(name, name, list)?)]);
    }
    if list.len() > MOST_CHOICES {
        let message = format!("{name}: {}, expected at most {MOST_CHOICES}", counted(list.len(), "text"));
        return Err(RequestError::new(name, message));
    }
    let texts = list[0].is_string();
    let read = |(i, item): (usize, &Value)| {
        let place = format!("{name}[{i}]");
        match item {
            Value::String(text) if texts => Ok(TextOrIds::Text(text.clone())),
            Value::Array(list) if !texts && !list.is_empty() => Ok(TextOrIds::Ids(ids(name, &place, list)?)),
            _ => Err(RequestError::new(name, format!("{place} = {}: expected {FORMS}", display(item)))),
        }
    };
    list.iter().enumerate().map(read).collect()
}

fn ids(name: &str, place: &str, list: &[Value]) -> Result<Vec<u32>, RequestError> {
    let id = |(i, value): (usize, &Value)| {
        let id = integer(&format!("{place}[{i}]"), value, 0..=i128::from(u32::MAX));
        id.map(|id| id as u32).map_err(|error| RequestError::new(name, error.message))
    };
    list.iter().enumerate().map(id).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_of_openais_reference_is_read() {
        let text = |t: &str| TextOrIds::Text(t.to_string());
        assert_eq!(read("prompt", &json!("a")).unwrap(), [text("a")]);
        assert_eq!(read("prompt", &json!(["a", "b"])).unwrap(), [text("a"), text("b")]);
        assert_eq!(read("prompt", &json!([1, 2.0])).unwrap(), [TextOrIds::Ids(vec![1, 2])]);
        assert_eq!(
            read("prompt", &json!([[1], [2, 3]])).unwrap(),
            [TextOrIds::Ids(vec![1]), TextOrIds::Ids(vec![2, 3])]
        );
    }

    #[test]
    fn anything_else_is_refused_at_its_place() {
        for (value, place) in [
            (json!([]), "prompt = []"),
            (json!(3), "prompt = 3"),
            (json!({"text": "a"}), "prompt = {"),
            (json!(["a", 1]), "prompt[1] = 1"),
            (json!([1, "a"]), "prompt[0] = 1"),
            (json!([[1], []]), "prompt[1] = []"),
            (json!([[1], ["a"]]), "prompt[1][0] = \"a\""),
            (json!([1, -1]), "prompt[1] = -1"),
            (json!([1.5]), "prompt[0] = 1.5"),
            (json!([4_294_967_296u64]), "prompt[0] = 4294967296"),
        ] {
            let error = read("prompt", &value).unwrap_err();
            assert!(error.message.starts_with(place), "{value}: {error}");
            assert_eq!(error.param.as_deref(), Some("prompt"));
        }
        assert!(
            read("prompt", &json!(vec!["a"; MOST_CHOICES + 1])).unwrap_err().message.contains("at most 128")
        );
    }
}
