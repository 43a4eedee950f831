//! Answers in the shape of OpenAI's API: whole, or as the events of a stream.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::completion_jobs::finish_reason;
use crate::engine::{Outcome, TokenLogprob};
use crate::filters::RESPONSE_FILTERED;
use crate::jobs::Update;
use crate::tool_calls::{Calling, Part, ToolReader, call_id};

/// Which of the two APIs speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `/v1/completions`.
    Text,
    /// `/v1/chat/completions`.
    Chat,
}

/// What all parts of an answer share.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    id: String,
    created: u64,
    model: String,
    shape: Shape,
    /// Jobs of each prompt.
    n: usize,
    /// How the answers call tools, if there are some.
    calling: Option<Calling>,
}

impl Header {
    pub(crate) fn new(model: &str, shape: Shape, n: usize) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let prefix = if shape == Shape::Chat { "chatcmpl" } else { "cmpl" };
        Self {
            id: format!("{prefix}-{:x}", now.as_nanos()),
            created: now.as_secs(),
            model: model.to_string(),
            shape,
            n,
            calling: None,
        }
    }

    /// The same of answers that may call tools.
    pub(crate) fn calling(mut self, calling: Option<Calling>) -> Self {
        self.calling = calling;
        self
    }

    fn body(&self, stream: bool, choices: Vec<Value>) -> Value {
        let object = match (self.shape, stream) {
            (Shape::Text, _) => "text_completion",
            (Shape::Chat, false) => "chat.completion",
            (Shape::Chat, true) => "chat.completion.chunk",
        };
        let mut body = json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model,
        });
        body["choices"] = Value::Array(choices);
        body
    }

    /// The whole answer, with the `n` best choices of each prompt.
    pub(crate) fn whole(&self, choices: Vec<Choice>, n: usize) -> Value {
        let mut usage = Usage::default();
        for (index, choice) in choices.iter().enumerate() {
            usage.add(index, self.n, choice.outcome);
        }
        let choices = if n < self.n { best(choices, self.n, n) } else { choices };
        let choice = |(index, choice): (usize, &Choice)| {
            let logprobs = choice.logprobs.then(|| self.logprobs(&choice.tokens, 0));
            let mut reason = choice.outcome.map(|outcome| finish_reason(outcome.finish));
            let mut body = json!({ "index": index, "logprobs": logprobs, "finish_reason": null });
            match self.shape {
                Shape::Text => body["text"] = json!(choice.text),
                Shape::Chat => {
                    let (content, calls) = self.content(index, &choice.text);
                    body["message"] = json!({ "role": "assistant", "content": content, "refusal": null });
                    if !calls.is_empty() {
                        body["message"]["tool_calls"] = Value::Array(calls);
                        reason = reason.map(with_calls);
                    }
                }
            }
            body["finish_reason"] = json!(reason);
            add_filter(&mut body);
            body
        };
        let mut body = self.body(false, choices.iter().enumerate().map(choice).collect());
        body["usage"] = usage.body();
        body
    }

    /// A chat's text, null if there is none beside calls, and the calls in it.
    fn content(&self, index: usize, text: &str) -> (Value, Vec<Value>) {
        let Some(calling) = &self.calling else { return (json!(text), Vec::new()) };
        let mut reader = calling.reader();
        let mut parts = reader.push(text);
        parts.extend(reader.finish());
        let (mut content, mut calls) = (String::new(), Vec::<(String, String)>::new());
        for part in parts {
            match part {
                Part::Text(text) => content.push_str(&text),
                Part::Call(name) => calls.push((name, String::new())),
                Part::Arguments(json) => calls.last_mut().into_iter().for_each(|call| call.1.push_str(&json)),
            }
        }
        let call = |(i, (name, arguments)): (usize, (String, String))| {
            let id = call_id(calling.format, &self.id, index, i);
            json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } })
        };
        let calls: Vec<Value> = calls.into_iter().enumerate().map(call).collect();
        let none = content.is_empty() && !calls.is_empty();
        (if none { Value::Null } else { json!(content) }, calls)
    }

    /// The log-probabilities of tokens that begin after so many characters.
    fn logprobs(&self, tokens: &[TokenLogprob], mut offset: usize) -> Value {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if self.shape == Shape::Chat {
            let entry = |bytes: &[u8], logprob: Option<f32>| json!({ "token": text(bytes), "logprob": logprob, "bytes": bytes });
            let content = tokens.iter().map(|token| {
                let mut item = entry(&token.bytes, token.logprob);
                item["top_logprobs"] =
                    token.top.iter().map(|(bytes, logprob)| entry(bytes, Some(*logprob))).collect();
                item
            });
            return json!({ "content": content.collect::<Vec<Value>>(), "refusal": null });
        }
        let mut offsets = Vec::with_capacity(tokens.len());
        let mut tops = Vec::with_capacity(tokens.len());
        for token in tokens {
            offsets.push(offset);
            offset += text(&token.bytes).chars().count();
            // The token that was chosen is always there. Of two with the same text the more probable one
            // stays.
            let all = token.top.iter().map(|(bytes, logprob)| (bytes, *logprob));
            let Some(own) = token.logprob else {
                tops.push(Value::Null);
                continue;
            };
            let mut top = Map::new();
            for (bytes, logprob) in all.chain([(&token.bytes, own)]) {
                top.entry(text(bytes)).or_insert_with(|| json!(logprob));
            }
            tops.push(Value::Object(top));
        }
        json!({
            "tokens": tokens.iter().map(|token| text(&token.bytes)).collect::<Vec<_>>(),
            "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
            "top_logprobs": tops,
            "text_offset": offsets,
        })
    }
}

