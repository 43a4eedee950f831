//! Operators of Python: sums, products, remainders, comparisons and slices of values of any types.

use std::borrow::Cow;
use std::cmp::Ordering;

use minijinja::formatting::FormatStyle;
use minijinja::value::{Rest, Tuple, ValueKind};
use minijinja::{Error, State, Value};

use super::budget::{ITEM, parts, spend};
use super::{invalid, widths};
use crate::python::value_text;

/// Two numbers: integers, or one of them a float.
enum Numbers {
    Int(i128, i128),
    Float(f64, f64),
}

fn numbers(a: &Value, b: &Value) -> Option<Numbers> {
    let is_number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if !is_number(a) || !is_number(b) {
        return None;
    }
    let int = |value: &Value| match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        _ if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    };
    if let (Some(a), Some(b)) = (int(a), int(b)) {
        return Some(Numbers::Int(a, b));
    }
    let float = |value: &Value| int(value).map(|n| n as f64).or_else(|| f64::try_from(value.clone()).ok());
    Some(Numbers::Float(float(a)?, float(b)?))
}

fn int(value: i128) -> Value {
    i64::try_from(value).map_or_else(|_| Value::from(value), Value::from)
}

/// Whether a value is a list or a tuple, or made of one.
fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn list(items: Vec<Value>, is_tuple: bool) -> Value {
    if is_tuple { Value::from(Tuple::from(items)) } else { Value::from(items) }
}

/// The name that Python gives to a value's type.
fn type_name(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "undefined",
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Bytes => "bytes",
        ValueKind::Seq if value.is_tuple() => "tuple",
        ValueKind::Seq => "list",
        ValueKind::Map => "dict",
        _ => "object",
    }
}

fn unsupported(sign: &str, a: &Value, b: &Value) -> Error {
    invalid(format!("{sign} is not supported between {} and {}", type_name(a), type_name(b)))
}

fn overflow(sign: &str) -> Error {
    invalid(format!("{sign}: an integer of more than 128 bits"))
}

/// `a + b + …`.
#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja calls")]
pub(super) fn add(state: &mut State<'_, '_>, a: &Value, rest: Rest<Value>) -> Result<Value, Error> {
    let texts: Option<Vec<&str>> = std::iter::once(a).chain(rest.iter()).map(Value::as_str).collect();
    match texts {
        Some(texts) => joined(state, &texts),
        None => rest.iter().try_fold(a.clone(), |sum, b| add_two(state, &sum, b)),
    }
}

/// Texts one after the other.
fn joined(state: &mut State<'_, '_>, texts: &[&str]) -> Result<Value, Error> {
    spend(state, texts.iter().map(|text| text.len()).sum())?;
    Ok(Value::from(texts.concat()))
}

fn add_two(state: &mut State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    if let (Some(left), Some(right)) = (a.as_str(), b.as_str()) {
        return joined(state, &[left, right]);
    }
    if is_list(a) && is_list(b) && a.is_tuple() == b.is_tuple() {
        spend(state, (a.len().unwrap_or_default() + b.len().unwrap_or_default()) * ITEM)?;
        return Ok(list(a.try_iter()?.chain(b.try_iter()?).collect(), a.is_tuple()));
    }
    match numbers(a, b) {
        Some(Numbers::Int(a, b)) => a.checked_add(b).map(int).ok_or_else(|| overflow("+")),
        Some(Numbers::Float(a, b)) => Ok(Value::from(a + b)),
        None => Err(unsupported("+", a, b)),
    }
}

/// `a * b`.
pub(super) fn mul(state: &mut State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    let repeatable = |value: &Value| value.as_str().is_some() || is_list(value);
    let (what, times) = if repeatable(a) { (a, b) } else { (b, a) };
    if repeatable(what) {
        let one = Value::from(1);
        let Some(Numbers::Int(times, _)) = numbers(times, &one) else { return Err(unsupported("*", a, b)) };
        let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
        if let Some(text) = what.as_str() {
            spend(state, text.len().saturating_mul(times))?;
            return Ok(Value::from(if text.is_empty() { String::new() } else { text.repeat(times) }));
        }
        let items: Vec<Value> = what.try_iter()?.collect();
        spend(state, items.len().saturating_mul(times).saturating_mul(ITEM))?;
        let times = if items.is_empty() { 0 } else { times };
        return Ok(list(items.iter().cloned().cycle().take(items.len() * times).collect(), what.is_tuple()));
    }
    match numbers(a, b) {
        Some(Numbers::Int(a, b)) => a.checked_mul(b).map(int).ok_or_else(|| overflow("*")),
        Some(Numbers::Float(a, b)) => Ok(Value::from(a * b)),
        None => Err(unsupported("*", a, b)),
    }
}

