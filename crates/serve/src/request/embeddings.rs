//! The fields of `/v1/embeddings`: OpenAI's, and llama.cpp's for the length of vectors.

use serde_json::Value;

use super::values::{display, expected, integer, same, text};
use super::{Object, RequestError, TextOrIds, prompts};

/// A request for embeddings.
#[derive(Debug, Clone)]
pub(crate) struct EmbeddingRequest {
    /// The texts.
    pub(crate) input: Vec<TextOrIds>,
    /// The model's name.
    pub(crate) model: Option<String>,
    /// Whether vectors are written as the bytes of their f32, little-endian, in Base64.
    pub(crate) base64: bool,
    /// Whether vectors are to have length 1.
    pub(crate) normalize: bool,
}

impl EmbeddingRequest {
    /// Reads an object's fields, of a model with vectors of so many numbers.
    pub(crate) fn read(object: &Object, dimensions: usize) -> Result<Self, RequestError> {
        let known = ["input", "model", "encoding_format", "dimensions", "user", "embd_normalize"];
        if let Some(name) = object.0.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(RequestError::new(name, format!("Unrecognized request argument supplied: {name}")));
        }
        let given = |name: &str| object.0.get(name).filter(|value| !value.is_null());
        let missing = || RequestError::new("input", "input is missing: it is required");
        if let Some(value) = given("dimensions").filter(|value| !same(value, &Value::from(dimensions))) {
            let message = format!(
                "dimensions = {}: expected {dimensions}: the model's vectors cannot be shortened",
                display(value)
            );
            return Err(RequestError::new("dimensions", message));
        }
        let base64 = match given("encoding_format") {
            None => false,
            Some(value) => match value.as_str() {
                Some("float") => false,
                Some("base64") => true,
                _ => return Err(expected("encoding_format", value, "\"float\" or \"base64\"")),
            },
        };
        let normalize = match given("embd_normalize") {
            None => true,
            Some(value) => match integer("embd_normalize", value, -1..=2)? {
                -1 => false,
                2 => true,
                _ => return Err(expected("embd_normalize", value, "2 (length 1) or -1 (as they are)")),
            },
        };
        Ok(Self {
            input: prompts::read("input", given("input").ok_or_else(missing)?)?,
            model: given("model").map(|model| text("model", model)).transpose()?,
            base64,
            normalize,
        })
    }
}