/// The end of an answer that has calls: one that was cut short says so.
fn with_calls(reason: &'static str) -> &'static str {
    if reason == "stop" { "tool_calls" } else { reason }
}

/// Says of a choice that a content filter ended that it did.
fn add_filter(choice: &mut Value) {
    if choice["finish_reason"] == "content_filter" {
        let message = "a content filter of this service withholds the rest of the answer";
        choice["content_filter"] = json!({ "code": RESPONSE_FILTERED, "message": message });
    }
}

/// A choice as it comes.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) text: String,
    pub(crate) tokens: Vec<TokenLogprob>,
    /// Whether log-probabilities are asked for.
    pub(crate) logprobs: bool,
    pub(crate) outcome: Option<Outcome>,
}

/// Of every `of` choices the `n` whose tokens are the most probable ones on average, best first.
fn best(choices: Vec<Choice>, of: usize, n: usize) -> Vec<Choice> {
    let mean = |choice: &Choice| {
        // Those of a prompt that stands before them do not count.
        let prompt = choice.outcome.map_or(0, |outcome| outcome.prompt_tokens);
        let skip =
            if choice.tokens.first().is_some_and(|token| token.logprob.is_none()) { prompt } else { 0 };
        let logprobs = choice.tokens.iter().skip(skip).filter_map(|token| token.logprob).map(f64::from);
        match logprobs.clone().count() {
            0 => f64::NEG_INFINITY,
            count => logprobs.sum::<f64>() / count as f64,
        }
    };
    let mut rest = choices.into_iter();
    let mut best = Vec::new();
    loop {
        let mut group: Vec<Choice> = rest.by_ref().take(of).collect();
        if group.is_empty() {
            return best;
        }
        // Of equals the first.
        group.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
        best.extend(group.into_iter().take(n));
    }
}

/// Tokens of all choices.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    prompt: usize,
    completion: usize,
}

impl Usage {
    /// Counts choice `index`; the prompt of `n` choices counts once.
    fn add(&mut self, index: usize, n: usize, outcome: Option<Outcome>) {
        let Some(outcome) = outcome else { return };
        if index.is_multiple_of(n) {
            self.prompt += outcome.prompt_tokens;
        }
        self.completion += outcome.completion_tokens;
    }

    fn body(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        })
    }
}

/// The events of a stream, made from a request's updates.
#[derive(Debug)]
pub(crate) struct Events {
    header: Header,
    /// Choices in all.
    count: usize,
    include_usage: bool,
    logprobs: bool,
    /// The choice that is coming.
    index: usize,
    /// Whether it has begun.
    begun: bool,
    /// Characters of it that have come.
    offset: usize,
    /// What reads calls out of it.
    reader: Option<ToolReader>,
    /// Tokens whose text has not been shown, because it may be part of a call.
    tokens: Vec<TokenLogprob>,
    /// Calls of it that have begun.
    calls: usize,
    usage: Usage,
}

