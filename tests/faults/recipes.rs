//! Recipes: each key with other values, twice, misspelt; versions; cut files.

use std::fs;
use std::path::Path;

use tritforge_train::recipe::Recipe;

use crate::{Round, caught, golden_path};

fn load(text: &str) -> Result<String, String> {
    caught(|| {
        let recipe = Recipe::from_toml(Path::new("recipe.toml"), text, &[]).map_err(|e| e.to_string())?;
        recipe.to_toml().map_err(|e| e.to_string())
    })
}

/// Whether two values are of the same type, as TOML has it.
fn same_type(a: &str, b: &str) -> bool {
    let kind = |text: &str| match text.trim().chars().next() {
        Some('"' | '\'') => 's',
        Some('[') => 'l',
        Some('{') => 't',
        Some('t' | 'f') => 'b',
        _ => 'n',
    };
    // One path is a list of paths.
    kind(a) == kind(b) || (kind(a), kind(b)) == ('s', 'l')
}

#[test]
fn recipes_with_one_fault() {
    let mut round = Round::default();
    let mut recipes: Vec<_> = fs::read_dir(golden_path("../../recipes"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    recipes.sort();
    for path in recipes {
        let text = fs::read_to_string(&path).unwrap();
        // Recipes that lie beside files of their own are read where these lie.
        let Ok(right) = load(&text) else { continue };
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let with = |at: usize, line: &str| {
            let mut other = lines.clone();
            other[at] = line;
            other.join("\n")
        };
        for (at, line) in lines.iter().enumerate() {
            let code = line.split(" #").next().unwrap().trim_end();
            if let Some(section) = code.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                if section.starts_with('[') {
                    continue;
                }
                let twice = format!("{text}\n[{section}]\n");
                round.refused(&format!("{name}: [{section}] twice"), load(&twice), &[section]);
                let other = with(at, &format!("[{section}x]"));
                let places = [&*format!("{section}x")];
                round.refused(&format!("{name}: [{section}x]"), load(&other), &places);
                continue;
            }
            let Some((key, value)) = code.split_once('=').map(|(key, value)| (key.trim(), value.trim()))
            else {
                continue;
            };
            if code.starts_with('#') || !key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                continue;
            }
            let twice = format!("{line}\n{line}");
            round.refused(&format!("{name}: {key} twice"), load(&with(at, &twice)), &[key]);
            let misspelt = format!("{key}x");
            let other = with(at, &format!("{misspelt} = {value}"));
            round.refused(&format!("{name}: {misspelt}"), load(&other), &[&misspelt]);
            for other in [
                "-1",
                "\"abc\"",
                "\"\"",
                "[]",
                "[[1]]",
                "{ a = 1 }",
                "1e308",
                "-0.5",
                "nan",
                "inf",
                "true",
                "1979-05-27",
                "9223372036854775807",
                "99999999999999999999",
                "",
            ] {
                let what = format!("{name}: {key} = {other} and not {value}");
                let found = load(&with(at, &format!("{key} = {other}")));
                // A value of the right type in its range is one like any other.
                match &found {
                    Ok(_) if same_type(other, value) && !other.contains('n') => round.tried += 1,
                    _ => {
                        let line = format!(":{}:", at + 1);
                        round.take(&what, found, &[key, &line], &right);
                    }
                }
            }
        }
        for version in ["0", "2", "-1", "\"1\"", "1.0", "[1]", "99999999999"] {
            let other = format!("version = {version}\n{text}");
            round.refused(&format!("{name}: version = {version}"), load(&other), &["version"]);
        }
        round.take(&name, load(&text.replace('\n', "\r\n")), &[], &right);
        round.take(&name, load(&format!("version = 1\n{text}")), &[], &right);
        for cut in (1..8).map(|part| text.len() * part / 8) {
            // A recipe that ends early may be one with more defaults; one that ends within a line is none.
            if let Some(cut) = text.get(..cut).filter(|text| text.ends_with(['=', '[', '"'])) {
                round.refused(&format!("{name} cut: {cut}"), load(cut), &["recipe.toml"]);
            }
        }
    }
    round.refused("binary", load("\0\u{1}"), &["recipe.toml"]);
    round.refused("empty", load(""), &["recipe.toml", "data"]);
    round.end(500);
}
