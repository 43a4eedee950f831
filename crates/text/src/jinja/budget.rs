//! A bound on the memory that a template fills. Templates come from strangers, and each of their steps may
//! double a string.
//!
//! Whatever a template makes or reads from end to end is counted: the bytes of strings, and a few bytes for
//! each item of lists and dicts. What is counted is never given back, so the count bounds what is held at any
//! moment, and the time of each step with it.

use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr, ValueKind};
use minijinja::{Error, State, Value};

use super::{filters::Group, invalid};

/// Bytes that any template may fill: with the buffers that grow beside it, 64 MiB are enough.
const ALWAYS: usize = 16 << 20;
/// Bytes that it may fill beside for each byte of its messages.
const TIMES: usize = 512;
/// What an item of a list or dict counts.
pub(super) const ITEM: usize = 8;
/// What a value counts with each list or dict that is made with it inside: a slot, and the time to look at
/// it.
const NODE: usize = 64;
/// What an item counts that a step makes of a character or a part of a string: a value.
pub(super) const VALUE: usize = 32;
/// Levels of nesting: what is nested deeper takes the stack when it is dropped.
const DEPTH: usize = 200;
/// The name of [`Input`] in a template's context.
const INPUT: &str = "__input__";

/// The length of the messages, as a template cannot make it.
#[derive(Debug)]
struct Input(usize);

impl Object for Input {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// What a template's context has as [`INPUT`].
pub(crate) fn input(messages: &Value) -> Value {
    fn length(value: &Value) -> usize {
        let within = |value: &Value| value.try_iter().map_or(0, |items| items.map(|i| length(&i)).sum());
        match value.kind() {
            ValueKind::String => value.as_str().map_or(0, str::len),
            ValueKind::Seq => within(value),
            ValueKind::Map => value.try_iter().map_or(0, |keys| {
                keys.map(|key| value.get_item(&key).map_or(0, |value| length(&value))).sum()
            }),
            _ => 0,
        }
    }
    Value::from_object(Input(length(messages)))
}

/// What is left to a rendering.
struct Left(usize);

/// Counts bytes before they are filled.
pub(super) fn spend(state: &mut State<'_, '_>, bytes: usize) -> Result<(), Error> {
    if state.get_extension::<Left>().is_none() {
        let input = state.lookup(INPUT).and_then(|value| value.downcast_object_ref::<Input>().map(|i| i.0));
        let all = ALWAYS.saturating_add(TIMES.saturating_mul(input.unwrap_or_default()));
        state.get_or_insert_extension(Left(all));
    }
    let left = state.get_or_insert_extension(Left(0));
    match left.0.checked_sub(bytes) {
        Some(rest) => {
            left.0 = rest;
            Ok(())
        }
        None => {
            left.0 = 0;
            Err(invalid(format!("the template builds more than {} MB of text and lists", ALWAYS >> 20)))
        }
    }
}

/// The bytes of a string; of anything else, those of its items.
pub(super) fn size(value: &Value) -> usize {
    match value.as_str() {
        Some(text) => text.len(),
        None => value.len().unwrap_or_default().saturating_mul(ITEM),
    }
}

/// Counts an operand that a step reads.
pub(super) fn used(state: &mut State<'_, '_>, value: Value) -> Result<Value, Error> {
    spend(state, size(&value))?;
    Ok(value)
}

/// Counts an operand of which a step makes a value an item.
pub(super) fn items(state: &mut State<'_, '_>, value: Value) -> Result<Value, Error> {
    match value.as_str() {
        Some(text) => spend(state, text.chars().count().saturating_mul(VALUE))?,
        None => spend(state, size(&value))?,
    }
    Ok(value)
}

/// Counts an operand that becomes a text, whatever is nested in it.
pub(super) fn printed(state: &mut State<'_, '_>, value: Value) -> Result<Value, Error> {
    measure(state, &value, 0, Some(DEPTH))?;
    Ok(value)
}

/// Counts what is compared part by part.
pub(super) fn parts(state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    measure(state, value, 0, Some(1))
}

/// Counts a value with all that is nested in it. Strings further inside than those of a list were there
/// before.
pub(super) fn made(state: &mut State<'_, '_>, value: Value) -> Result<Value, Error> {
    measure(state, &value, 0, Some(1))?;
    Ok(value)
}

/// Counts what a namespace is to hold, and refuses another namespace: one that holds itself would never be
/// dropped.
pub(super) fn stored(state: &mut State<'_, '_>, value: Value) -> Result<Value, Error> {
    // Its strings were counted when they were made.
    measure(state, &value, 0, None)?;
    match holds_namespace(&value) {
        true => Err(invalid("a namespace inside a namespace is not supported".to_string())),
        false => Ok(value),
    }
}

/// Whether a value is a namespace or has one in it; its depth has been measured.
pub(super) fn holds_namespace(value: &Value) -> bool {
    let within = |value: &Value| value.try_iter().is_ok_and(|mut items| items.any(|i| holds_namespace(&i)));
    match value.kind() {
        _ if value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace")) => true,
        ValueKind::Seq => within(value),
        ValueKind::Map => value.try_iter().is_ok_and(|mut keys| {
            keys.any(|key| value.get_item(&key).is_ok_and(|value| holds_namespace(&value)))
        }),
        _ => false,
    }
}

/// Counts a value's items, and the strings down to a depth.
fn measure(
    state: &mut State<'_, '_>,
    value: &Value,
    depth: usize,
    strings: Option<usize>,
) -> Result<(), Error> {
    if depth > DEPTH {
        return Err(invalid(format!("lists and dicts are nested more than {DEPTH} deep")));
    }
    let text = value.as_str().filter(|_| strings.is_some_and(|strings| depth <= strings)).map_or(0, str::len);
    spend(state, text + NODE)?;
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            if value.downcast_object_ref::<Group>().is_some() {
                return Ok(());
            }
            for item in value.try_iter()? {
                measure(state, &item, depth + 1, strings)?;
            }
        }
        ValueKind::Map => {
            for key in value.try_iter()? {
                measure(state, &value.get_item(&key)?, depth + 1, strings)?;
            }
        }
        _ => {}
    }
    Ok(())
}
