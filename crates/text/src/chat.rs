//! Chat templates: messages to one prompt, as `transformers` renders them.
//!
//! A template is a Jinja program that comes with the model. It runs with the settings of `transformers`
//! (`trim_blocks`, `lstrip_blocks`, loop controls, Python's string methods, `raise_exception`,
//! `strftime_now`, a `tojson` without HTML escapes), with a bound on its steps, and without access to
//! anything but its messages. The blocks `{% generation %}` … `{% endgeneration %}`, by which a template says
//! what the model is to learn, are known too.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Serde};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};
use serde::{Deserialize, Serialize};
use tritforge_support::caught;

use crate::jinja;
use crate::python::{JsonStyle, json_dumps, strftime};
use crate::{TemplateArguments, TextError, Tokenizer};

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant` in most templates.
    pub role: String,
    /// What is said.
    pub content: String,
    /// What else the template may read, such as `tool_calls`.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl Message {
    /// A message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), more: serde_json::Map::new() }
    }
}

/// A template, parsed.
///
/// ```
/// use tritforge_text::{ChatTemplate, Message};
///
/// let template = ChatTemplate::named("chatml").expect("a built-in template");
/// let prompt = template.render(&[Message::new("user", "Hi")], true, None, None)?;
/// assert_eq!(prompt, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
/// # Ok::<(), tritforge_text::TextError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: String,
    /// Variables that it has where those who render it say nothing else.
    arguments: TemplateArguments,
    /// Whether it has blocks that say what the model is to learn.
    generation: bool,
    environment: Environment<'static>,
}

/// Name of the template in its environment.
const NAME: &str = "chat_template";

/// Steps that a template may take: thousands of messages, but an end.
const FUEL: u64 = 20_000_000;

/// Stand around what a generation block wrote, until the blocks are found: two of Unicode's noncharacters,
/// which are no text.
const BEGIN: char = '\u{FDD0}';
const END: char = '\u{FDD1}';

/// What a generation block calls.
const MARK: &str = "__generation__";

/// Templates by name: those of ChatML, of Llama 3, one without special tokens, Stanford Alpaca's prompt, one
/// that writes nothing but the messages, each answer with the end of the text, and ChatML with tools as models of
/// the Hermes and Qwen families call them.
const BUILT_IN: [(&str, &str); 6] = [
    (
        "chatml",
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    ),
    (
        "llama3",
        "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    ),
    (
        "plain",
        "{% for message in messages %}{{ message['role'] | capitalize + ': ' + message['content'] | trim + '\\n\\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
    ),
    ("alpaca", include_str!("templates/alpaca.jinja")),
    (
        "verbatim",
        "{% for message in messages %}{{ message['content'] }}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}",
    ),
    ("hermes", include_str!("templates/hermes.jinja")),
];

/// What a template reads beside the messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct TemplateInputs<'a> {
    /// The functions that the model may call, in OpenAI's form; none of them is the same as no list.
    pub tools: &'a [serde_json::Value],
    /// Further variables by name, such as `documents` or `enable_thinking`.
    pub arguments: Option<&'a serde_json::Map<String, serde_json::Value>>,
}

impl TemplateInputs<'_> {
    /// Variables that the conversation itself gives: no argument may have their names.
    pub const RESERVED: [&'static str; 5] =
        ["messages", "tools", "add_generation_prompt", "bos_token", "eos_token"];
}

