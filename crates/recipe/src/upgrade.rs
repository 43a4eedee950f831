//! Recipes of earlier versions: what had another name there, and a recipe's text with the present names.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::entries::{self, Entries, Value};
use super::error::{Fault, RecipeError};

/// The version of the recipes that this program reads.
pub const VERSION: i64 = 1;

/// The key that says which version a recipe is of.
pub(super) const KEY: &str = "version";

/// A name that has changed. Names are not used again for something else.
#[derive(Debug, Clone, Copy)]
enum Renamed {
    /// A key.
    #[cfg_attr(not(test), expect(dead_code, reason = "no key has another name so far"))]
    Key { section: &'static str, from: &'static str, to: &'static str },
    /// A value that is a name.
    Value { section: &'static str, key: &'static str, from: &'static str, to: &'static str },
}

/// All names that have changed, in order.
const RENAMED: &[Renamed] = &[Renamed::Value { section: "quant", key: "backward", from: "exact", to: "f32" }];

/// A piece of a text and what takes its place.
#[derive(Debug, Clone, PartialEq)]
struct Edit {
    range: Range<usize>,
    text: String,
}

/// A line of a recipe that an upgrade changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedLine {
    /// Its number in the original, from 1.
    pub line: usize,
    /// As it was; none for a line that is added before that number.
    pub before: Option<String>,
    /// As it is now.
    pub after: String,
}

/// A recipe's text with the present names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// The text; all that has its present name, comments and spacing are as they were.
    pub text: String,
    /// The lines that differ, in order.
    pub changes: Vec<ChangedLine>,
}

/// Takes the version from a recipe's entries, and notes one that this program does not read.
pub(super) fn take_version(entries: &mut Entries, faults: &mut Vec<Fault>) {
    let Some(entry) = entries.stray.remove(KEY) else { return };
    let message = match entry.value {
        Value::Integer(found) if found == VERSION => return,
        Value::Integer(found) if found > VERSION => format!(
            "version = {found}: this program reads recipes of version {VERSION}; use the newer version of \
             Tritforge that the recipe was written for"
        ),
        _ => format!("version = {}: expected {VERSION}, or no version at all", entry.written),
    };
    faults.push(Fault { origin: entry.value_at, message });
}

/// Gives a recipe the present names, and says which version it is of. `path` names it in messages.
///
/// # Errors
/// If the text is not TOML, or of a later version.
pub fn upgrade(path: &Path, text: &str) -> Result<Upgrade, RecipeError> {
    upgrade_by(RENAMED, path, text)
}

fn upgrade_by(renamed: &[Renamed], path: &Path, text: &str) -> Result<Upgrade, RecipeError> {
    let mut entries = entries::parse_recipe(path, text).map_err(RecipeError::Invalid)?;
    let (mut faults, versioned) = (Vec::new(), entries.stray.contains_key(KEY));
    take_version(&mut entries, &mut faults);
    if !faults.is_empty() {
        return Err(RecipeError::Invalid(faults));
    }
    // It has been parsed before, so there are no errors.
    let (table, _) = DeTable::parse_recoverable(text);
    let mut edits: Vec<Edit> = renamed.iter().filter_map(|renamed| renamed.edit(table.get_ref())).collect();
    if !versioned {
        let at = after_leading_comment(text);
        let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
        edits.push(Edit { range: at..at, text: format!("{KEY} = {VERSION}{end}{end}") });
    }
    edits.sort_by_key(|edit| edit.range.start);
    Ok(Upgrade { text: edited(text, &edits), changes: changes(text, &edits) })
}

impl Renamed {
    /// The change of a recipe that has the former name.
    fn edit(&self, recipe: &DeTable<'_>) -> Option<Edit> {
        let section = |name: &str| match recipe.get(name).map(Spanned::get_ref) {
            Some(DeValue::Table(section)) => Some(section),
            _ => None,
        };
        match *self {
            Renamed::Key { section: name, from, to } => {
                let (key, _) = section(name)?.get_key_value(from)?;
                Some(Edit { range: key.span(), text: to.to_string() })
            }
            Renamed::Value { section: name, key, from, to } => {
                let value = section(name)?.get(key)?;
                let former = matches!(value.get_ref(), DeValue::String(text) if text.as_ref() == from);
                former.then(|| Edit { range: value.span(), text: format!("\"{to}\"") })
            }
        }
    }
}

/// What a value that is a name is called now.
pub(super) fn present_value(section: &str, key: &str, value: &str) -> Option<&'static str> {
    RENAMED.iter().find_map(|renamed| match *renamed {
        Renamed::Value { section: s, key: k, from, to } => {
            ((s, k, from) == (section, key, value)).then_some(to)
        }
        Renamed::Key { .. } => None,
    })
}

/// What a key is called now.
pub(super) fn present_key(section: &str, key: &str) -> Option<&'static str> {
    RENAMED.iter().find_map(|renamed| match *renamed {
        Renamed::Key { section: s, from, to } => ((s, from) == (section, key)).then_some(to),
        Renamed::Value { .. } => None,
    })
}

