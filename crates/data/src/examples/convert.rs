//! A record becomes messages, whatever its layout.

use serde_json::Value;

use super::message::said;
use super::tools::{Supplied, parsed};
use super::{ASSISTANT, Body, ChatTurn, Columns, RecordKind, xlam};
use crate::rows::{Row, parse_json, type_name};

/// Columns of records that change what the others mean, as TRL, LLaMA-Factory, axolotl, ms-swift or OpenAI
/// define them.
const REFUSED_OF_RECORDS: [(&str, &str); 23] = [
    ("functions", "OpenAI's older form is not supported: call the column tools"),
    ("images", "images are not supported"),
    ("image", "images are not supported"),
    ("videos", "videos are not supported"),
    ("video", "videos are not supported"),
    ("audios", "audio is not supported"),
    ("audio", "audio is not supported"),
    ("kto_tag", JUDGED),
    ("label", JUDGED),
    ("weight", "per-record weights are not supported: remove records, or repeat them"),
    ("input_ids", "pre-tokenized input is not supported: give only the text"),
    (
        "completion_mask",
        "the loss mask is computed from the messages: set train = true or false on a \
                         message",
    ),
    (
        "assistant_masks",
        "the loss mask is computed from the messages: set train = true or false on a \
                         message",
    ),
    ("loss_mask", "the loss mask is computed from the messages: set train = true or false on a message"),
    ("rejected_response", "preference pairs have the columns prompt, chosen and rejected"),
    ("rejected_messages", "preference pairs have the columns prompt, chosen and rejected"),
    ("positive_messages", "training of embeddings is not supported"),
    ("negative_messages", "training of embeddings is not supported"),
    ("objects", "images are not supported"),
    ("teacher_prompt", "the teacher reads what its student reads: leave the column out"),
    ("ref_chosen_logps", "the reference's log-probabilities are computed here: leave the column out"),
    ("ref_rejected_logps", "the reference's log-probabilities are computed here: leave the column out"),
    ("chat_template", "per-record templates are not supported: use data.template"),
];

/// What becomes of a column that says whether an answer is a good one.
const JUDGED: &str = "good and bad answers are learned from with [kto] and data.records = \"unpaired-preference\": prompt, completion \
                      and label (data.columns may name them); for others keep only the good answers";

/// The example that a record of a layout is, and what its template is given beside.
pub(super) fn example(row: &Row, kind: RecordKind, columns: &Columns) -> Result<(Body, Supplied), String> {
    let record = Record { row, columns };
    let supplied = match kind {
        RecordKind::Text | RecordKind::Auto => Supplied::default(),
        _ => {
            refuse_columns(row, kind, columns)?;
            let mut supplied = Supplied::of(row, columns)?;
            if kind == RecordKind::Xlam {
                supplied.tools = supplied.tools.into_iter().map(xlam::with_schema).collect();
            }
            supplied
        }
    };
    Ok((body(&record, kind)?, supplied))
}

fn body(record: &Record<'_>, kind: RecordKind) -> Result<Body, String> {
    Ok(match kind {
        RecordKind::Alpaca => {
            let (instruction, input) = (record.text("instruction")?, record.optional("input")?);
            let mut said = record.system()?;
            said.extend(record.history()?);
            said.push(match input {
                None => ChatTurn::new("user", instruction),
                // Templates know one content; that of Alpaca also knows its parts.
                Some(input) => {
                    let mut user = ChatTurn::new("user", &format!("{instruction}\n\n{input}"));
                    user.message.insert("instruction".to_string(), Value::from(instruction));
                    user.message.insert("input".to_string(), Value::from(input));
                    user
                }
            });
            said.push(ChatTurn::new(ASSISTANT, record.text("output")?));
            Body::Turns(said)
        }
        RecordKind::InputOutput => {
            let mut said = record.system()?;
            said.extend(record.history()?);
            said.push(ChatTurn::new("user", record.text("input")?));
            said.push(ChatTurn::new(ASSISTANT, record.text("output")?));
            Body::Turns(said)
        }
        RecordKind::Messages | RecordKind::Sharegpt => {
            let column = if kind == RecordKind::Messages { "messages" } else { "conversations" };
            Body::Turns(record.after_system(record.messages(column)?)?)
        }
        RecordKind::PromptCompletion => Body::Turns(record.completed()?),
        RecordKind::UnpairedPreference => {
            Body::Labelled { turns: record.completed()?, desirable: record.label()? }
        }
        RecordKind::Preference => record.preference()?,
        RecordKind::Xlam => {
            let column = record.columns.name("answers");
            let answers = parsed(record.row, column)?;
            let turns = xlam::turns(record.text("query")?, answers);
            Body::Turns(record.after_system(turns.map_err(|e| format!("column {column:?}: {e}"))?)?)
        }
        RecordKind::Text | RecordKind::Auto => Body::Text(record.text("text")?.to_string()),
    })
}

