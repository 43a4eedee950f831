//! Templates that would fill the memory or never end: each ends with an error that says so, within a bound.

#[path = "../../../tests/mutations/counting.rs"]
mod counting;

use serde_json::{Value, json};
use tritforge_text::ChatTemplate;

/// Bytes that a template may hold: what it may fill (`src/jinja/budget.rs`), and the buffers that grow beside it.
const MOST: usize = 64 << 20;

/// The text, or the message of the refusal.
fn render(source: &str, messages: &[Value]) -> Result<String, String> {
    let template = ChatTemplate::new(source).map_err(|e| e.to_string())?;
    template.render(messages, true, None, None).map_err(|e| e.to_string())
}

#[test]
fn templates_that_fill_the_memory_are_refused() {
    let messages = [json!({"role": "user", "content": "0123456789"})];
    let doubling = |step: &str| {
        format!(
            "{{% set ns = namespace(x='0123456789') %}}{{% for i in range(60) %}}{{% set ns.x = {step} %}}{{% endfor %}}{{{{ ns.x|length }}}}"
        )
    };
    let loops = |body: &str| {
        format!(
            "{{% set ns = namespace(l=[], n=0) %}}{{% for i in range(100000) %}}{{% for j in range(100000) %}}{body}{{% endfor %}}{{% endfor %}}"
        )
    };
    let raw = "x".repeat(10_000);
    let sources = [
        doubling("ns.x + ns.x"),
        doubling("ns.x ~ ns.x"),
        doubling("ns.x * 2"),
        doubling("ns.x * ns.x|length"),
        doubling("ns.x|replace('0', ns.x)"),
        doubling("ns.x.replace('0', ns.x)"),
        doubling("[ns.x, ns.x]|join"),
        doubling("ns.x.join([ns.x, ns.x, ns.x])"),
        doubling("'%s%s' % (ns.x, ns.x)"),
        doubling("'%s%s'|format(ns.x, ns.x)"),
        doubling("'{0}{0}{0}'.format(ns.x)"),
        doubling("ns.x|list + ns.x|list"),
        doubling("[ns.x, ns.x]"),
        doubling("[ns.x, ns.x]|string"),
        doubling("(ns.x, ns.x)|tojson"),
        doubling("{'a': ns.x, 'b': ns.x}"),
        doubling("ns.x|e ~ '&&&&&&&&&&'|e ~ ns.x"),
        doubling("ns.x|indent(ns.x) ~ '\\n' ~ ns.x"),
        doubling("(ns.x ~ ' ')|wordwrap(1, wrapstring=ns.x) ~ 'a b'"),
        doubling("{'a': ns.x, 'b': ns.x}|xmlattr"),
        doubling("dict(a=ns.x, b=ns.x)"),
        "{% set x = 'a' * 10**9 %}".to_string(),
        "{% set x = 10**9 * 'ab' %}".to_string(),
        "{% set x = [1] * 10**9 %}".to_string(),
        "{% for i in range(10**9) %}{{ i }}{% endfor %}".to_string(),
        "{% for c in 'a' * 10**8 %}{{ c }}{% endfor %}".to_string(),
        "{{ ('a' * 10**8)|list|length }}".to_string(),
        "{{ ('a b ' * 10**7).split()|length }}".to_string(),
        "{{ ('a,' * 10**7).split(',')|length }}".to_string(),
        "{{ ('a\\n' * 10**7).splitlines()|length }}".to_string(),
        loops("{{ messages }}"),
        loops(&raw),
        loops(&format!("{{% set x %}}{raw}{{% endset %}}{{% set ns.l = ns.l + [x] %}}")),
        loops("{% set ns.n = ns.n + 1 %}"),
        loops(""),
        format!("{{% macro m() %}}{raw}{{% endmacro %}}{}", loops("{% set ns.l = ns.l + [m()] %}")),
        format!("{{% set x %}}{}{{% endset %}}", loops(&raw)),
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}".to_string(),
        "{% for x in [[1]] recursive %}{{ loop([x, x]) }}{% endfor %}".to_string(),
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns.x }}".to_string(),
        "{% set a = namespace() %}{% set b = namespace() %}{% set a.b = [{'b': b}] %}{% set b.a = a %}"
            .to_string(),
    ];
    for source in sources {
        let (found, peak) = counting::peak(|| render(&source, &messages));
        assert!(peak <= MOST, "{peak} bytes: {source:.200}");
        let error = found.expect_err(&source[..source.len().min(200)]);
        let reasons =
            ["builds more than", "steps", "nested more than", "recursion", "namespace", "too many elements"];
        assert!(reasons.iter().any(|reason| error.contains(reason)), "{source:.200}: {error}");
    }
}

