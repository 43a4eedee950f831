//! Metadata that the user sets in the place of what a file says, or leaves out: llama.cpp's `--override-kv`.

use std::str::FromStr;

use crate::format::ALIGNMENT_KEY;
use crate::value::Value;

/// A key and the value that it is to have, written `KEY=TYPE:VALUE` with one of the types `int`, `float`,
/// `bool` and `str`.
///
/// ```
/// use tritforge_gguf::{Override, Value};
///
/// let pre: Override = "tokenizer.ggml.pre=str:llama-bpe".parse()?;
/// assert_eq!(pre.key, "tokenizer.ggml.pre");
/// assert_eq!(pre.value, Value::String("llama-bpe".to_owned()));
/// assert!("tokenizer.ggml.add_bos_token=bool:maybe".parse::<Override>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, PartialEq, Debug)]
pub struct Override {
    /// The metadata key.
    pub key: String,
    /// Its value.
    pub value: Value,
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "expected KEY=TYPE:VALUE, where TYPE is int, float, bool or str";
        let (key, typed) = text.split_once('=').ok_or(form)?;
        let (ty, value) = typed.split_once(':').ok_or(form)?;
        if key.is_empty() {
            return Err(form.to_string());
        }
        if key == ALIGNMENT_KEY || key.starts_with("split.") {
            return Err(format!("{key} describes the file's layout and cannot be overridden"));
        }
        let wrong = |expected: &str| format!("{value:?}: expected {expected}");
        let value = match ty {
            "int" => Value::I64(value.parse().map_err(|_| wrong("an integer"))?),
            "float" => match value.parse::<f32>() {
                Ok(number) if number.is_finite() => Value::F32(number),
                _ => return Err(wrong("a finite number")),
            },
            "bool" => Value::Bool(value.parse().map_err(|_| wrong("true or false"))?),
            "str" => Value::String(value.to_string()),
            other => return Err(format!("type {other:?}: {form}")),
        };
        Ok(Self { key: key.to_string(), value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_read_and_faults_say_what_is_expected() {
        let value = |text: &str| text.parse::<Override>().map(|o| o.value);
        assert_eq!(value("k=int:-1"), Ok(Value::I64(-1)));
        assert_eq!(value("k=float:1e4"), Ok(Value::F32(1e4)));
        assert_eq!(value("k=bool:false"), Ok(Value::Bool(false)));
        assert_eq!(value("k=str:a=b:c"), Ok(Value::String("a=b:c".to_owned())));
        for (text, part) in [
            ("k", "KEY=TYPE:VALUE"),
            ("k=1", "KEY=TYPE:VALUE"),
            ("=int:1", "KEY=TYPE:VALUE"),
            ("k=u8:1", "int, float, bool or str"),
            ("k=int:1.5", "integer"),
            ("k=float:nan", "finite"),
            ("k=bool:1", "true or false"),
            ("general.alignment=int:64", "file's layout"),
            ("split.count=int:1", "file's layout"),
        ] {
            let error = value(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
