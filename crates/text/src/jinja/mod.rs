//! Jinja2's own filters, tests and operators where those of minijinja give another text: templates are
//! written for jinja2 3.1. And a bound on the memory that they fill.

mod budget;
mod filters;
mod methods;
mod operators;
mod rewrite;
mod text_filters;
mod widths;

use minijinja::formatting::FormatStyle;
use minijinja::value::{Kwargs, ObjectRepr, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};

pub(crate) use budget::input;
pub(crate) use filters::Group;
pub(crate) use rewrite::rewrite;

use crate::python::value_text;

/// Filters and tests of minijinja that jinja2 does not know.
const FOREIGN_FILTERS: [&str; 5] = ["split", "lines", "chain", "zip", "bool"];
const FOREIGN_TESTS: [&str; 4] = ["safe", "int", "startingwith", "endingwith"];

/// Puts jinja2's behaviour on an environment.
pub(crate) fn set_up(environment: &mut Environment<'static>) {
    environment.set_formatter(|out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value| {
        // Counted before it is copied.
        if let Some(text) = value.as_str() {
            budget::spend(state, text.len())?;
            return out.write_str(text).map_err(Error::from);
        }
        let text = value_text(value);
        budget::spend(state, text.len())?;
        out.write_str(&text).map_err(Error::from)
    });
    environment.set_unknown_method_callback(methods::method);
    environment.add_filter(rewrite::ADD, operators::add);
    environment.add_filter(rewrite::MUL, operators::mul);
    environment.add_filter(rewrite::MODULO, operators::modulo);
    environment.add_filter(rewrite::CONCAT, operators::concat);
    environment.add_filter(rewrite::COMPARE, operators::compare);
    environment.add_filter(rewrite::SLICE, operators::slice);
    environment.add_filter(rewrite::MADE, budget::made);
    environment.add_filter(rewrite::PARTS, budget::made);
    environment.add_filter(rewrite::USED, budget::used);
    environment.add_filter(rewrite::ITEMS, budget::items);
    environment.add_filter(rewrite::PRINTED, budget::printed);
    environment.add_filter(rewrite::STORED, budget::stored);
    for (names, sign) in [
        (["lt", "lessthan", "<"], "<"),
        (["gt", "greaterthan", ">"], ">"),
        (["le", "<=", "<="], "<="),
        (["ge", ">=", ">="], ">="),
    ] {
        for name in names {
            environment.add_test(name, move |a: &Value, b: &Value| operators::holds(sign, a, b));
        }
    }
    FOREIGN_FILTERS.iter().for_each(|name| environment.remove_filter(name));
    FOREIGN_TESTS.iter().for_each(|name| environment.remove_test(name));
    environment.remove_global("debug");
    environment.add_function("cycler", filters::cycler);
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
    environment.add_filter("string", |value: &Value| value_text(value));
    for name in ["e", "escape", "forceescape"] {
        environment.add_filter(name, |value: &Value| filters::escape(&value_text(value)));
    }
    for name in ["default", "d"] {
        environment.add_filter(name, filters::default);
    }
    for name in ["length", "count"] {
        environment.add_filter(name, filters::length);
    }
    environment.add_filter("format", |state: &mut State<'_, '_>, text: &Value, args: Rest<ValueOrKwargs>| {
        match text.as_str() {
            Some(text) => widths::format(state, FormatStyle::Printf, text, &args.into_values()),
            None => Err(invalid("format: expected a string".to_string())),
        }
    });
    environment.add_filter(
        "batch",
        |state: &mut State<'_, '_>, items: Value, count: usize, fill_with: Option<Value>| {
            minijinja::filters::batch(state, items, widths::check_count("batch", count)?, fill_with)
        },
    );
    environment.add_filter(
        "slice",
        |state: &mut State<'_, '_>, items: Value, count: usize, fill_with: Option<Value>| {
            minijinja::filters::slice(state, items, widths::check_count("slice", count)?, fill_with)
        },
    );
    environment.add_filter("indent", filters::indent);
    environment.add_filter("join", filters::join);
    environment.add_filter("sum", filters::sum);
    environment.add_filter("replace", filters::replace);
    environment.add_filter("truncate", filters::truncate);
    environment.add_filter("groupby", filters::groupby);
    environment.add_filter("urlencode", filters::urlencode);
    environment.add_filter("sort", filters::sort);
    environment.add_filter("min", filters::min);
    environment.add_filter("max", filters::max);
    environment.add_filter("dictsort", filters::dictsort);
    environment.add_filter("filesizeformat", text_filters::filesizeformat);
    environment.add_filter("xmlattr", text_filters::xmlattr);
    environment.add_filter("striptags", text_filters::striptags);
    environment.add_filter("wordwrap", text_filters::wordwrap);
    environment.add_filter("center", |value: &Value, width: Option<usize>| {
        filters::center(&value_text(value), width.unwrap_or(80), ' ')
    });
    environment.add_filter("wordcount", |value: &Value| {
        let text = value_text(value);
        text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count()
    });
    environment.add_filter(rewrite::METHOD, |value: &Value, name: String| match value.get_attr(&name) {
        Ok(found) if !found.is_undefined() => found,
        _ => bound(value, &name).unwrap_or_default(),
    });
    // Attributes alone, no items.
    environment.add_filter("attr", |value: &Value, name: String| match value.kind() {
        ValueKind::Map | ValueKind::Seq | ValueKind::String => Ok(bound(value, &name).unwrap_or_default()),
        _ => value.get_attr(&name),
    });
    environment.add_test("callable", |value: &Value| {
        // `Undefined` of jinja2 has a `__call__`, which fails.
        value.is_undefined() || value.as_object().is_some_and(|object| object.repr() == ObjectRepr::Plain)
    });
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Undefined)
    });
    environment
        .add_test("number", |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool));
}

/// A method that was named and not called.
fn bound(value: &Value, name: &str) -> Option<Value> {
    let name = *methods::methods(value).iter().find(|known| **known == name)?;
    Some(Value::from_function(move || -> Result<Value, Error> {
        Err(invalid(format!("{name}: a method must be called where it is named, as in value.{name}(…)")))
    }))
}

/// The arguments of a call in the order of their names, given by place or by name; `none` counts as not
/// given.
pub(crate) fn arguments<const N: usize>(
    what: &str,
    places: &[Value],
    named: &Kwargs,
    names: [&str; N],
) -> Result<[Option<Value>; N], Error> {
    if places.len() > N {
        return Err(invalid(format!("{what}: {} arguments, expected at most {N}", places.len())));
    }
    if let Some(strange) = named.args().find(|name| !names.contains(name)) {
        return Err(invalid(format!("{what}: no argument is named {strange}")));
    }
    let mut found = [const { None }; N];
    for (at, name) in names.iter().enumerate() {
        let by_name = if named.has(name) { Some(named.get::<Value>(name)?) } else { None };
        found[at] = places.get(at).cloned().or(by_name).filter(|value| !value.is_none());
    }
    Ok(found)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
