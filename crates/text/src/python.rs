//! What chat templates expect of Python: `json.dumps` and `strftime`.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use crate::jinja::Group;

/// The arguments of `json.dumps`.
pub(crate) struct JsonStyle {
    pub(crate) ensure_ascii: bool,
    /// What a level is indented by; all on one line if there is none.
    pub(crate) indent: Option<String>,
    /// Between items, and behind keys.
    pub(crate) separators: [String; 2],
    pub(crate) sort_keys: bool,
}

/// `json.dumps`, as `transformers` defines `tojson`: unlike that of Jinja it escapes nothing for HTML.
pub(crate) fn json_dumps(value: &Value, style: &JsonStyle) -> Result<String, Error> {
    let mut out = String::new();
    write_json(value, style, 0, &mut out)?;
    Ok(out)
}

fn write_json(value: &Value, style: &JsonStyle, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > DEPTH || out.len() > 4 * LONGEST {
        let problem = format!("tojson: nested more than {DEPTH} deep, or longer than {} bytes", 4 * LONGEST);
        return Err(Error::new(ErrorKind::BadSerialization, problem));
    }
    let line = |depth: usize, out: &mut String| {
        if let Some(indent) = &style.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    };
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => match number(value) {
            Some(x) if x.is_nan() => out.push_str("NaN"),
            Some(x) if x.is_infinite() => out.push_str(if x > 0.0 { "Infinity" } else { "-Infinity" }),
            _ => out.push_str(&repr(value)),
        },
        ValueKind::String => json_string(value.as_str().unwrap_or_default(), style.ensure_ascii, out),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(&style.separators[0]);
                }
                line(depth + 1, out);
                write_json(item, style, depth + 1, out)?;
            }
            if !items.is_empty() {
                line(depth, out);
            }
            out.push(']');
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sort_keys {
                keys.sort();
            }
            out.push('{');
            for (i, key) in keys.iter().enumerate() {
                if i > 0 {
                    out.push_str(&style.separators[0]);
                }
                line(depth + 1, out);
                let name = match key.kind() {
                    ValueKind::String => key.as_str().unwrap_or_default().to_string(),
                    ValueKind::None => "null".to_string(),
                    ValueKind::Bool => key.is_true().to_string(),
                    _ => repr(key),
                };
                json_string(&name, style.ensure_ascii, out);
                out.push_str(&style.separators[1]);
                write_json(&value.get_item(key)?, style, depth + 1, out)?;
            }
            if !keys.is_empty() {
                line(depth, out);
            }
            out.push('}');
        }
        kind => {
            let problem = format!("tojson: a value of type {kind} cannot be converted to JSON");
            return Err(Error::new(ErrorKind::BadSerialization, problem));
        }
    }
    Ok(())
}

