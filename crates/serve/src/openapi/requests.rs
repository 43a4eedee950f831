//! Requests of generations as OpenAPI describes them, and types that several endpoints have. The fields of generations stand
//! in one table, `request::fields`: those that are supported have their types here, the others the values that they may have.
#![allow(dead_code, reason = "only their schemas are used")]

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::request::{Effect, Endpoint, fields};

/// The fields of `/v1/chat/completions`.
pub(crate) fn chat(generator: &mut SchemaGenerator) -> Schema {
    of_endpoint(generator, Endpoint::Chat, "ChatCompletionRequest", &["messages"])
}

/// The fields of `/v1/completions`.
pub(crate) fn completion(generator: &mut SchemaGenerator) -> Schema {
    of_endpoint(generator, Endpoint::Completions, "CompletionRequest", &["prompt"])
}

fn of_endpoint(generator: &mut SchemaGenerator, endpoint: Endpoint, name: &str, required: &[&str]) -> Schema {
    // The types that it refers to stay with the generator.
    let typed = generator.root_schema_for::<Supported>().to_value();
    let mut properties = serde_json::Map::new();
    for field in fields().filter(|field| field.endpoints.contains(&endpoint)) {
        let schema = match field.effect {
            Effect::Supported => match field.name {
                "logprobs" if endpoint == Endpoint::Chat => json!({ "type": ["boolean", "null"] }),
                name => typed["properties"].get(name).cloned().unwrap_or_else(|| json!({})),
            },
            Effect::None => json!({ "description": "It has no effect." }),
            Effect::Only(values) => {
                let values = values.iter().filter_map(|text| serde_json::from_str(text).ok());
                json!({ "enum": values.chain([Value::Null]).collect::<Vec<_>>() })
            }
        };
        properties.insert(field.name.to_string(), schema);
    }
    let schema = json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    });
    generator.definitions_mut().insert(name.to_string(), schema);
    json!({ "$ref": format!("#/components/schemas/{name}") }).try_into().unwrap_or_default()
}

