//! The JSON Schema and the reference say what the parser reads.

use super::*;

/// What of a recipe a schema does not allow, as far as the keywords go that ours uses.
fn violations(schema: &serde_json::Value, value: &serde_json::Value, at: &str) -> Vec<String> {
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("array") => value.is_array(),
        _ => true,
    };
    let mut found = Vec::new();
    let mut note = |what: String| found.push(format!("{at}: {what}"));
    if !fits {
        note(format!("{value} is no {}", schema["type"]));
    }
    if schema["enum"].as_array().is_some_and(|names| !names.contains(value)) {
        note(format!("{value} is none of {}", schema["enum"]));
    }
    let number = value.as_f64().unwrap_or(0.0);
    for (bound, holds) in [
        ("minimum", (|x, b| x >= b) as fn(f64, f64) -> bool),
        ("maximum", |x, b| x <= b),
        ("exclusiveMinimum", |x, b| x > b),
        ("exclusiveMaximum", |x, b| x < b),
    ] {
        if schema[bound].as_f64().is_some_and(|b| !holds(number, b)) {
            note(format!("{value} against {bound} {}", schema[bound]));
        }
    }
    let lacks = |needed: &serde_json::Value| {
        needed.as_array().into_iter().flatten().any(|key| value.get(key.as_str().unwrap()).is_none())
    };
    if lacks(&schema["required"]) {
        note(format!("not all of {}", schema["required"]));
    }
    if let Some(variants) = schema["anyOf"].as_array()
        && variants.iter().all(|v| lacks(&v["required"]) || !violations(v, value, at).is_empty())
    {
        note("no variant fits".to_string());
    }
    if let Some(keys) = value.as_object().filter(|_| schema["type"] == "object") {
        for (key, value) in keys {
            match schema["properties"].get(key) {
                Some(schema) => found.extend(violations(schema, value, &format!("{at}.{key}"))),
                None => found.push(format!("{at}.{key}: unknown")),
            }
        }
    }
    for (i, item) in
        value.as_array().into_iter().flatten().enumerate().filter(|_| schema["items"].is_object())
    {
        found.extend(violations(&schema["items"], item, &format!("{at}[{i}]")));
    }
    found
}

fn schema_violations(text: &str) -> Vec<String> {
    let value: serde_json::Value =
        serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap();
    violations(&json_schema(), &value, "recipe")
}

#[test]
fn the_schema_allows_what_the_parser_reads_and_nothing_else() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let base = tempfile::tempdir().unwrap();
    let overrides = base_of_the_default_shape(base.path());
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let overrides = if text.contains("\nbase = ") { &overrides[..] } else { &[] };
        assert_eq!(schema_violations(&text), [] as [String; 0], "{}", path.display());
        // What a run writes out has nearly every key.
        let written = Recipe::load(&path, overrides).unwrap().to_toml().unwrap();
        assert_eq!(schema_violations(&written), [] as [String; 0], "{}", path.display());
    }
    for (from, to, message) in [
        ("steps = 1000", "step = 1000", "recipe.train.step: unknown"),
        ("steps = 1000", "", "recipe.train: not all of"),
        ("steps = 1000", "steps = 0", "recipe.train.steps: 0 against minimum 1"),
        ("steps = 1000", "steps = \"many\"", "recipe.train.steps: \"many\" is no \"integer\""),
        ("num_hidden_layers = 2\n", "", "recipe.model: no variant fits"),
        ("[train]", "[optim]\nlr = 0\n[train]", "recipe.optim.lr: 0 against exclusiveMinimum"),
        ("[train]", "[optim]\nkind = \"sgd\"\n[train]", "recipe.optim.kind: \"sgd\" is none of"),
        ("[train]", "[optim]\nbetas = [0.9, 1.0]\n[train]", "recipe.optim.betas[1]: 1.0 against"),
        ("train = [\"corpus.txt\"]", "train = [7]", "recipe.data.train: no variant fits"),
        ("[train]", "[training]", "recipe.training: unknown"),
    ] {
        let text = MINIMAL.replace(from, to);
        let found = schema_violations(&text);
        assert!(found.iter().any(|f| f.starts_with(message)), "{message}: {found:?}");
        assert!(parse(&text, &[]).is_err(), "{message}");
    }
}

#[test]
fn every_key_is_described() {
    let schema = json_schema();
    let sections = schema["properties"].as_object().unwrap();
    assert!(sections.len() >= 10, "{:?}", sections.keys());
    assert_eq!(sections["version"]["enum"], serde_json::json!([1]));
    for (name, section) in sections.iter().filter(|(name, _)| *name != "version") {
        assert!(section["description"].as_str().is_some_and(|d| d.len() > 10), "[{name}]");
        for (key, schema) in section["properties"].as_object().unwrap() {
            assert!(schema["description"].as_str().is_some_and(|d| d.len() > 5), "{name}.{key}");
        }
    }
}
