//! The key–value part of a file: ordered, with getters that name the key and both types when they fail.

use crate::{
    error::Error,
    value::{Array, Described, Value},
};

/// Metadata in the order of the file. Keys are unique.
///
/// A model file has some forty keys, so a look-up walks the list.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
}

impl Metadata {
    /// Metadata without a key.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes entries whose keys are known to be unique.
    pub(crate) fn from_unique(entries: Vec<(String, Value)>) -> Self {
        Self { entries }
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys and values in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Sets a key and returns its former value. A key that is there keeps its place; a new one goes to the
    /// end.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        match self.entries.iter_mut().find(|entry| entry.0 == key) {
            Some(entry) => Some(std::mem::replace(&mut entry.1, value)),
            None => {
                self.entries.push((key, value));
                None
            }
        }
    }

    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.entries.iter().position(|entry| entry.0 == key)?;
        Some(self.entries.remove(at).1)
    }

    /// The value of a key, if it is there.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|entry| entry.0 == key).map(|entry| &entry.1)
    }

    /// Whether the key is there.
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The value of a key that must be there.
    ///
    /// # Errors
    /// [`Error::MissingKey`].
    pub fn require(&self, key: &str) -> Result<&Value, Error> {
        self.get(key).ok_or_else(|| Error::MissingKey { key: key.to_owned() })
    }

    /// The value of a key, converted; the shared path of all typed getters.
    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, Error> {
        let value = self.require(key)?;
        convert(value).ok_or_else(|| Error::KeyType {
            key: key.to_owned(),
            found: Described(value).to_string(),
            expected,
        })
    }

    /// A string.
    ///
    /// # Errors
    /// [`Error::MissingKey`]; [`Error::KeyType`] for any other type.
    pub fn get_str(&self, key: &str) -> Result<&str, Error> {
        self.typed(key, "a string", |value| match value {
            Value::String(s) => Some(s.as_str()),
            _ => None,
        })
    }

    /// A bool.
    ///
    /// # Errors
    /// [`Error::MissingKey`]; [`Error::KeyType`] for any other type.
    pub fn get_bool(&self, key: &str) -> Result<bool, Error> {
        self.typed(key, "a bool", |value| match value {
            Value::Bool(b) => Some(*b),
            _ => None,
        })
    }

    /// An integer of any integer type that fits u64.
    ///
    /// # Errors
    /// [`Error::MissingKey`]; [`Error::KeyType`] for other types and for negative numbers.
    pub fn get_u64(&self, key: &str) -> Result<u64, Error> {
        self.typed(key, "an integer from 0 to 2^64-1", |value| value.as_integer()?.try_into().ok())
    }

    /// An integer of any integer type that fits i64.
    ///
    /// # Errors
    /// [`Error::MissingKey`]; [`Error::KeyType`] for other types and numbers out of range.
    pub fn get_i64(&self, key: &str) -> Result<i64, Error> {
        self.typed(key, "an integer from -2^63 to 2^63-1", |value| value.as_integer()?.try_into().ok())
    }

    /// An integer of any integer type that fits u32.
    ///
    /// # Errors
    /// [`Error::MissingKey`]; [`Error::KeyType`] for other types and numbers out of range.
    pub fn get_u32(&self, key: &str) -> Result<u32, Error> {
        self.typed(key, "an integer from 0 to 2^32-1", |value| value.as_integer()?.try_into().ok())
    }

    /// An integer of any integer type that fits usize: counts and widths.
    ///
    /// # Errors
    /// [`Error::MissingKey`]; [`Error::KeyType`] for other types and numbers out of range.
    pub fn get_usize(&self, key: &str) -> Result<usize, Error> {
        self.typed(key, "a non-negative integer that fits this machine's addresses", |value| {
            value.as_integer()?.try_into().ok()
        })
    }

    /// An f32, or an f64 that is exactly one.
    ///
    /// # Errors
    /// [`Error::MissingKey`]; [`Error::KeyType`] for other types and for an f64 that would be rounded.
    pub fn get_f32(&self, key: &str) -> Result<f32, Error> {
        self.typed(key, "an f32", |value| match *value {
            Value::F32(v) => Some(v),
            Value::F64(v) if f64::from(v as f32) == v || v.is_nan() => Some(v as f32),
            _ => None,
        })
    }

    /// An f64 or f32.
    ///
    /// # Errors
    /// [`Error::MissingKey`]; [`Error::KeyType`] for any other type, integers included.
    pub fn get_f64(&self, key: &str) -> Result<f64, Error> {
        self.typed(key, "an f64 or f32", |value| match *value {
            Value::F32(v) => Some(v.into()),
            Value::F64(v) => Some(v),
            _ => None,
        })
    }

    /// An array of any element type.
    ///
    /// # Errors
    /// [`Error::MissingKey`]; [`Error::KeyType`] when the value is a scalar.
    pub fn get_array(&self, key: &str) -> Result<&Array, Error> {
        self.typed(key, "an array", |value| match value {
            Value::Array(array) => Some(array),
            _ => None,
        })
    }

    /// An array of strings, such as `tokenizer.ggml.tokens`.
    ///
    /// # Errors
    /// [`Error::MissingKey`]; [`Error::KeyType`] for any other type.
    pub fn get_str_array(&self, key: &str) -> Result<&[String], Error> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array::String(v)) => Some(v.as_slice()),
            _ => None,
        })
    }

    /// An array of integers of any integer type that all fit i64, such as `tokenizer.ggml.token_type`.
    ///
    /// # Errors
    /// [`Error::MissingKey`]; [`Error::KeyType`] for other types and when an element does not fit.
    pub fn get_i64_array(&self, key: &str) -> Result<Vec<i64>, Error> {
        self.typed(key, "an array of integers from -2^63 to 2^63-1", |value| {
            let Value::Array(array) = value else { return None };
            Some(match array {
                Array::U8(v) => v.iter().map(|&x| x.into()).collect(),
                Array::I8(v) => v.iter().map(|&x| x.into()).collect(),
                Array::U16(v) => v.iter().map(|&x| x.into()).collect(),
                Array::I16(v) => v.iter().map(|&x| x.into()).collect(),
                Array::U32(v) => v.iter().map(|&x| x.into()).collect(),
                Array::I32(v) => v.iter().map(|&x| x.into()).collect(),
                Array::U64(v) => v.iter().map(|&x| x.try_into().ok()).collect::<Option<_>>()?,
                Array::I64(v) => v.clone(),
                _ => return None,
            })
        })
    }

    /// An array of f64 or f32, such as `tokenizer.ggml.scores`.
    ///
    /// # Errors
    /// [`Error::MissingKey`]; [`Error::KeyType`] for any other type.
    pub fn get_f64_array(&self, key: &str) -> Result<Vec<f64>, Error> {
        self.typed(key, "an array of f64 or f32", |value| match value {
            Value::Array(Array::F32(v)) => Some(v.iter().map(|&x| x.into()).collect()),
            Value::Array(Array::F64(v)) => Some(v.clone()),
            _ => None,
        })
    }
}