impl Events {
    pub(crate) fn new(header: Header, count: usize, include_usage: bool, logprobs: bool) -> Self {
        Self {
            header,
            count,
            include_usage,
            logprobs,
            index: 0,
            begun: false,
            offset: 0,
            reader: None,
            tokens: Vec::new(),
            calls: 0,
            usage: Usage::default(),
        }
    }

    /// The data of the events that an update makes.
    pub(crate) fn of(&mut self, update: Update) -> Vec<String> {
        let mut events = Vec::new();
        match update {
            Update::Piece { text, tokens } => {
                self.begin(&mut events);
                if let Some(reader) = &mut self.reader {
                    let parts = reader.push(&text);
                    self.tokens.extend(tokens);
                    self.show(parts, &mut events);
                    return events;
                }
                let logprobs = self.logprobs.then(|| self.header.logprobs(&tokens, self.offset));
                self.offset += text.chars().count();
                events.push(self.chunk(json!({ "content": text }), logprobs, None));
            }
            Update::Done(Ok(outcome)) => {
                self.begin(&mut events);
                let mut reason = finish_reason(outcome.finish);
                if let Some(mut reader) = self.reader.take() {
                    self.show(reader.finish(), &mut events);
                    reason = if reader.calls() > 0 { with_calls(reason) } else { reason };
                }
                let rest =
                    (self.logprobs && !self.tokens.is_empty()).then(|| std::mem::take(&mut self.tokens));
                let logprobs = rest.map(|tokens| self.header.logprobs(&tokens, self.offset));
                events.push(self.chunk(json!({}), logprobs, Some(reason)));
                self.usage.add(self.index, self.header.n, Some(outcome));
                (self.index, self.begun, self.offset, self.calls) = (self.index + 1, false, 0, 0);
                if self.index == self.count {
                    if self.include_usage {
                        let mut body = self.header.body(true, Vec::new());
                        body["usage"] = self.usage.body();
                        events.push(body.to_string());
                    }
                    events.push("[DONE]".to_string());
                }
            }
            Update::Done(Err(error)) => events.extend([error.body().to_string(), "[DONE]".to_string()]),
        }
        events
    }

    /// A chat's choice begins with the role, which no later chunk repeats.
    fn begin(&mut self, events: &mut Vec<String>) {
        if !self.begun && self.header.shape == Shape::Chat {
            events.push(self.chunk(json!({ "role": "assistant", "content": "" }), None, None));
            self.reader = self.header.calling.as_ref().map(Calling::reader);
        }
        self.begun = true;
    }

    /// Shows parts of an answer that may have calls. The tokens that have come go with the first one.
    fn show(&mut self, parts: Vec<Part>, events: &mut Vec<String>) {
        for part in parts {
            let delta = match part {
                Part::Text(text) => json!({ "content": text }),
                Part::Call(name) => {
                    self.calls += 1;
                    let (i, header) = (self.calls - 1, &self.header);
                    let id = header.calling.as_ref().map(|c| call_id(c.format, &header.id, self.index, i));
                    let function = json!({ "name": name, "arguments": "" });
                    json!({ "tool_calls": [{ "index": i, "id": id, "type": "function", "function": function }] })
                }
                Part::Arguments(json) => {
                    let i = self.calls.saturating_sub(1);
                    json!({ "tool_calls": [{ "index": i, "function": { "arguments": json } }] })
                }
            };
            let tokens = std::mem::take(&mut self.tokens);
            let logprobs = self.logprobs.then(|| self.header.logprobs(&tokens, self.offset));
            events.push(self.chunk(delta, logprobs, None));
        }
    }

    fn chunk(&self, delta: Value, logprobs: Option<Value>, reason: Option<&str>) -> String {
        let mut choice = json!({ "index": self.index, "finish_reason": reason });
        choice["logprobs"] = logprobs.unwrap_or_default();
        add_filter(&mut choice);
        match self.header.shape {
            Shape::Text => choice["text"] = json!(delta["content"].as_str().unwrap_or_default()),
            Shape::Chat => choice["delta"] = delta,
        }
        let mut body = self.header.body(true, vec![choice]);
        if self.include_usage {
            body["usage"] = Value::Null;
        }
        body.to_string()
    }
}
