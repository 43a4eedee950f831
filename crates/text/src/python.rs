//! What chat templates expect of Python: `json.dumps` and `strftime`.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// `json.dumps(value, ensure_ascii=False, indent=indent)`, as `transformers` defines `tojson`: unlike that of Jinja it
/// escapes nothing for HTML.
pub(crate) fn json_dumps<T: Serialize>(
    value: &T,
    indent: Option<usize>,
) -> Result<String, serde_json::Error> {
    let mut out = Vec::new();
    match indent {
        Some(indent) => {
            let indent = " ".repeat(indent.min(16));
            value.serialize(&mut Serializer::with_formatter(
                &mut out,
                PrettyFormatter::with_indent(indent.as_bytes()),
            ))?;
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut out, OneLine))?,
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Python's separators: `", "` and `": "`.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: io::Write + ?Sized>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// `strftime` of a time in seconds since 1970, UTC. `None` for directives that no template is known to use.
pub(crate) fn strftime(seconds: u64, format: &str) -> Option<String> {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let month_name = MONTHS[month as usize - 1];
        let day_name = DAYS[(days + 4) as usize % 7];
        out += &match chars.next()? {
            'Y' => year.to_string(),
            'y' => format!("{:02}", year % 100),
            'm' => format!("{month:02}"),
            'B' => month_name.to_string(),
            'b' => month_name[..3].to_string(),
            'd' => format!("{day:02}"),
            'A' => day_name.to_string(),
            'a' => day_name[..3].to_string(),
            'H' => format!("{:02}", second / 3600),
            'M' => format!("{:02}", second / 60 % 60),
            'S' => format!("{:02}", second % 60),
            '%' => "%".to_string(),
            _ => return None,
        };
    }
    Some(out)
}

/// Year, month and day of a day since 1970 in the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date
/// algorithms": eras of 400 years that begin in March).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_python() {
        // datetime.fromtimestamp(t, UTC).strftime("%a %d %b %Y %H:%M:%S")
        let format = "%a %d %b %Y %H:%M:%S";
        assert_eq!(strftime(0, format).unwrap(), "Thu 01 Jan 1970 00:00:00");
        assert_eq!(strftime(951_782_399, format).unwrap(), "Mon 28 Feb 2000 23:59:59");
        assert_eq!(strftime(951_827_696, format).unwrap(), "Tue 29 Feb 2000 12:34:56");
        assert_eq!(strftime(1_767_225_599, format).unwrap(), "Wed 31 Dec 2025 23:59:59");
        assert_eq!(strftime(0, "%A, %B %m/%y 100%%").unwrap(), "Thursday, January 01/70 100%");
        assert_eq!(strftime(0, "%Q"), None);
        assert_eq!(strftime(0, "%"), None);
    }

    #[test]
    fn json_is_that_of_python() {
        let value = serde_json::json!({"a": [1, "<é>"], "b": {}});
        assert_eq!(json_dumps(&value, None).unwrap(), r#"{"a": [1, "<é>"], "b": {}}"#);
        assert_eq!(json_dumps(&serde_json::json!([1]), Some(2)).unwrap(), "[\n  1\n]");
    }
}
