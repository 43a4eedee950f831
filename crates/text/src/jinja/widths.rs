//! Bounds on what a template may ask to be padded to or filled in: minijinja takes any width and any number
//! of fields, and with them the memory.

use minijinja::formatting::FormatStyle;
use minijinja::value::ValueKind;
use minijinja::{Error, State, Value};

use super::budget::spend;
use super::invalid;
use crate::python::value_text;

/// The widest field, the most places behind a point, the most items of a batch.
pub(super) const MOST: usize = 1 << 16;

/// Formats as Python does, with widths and precisions up to [`MOST`].
pub(super) fn format(
    state: &mut State<'_, '_>,
    style: FormatStyle,
    text: &str,
    args: &[Value],
) -> Result<String, Error> {
    // Each field may be filled with any of the values.
    let fields = text.matches(['%', '{']).count();
    let length = |value: &Value| value.as_str().map_or_else(|| value_text(value).len(), str::len);
    let longest = args.iter().map(length).max().unwrap_or_default();
    spend(state, longest.saturating_mul(fields).saturating_add(text.len()))?;
    if matches!(style, FormatStyle::Printf) && !all_converted(text, args) {
        return Err(invalid("not all arguments converted during string formatting".to_string()));
    }
    checked(style, text, args)
}

/// Whether a text has a conversion for every value. One list or dict may be left over, as in Python.
fn all_converted(text: &str, args: &[Value]) -> bool {
    let (mut conversions, mut rest) = (0, text);
    while let Some(at) = rest.find('%') {
        let conversion = &rest[at + 1..];
        match conversion.strip_prefix('%') {
            Some(after) => rest = after,
            None => {
                conversions += 1 + spec_of(conversion).matches('*').count();
                rest = conversion;
            }
        }
    }
    let container =
        |value: &Value| matches!(value.kind(), ValueKind::Map | ValueKind::Seq) && !value.is_tuple();
    args.len() <= conversions || matches!(args, [only] if container(only))
}

fn checked(style: FormatStyle, text: &str, args: &[Value]) -> Result<String, Error> {
    let numbers = |spec: &str| spec.split(|c: char| !c.is_ascii_digit()).any(too_wide);
    let (literal, from_values) = match style {
        FormatStyle::Printf => {
            let specs = || text.split('%').skip(1).map(spec_of);
            // `*` takes the width from the values.
            (specs().any(numbers), specs().any(|spec| spec.contains('*')))
        }
        FormatStyle::StrFormat => {
            let mut fields = text.split('{').skip(1).map(|field| field.split('}').next().unwrap_or_default());
            // So does a field within a field.
            (fields.any(numbers), text.split(':').skip(1).any(|spec| spec.contains('{')))
        }
    };
    let wide = |value: &Value| value.as_usize().is_some_and(|n| n > MOST);
    if literal || (from_values && args.iter().any(wide)) {
        return Err(invalid(format!("format: a width or precision above {MOST}")));
    }
    minijinja::formatting::format(style, text, args)
}

/// Flags, width and precision of a conversion: what stands before its letter.
fn spec_of(conversion: &str) -> &str {
    let end = conversion.find(|c: char| !(c.is_ascii_digit() || "#0- +.*".contains(c)));
    &conversion[..end.unwrap_or(conversion.len())]
}

fn too_wide(digits: &str) -> bool {
    !digits.is_empty() && digits.parse::<usize>().map_or(true, |n| n > MOST)
}

/// Refuses a count of items above [`MOST`].
pub(super) fn check_count(what: &str, count: usize) -> Result<usize, Error> {
    if count > MOST {
        return Err(invalid(format!("{what}: {count} items, expected at most {MOST}")));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_python_up_to_a_bound() {
        let printf = |text: &str, args: &[Value]| checked(FormatStyle::Printf, text, args);
        let braces = |text: &str, args: &[Value]| checked(FormatStyle::StrFormat, text, args);
        let a = [Value::from("a")];
        assert_eq!(printf("%5s|100000000", &a).unwrap(), "    a|100000000");
        assert_eq!(braces("{:>3}|", &a).unwrap(), "  a|");
        assert_eq!(printf("%d", &[Value::from(99_999_999)]).unwrap(), "99999999");
        assert_eq!(braces("{}", &[Value::from(99_999_999)]).unwrap(), "99999999");
        for text in ["%8796093022207s", "%-100000s", "%.100000f", "%099999999999999999999999d"] {
            assert!(printf(text, &a).is_err(), "{text}");
        }
        assert!(printf("%*d", &[Value::from(100_000), Value::from(1)]).is_err());
        for text in ["{:8796093022207}", "{:<100000}", "{0:.100000f}"] {
            assert!(braces(text, &a).is_err(), "{text}");
        }
        assert!(braces("{:{}}", &[Value::from("a"), Value::from(100_000)]).is_err());
        assert!(check_count("batch", MOST).is_ok() && check_count("batch", MOST + 1).is_err());
    }
}
