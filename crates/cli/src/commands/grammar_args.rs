//! `--json-schema`, `--grammar`, `--regex`: what a text has to fit.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use serde_json::Value;
use tritforge_infer::{Constraint, Grammar, Model};

/// At most one of these.
#[derive(ClapArgs)]
#[group(multiple = false)]
pub(crate) struct GrammarArgs {
    /// Generate JSON that is valid by the schema in this file.
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
    /// Generate text that the grammar in this file accepts: Lark's syntax as llguidance knows it, beginning at the
    /// rule `start`.
    #[arg(long, value_name = "FILE")]
    grammar: Option<PathBuf>,
    /// Generate text that this regular expression matches as a whole.
    #[arg(long, value_name = "PATTERN")]
    regex: Option<String>,
}

impl GrammarArgs {
    /// The constraint for a model's vocabulary, if there is one.
    pub(crate) fn constraint(&self, model: &Model) -> Result<Option<Constraint>> {
        let (place, grammar) = match (&self.json_schema, &self.grammar, &self.regex) {
            (Some(file), _, _) => (file.display().to_string(), Grammar::JsonSchema(schema(file)?)),
            (_, Some(file), _) => (file.display().to_string(), Grammar::lark(read(file)?)),
            (_, _, Some(pattern)) => ("--regex".to_string(), Grammar::Regex(pattern.clone())),
            (None, None, None) => return Ok(None),
        };
        Ok(Some(model.constraint(&grammar).with_context(|| place)?))
    }
}

fn schema(file: &Path) -> Result<Value> {
    let value =
        serde_json::from_str(&read(file)?).with_context(|| format!("{}: not JSON", file.display()))?;
    match value {
        Value::Object(_) | Value::Bool(_) => Ok(value),
        _ => bail!("{}: expected a JSON schema, which is an object", file.display()),
    }
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("{}: cannot read", file.display()))
}