fn json_string(text: &str, ensure_ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || (ensure_ascii && !(' '..='~').contains(&c)) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    *out += &format!("\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// `str(value)`.
pub(crate) fn value_text(value: &Value) -> String {
    match value.kind() {
        ValueKind::String => value.as_str().unwrap_or_default().to_string(),
        _ => repr(value),
    }
}

/// Levels of nesting that are written, as by Python before it gives up; a namespace may contain itself.
const DEPTH: usize = 200;
/// Bytes after which nothing nested is written: a list of a list twice, forty times over, has a text of terabytes.
const LONGEST: usize = 16 << 20;

fn repr(value: &Value) -> String {
    let mut out = String::new();
    write_repr(value, 0, &mut out);
    out
}

/// Appends `repr(value)`. What is nested beyond [`DEPTH`] or stands behind [`LONGEST`] is `...`, as Python writes what contains itself.
fn write_repr(value: &Value, depth: usize, out: &mut String) {
    if depth > DEPTH || out.len() > LONGEST {
        out.push_str("...");
        return;
    }
    let tuple = value.is_tuple() || value.downcast_object_ref::<Group>().is_some();
    match (value.kind(), value.try_iter()) {
        (ValueKind::Number, _) => out.push_str(&number(value).map_or_else(|| value.to_string(), float_repr)),
        (ValueKind::String, _) => out.push_str(&string_repr(value.as_str().unwrap_or_default())),
        (ValueKind::Seq, Ok(items)) => {
            let [open, close] = if tuple { ['(', ')'] } else { ['[', ']'] };
            out.push(open);
            let mut count = 0;
            for item in items {
                if count > 0 {
                    out.push_str(", ");
                }
                write_repr(&item, depth + 1, out);
                count += 1;
                if out.len() > LONGEST {
                    break;
                }
            }
            if tuple && count == 1 {
                out.push(',');
            }
            out.push(close);
        }
        (ValueKind::Map, Ok(keys)) => {
            out.push('{');
            for (i, key) in keys.enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_repr(&key, depth + 1, out);
                out.push_str(": ");
                write_repr(&value.get_item(&key).unwrap_or_default(), depth + 1, out);
                if out.len() > LONGEST {
                    break;
                }
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
}

/// `repr` of a string: in single quotes unless it has some and no double ones, with escapes for what is not
/// printable.
fn string_repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            // Python and Rust call the same categories printable; behind another character marks stay as they
            // are.
            c if !format!("a{c}").escape_debug().any(|c| c == '\\') => out.push(c),
            c => {
                out += &match u32::from(c) {
                    code @ ..0x100 => format!("\\x{code:02x}"),
                    code @ ..0x1_0000 => format!("\\u{code:04x}"),
                    code => format!("\\U{code:08x}"),
                }
            }
        }
    }
    out.push(quote);
    out
}

/// A number that is no integer.
fn number(value: &Value) -> Option<f64> {
    if value.is_integer() { None } else { f64::try_from(value.clone()).ok() }
}

/// `repr` of a float: the shortest digits that read back, with an exponent below 1e-4 and from 1e16.
pub(crate) fn float_repr(x: f64) -> String {
    if x.is_nan() {
        return "nan".to_string();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.to_string();
    }
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if x == 0.0 || (-4..16).contains(&exponent) {
        return format!("{x:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// `str.splitlines`.
pub(crate) fn splitlines(text: &str, keep: bool) -> Vec<&str> {
    const ENDS: [char; 10] =
        ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(ENDS) {
        let width = match rest[at..].starts_with("\r\n") {
            true => 2,
            false => rest[at..].chars().next().map_or(1, char::len_utf8),
        };
        lines.push(&rest[..if keep { at + width } else { at }]);
        rest = &rest[at + width..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
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
        let mut directive = chars.next()?;
        // glibc: without padding.
        let bare = directive == '-';
        if bare {
            directive = chars.next()?;
        }
        let (hour, minute) = (second / 3600, second / 60 % 60);
        let (yday, wday) = (days - days_to_year(year), (days + 4) % 7);
        let twelve = (hour + 11) % 12 + 1;
        let part = match directive {
            'j' => format!("{:03}", yday + 1),
            'I' => format!("{twelve:02}"),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_string(),
            'F' => format!("{year}-{month:02}-{day:02}"),
            'T' | 'X' => format!("{hour:02}:{minute:02}:{:02}", second % 60),
            'R' => format!("{hour:02}:{minute:02}"),
            'D' | 'x' => format!("{month:02}/{day:02}/{:02}", year % 100),
            'c' => {
                let (month, weekday, second) = (&month_name[..3], &day_name[..3], second % 60);
                format!("{weekday} {month} {day:>2} {hour:02}:{minute:02}:{second:02} {year}")
            }
            'e' => format!("{day:>2}"),
            'h' => month_name[..3].to_string(),
            'C' => format!("{:02}", year / 100),
            'u' => ((wday + 6) % 7 + 1).to_string(),
            'w' => wday.to_string(),
            'U' => format!("{:02}", (yday + 7 - wday) / 7),
            'W' => format!("{:02}", (yday + 7 - (wday + 6) % 7) / 7),
            'n' => "\n".to_string(),
            't' => "\t".to_string(),
            // Of a time without a zone.
            'z' | 'Z' => String::new(),
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
        out += match bare && "jIdmyHMSeCUW".contains(directive) {
            true => Some(part.trim_start_matches(['0', ' '])).filter(|part| !part.is_empty()).unwrap_or("0"),
            false if bare => return None,
            false => &part,
        };
    }
    Some(out)
}

/// Days from 1970 to the beginning of a year.
fn days_to_year(year: u64) -> u64 {
    let before = year - 1;
    before * 365 + before / 4 - before / 100 + before / 400 - 719_162
}

/// Year, month and day of a day since 1970 in the Gregorian calendar (Howard Hinnant, "chrono-compatible
/// low-level date algorithms": eras of 400 years that begin in March).
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
    fn directives_are_those_of_glibc() {
        let format = "%-d %j %p %I %F %T %e %U %W %u %w %c|%-I";
        assert_eq!(
            strftime(951_827_696, format).unwrap(),
            "29 060 PM 12 2000-02-29 12:34:56 29 09 09 2 2 Tue Feb 29 12:34:56 2000|12"
        );
        assert_eq!(strftime(0, "%-Q"), None);
    }

    #[test]
    fn floats_are_those_of_python() {
        for (x, text) in [
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (1e16, "1e+16"),
            (1e15, "1000000000000000.0"),
            (-2.5e-7, "-2.5e-07"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.5e300, "1.5e+300"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(float_repr(x), text);
        }
    }
}