/// `a ~ b ~ …`.
#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja calls")]
pub(super) fn concat(state: &mut State<'_, '_>, a: &Value, rest: Rest<Value>) -> Result<Value, Error> {
    let mut texts = Vec::with_capacity(rest.len() + 1);
    for value in std::iter::once(a).chain(rest.iter()) {
        texts.push(match value.as_str() {
            Some(text) => Cow::Borrowed(text),
            None => {
                let text = value_text(value);
                spend(state, text.len())?;
                Cow::Owned(text)
            }
        });
    }
    joined(state, &texts.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

/// `a % b`: the remainder with the sign of `b`, or a string with values filled in.
pub(super) fn modulo(state: &mut State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    if let Some(text) = a.as_str() {
        let args: Vec<Value> = if b.is_tuple() { b.try_iter()?.collect() } else { vec![b.clone()] };
        return widths::format(state, FormatStyle::Printf, text, &args).map(Value::from);
    }
    match numbers(a, b) {
        Some(Numbers::Int(_, 0)) => Err(invalid("%: division by zero".to_string())),
        Some(Numbers::Float(_, 0.0)) => Err(invalid("%: division by zero".to_string())),
        Some(Numbers::Int(a, b)) => {
            let rest = a.checked_rem(b).unwrap_or_default();
            Ok(int(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }))
        }
        Some(Numbers::Float(a, b)) => {
            let rest = a % b;
            Ok(Value::from(if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }))
        }
        None => Err(unsupported("%", a, b)),
    }
}

/// `a < b <= c …`: signs and values in turn.
#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja calls")]
pub(super) fn compare(state: &mut State<'_, '_>, a: &Value, rest: Rest<Value>) -> Result<bool, Error> {
    let mut left = a;
    for pair in rest.chunks_exact(2) {
        parts(state, left)?;
        parts(state, &pair[1])?;
        if !holds(pair[0].as_str().unwrap_or_default(), left, &pair[1])? {
            return Ok(false);
        }
        left = &pair[1];
    }
    Ok(true)
}

/// Whether a comparison holds.
pub(super) fn holds(sign: &str, a: &Value, b: &Value) -> Result<bool, Error> {
    let is_in = || match (a.as_str(), b.as_str()) {
        (Some(part), Some(text)) => Ok(text.contains(part)),
        (None, Some(_)) => Err(unsupported("in", a, b)),
        _ if b.kind() == ValueKind::Map => Ok(b.try_iter()?.any(|key| key == *a)),
        _ => Ok(b.try_iter()?.any(|item| item == *a)),
    };
    match sign {
        "==" => return Ok(a == b),
        "!=" => return Ok(a != b),
        "in" => return is_in(),
        "not in" => return is_in().map(|found| !found),
        _ => {}
    }
    let Some(order) = order(sign, a, b)? else { return Ok(false) };
    Ok(match sign {
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    })
}

/// The order of two values, as Python has it: of numbers, of strings, of lists item by item. None with NaN.
fn order(sign: &str, a: &Value, b: &Value) -> Result<Option<Ordering>, Error> {
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        return Ok(Some(a.cmp(b)));
    }
    if is_list(a) && is_list(b) && a.is_tuple() == b.is_tuple() {
        let differing = a.try_iter()?.zip(b.try_iter()?).find(|(a, b)| a != b);
        return match differing {
            Some((a, b)) => order(sign, &a, &b),
            None => Ok(Some(a.len().cmp(&b.len()))),
        };
    }
    match numbers(a, b) {
        Some(Numbers::Int(a, b)) => Ok(Some(a.cmp(&b))),
        Some(Numbers::Float(a, b)) => Ok(a.partial_cmp(&b)),
        None => Err(unsupported(sign, a, b)),
    }
}

/// Refuses values that cannot be sorted: each has to have an order with the next. Booleans among numbers are
/// refused too: minijinja sorts them apart.
pub(super) fn check_order(keys: &[Value]) -> Result<(), Error> {
    keys.windows(2).try_for_each(|pair| match (pair[0].kind(), pair[1].kind()) {
        (ValueKind::Bool, ValueKind::Number) | (ValueKind::Number, ValueKind::Bool) => {
            Err(invalid("sorting booleans among numbers is not supported".to_string()))
        }
        _ => order("<", &pair[0], &pair[1]).map(drop),
    })
}

/// `value[start:stop:step]`.
pub(super) fn slice(
    state: &mut State<'_, '_>,
    value: &Value,
    start: &Value,
    stop: &Value,
    step: &Value,
) -> Result<Value, Error> {
    let place = |value: &Value| match value.is_none() {
        true => Ok(None),
        false => i64::try_from(value.clone()).map(|n| Some(i128::from(n))),
    };
    let (start, stop, step) = (place(start)?, place(stop)?, place(step)?.unwrap_or(1));
    if step == 0 {
        return Err(invalid("slice step cannot be zero".to_string()));
    }
    let text = value.as_str();
    let items: Vec<Value> = match text {
        None if is_list(value) => value.try_iter()?.collect(),
        None => return Err(invalid(format!("a value of type {} cannot be sliced", type_name(value)))),
        Some(_) => Vec::new(),
    };
    let chars: Vec<char> = text.map(|text| text.chars().collect()).unwrap_or_default();
    spend(state, text.map_or(items.len() * ITEM, str::len))?;
    // As slice.indices of Python.
    let length = items.len().max(chars.len()) as i128;
    let (least, most) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let bound = |at: i128| if at < 0 { (at + length).max(least) } else { at.min(most) };
    let (start, stop) = match step > 0 {
        true => (start.map_or(least, bound), stop.map_or(most, bound)),
        false => (start.map_or(most, bound), stop.map_or(least, bound)),
    };
    let places = std::iter::successors(Some(start), |at| Some(at + step))
        .take_while(|at| if step > 0 { *at < stop } else { *at > stop })
        .map(|at| at as usize);
    Ok(match text {
        Some(_) => Value::from(places.map(|at| chars[at]).collect::<String>()),
        None => list(places.map(|at| items[at].clone()).collect(), value.is_tuple()),
    })
}
