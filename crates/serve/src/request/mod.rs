//! The fields of a request: those of OpenAI's completions and chat completions, with vLLM's and llama.cpp's
//! extensions.
//!
//! The service reads bodies with it and `tritforge generate --batch` lines. Every field takes part with its
//! meaning, or changes nothing by its definition, or is refused by name ([`fields`]); `null` is a field that
//! is not given.

mod embeddings;
mod fields;
mod grammar;
mod messages;
mod options;
mod prompts;
mod tool_messages;
mod tools;
mod values;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};
use tritforge_infer::GenerateOptions;
use tritforge_support::counted;
use tritforge_text::{Message, TemplateArguments};

pub(crate) use embeddings::EmbeddingRequest;
pub use fields::{Effect, Endpoint, Field, fields};
pub use grammar::NamedGrammar;
pub use tools::{Function, ToolChoice, Tools};
pub(crate) use values::text;
use values::{boolean, display, integer};

/// Choices that a request may have at most: prompts times `n`.
pub const MOST_CHOICES: usize = 128;

/// A field that cannot be served as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// What was found and what was expected; it begins with the field.
    pub message: String,
    /// The field, with the place in it where that helps: `messages[0].content`.
    pub param: Option<String>,
}

impl RequestError {
    /// An error about a field; the message names it.
    pub fn new(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { message: message.into(), param: Some(param.into()) }
    }
}

/// A text to continue, as `prompt` gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextOrIds {
    /// A text.
    Text(String),
    /// Tokens.
    Ids(Vec<u32>),
}

/// A request's fields, understood.
#[derive(Debug, Clone)]
pub struct Request {
    /// The texts to continue; empty if there is no `prompt`.
    pub prompts: Vec<TextOrIds>,
    /// The conversation; empty if there are no `messages`.
    pub messages: Vec<Message>,
    /// How to go on.
    pub options: GenerateOptions,
    /// What the answer is to fit; not among the options before it is compiled for a vocabulary.
    pub grammar: Option<NamedGrammar>,
    /// What the model may call.
    pub tools: Option<Tools>,
    /// Variables of the chat template, which go before those that it has.
    pub template_arguments: Map<String, Value>,
    /// Answers to each prompt.
    pub n: usize,
    /// Answers to each prompt that are generated, of which the `n` best are given.
    pub best_of: usize,
    /// What stands behind the answer; not empty.
    pub suffix: Option<String>,
    /// Whether the prompt is to stand before the answer.
    pub echo: bool,
    /// Whether the answer comes as a stream.
    pub stream: bool,
    /// Whether a stream ends with the usage.
    pub include_usage: bool,
    /// The model's name.
    pub model: Option<String>,
    /// Numbers and scales of adapters.
    pub lora: Option<Vec<(usize, f32)>>,
}

impl Request {
    /// Reads an object's fields; what it does not give is as in `defaults`.
    ///
    /// # Errors
    /// The first field that is unknown, has a value of another type or out of range, or asks for what there
    /// is not.
    pub fn read(
        endpoint: Endpoint,
        object: &Object,
        defaults: GenerateOptions,
    ) -> Result<Self, RequestError> {
        fields::check(endpoint, &object.0)?;
        let given = |name: &str| object.0.get(name).filter(|value| !value.is_null());
        let flag = |name: &'static str| given(name).map_or(Ok(false), |value| boolean(name, value));
        let stream = flag("stream")?;
        let n = given("n").map_or(Ok(1), |n| integer("n", n, 1..=MOST_CHOICES as i128))? as usize;
        let best_of = match given("best_of") {
            Some(value) => integer("best_of", value, n as i128..=MOST_CHOICES as i128)? as usize,
            None => n,
        };
        let request = Self {
            prompts: given("prompt")
                .map(|value| prompts::read("prompt", value))
                .transpose()?
                .unwrap_or_default(),
            messages: given("messages").map(messages::read).transpose()?.unwrap_or_default(),
            options: options::read(endpoint, &given, defaults)?,
            grammar: grammar::read(&given)?,
            tools: tools::read(&given)?,
            template_arguments: template_arguments(&object.0)?,
            n,
            best_of,
            suffix: given("suffix").map(|value| text("suffix", value)).transpose()?.filter(|s| !s.is_empty()),
            echo: flag("echo")?,
            stream,
            include_usage: given("stream_options").map_or(Ok(false), |value| include_usage(value, stream))?,
            model: given("model").map(|model| text("model", model)).transpose()?,
            lora: given("lora").map(lora).transpose()?,
        };
        request.together(endpoint, &given)?;
        if endpoint == Endpoint::Batch {
            conversation_only(&object.0, given("messages").is_some())?;
        }
        Ok(request)
    }

    /// What fields mean for each other.
    fn together<'a>(
        &self,
        endpoint: Endpoint,
        given: &impl Fn(&str) -> Option<&'a Value>,
    ) -> Result<(), RequestError> {
        let needed = match endpoint {
            Endpoint::Chat => Some("messages"),
            Endpoint::Completions => Some("prompt"),
            Endpoint::Batch => None,
        };
        if let Some(name) = needed
            && given(name).is_none()
        {
            return Err(RequestError::new(name, format!("{name} is missing: it is required")));
        }
        let choices = self.prompts.len().max(1) * self.best_of;
        if choices > MOST_CHOICES {
            let name = if self.best_of > self.n { "best_of" } else { "n" };
            let (prompts, n) = (self.prompts.len(), self.best_of);
            let message = format!(
                "{name} = {n} of {prompts}: expected at most {MOST_CHOICES} choices in total",
                prompts = counted(prompts, "prompt")
            );
            return Err(RequestError::new(name, message));
        }
        if self.stream && self.best_of > self.n {
            let message = format!(
                "best_of = {}: not available with stream, since the best is known at the end",
                self.best_of
            );
            return Err(RequestError::new("best_of", message));
        }
        if self.suffix.is_some() {
            let ids = self.prompts.iter().any(|prompt| matches!(prompt, TextOrIds::Ids(_)));
            let other = if ids { "a prompt of token ids" } else { "echo" };
            if ids || self.echo {
                let message = format!("suffix: not available together with {other}");
                return Err(RequestError::new("suffix", message));
            }
        }
        if let (Some(NamedGrammar { param, .. }), Some(_)) = (&self.grammar, &self.tools) {
            let message = format!(
                "{param}: not available together with tools that may be called; leave one of them out, or set \
                 tool_choice to \"none\""
            );
            return Err(RequestError::new(param, message));
        }
        Ok(())
    }
}