/// The names of the fields that have a type here.
#[cfg(test)]
pub(super) fn typed() -> Vec<String> {
    let schema = schemars::schema_for!(Supported).to_value();
    schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

/// Fields of generations; docs/api.md says more.
#[derive(JsonSchema)]
struct Supported {
    /// The model's name, or an adapter's.
    model: Option<String>,
    /// The conversation.
    messages: Option<Vec<Message>>,
    /// What to continue.
    prompt: Option<Input>,
    /// Adapters with their scales.
    lora: Option<Vec<Scale>>,
    /// Tokens to generate at most.
    max_tokens: Option<u64>,
    /// Another name of `max_tokens`.
    max_completion_tokens: Option<u64>,
    /// Another name of `max_tokens`; -1 is no limit.
    n_predict: Option<i64>,
    /// Tokens before which nothing ends the text.
    min_tokens: Option<u64>,
    /// 0 takes the most probable token.
    temperature: Option<f32>,
    /// Of the most probable tokens, those that make this share.
    #[schemars(range(min = 0.0, max = 1.0))]
    top_p: Option<f32>,
    /// So many of the most probable tokens; -1 and 0 are all.
    top_k: Option<i64>,
    /// Tokens that have this share of the probability of the most probable one.
    #[schemars(range(min = 0.0, max = 1.0))]
    min_p: Option<f32>,
    /// Subtracted for each time that a token was generated.
    #[schemars(range(min = -2.0, max = 2.0))]
    frequency_penalty: Option<f32>,
    /// Subtracted once from tokens that were generated.
    #[schemars(range(min = -2.0, max = 2.0))]
    presence_penalty: Option<f32>,
    /// Divides and multiplies logits of recent tokens.
    repetition_penalty: Option<f32>,
    /// Another name of `repetition_penalty`.
    repeat_penalty: Option<f32>,
    /// How many tokens are recent; -1 are all.
    repeat_last_n: Option<i64>,
    /// From token ids to what is added to their logits.
    logit_bias: Option<BTreeMap<String, f32>>,
    /// An answer with a seed is the same each time.
    seed: Option<i64>,
    /// Texts that end the answer.
    stop: Option<OneOrMore>,
    /// Tokens that end the answer.
    stop_token_ids: Option<Vec<u32>>,
    /// Go on after the model's end of a text.
    ignore_eos: Option<bool>,
    /// What the answer is to fit.
    response_format: Option<ResponseFormat>,
    /// A schema that the answer is to fit.
    json_schema: Option<Value>,
    /// A grammar in Lark's syntax that the answer is to fit.
    grammar: Option<String>,
    /// A regular expression that is to match the answer.
    regex: Option<String>,
    /// Another name of `json_schema`.
    guided_json: Option<Value>,
    /// Another name of `regex`.
    guided_regex: Option<String>,
    /// Texts of which the answer is one.
    guided_choice: Option<Vec<String>>,
    /// Another name of `grammar`.
    guided_grammar: Option<String>,
    /// One of these constraints.
    structured_outputs: Option<StructuredOutputs>,
    /// Functions that the model may call.
    tools: Option<Vec<Tool>>,
    /// `none`, `auto`, `required`, or a function by its name.
    tool_choice: Option<Value>,
    /// Whether an answer may have several calls that are demanded.
    parallel_tool_calls: Option<bool>,
    /// Variables of the chat template by name, such as `enable_thinking`.
    chat_template_kwargs: Option<Map<String, Value>>,
    /// Answers to each prompt.
    #[schemars(range(min = 1, max = 128))]
    n: Option<u32>,
    /// Answers of which the `n` best are given.
    #[schemars(range(min = 1, max = 128))]
    best_of: Option<u32>,
    /// Whether the answer comes as server-sent events.
    stream: Option<bool>,
    /// How it comes.
    stream_options: Option<StreamOptions>,
    /// Log-probabilities of tokens.
    #[schemars(range(min = 0, max = 20))]
    logprobs: Option<Logprobs>,
    /// The most probable tokens at each place.
    #[schemars(range(min = 0, max = 20))]
    top_logprobs: Option<u32>,
    /// What stands behind the text that is to be filled in.
    suffix: Option<String>,
    /// Whether the text begins with the prompt.
    echo: Option<bool>,
}

/// A number; false is none.
#[derive(JsonSchema)]
#[serde(untagged)]
enum Logprobs {
    Count(u32),
    Off(bool),
}

/// A message of a conversation.
#[derive(JsonSchema)]
pub(crate) struct Message {
    /// Such as system, user, assistant, tool.
    role: String,
    /// A text or its parts; null beside calls.
    content: Option<Content>,
    /// Of an assistant: its calls.
    tool_calls: Option<Vec<Value>>,
    /// Of a tool: the call that it answers.
    tool_call_id: Option<String>,
    /// Of a tool: its name.
    name: Option<String>,
}

/// A text, or parts that are joined.
#[derive(JsonSchema)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a text.
#[derive(JsonSchema)]
struct Part {
    /// `text`.
    r#type: String,
    text: String,
}

/// Texts, as strings or token ids.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(crate) enum Input {
    Text(String),
    Texts(Vec<String>),
    Ids(Vec<u32>),
    Lists(Vec<Vec<u32>>),
}

/// One string or several.
#[derive(JsonSchema)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// An adapter's number and scale.
#[derive(JsonSchema)]
pub(crate) struct Scale {
    id: usize,
    scale: f32,
}

/// What an answer is to fit.
#[derive(JsonSchema)]
struct ResponseFormat {
    /// `text`, `json_object` or `json_schema`.
    r#type: String,
    json_schema: Option<NamedSchema>,
    /// Another place for the schema.
    schema: Option<Value>,
}

/// A schema with its name.
#[derive(JsonSchema)]
struct NamedSchema {
    name: Option<String>,
    description: Option<String>,
    strict: Option<bool>,
    schema: Value,
}

/// One of these.
#[derive(JsonSchema)]
struct StructuredOutputs {
    json: Option<Value>,
    regex: Option<String>,
    choice: Option<Vec<String>>,
    grammar: Option<String>,
    json_object: Option<bool>,
}

/// A function that the model may call.
#[derive(JsonSchema)]
pub(crate) struct Tool {
    /// `function`.
    r#type: String,
    function: ToolFunction,
}

/// Its signature.
#[derive(JsonSchema)]
struct ToolFunction {
    name: String,
    description: Option<String>,
    /// The schema of its arguments.
    parameters: Option<Value>,
    strict: Option<bool>,
}

/// How a stream comes.
#[derive(JsonSchema)]
struct StreamOptions {
    /// Whether it ends with the usage.
    include_usage: Option<bool>,
}
