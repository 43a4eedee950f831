//! Lengths of time as people write them.

/// Units, each with its seconds.
const UNITS: [(&str, f64); 8] = [
    ("s", 1.0),
    ("sec", 1.0),
    ("min", 60.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("hour", 3600.0),
    ("hours", 3600.0),
    ("days", 86_400.0),
];

/// Seconds of `90 s`, `60 min` or `1.5 h`; none for anything else.
pub fn parse_duration(text: &str) -> Option<f64> {
    let text = text.trim();
    let end = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..end].trim().parse().ok()?;
    let (_, seconds) = UNITS.iter().find(|(unit, _)| *unit == &text[end..])?;
    (number.is_finite() && number > 0.0).then_some(number * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (text, seconds) in [("90 s", 90.0), ("60 min", 3600.0), ("1.5h", 5400.0), ("2 days", 172_800.0)] {
            assert_eq!(parse_duration(text), Some(seconds), "{text}");
        }
        for wrong in ["", "60", "min", "-1 s", "1 week", "nan s", "1 min 2 s", "inf h", "1e400 s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }
}
