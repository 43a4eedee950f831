//! Variables that a model's chat template has wherever it is rendered: those that the model was trained with, kept with its tokenizer
//! as `chat_template_kwargs`.

use serde_json::{Map, Value};

use crate::{TemplateInputs, TextError};

/// The name in `tokenizer_config.json`, in recipes and in requests.
pub(crate) const NAME: &str = "chat_template_kwargs";

/// Variables by name, none of which is one that the conversation itself gives.
///
/// ```
/// use tritforge_text::{ChatTemplate, Message, TemplateArguments};
///
/// let template = ChatTemplate::new("{{ messages[0].content }}{% if not enable_thinking %} /no_think{% endif %}")?;
/// let arguments = TemplateArguments::from_json(r#"{"enable_thinking": true}"#)?;
/// let messages = [Message::new("user", "Hi")];
/// assert_eq!(template.render(&messages, true, None, None)?, "Hi /no_think");
/// assert_eq!(template.with_arguments(arguments).render(&messages, true, None, None)?, "Hi");
/// # Ok::<(), tritforge_text::TextError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TemplateArguments(Map<String, Value>);

impl TemplateArguments {
    /// Of variables by name.
    ///
    /// # Errors
    /// If one has the name of a variable that the conversation gives.
    pub fn new(entries: Map<String, Value>) -> Result<Self, TextError> {
        match Self::taken(&entries) {
            Some(problem) => Err(TextError::Template { line: None, problem }),
            None => Ok(Self(entries)),
        }
    }

    /// Of the text of a JSON object.
    ///
    /// # Errors
    /// If it is none; as [`Self::new`].
    pub fn from_json(text: &str) -> Result<Self, TextError> {
        let problem = match serde_json::from_str(text) {
            Ok(Value::Object(entries)) => return Self::new(entries),
            Ok(_) => format!("{NAME}: expected a JSON object, as in {{\"enable_thinking\": false}}"),
            Err(error) => format!("{NAME}: not JSON: {error}"),
        };
        Err(TextError::Template { line: None, problem })
    }

    /// These with others, which go before them.
    #[must_use]
    pub fn with(&self, others: &Self) -> Self {
        let mut entries = self.0.clone();
        entries.extend(others.0.clone());
        Self(entries)
    }

    /// The variables.
    pub fn entries(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the text of a JSON object.
    pub fn to_json(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    /// What is wrong with the names of variables, if anything is.
    pub(crate) fn taken(entries: &Map<String, Value>) -> Option<String> {
        let taken =
            |name: &&String| TemplateInputs::RESERVED.contains(&name.as_str()) || name.starts_with("__");
        let name = entries.keys().find(taken)?;
        Some(format!("no argument may be called {name:?}: the conversation itself says what it is"))
    }
}