/// Where the comment ends that a recipe begins with, and the empty lines after it.
fn after_leading_comment(text: &str) -> usize {
    let mut lines = text.split_inclusive('\n').peekable();
    let mut end = 0;
    while let Some(line) = lines.next_if(|line| line.starts_with('#')) {
        end += line.len();
    }
    while let Some(line) = lines.next_if(|line| line.trim().is_empty()) {
        end += line.len();
    }
    end
}

fn edited(text: &str, edits: &[Edit]) -> String {
    let (mut out, mut done) = (String::with_capacity(text.len()), 0);
    for edit in edits {
        out += &text[done..edit.range.start];
        out += &edit.text;
        done = edit.range.end;
    }
    out + &text[done..]
}

/// The lines that edits change; several edits of a line are one change.
fn changes(text: &str, edits: &[Edit]) -> Vec<ChangedLine> {
    let mut changes: Vec<ChangedLine> = Vec::new();
    let mut start = 0;
    for (i, line) in text.split_inclusive('\n').enumerate() {
        let range = start..start + line.len();
        start = range.end;
        let own: Vec<Edit> = (edits.iter().filter(|edit| !edit.range.is_empty()))
            .filter(|edit| range.contains(&edit.range.start))
            .map(|edit| Edit {
                range: edit.range.start - range.start..edit.range.end - range.start,
                text: edit.text.clone(),
            })
            .collect();
        let added = edits.iter().filter(|edit| edit.range.is_empty() && edit.range.start == range.start);
        changes.extend(added.map(|edit| ChangedLine {
            line: i + 1,
            before: None,
            after: edit.text.trim_end().to_string(),
        }));
        if !own.is_empty() {
            let after = edited(line, &own).trim_end().to_string();
            changes.push(ChangedLine { line: i + 1, before: Some(line.trim_end().to_string()), after });
        }
    }
    // What is added behind the last line.
    let line = text.lines().count() + 1;
    let added = edits.iter().filter(|edit| edit.range.start == text.len());
    changes.extend(added.map(|edit| ChangedLine {
        line,
        before: None,
        after: edit.text.trim_end().to_string(),
    }));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[Renamed] = &[
        Renamed::Key { section: "train", from: "max_steps", to: "steps" },
        Renamed::Value { section: "quant", key: "backward", from: "exact", to: "f32" },
    ];

    fn upgraded(text: &str) -> Upgrade {
        upgrade_by(NAMES, Path::new("r.toml"), text).unwrap()
    }

    #[test]
    fn names_change_where_they_stand_and_all_else_stays() {
        let text = "# A recipe.\n# It is old.\n\n# About quantization.\n[quant]   # here\nbackward='exact' # why\n\n\
                    [train]\n  \"max_steps\"  =  1_000\n# max_steps\nbatch_size = 2\n";
        let found = upgraded(text);
        assert_eq!(
            found.text,
            "# A recipe.\n# It is old.\n\nversion = 1\n\n# About quantization.\n[quant]   # here\nbackward=\"f32\" # why\n\n\
             [train]\n  steps  =  1_000\n# max_steps\nbatch_size = 2\n"
        );
        let line = |line, before: Option<&str>, after: &str| ChangedLine {
            line,
            before: before.map(str::to_string),
            after: after.to_string(),
        };
        assert_eq!(
            found.changes,
            [
                line(4, None, "version = 1"),
                line(6, Some("backward='exact' # why"), "backward=\"f32\" # why"),
                line(9, Some("  \"max_steps\"  =  1_000"), "  steps  =  1_000"),
            ]
        );
        // Once is enough.
        let again = upgraded(&found.text);
        assert_eq!((again.text, again.changes), (found.text, vec![]));
    }

    #[test]
    fn other_ways_to_write_a_section_are_found() {
        let found =
            upgraded("version = 1\nquant.backward = \"exact\"\ntrain = { max_steps = 3, batch_size = 2 }\n");
        assert_eq!(
            found.text,
            "version = 1\nquant.backward = \"f32\"\ntrain = { steps = 3, batch_size = 2 }\n"
        );
        assert_eq!(
            upgraded("[train]\r\nmax_steps = 1\r\n").text,
            "version = 1\r\n\r\n[train]\r\nsteps = 1\r\n"
        );
        let empty = upgraded("# Only a comment.\n");
        assert_eq!((empty.text.as_str(), empty.changes.len()), ("# Only a comment.\nversion = 1\n\n", 1));
    }

    #[test]
    fn versions_that_are_not_known_are_refused() {
        for (text, message) in [
            (
                "version = 2\n",
                "r.toml:1:11: version = 2: this program reads recipes of version 1; use the newer",
            ),
            ("version = \"1\"\n", "r.toml:1:11: version = \"1\": expected 1, or no version at all"),
            ("version = 0\n", "version = 0: expected 1"),
            ("[quant\n", "not TOML"),
        ] {
            let found = upgrade(Path::new("r.toml"), text).unwrap_err().to_string();
            assert!(found.contains(message), "{text}: {found}");
        }
    }
}