struct Record<'a> {
    row: &'a Row,
    columns: &'a Columns,
}

impl<'a> Record<'a> {
    fn get(&self, column: &str) -> Result<&'a Value, String> {
        let name = self.columns.name(column);
        self.row.get(name).ok_or_else(|| {
            let found: Vec<&str> = self.row.keys().map(String::as_str).collect();
            format!("no column {name:?}: found {}", found.join(", "))
        })
    }

    fn text(&self, column: &str) -> Result<&'a str, String> {
        let value = self.get(column)?;
        value.as_str().ok_or_else(|| self.wrong(column, value, "a string"))
    }

    /// A string that need not be there and may be null or empty.
    fn optional(&self, column: &str) -> Result<Option<&'a str>, String> {
        match self.row.get(self.columns.name(column)) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(other) => Err(self.wrong(column, other, "a string")),
        }
    }

    fn wrong(&self, column: &str, value: &Value, expected: &str) -> String {
        format!("column {:?} is {}, expected {expected}", self.columns.name(column), type_name(value))
    }

    /// The system prompt of a column, where there is one.
    fn system(&self) -> Result<Vec<ChatTurn>, String> {
        Ok(self.optional("system")?.map(|text| ChatTurn::new("system", text)).into_iter().collect())
    }

    /// Messages behind the system prompt of a column. One of their own must be the same.
    fn after_system(&self, mut said: Vec<ChatTurn>) -> Result<Vec<ChatTurn>, String> {
        let system = self.system()?;
        let own = said.first().filter(|first| first.role() == "system");
        match (own, system.first()) {
            (None, _) => {
                said.splice(0..0, system);
            }
            (Some(own), Some(system)) if own.content() != system.content() => {
                let name = self.columns.name("system");
                return Err(format!(
                    "column {name:?} and the first message give two different system prompts"
                ));
            }
            _ => {}
        }
        Ok(said)
    }

    /// Turns before the record's own, `[[question, answer], …]`: their answers are learned as well, as in
    /// LLaMA-Factory.
    fn history(&self) -> Result<Vec<ChatTurn>, String> {
        let value = match self.row.get("history") {
            Some(value) if !is_nothing(value) => value,
            _ => return Ok(Vec::new()),
        };
        let parsed: Value;
        let value = match value {
            Value::String(text) => {
                parsed = parse_json(text).map_err(|e| format!("column \"history\" is not JSON: {e}"))?;
                &parsed
            }
            other => other,
        };
        let pair = |turn: &Value| match turn.as_array().map(Vec::as_slice) {
            Some([Value::String(question), Value::String(answer)]) => {
                Ok([ChatTurn::new("user", question), ChatTurn::new(ASSISTANT, answer)])
            }
            _ => Err("column \"history\": expected a list of [question, answer]".to_string()),
        };
        let turns = value.as_array().ok_or("column \"history\": expected a list of [question, answer]")?;
        Ok(turns.iter().map(pair).collect::<Result<Vec<_>, String>>()?.concat())
    }

    /// A list of messages; in a table of strings, its JSON.
    fn messages(&self, column: &str) -> Result<Vec<ChatTurn>, String> {
        let value = self.get(column)?;
        let parsed: Value;
        let value = match value {
            Value::String(text) => {
                parsed = parse_json(text)
                    .map_err(|e| format!("column {:?} is not JSON: {e}", self.columns.name(column)))?;
                &parsed
            }
            other => other,
        };
        let Value::Array(items) = value else {
            return Err(self.wrong(column, value, "a list of messages"));
        };
        if items.is_empty() {
            return Err(format!(
                "column {:?} is an empty list; expected messages",
                self.columns.name(column)
            ));
        }
        let said = items
            .iter()
            .enumerate()
            .map(|(i, item)| said(item).map_err(|e| format!("message {}: {e}", i + 1)));
        said.collect()
    }

    /// A string as one message of a role, or a list of messages.
    fn said(&self, column: &str, role: &str) -> Result<Vec<ChatTurn>, String> {
        match self.get(column)? {
            Value::String(text) => Ok(vec![ChatTurn::new(role, text)]),
            Value::Array(_) => self.messages(column),
            other => Err(self.wrong(column, other, "a string or a list of messages")),
        }
    }

    /// A prompt, and its answer, which alone is learned.
    fn completed(&self) -> Result<Vec<ChatTurn>, String> {
        let mut said = self.after_system(self.said("prompt", "user")?)?;
        said.iter_mut().for_each(|said| said.learn = false);
        said.extend(self.said("completion", ASSISTANT)?);
        Ok(said)
    }

    /// Whether an answer is a good one.
    fn label(&self) -> Result<bool, String> {
        let value = self.get("label")?;
        judgement(value).ok_or_else(|| {
            format!(
                "{}, which says whether the answer is a good one",
                self.wrong("label", value, "true or false")
            )
        })
    }

    /// A prompt with two answers. Lists may repeat the prompt; without a prompt, it is what both lists begin
    /// with.
    fn preference(&self) -> Result<Body, String> {
        let (mut chosen, mut rejected) = (self.said("chosen", ASSISTANT)?, self.said("rejected", ASSISTANT)?);
        let mut prompt = Vec::new();
        if self.row.contains_key(self.columns.name("prompt")) {
            prompt.extend(self.said("prompt", "user")?);
            for answer in [&mut chosen, &mut rejected] {
                if answer.len() > prompt.len()
                    && answer.iter().zip(&prompt).all(|(a, p)| a.message == p.message)
                {
                    answer.drain(..prompt.len());
                }
            }
        } else {
            let common = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
            if common == 0 {
                return Err("there is no column \"prompt\", and the two answers do not begin with the same \
                            message"
                    .to_string());
            }
            prompt.extend(chosen.drain(..common));
            rejected.drain(..common);
        }
        let mut prompt = self.after_system(prompt)?;
        prompt.iter_mut().for_each(|said| said.learn = false);
        if chosen.is_empty() || rejected.is_empty() {
            return Err("one of the answers contains only the prompt".to_string());
        }
        Ok(Body::Preference { prompt, chosen, rejected })
    }
}

