//! What is known of recipes, for their reference and JSON Schema.

use schemars::generate::SchemaSettings;
use serde_json::Value;
use tritforge_recipe::{Reader, Reference};

use super::optim::SECTION;
use super::{Recipe, optim_texts, resolve};

/// Keys of which one may stand for all that a section needs.
const ALTERNATIVES: &[(&str, &str)] =
    &[("model", "config"), ("model", "base"), ("data", "source"), ("data", "sources")];

fn reference() -> Reference {
    let reader = asked();
    let settings = SchemaSettings::default().with(|s| s.inline_subschemas = true);
    let documented = settings.into_generator().into_root_schema_for::<Recipe>().to_value();
    let texts = optim_texts::texts(&documented["properties"][SECTION]["properties"]);
    let texts = texts.into_iter().map(|(key, text)| ((SECTION, key), text)).collect();
    Reference::new(&reader, ALTERNATIVES, documented, texts)
}

/// An empty recipe makes the reader ask for every key.
pub(super) fn asked() -> Reader {
    let mut reader = Reader::empty();
    resolve::resolve(&mut reader, "recipe.toml".as_ref());
    reader
}

/// The JSON Schema of recipes: an editor with a TOML language server completes and checks keys by it.
/// Contradictions between keys are beyond it.
pub fn json_schema() -> Value {
    reference().json_schema()
}

/// The reference as Markdown: a table a section.
pub fn markdown() -> String {
    reference().markdown()
}