/// Makes a key optional: a missing key becomes `None`, a key of the wrong type stays an error.
///
/// ```
/// use tritforge_gguf::{Metadata, optional};
///
/// let mut metadata = Metadata::new();
/// assert_eq!(optional(metadata.get_u32("tokenizer.ggml.bos_token_id"))?, None);
/// metadata.insert("tokenizer.ggml.bos_token_id", 1u32);
/// assert_eq!(optional(metadata.get_u32("tokenizer.ggml.bos_token_id"))?, Some(1));
/// metadata.insert("tokenizer.ggml.bos_token_id", "one");
/// assert!(optional(metadata.get_u32("tokenizer.ggml.bos_token_id")).is_err());
/// # Ok::<(), tritforge_gguf::Error>(())
/// ```
///
/// # Errors
/// Those of the getter, [`Error::MissingKey`] apart.
pub fn optional<T>(found: Result<T, Error>) -> Result<Option<T>, Error> {
    match found {
        Ok(value) => Ok(Some(value)),
        Err(Error::MissingKey { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn insert_replaces_in_place() {
        let mut metadata = Metadata::new();
        for (key, value) in [("c", 1u32), ("a", 2), ("b", 3)] {
            assert_eq!(metadata.insert(key, value), None);
        }
        assert_eq!(metadata.insert("a", "two"), Some(Value::U32(2)));
        assert_eq!(metadata.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["c", "a", "b"]);
        assert_eq!(metadata.get_str("a").unwrap(), "two");
        assert_eq!(metadata.remove("c"), Some(Value::U32(1)));
        assert_eq!(metadata.remove("c"), None);
        assert_eq!(metadata.len(), 2);
    }

    #[test]
    fn integers_of_any_type_are_read_without_loss() {
        let mut metadata = Metadata::new();
        let values: [Value; 8] = [
            7u8.into(),
            7i8.into(),
            7u16.into(),
            7i16.into(),
            7u32.into(),
            7i32.into(),
            7u64.into(),
            7i64.into(),
        ];
        for value in values {
            metadata.insert("n", value);
            assert_eq!(metadata.get_u64("n").unwrap(), 7);
            assert_eq!(metadata.get_i64("n").unwrap(), 7);
            assert_eq!(metadata.get_u32("n").unwrap(), 7);
            assert_eq!(metadata.get_usize("n").unwrap(), 7);
        }
        metadata.insert("n", -1i8);
        assert_eq!(metadata.get_i64("n").unwrap(), -1);
        assert_eq!(
            message(metadata.get_u64("n")),
            "metadata key `n`: found i8 -1, expected an integer from 0 to 2^64-1"
        );
        metadata.insert("n", u64::MAX);
        assert_eq!(metadata.get_u64("n").unwrap(), u64::MAX);
        assert!(message(metadata.get_i64("n")).contains("u64 18446744073709551615"));
        assert!(message(metadata.get_u32("n")).contains("2^32-1"));
        metadata.insert("n", vec![1u64, u64::MAX]);
        assert!(message(metadata.get_i64_array("n")).contains("array of 2 u64"));
        metadata.insert("n", vec![1u16, u16::MAX]);
        assert_eq!(metadata.get_i64_array("n").unwrap(), [1, 65535]);
    }

    #[test]
    fn floats_are_never_rounded() {
        let mut metadata = Metadata::new();
        metadata.insert("x", 1e-5f32);
        assert_eq!(metadata.get_f32("x").unwrap(), 1e-5);
        assert_eq!(metadata.get_f64("x").unwrap(), f64::from(1e-5f32));
        metadata.insert("x", 0.5f64);
        assert_eq!(metadata.get_f32("x").unwrap(), 0.5);
        metadata.insert("x", 0.1f64);
        assert_eq!(message(metadata.get_f32("x")), "metadata key `x`: found f64 0.1, expected an f32");
        metadata.insert("x", 1u32);
        assert!(message(metadata.get_f64("x")).contains("u32 1"));
    }

    #[test]
    fn wrong_types_and_missing_keys_are_named() {
        let mut metadata = Metadata::new();
        metadata.insert("general.name", "x".repeat(100));
        assert_eq!(message(metadata.get_str("general.nam")), "metadata key `general.nam` is missing");
        let error = message(metadata.get_bool("general.name"));
        assert!(error.contains(&format!("string `{}…`, expected a bool", "x".repeat(64))), "{error}");
        assert!(message(metadata.get_array("general.name")).ends_with("expected an array"));
        metadata.insert("general.name", vec![1.5f32]);
        assert_eq!(metadata.get_f64_array("general.name").unwrap(), [1.5]);
        assert!(message(metadata.get_str_array("general.name")).contains("array of 1 f32"));
    }
}