/// A conversation as a template writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Byte ranges of `text` that generation blocks wrote, in order.
    pub generated: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// If it is no Jinja; the message names the line.
    pub fn new(source: impl Into<String>) -> Result<Self, TextError> {
        let source = source.into();
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let syntax = syntax.map_err(|e| error(&e))?;
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        jinja::set_up(&mut environment);
        environment.set_fuel(Some(FUEL));
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_function(MARK, generation_block);
        environment.add_filter("tojson", tojson);
        // Files may have line ends of Windows; jinja2 reads each as a newline.
        let (program, generation) = with_calls(&source.replace("\r\n", "\n").replace('\r', "\n"));
        guarded(|| environment.add_template_owned(NAME, jinja::rewrite(&program, syntax)?))?;
        Ok(Self { source, arguments: TemplateArguments::default(), generation, environment })
    }

    /// The template with variables that it has wherever it is rendered, unless [`TemplateInputs::arguments`] says otherwise: those that
    /// its model was trained with.
    #[must_use]
    pub fn with_arguments(self, arguments: TemplateArguments) -> Self {
        Self { arguments, ..self }
    }

    /// These variables.
    pub fn arguments(&self) -> &TemplateArguments {
        &self.arguments
    }

    /// A built-in template: `chatml`, `llama3`, `plain`, `alpaca`, `verbatim` or `hermes`.
    pub fn named(name: &str) -> Option<Self> {
        let (_, source) = BUILT_IN.iter().find(|(known, _)| *known == name)?;
        Self::new(*source).ok()
    }

    /// The names of the built-in templates.
    pub fn names() -> [&'static str; BUILT_IN.len()] {
        BUILT_IN.map(|(name, _)| name)
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it has generation blocks.
    pub fn has_generation(&self) -> bool {
        self.generation
    }

    /// The prompt of a conversation. `add_generation_prompt` ends it with the beginning of an answer; `bos`
    /// and `eos` are the names of these tokens, for templates that write them.
    ///
    /// # Errors
    /// If the template fails or refuses the messages; the message names the line.
    pub fn render<M: Serialize>(
        &self,
        messages: &[M],
        add_generation_prompt: bool,
        bos: Option<&str>,
        eos: Option<&str>,
    ) -> Result<String, TextError> {
        Ok(self.render_marked(messages, add_generation_prompt, bos, eos)?.text)
    }

    /// As [`Self::render`], with the places of the generation blocks. A message is any map with a role and a
    /// content; what else it has, the template may read.
    ///
    /// # Errors
    /// As [`Self::render`]; if a message has U+FDD0 or U+FDD1, which are no characters, in a template with
    /// generation blocks.
    pub fn render_marked<M: Serialize>(
        &self,
        messages: &[M],
        add_generation_prompt: bool,
        bos: Option<&str>,
        eos: Option<&str>,
    ) -> Result<Rendered, TextError> {
        self.render_with(messages, TemplateInputs::default(), add_generation_prompt, bos, eos)
    }

    /// As [`Self::render_marked`], with tools and other variables.
    ///
    /// # Errors
    /// As [`Self::render_marked`]; if an argument has the name of a variable that the conversation gives.
    pub fn render_with<M: Serialize>(
        &self,
        messages: &[M],
        inputs: TemplateInputs<'_>,
        add_generation_prompt: bool,
        bos: Option<&str>,
        eos: Option<&str>,
    ) -> Result<Rendered, TextError> {
        let template = self.environment.get_template(NAME).map_err(|e| error(&e))?;
        let fault = |problem: String| Err(TextError::Template { line: None, problem });
        let TemplateInputs { tools, arguments } = inputs;
        if let Some(problem) = arguments.and_then(TemplateArguments::taken) {
            return fault(problem);
        }
        let messages = Value::from(Serde(messages));
        let tools = if tools.is_empty() { Value::from(()) } else { Value::from(Serde(tools)) };
        // Of two with the same name the later one counts.
        let arguments = self.arguments.entries().iter().chain(arguments.into_iter().flatten());
        let arguments = arguments.map(|(name, value)| (name.clone(), Value::from(Serde(value))));
        // An argument may be called `documents`.
        let mut context: BTreeMap<String, Value> = [("documents".to_string(), Value::from(()))].into();
        context.extend(arguments);
        let all: Value = context.values().chain([&messages, &tools]).cloned().collect();
        if self.generation && all.to_string().contains([BEGIN, END]) {
            let problem = "a message contains U+FDD0 or U+FDD1, which are not valid characters".to_string();
            return fault(problem);
        }
        let given = [
            ("__input__", jinja::input(&all)),
            ("messages", messages),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("bos_token", Value::from(bos.unwrap_or_default())),
            ("eos_token", Value::from(eos.unwrap_or_default())),
            ("tools", tools),
        ];
        context.extend(given.map(|(name, value)| (name.to_string(), value)));
        let text = guarded(|| template.render(context))?;
        if self.generation { unmark(&text) } else { Ok(Rendered { text, generated: Vec::new() }) }
    }
}

/// A template's text with its generation blocks as Jinja knows them: a block that is handed to a function.
/// White space around them is treated in the same way.
fn with_calls(source: &str) -> (String, bool) {
    let (mut program, mut rest, mut found) = (String::with_capacity(source.len()), source, false);
    // The end lies behind the beginning: in `{%}` they would share a character.
    while let Some((at, end)) =
        rest.find("{%").and_then(|at| Some((at, at + 2 + rest[at + 2..].find("%}")? + 2)))
    {
        let block = &rest[at..end];
        let name = block[2..block.len() - 2].trim_matches(['-', '+']).trim();
        program += &rest[..at];
        match name {
            "generation" => program += &block.replacen(name, &format!("call {MARK}()"), 1),
            "endgeneration" => program += &block.replacen(name, "endcall", 1),
            _ => program += block,
        }
        found |= name == "generation";
        rest = &rest[end..];
    }
    (program + rest, found)
}

