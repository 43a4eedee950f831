//! Bounds on what a template may ask to be padded to: minijinja takes any width, and with it the memory.

use minijinja::formatting::FormatStyle;
use minijinja::{Error, Value};

use super::invalid;

/// The widest field, the most places behind a point, the most items of a batch.
pub(super) const MOST: usize = 1 << 16;

/// Formats as Python does, with widths and precisions up to [`MOST`].
pub(super) fn format(style: FormatStyle, text: &str, args: &[Value]) -> Result<String, Error> {
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
        let printf = |text: &str, args: &[Value]| format(FormatStyle::Printf, text, args);
        let braces = |text: &str, args: &[Value]| format(FormatStyle::StrFormat, text, args);
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
