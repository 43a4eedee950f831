//! Ranges of numeric options, checked where the command line is read: an error names the option and exits
//! with 2.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The most threads that are started: more than any machine has cores, and none that runs out of them.
pub(crate) const MOST_THREADS: usize = 1024;
/// Tokens, of a context or of an answer: the length of the longest context that anything can be asked for.
pub(crate) const MOST_TOKENS: usize = 1 << 31;

/// A parser of whole numbers in a range.
pub(crate) fn count(
    range: RangeInclusive<usize>,
) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    in_range(range)
}

/// A parser of numbers in a range; NaN is in none.
pub(crate) fn number(
    range: RangeInclusive<f32>,
) -> impl Fn(&str) -> Result<f32, String> + Clone + Send + Sync + 'static {
    in_range(range)
}

/// A parser of finite numbers above 0.
pub(crate) fn above_zero(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("expected a finite number above 0".to_string()),
    }
}

fn in_range<T: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| match text.parse::<T>() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => {
            let whole = std::any::type_name::<T>() == "usize";
            let kind = if whole { "a whole number" } else { "a number" };
            Err(format!("expected {kind} from {} to {}", range.start(), range.end()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_belong_to_a_range_and_nothing_beyond_them() {
        let (count, number) = (count(1..=8), number(0.0..=1.0));
        assert_eq!((count("1"), count("8")), (Ok(1), Ok(8)));
        for text in ["0", "9", "-1", "", "abc", "1.5", "18446744073709551616"] {
            assert_eq!(count(text).unwrap_err(), "expected a whole number from 1 to 8", "{text}");
        }
        assert_eq!((number("0"), number("1.0")), (Ok(0.0), Ok(1.0)));
        for text in ["-0.1", "1.1", "nan", "inf", "1e308", ""] {
            assert_eq!(number(text).unwrap_err(), "expected a number from 0 to 1", "{text}");
        }
        assert!(above_zero("0").is_err() && above_zero("inf").is_err() && above_zero("1e-3") == Ok(1e-3));
    }
}
