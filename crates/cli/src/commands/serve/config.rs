//! `--config FILE`: every option of `serve` as a key of a TOML file.
//!
//! The keys become arguments in front of those of the command line, so that each is checked by the option's own
//! rules. An option that the command line has is left out: the command line wins, also where it repeats one.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, Command, CommandFactory as _, Parser as _};
use toml::{Table, Value};

use crate::Cli;

/// Options that are no keys.
const NO_KEYS: &[&str] = &["config", "hash-key", "help"];
/// Bytes of a file at most.
const LONGEST: u64 = 1 << 20;

/// The command line `argv` of `serve` with the options of a file.
pub(super) fn with_file(path: &Path, argv: &[OsString]) -> Result<Cli> {
    let name = path.display();
    let length = std::fs::metadata(path).with_context(|| format!("--config {name}"))?.len();
    if length > LONGEST {
        bail!("--config {name}: {length} bytes; expected at most {LONGEST}");
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("--config {name}"))?;
    let mut table: Table = toml::from_str(&text).with_context(|| format!("--config {name}"))?;
    let alerts = take_alerts(&mut table).with_context(|| format!("--config {name}"))?;
    let argv = merge(&table, argv).with_context(|| format!("--config {name}"))?;
    let cli = Cli::try_parse_from(argv).map_err(|error| {
        let text = error.render().to_string();
        let line = text.lines().next().unwrap_or_default();
        anyhow::anyhow!("--config {name}: {}", line.trim_start_matches("error: "))
    });
    let mut cli = cli?;
    if let crate::Command::Serve(args) = &mut cli.command {
        args.alerts = alerts;
    }
    Ok(cli)
}

/// The entries of `[[alerts]]`, which are no options.
fn take_alerts(table: &mut Table) -> Result<Vec<Value>> {
    match table.remove("alerts") {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) if list.iter().all(Value::is_table) => Ok(list),
        Some(other) => {
            bail!("alerts: {}; expected [[alerts]] with metric and above or below", other.type_str())
        }
    }
}

/// The arguments with those of a file in front of them.
fn merge(table: &Table, argv: &[OsString]) -> Result<Vec<OsString>> {
    let mut command = Cli::command();
    command.build();
    let given = command.clone().try_get_matches_from(argv).context("the command line")?;
    let given = given.subcommand_matches("serve").context("the command line is not one of serve")?;
    let serve = command.find_subcommand("serve").context("there is no serve")?;
    let mut added = Vec::new();
    for (key, value) in table {
        let arg = known(serve, key)?;
        let id = arg.get_id().as_str();
        if given.value_source(id) == Some(ValueSource::CommandLine) {
            continue;
        }
        if matches!(arg.get_action(), ArgAction::SetTrue) {
            match value {
                Value::Boolean(true) => {
                    added.push(OsString::from(format!("--{}", arg.get_long().unwrap_or(id))));
                }
                Value::Boolean(false) => {}
                other => bail!("{key}: {}; expected true or false", other.type_str()),
            }
            continue;
        }
        let repeated = matches!(arg.get_action(), ArgAction::Append);
        let values = match value {
            Value::Array(list) if repeated => {
                list.iter().map(|value| text(key, value)).collect::<Result<_>>()?
            }
            Value::Array(_) => bail!("{key}: a list; expected one value"),
            value => vec![text(key, value)?],
        };
        for value in values {
            added.push(OsString::from(match arg.get_long() {
                Some(long) => format!("--{long}={value}"),
                // The model, which is no option. A name like one is a file of this directory.
                None if value.starts_with('-') => format!("./{value}"),
                None => value,
            }));
        }
    }
    let at = argv.iter().position(|arg| arg == "serve").context("the command line is not one of serve")?;
    let (before, after) = argv.split_at(at + 1);
    Ok(before.iter().cloned().chain(added).chain(after.iter().cloned()).collect())
}

/// The option of a key, which may have underscores in the place of hyphens.
fn known<'a>(serve: &'a Command, key: &str) -> Result<&'a Arg> {
    let name = |arg: &'a Arg| arg.get_long().unwrap_or(arg.get_id().as_str());
    let keys = || serve.get_arguments().filter(|arg| !NO_KEYS.contains(&name(arg)));
    let wanted = key.replace('_', "-");
    if let Some(arg) = keys().find(|arg| name(arg) == wanted) {
        return Ok(arg);
    }
    let similar = keys().map(|arg| (strsim::jaro_winkler(&wanted, name(arg)), name(arg)));
    let nearest = similar.filter(|(similarity, _)| *similarity > 0.8).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((_, nearest)) => bail!("unknown key {key:?}; did you mean {nearest:?}?"),
        None => {
            bail!("unknown key {key:?}; expected the options of tritforge serve --help without their hyphens")
        }
    }
}

/// A value as the command line would have it.
fn text(key: &str, value: &Value) -> Result<String> {
    Ok(match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        other => bail!("{key}: {}; expected a string or a number", other.type_str()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(file: &str, line: &str) -> Result<Vec<String>> {
        let argv: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let merged = merge(&toml::from_str(file).unwrap(), &argv)?;
        Ok(merged.into_iter().map(|arg| arg.into_string().unwrap()).collect())
    }

    #[test]
    fn the_command_line_wins() {
        let file = "model = \"m.gguf\"\nport = 1\nrate_limit = 5\nthreads = 3\nallow-origin = [\"http://a\", \"http://b\"]";
        let args = merged(file, "tritforge serve --config c.toml --port 2").unwrap();
        assert!(
            args.contains(&"m.gguf".to_string()) && args.contains(&"--rate-limit=5".to_string()),
            "{args:?}"
        );
        assert!(
            args.contains(&"--threads=3".to_string()) && !args.contains(&"--port=1".to_string()),
            "{args:?}"
        );
        assert!(args.contains(&"--allow-origin=http://a".to_string()), "{args:?}");
        assert!(args.contains(&"--allow-origin=http://b".to_string()), "{args:?}");
        let args =
            merged(file, "tritforge --threads 1 serve other.gguf --config c.toml --allow-origin http://c")
                .unwrap();
        assert!(args.contains(&"--port=1".to_string()), "{args:?}");
        for absent in ["m.gguf", "--threads=3", "--allow-origin=http://a"] {
            assert!(!args.contains(&absent.to_string()), "{args:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (file, expected) in [
            ("concurency = 2", "did you mean \"concurrency\""),
            ("max_connection = 2", "did you mean \"max-connections\""),
            ("hash-key = \"a\"", "unknown key \"hash-key\""),
            ("zzz = 2", "unknown key \"zzz\""),
            ("port = [1, 2]", "port: a list"),
            ("port = true", "port: boolean"),
            ("[port]\na = 1", "port: table"),
            ("allow-host = [[]]", "allow-host: array"),
            ("no-page = \"yes\"", "no-page: string; expected true or false"),
        ] {
            let error = merged(file, "tritforge serve m.gguf").unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