/// Writes a generation block between its marks.
#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja calls")]
fn generation_block(state: &mut State<'_, '_>, kwargs: Kwargs) -> Result<String, Error> {
    let caller: Value = kwargs.get("caller")?;
    Ok(format!("{BEGIN}{}{END}", caller.call(state, &[])?))
}

/// Takes the marks out of a text.
fn unmark(marked: &str) -> Result<Rendered, TextError> {
    let mut rendered = Rendered { text: String::with_capacity(marked.len()), generated: Vec::new() };
    let mut open = None;
    for (i, part) in marked.split([BEGIN, END]).enumerate() {
        if i > 0 {
            open = match open {
                None => Some(rendered.text.len()),
                Some(start) => {
                    rendered.generated.push(start..rendered.text.len());
                    None
                }
            };
        }
        rendered.text += part;
    }
    // Begin and end take turns unless a block stands in another, or the template cut one in two.
    let marks = marked.chars().filter(|c| [BEGIN, END].contains(c));
    if marks.zip([BEGIN, END].into_iter().cycle()).any(|(found, expected)| found != expected)
        || open.is_some()
    {
        let problem = "generation blocks are nested or incomplete".to_string();
        return Err(TextError::Template { line: None, problem });
    }
    Ok(rendered)
}

impl Tokenizer {
    /// The chat template that came with the tokenizer.
    ///
    /// # Errors
    /// If it is no Jinja.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, TextError> {
        let Some(source) = &self.chat_template else { return Ok(None) };
        Ok(Some(ChatTemplate::new(source)?.with_arguments(self.template_arguments.clone())))
    }

    /// Replaces the chat template, with the variables that it has.
    #[must_use]
    pub fn with_chat_template(mut self, template: Option<&ChatTemplate>) -> Self {
        self.chat_template = template.map(|template| template.source.clone());
        self.template_arguments = template.map(|template| template.arguments.clone()).unwrap_or_default();
        self
    }
}

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_string()))
}

fn strftime_now(format: &str) -> Result<String, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    strftime(now.as_secs(), format).ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now: the format {format:?} is not supported"),
        )
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja calls")]
fn tojson(value: &Value, args: Rest<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ensure_ascii, indent, separators, sort_keys] = jinja::arguments("tojson", &args, &kwargs, names)?;
    let [ensure_ascii, sort_keys] =
        [ensure_ascii, sort_keys].map(|flag| flag.is_some_and(|flag| flag.is_true()));
    let refuse = |problem: String| Error::new(ErrorKind::InvalidOperation, problem);
    let indent = match &indent {
        None => None,
        Some(indent) => match (indent.as_str(), indent.as_usize()) {
            (Some(text), _) => Some(text.to_string()),
            (None, Some(width)) if width <= 64 => Some(" ".repeat(width)),
            _ => {
                return Err(refuse(format!(
                    "tojson: indent = {indent}: expected a number to 64 or a string"
                )));
            }
        },
    };
    let separators = match &separators {
        None => [if indent.is_some() { "," } else { ", " }, ": "].map(str::to_string),
        Some(pair) => {
            let parts: Vec<Value> = pair.try_iter()?.collect();
            match parts.iter().map(Value::as_str).collect::<Vec<_>>()[..] {
                [Some(item), Some(key)] => [item.to_string(), key.to_string()],
                _ => return Err(refuse(format!("tojson: separators = {pair}: expected two strings"))),
            }
        }
    };
    json_dumps(value, &JsonStyle { ensure_ascii, indent, separators, sort_keys })
}

/// What minijinja says. It panics at some expressions, such as the reverse of an empty list.
fn guarded<T>(run: impl FnOnce() -> Result<T, Error>) -> Result<T, TextError> {
    match caught(run) {
        Some(result) => result.map_err(|e| error(&e)),
        None => {
            let problem = "an expression that the template engine fails at".to_string();
            Err(TextError::Template { line: None, problem })
        }
    }
}

fn error(error: &Error) -> TextError {
    let problem = match error.detail() {
        _ if error.kind() == ErrorKind::OutOfFuel => format!("it takes more than {FUEL} steps"),
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    TextError::Template { line: error.line(), problem }
}
