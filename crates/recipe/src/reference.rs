//! The reference of recipes, as JSON Schema for editors and as Markdown for people.
//!
//! Neither is written by hand: keys, types and ranges are those that the reader asks for, in its order;
//! descriptions are the documentation of the structs that the keys are read into.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::kind::quoted;
use crate::prose::one_line;
use crate::reader::Reader;
use crate::upgrade;
use crate::{Key, Kind, VERSION};

/// What `model.config` is; it is gone before the sections are filled.
const CONFIG: &str = "TOML file with keys of this section, as in `configs/`; keys in the recipe take \
                      precedence.";

/// Everything that is known of recipes.
#[derive(Debug)]
pub struct Reference {
    keys: Vec<Key>,
    /// Keys without which a recipe is incomplete.
    needed: Vec<(&'static str, &'static str)>,
    /// Keys of which one may stand for all that a section needs.
    alternatives: &'static [(&'static str, &'static str)],
    /// The recipe's struct as schemars sees it: a property for each section.
    documented: Value,
    /// Keys whose meaning is not the documentation of a field.
    texts: BTreeMap<(&'static str, &'static str), String>,
}

impl Reference {
    /// The reference of the keys that `reader` was asked for, by an empty recipe, so that it knows which are needed; one
    /// of `alternatives` may stand for all that their section needs. `documented` is the JSON Schema of the recipe's
    /// struct, in whose order sections come, and `texts` says what keys mean of which it says nothing.
    pub fn new(
        reader: &Reader,
        alternatives: &'static [(&'static str, &'static str)],
        documented: Value,
        mut texts: BTreeMap<(&'static str, &'static str), String>,
    ) -> Self {
        texts.insert(("model", "config"), CONFIG.to_string());
        let (keys, needed) = (reader.keys().to_vec(), reader.needed().to_vec());
        Self { keys, needed, alternatives, documented, texts }
    }

    /// The sections, in the order in which a recipe is written out.
    fn sections(&self) -> Vec<&str> {
        let mut order: Vec<&str> = match self.documented["properties"].as_object() {
            Some(sections) => sections.keys().map(String::as_str).collect(),
            None => Vec::new(),
        };
        order.retain(|section| self.keys.iter().any(|key| key.section == *section));
        order
    }

    fn keys_of(&self, section: &str) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |key| key.section == section)
    }

    /// A section's struct: the schema of an optional one is that or null.
    fn documented_section(&self, section: &str) -> &Value {
        let schema = &self.documented["properties"][section];
        let variants = schema["anyOf"].as_array().into_iter().flatten();
        variants.into_iter().find(|v| v["properties"].is_object()).unwrap_or(schema)
    }

    fn section_text(&self, section: &str) -> String {
        one_line(&self.documented["properties"][section]["description"])
    }

    fn key_text(&self, key: &Key) -> String {
        if let Some(text) = self.texts.get(&(key.section, key.name)) {
            return text.clone();
        }
        one_line(&self.documented_section(key.section)["properties"][key.name]["description"])
    }

    /// The documentation of a key of a table under `key`.
    fn table_key_text(&self, key: &Key, name: &str) -> String {
        let documented = &self.documented_section(key.section)["properties"][key.name]["items"];
        one_line(&documented["properties"][name]["description"])
    }

    fn needs(&self, section: &str) -> Vec<&'static str> {
        self.needed.iter().filter(|(s, _)| *s == section).map(|(_, key)| *key).collect()
    }

    /// The JSON Schema of recipes: an editor with a TOML language server completes and checks keys by it.
    /// Contradictions between keys are beyond it.
    pub fn json_schema(&self) -> Value {
        let mut properties = Map::new();
        let version = self.section_text(upgrade::KEY);
        let version = json!({ "type": "integer", "enum": [VERSION], "description": version });
        properties.insert(upgrade::KEY.to_string(), version);
        let mut sections = Map::new();
        for section in self.sections() {
            let mut keys = Map::new();
            for key in self.keys_of(section) {
                let mut schema = key.kind.schema();
                schema["description"] = json!(self.key_text(key));
                let of_tables = schema.pointer_mut("/items/properties").and_then(Value::as_object_mut);
                for (name, schema) in of_tables.into_iter().flatten() {
                    schema["description"] = json!(self.table_key_text(key, name));
                }
                keys.insert(key.name.to_string(), schema);
            }
            let mut schema = json!({
                "type": "object",
                "description": self.section_text(section),
                "properties": keys,
                "additionalProperties": false,
            });
            let needed = self.needs(section);
            let others: Vec<&str> =
                self.alternatives.iter().filter(|(s, _)| *s == section).map(|(_, key)| *key).collect();
            if !others.is_empty() {
                let ways = others.iter().map(|key| vec![*key]).chain([needed]);
                schema["anyOf"] = ways.map(|keys| json!({ "required": keys })).collect();
            } else if !needed.is_empty() {
                schema["required"] = json!(needed);
            }
            sections.insert(section.to_string(), schema);
        }
        let required: Vec<&String> = sections.keys().filter(|s| !self.needs(s).is_empty()).collect();
        let required = json!(required);
        properties.append(&mut sections);
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Tritforge recipe",
            "description": "Everything about a training run.",
            "type": "object",
            "required": required,
            "properties": properties,
            "additionalProperties": false,
        })
    }

    /// The reference as Markdown: a table a section.
    pub fn markdown(&self) -> String {
        let mut text = String::from(HEAD);
        for section in self.sections() {
            text += &format!("\n## [{section}]\n\n{}\n\n", self.section_text(section));
            text += "| key | value | meaning |\n| --- | --- | --- |\n";
            for key in self.keys_of(section) {
                let kind = kind_text(&key.kind);
                text += &format!("| `{}` | {kind} | {} |\n", key.name, self.key_text(key));
                if let Kind::Tables(keys) = &key.kind {
                    for (name, kind) in keys {
                        let meaning = self.table_key_text(key, name);
                        text += &format!("| `{}.{name}` | {} | {meaning} |\n", key.name, kind_text(kind));
                    }
                }
            }
        }
        text
    }
}

const HEAD: &str = "\
# Recipes

Generated by `tritforge recipes reference`; do not edit.

A recipe is a TOML file that describes a whole training run. `[model]`, `[data]` and `[train]` are required; all other
sections and most keys have defaults. `tritforge train RECIPE --dry-run` prints a recipe with all of them filled in;
`--set section.key=value` overrides a key. Unknown keys, wrong values and contradictions are all reported at once,
each with its line and column. Paths are relative to the recipe's directory or, if there is no such file, to the
working directory.

`tritforge recipes list` lists the built-in recipes, `tritforge recipes copy NAME` copies one to edit, and
`tritforge recipes schema` prints a JSON Schema: with `#:schema recipe.schema.json` as the first line of a recipe,
editors with a TOML language server (Taplo, Even Better TOML) complete and check keys.

`version = 1`, before all sections, states the version of the recipe format; without it, the current one is assumed.
`tritforge recipes upgrade FILE` updates the names of keys and values in place, keeps comments, and adds the version;
`--check` only shows the lines that would change.
";

/// What a value may be, in a table's cell.
fn kind_text(kind: &Kind) -> String {
    match kind {
        Kind::Choices(names) => {
            let names: Vec<String> = names.iter().map(|name| format!("`\"{name}\"`")).collect();
            format!("an array of one or more of {}", names.join(", "))
        }
        Kind::Choice(names) => {
            names.iter().map(|name| format!("`{}`", quoted(name))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}