/// What a value says of an answer: true or false, 1 or 0, or their text, as tables of strings have it.
fn judgement(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(good) => Some(*good),
        Value::Number(number) if number.as_f64() == Some(1.0) => Some(true),
        Value::Number(number) if number.as_f64() == Some(0.0) => Some(false),
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a label judges an answer, as far as that can be told from it alone: a number may be any class of a text.
pub(super) fn is_judgement(value: &Value) -> bool {
    value.is_boolean() || matches!(value.as_str(), Some("true" | "false" | "True" | "False"))
}

/// Refuses what would change the meaning of the columns that are read.
fn refuse_columns(row: &Row, kind: RecordKind, columns: &Columns) -> Result<(), String> {
    for (name, why) in REFUSED_OF_RECORDS {
        // A column that is read under this name has the meaning that the recipe gives it.
        let read = columns.0.iter().any(|(meaning, column)| {
            column == name && (meaning != "label" || kind == RecordKind::UnpairedPreference)
        });
        let Some(value) = row.get(name).filter(|value| !read && !is_nothing(value)) else { continue };
        let counts = match name {
            // A class of a text has this name too.
            "label" => kind != RecordKind::UnpairedPreference && is_judgement(value),
            "weight" => value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()) != Some(1.0),
            _ => true,
        };
        if counts {
            return Err(format!("column {name:?} is {}: {why}", type_name(value)));
        }
    }
    // Whatever it is called and however it is written: the recipe says that it judges.
    if let Some(column) = columns.0.get("label").filter(|_| kind != RecordKind::UnpairedPreference)
        && let Some(value) = row.get(column.as_str()).filter(|value| !is_nothing(value))
    {
        return Err(format!("column {column:?} is {}: {JUDGED}", type_name(value)));
    }
    let history = row.get("history").is_some_and(|value| !is_nothing(value));
    if history && !matches!(kind, RecordKind::Alpaca | RecordKind::InputOutput) {
        return Err(
            "column \"history\" is supported only with instruction and output: put its turns into the \
                    messages"
                .to_string(),
        );
    }
    Ok(())
}

pub(super) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        Value::String(text) => text.is_empty() || text == "[]",
        _ => false,
    }
}