/// A list of token ids.
pub(crate) fn ids(name: &'static str, value: &Value) -> Result<Vec<u32>, RequestError> {
    options::ids(name, value)
}

/// A conversation.
pub(crate) fn messages(value: &Value) -> Result<Vec<Message>, RequestError> {
    messages::read(value)
}

/// The tools of a request, as it gives them.
pub(crate) fn tools(object: &Map<String, Value>) -> Result<Vec<Value>, RequestError> {
    let tools = tools::read(&|name: &str| object.get(name).filter(|value| !value.is_null()))?;
    Ok(tools.into_iter().flat_map(|tools| tools.functions).map(|function| function.spec).collect())
}

/// `chat_template_kwargs`: variables of the chat template by name.
pub(crate) fn template_arguments(object: &Map<String, Value>) -> Result<Map<String, Value>, RequestError> {
    let name = "chat_template_kwargs";
    match object.get(name) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(arguments)) => match TemplateArguments::new(arguments.clone()) {
            Ok(_) => Ok(arguments.clone()),
            Err(error) => Err(RequestError::new(name, format!("{name}: {error}"))),
        },
        Some(other) => Err(values::expected(name, other, "an object")),
    }
}

/// Refuses fields that only a conversation has in a request of a text, or of tokens.
pub(crate) fn conversation_only(object: &Map<String, Value>, conversation: bool) -> Result<(), RequestError> {
    let name = "chat_template_kwargs";
    if !conversation && !template_arguments(object)?.is_empty() {
        let message = format!("{name} needs messages: a text is not put into a template");
        return Err(RequestError::new(name, message));
    }
    Ok(())
}

/// A field that is true or false.
pub(crate) fn flag(
    object: &Map<String, Value>,
    name: &'static str,
    default: bool,
) -> Result<bool, RequestError> {
    let given = object.get(name).filter(|value| !value.is_null());
    given.map_or(Ok(default), |value| boolean(name, value))
}

/// `stream_options`.
fn include_usage(value: &Value, stream: bool) -> Result<bool, RequestError> {
    let name = "stream_options";
    let Value::Object(options) = value else {
        return Err(RequestError::new(name, format!("{name} = {}: expected an object", display(value))));
    };
    if !stream {
        let message = "stream_options: only allowed when stream is true";
        return Err(RequestError::new(name, message));
    }
    let mut include = false;
    for (key, value) in options.iter().filter(|(_, value)| !value.is_null()) {
        let param = format!("{name}.{key}");
        let on = boolean(&param, value)?;
        match key.as_str() {
            "include_usage" => include = on,
            // OpenAI pads events so that their lengths tell nothing; vLLM sends the usage with each.
            "include_obfuscation" | "continuous_usage_stats" if !on => {}
            "include_obfuscation" | "continuous_usage_stats" => {
                return Err(RequestError::new(&param, format!("{param} = true is not supported")));
            }
            _ => {
                return Err(RequestError::new(
                    &param,
                    format!("Unrecognized request argument supplied: {param}"),
                ));
            }
        }
    }
    Ok(include)
}

/// `lora`, as in llama.cpp's server: no number twice.
pub(crate) fn lora(value: &Value) -> Result<Vec<(usize, f32)>, RequestError> {
    let expected = "expected a list of {\"id\": NUMBER, \"scale\": NUMBER}";
    let wrong = || RequestError::new("lora", format!("lora = {}: {expected}", display(value)));
    let mut found: Vec<(usize, f32)> = Vec::new();
    for item in value.as_array().ok_or_else(wrong)? {
        let item = item.as_object().ok_or_else(wrong)?;
        if let Some(key) = item.keys().find(|key| !matches!(key.as_str(), "id" | "scale")) {
            return Err(RequestError::new("lora", format!("lora: unknown key {key:?}: {expected}")));
        }
        let value = |key: &str| {
            let missing = || RequestError::new("lora", format!("lora: {key} is missing: {expected}"));
            item.get(key).ok_or_else(missing)
        };
        let (id, scale) = (value("id")?, value("scale")?);
        let id = integer("lora.id", id, 0..=i128::from(u32::MAX))? as usize;
        let scale = values::number("lora.scale", scale)?;
        if !scale.is_finite() {
            return Err(RequestError::new(
                "lora",
                format!("lora: the scale of adapter {id} must be a finite number in the range of f32"),
            ));
        }
        if found.iter().any(|(earlier, _)| *earlier == id) {
            return Err(RequestError::new("lora", format!("lora: adapter {id} is named twice")));
        }
        found.push((id, scale));
    }
    Ok(found)
}

/// A JSON object in which no key stands twice: of two values one would be dropped.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Object(pub Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut object = Map::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if object.insert(key.clone(), value).is_some() {
                        return Err(A::Error::custom(format!("{key} is given twice")));
                    }
                }
                Ok(Object(object))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}
