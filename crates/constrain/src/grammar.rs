//! What a text is to fit.

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use serde_json::{Map, Value, json};

use crate::{ConstrainError, bounds};

/// White space between two parts of JSON: none, a space, or a line break with its indentation. Without a bound a
/// model that likes white space would never come to an end.
const WHITE_SPACE: &str = r" |\n[ \t]{0,40}";

/// Key of a schema by which `llguidance` takes its own options.
const OPTIONS: &str = "x-guidance";

/// What a text is to fit, as a user gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grammar {
    /// A JSON object with any content.
    JsonObject,
    /// JSON that is valid by a schema (draft 2020-12). Properties come in the order of the schema.
    JsonSchema(Value),
    /// A regular expression in the syntax of Rust's `regex`, without look-around; it is to match the whole text.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A grammar in Lark's syntax as `llguidance` knows it. It may refer to schemas as `@name`.
    Lark {
        /// The grammar; it begins at the rule `start`.
        text: String,
        /// Schemas by the names by which it refers to them.
        schemas: Vec<(String, Value)>,
    },
}

impl Grammar {
    /// A grammar in Lark's syntax that stands alone.
    pub fn lark(text: impl Into<String>) -> Self {
        Self::Lark { text: text.into(), schemas: Vec::new() }
    }

    /// What messages call it.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::JsonObject | Self::JsonSchema(_) => "the JSON schema",
            Self::Regex(_) => "the regular expression",
            Self::Choice(_) => "the list of choices",
            Self::Lark { .. } => "the grammar",
        }
    }

    /// As the parser wants it.
    pub(crate) fn parts(&self) -> Result<TopLevelGrammar, ConstrainError> {
        let fault =
            |problem: &str| Err(ConstrainError::Grammar { what: self.what(), problem: problem.to_string() });
        let bounds = match self {
            Self::JsonSchema(value) => bounds::fault(value),
            Self::Lark { text, schemas } => bounds::fault_in_grammar(text)
                .or_else(|| schemas.iter().find_map(|(_, value)| bounds::fault(value))),
            Self::JsonObject | Self::Regex(_) | Self::Choice(_) => None,
        };
        if let Some(problem) = bounds {
            return fault(&problem);
        }
        Ok(match self {
            Self::JsonObject => TopLevelGrammar::from_json_schema(schema(&json!({ "type": "object" }))),
            Self::JsonSchema(value) => TopLevelGrammar::from_json_schema(schema(value)),
            Self::Regex(pattern) => match anchored(pattern) {
                "" => return fault("it is empty: expected at least one character"),
                pattern => TopLevelGrammar::from_regex(pattern),
            },
            Self::Choice(choices) if choices.is_empty() => {
                return fault("it is empty: expected at least one choice");
            }
            Self::Choice(choices) => {
                let choices: Vec<String> = choices.iter().map(|choice| literal(choice)).collect();
                TopLevelGrammar::from_lark(format!("start: CHOICE\nCHOICE: {}\n", choices.join(" | ")))
            }
            Self::Lark { text, .. } if text.contains("::=") => {
                return fault(
                    "it looks like GBNF (`root ::= …`): expected Lark's syntax, such as `start: \"yes\" | \"no\"`",
                );
            }
            Self::Lark { text, schemas } => {
                let mut grammars = vec![GrammarWithLexer::from_lark(text.clone())];
                grammars.extend(schemas.iter().map(|(name, value)| GrammarWithLexer {
                    name: Some(name.clone()),
                    ..GrammarWithLexer::from_json_schema(schema(value))
                }));
                TopLevelGrammar { grammars, max_tokens: None }
            }
        })
    }
}

/// A text as a string of Lark's syntax, quotes included.
pub fn literal(text: &str) -> String {
    // JSON's string is Lark's, but for a control character that JSON leaves as it is.
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// A pattern without the anchors that say what holds anyway: it matches the whole text.
fn anchored(pattern: &str) -> &str {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    match pattern.strip_suffix('$') {
        // An escaped sign is a character.
        Some(rest) if rest.chars().rev().take_while(|c| *c == '\\').count() % 2 == 0 => rest,
        _ => pattern,
    }
}

/// A schema with this crate's white space, unless it says how it wants its own.
fn schema(value: &Value) -> Value {
    let mut fields = match value {
        Value::Object(fields) => fields.clone(),
        Value::Bool(true) => Map::new(),
        other => return other.clone(),
    };
    fields.entry(OPTIONS).or_insert_with(|| json!({ "whitespace_pattern": WHITE_SPACE }));
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_at_the_ends_are_no_part_of_a_pattern() {
        for (pattern, found) in
            [("^a$", "a"), ("a", "a"), (r"a\$", r"a\$"), (r"a\\$", r"a\\"), ("^", ""), ("$", ""), ("^^", "^")]
        {
            assert_eq!(anchored(pattern), found);
        }
    }

    #[test]
    fn literals_have_no_control_characters() {
        assert_eq!(literal("a\"\n\u{7f}é"), "\"a\\\"\\n\\u007fé\"");
    }
}