/// What reads a long string at every step takes its time from the same bound.
#[test]
fn steps_that_read_long_strings_end_soon() {
    for step in [
        "x.find('b')",
        "x == y",
        "'b' in x",
        "x|length",
        "x[5]",
        "x[::-1]",
        "x|wordcount",
        "x is lower",
        "x.count('b')",
        "x < y",
        "x|upper",
        "[x] == [y]",
        "x.strip() == ''",
        "x|trim is none",
    ] {
        let source = format!(
            "{{% set x = 'a' * 1000000 %}}{{% set y = 'a' * 1000000 %}}{{% for i in range(100000) %}}{{% for j in range(100000) %}}{{% if {step} %}}{{% endif %}}{{% endfor %}}{{% endfor %}}"
        );
        let error = render(&source, &[]).expect_err(step);
        assert!(error.contains("builds more than"), "{step}: {error}");
    }
}

/// Nesting that takes the stack when it is dropped, and expressions that take it when they are parsed.
#[test]
fn nesting_has_an_end() {
    for step in [
        "[ns.x]",
        "(ns.x,)",
        "{'a': ns.x}",
        "dict(a=ns.x)",
        "ns.x[0:]",
        "ns.x[:] + [1]",
        "[ns.x]|list",
        "ns.x|batch(2)|list",
    ] {
        let source = format!(
            "{{% set ns = namespace(x=[1, 2]) %}}{{% for i in range(100000) %}}{{% set ns.x = {step} %}}{{% endfor %}}{{{{ ns.x|length }}}}"
        );
        let _ = render(&source, &[]);
    }
    let n = 100_000;
    for source in [
        format!("{{{{ 1{} }}}}", " + 1".repeat(n)),
        format!("{{{{ 'a'{} }}}}", "|upper".repeat(n)),
        format!("{{{{ a{} }}}}", ".b".repeat(n)),
        format!("{{{{ a{} }}}}", "[0]".repeat(n)),
        format!("{{{{ a{} }}}}", "()".repeat(n)),
        format!("{{{{ a{} }}}}", " and a".repeat(n)),
        format!("{{{{ a{} }}}}", " is b".repeat(n)),
        format!("{{{{ {}a }}}}", "not ".repeat(n)),
        format!("{{{{ {}1 }}}}", "-".repeat(n)),
        format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(n)),
        format!("{{{{ 1{} }}}}", " < 1".repeat(n)),
        format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(n)),
        "{% if a %}".repeat(n),
        "{% for a in b %}".repeat(n),
    ] {
        let error = render(&source, &[]).expect_err(&source[..100]);
        let reasons = ["more than 1000 operators", "recursion", "unexpected"];
        assert!(reasons.iter().any(|reason| error.contains(reason)), "{source:.100}: {error}");
    }
}

/// What real templates do stays far below the bound: a text that grows with every message, lists of messages.
#[test]
fn long_conversations_are_rendered() {
    let message = |i: usize| json!({"role": (if i.is_multiple_of(2) { "user" } else { "assistant" }), "content": format!("{i} {}", "word ".repeat(200))});
    let messages: Vec<Value> = (0..600).map(message).collect();
    let source = "{% set ns = namespace(text='') %}{% for m in messages %}{% set ns.text = ns.text + '<' ~ m.role + '>' + m.content|trim + '\\n' %}\
        {% if loop.index < messages|length and messages[loop.index].role != m.role %}{{ m.role[0] }}{% endif %}\
        {% endfor %}{{ ns.text }}";
    let text = render(source, &messages).unwrap();
    assert_eq!(text.matches("word").count(), 600 * 200);
}
