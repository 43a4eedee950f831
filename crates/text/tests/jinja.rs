//! Templates against what jinja2 made of them, set up as transformers sets it up
//! (`tests/golden/make_jinja.py`).

use serde_json::Value;
use tritforge_text::ChatTemplate;

const GOLDEN: &str = include_str!("../../../tests/golden/jinja/templates.json");

/// The text, or the message of the refusal.
fn render(source: &str, messages: &[Value]) -> Result<String, String> {
    let template = ChatTemplate::new(source).map_err(|e| e.to_string())?;
    template.render(messages, true, Some("<s>"), Some("</s>")).map_err(|e| e.to_string())
}

#[test]
fn a_template_renders_as_in_jinja2_or_is_refused() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let messages = golden["messages"].as_array().unwrap();
    let (mut same, mut refused, mut other) = (0, Vec::new(), Vec::new());
    for entry in golden["entries"].as_array().unwrap() {
        let source = entry["template"].as_str().unwrap();
        match (render(source, messages), entry["text"].as_str()) {
            (Ok(found), Some(right)) if found == right => same += 1,
            (Err(_), None) => same += 1,
            (Err(error), Some(_)) => refused.push(format!("{source}\n    {error}")),
            (found, right) => other.push(format!("{source}\n    {found:?}\n    {right:?}")),
        }
    }
    println!("{same} alike; refused:\n{}", refused.join("\n"));
    assert!(other.is_empty(), "{} other texts:\n{}", other.len(), other.join("\n"));
    assert!(same >= 400, "{same} alike, {} refused", refused.len());
}

/// A template comes from strangers: whatever it is, it ends in a text or an error, without a stack overflow.
#[test]
fn hostile_templates_end_in_a_text_or_an_error() {
    let n = 200_000;
    let deep = |open: &str, close: &str| format!("{{{{ {}1{} }}}}", open.repeat(n), close.repeat(n));
    for source in [
        deep("(", ")"),
        deep("('a' ~ ", ")"),
        deep("'%s' % (", ")"),
        deep("a(", ""),
        format!("{{{{ {} }}}}", "é".repeat(n)),
        format!("{{{{ 1{}2 }}}}", " ".repeat(n)),
        "{{ '\\é' % '\\ }}".to_string(),
        deep("(')' ~ ", ")"),
        "{{ '".to_string(),
        "{{ 1e".to_string(),
        "{{ 1e-~.|".to_string(),
        "{% raw %}".repeat(1000),
        "{".repeat(n),
    ] {
        let _ = render(&source, &[]);
    }
}
