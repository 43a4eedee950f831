//! JSON values as the types that fields have.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::RequestError;

/// Characters of a value that a message shows at most.
const SHOWN: usize = 60;

/// A value as messages show it.
pub(crate) fn display(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

pub(super) fn expected(name: &str, value: &Value, what: &str) -> RequestError {
    RequestError::new(name, format!("{name} = {}: expected {what}", display(value)))
}

/// Refuses an object with other keys than these.
pub(super) fn known(param: &str, fields: &Map<String, Value>, known: &[&str]) -> Result<(), RequestError> {
    match fields.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => {
            let param = format!("{param}.{key}");
            Err(RequestError::new(&param, format!("Unrecognized request argument supplied: {param}")))
        }
        None => Ok(()),
    }
}

pub(super) fn boolean(name: &str, value: &Value) -> Result<bool, RequestError> {
    value.as_bool().ok_or_else(|| expected(name, value, "true or false"))
}

pub(crate) fn text(name: &str, value: &Value) -> Result<String, RequestError> {
    value.as_str().map(str::to_string).ok_or_else(|| expected(name, value, "a string"))
}

pub(super) fn number(name: &str, value: &Value) -> Result<f32, RequestError> {
    value.as_f64().map(|number| number as f32).ok_or_else(|| expected(name, value, "a number"))
}

/// An integer, which JSON may also write as 2.0.
pub(super) fn integer(name: &str, value: &Value, range: RangeInclusive<i128>) -> Result<i128, RequestError> {
    // Beyond 2^53 a float does not say which integer it is.
    let exact =
        |number: f64| (number.fract() == 0.0 && number.abs() <= 2f64.powi(53)).then_some(number as i128);
    let integer = value
        .as_i64()
        .map(i128::from)
        .or_else(|| value.as_u64().map(i128::from))
        .or_else(|| value.as_f64().and_then(exact));
    let (least, most) = (range.start(), range.end());
    let bounds = if *most == i128::from(i64::MAX) {
        format!("at least {least}")
    } else {
        format!("{least} to {most}")
    };
    match integer {
        Some(integer) if range.contains(&integer) => Ok(integer),
        Some(_) => Err(expected(name, value, &bounds)),
        None => Err(expected(name, value, &format!("an integer, {bounds}"))),
    }
}

/// Whether two values say the same: 1 and 1.0 do.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}
