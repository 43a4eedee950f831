//! Counts in messages: "1 token", "2 tokens".

use std::fmt::{self, Display, Formatter};

/// A number and what it counts.
#[derive(Debug, Clone, Copy)]
pub struct Count<'a> {
    number: u64,
    noun: &'a str,
}

/// A number with its noun, in the singular after 1.
///
/// ```
/// use tritforge_support::counted;
///
/// let counts = [counted(1, "token"), counted(2, "token"), counted(0, "entry")];
/// assert_eq!(counts.map(|count| count.to_string()), ["1 token", "2 tokens", "0 entries"]);
/// ```
pub fn counted(number: impl TryInto<u64>, noun: &str) -> Count<'_> {
    Count { number: number.try_into().unwrap_or(u64::MAX), noun }
}

impl Display for Count<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { number, noun } = self;
        if *number == 1 {
            return write!(f, "1 {noun}");
        }
        match noun.strip_suffix('y') {
            // Days and keys, but entries.
            Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => write!(f, "{number} {stem}ies"),
            _ if noun.ends_with(['s', 'x']) || noun.ends_with("ch") => write!(f, "{number} {noun}es"),
            _ => write!(f, "{number} {noun}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_nothing_else_is() {
        for (noun, plural) in [
            ("token", "tokens"),
            ("token id", "token ids"),
            ("entry", "entries"),
            ("key", "keys"),
            ("class", "classes"),
            ("box", "boxes"),
            ("batch", "batches"),
        ] {
            assert_eq!(counted(1usize, noun).to_string(), format!("1 {noun}"));
            for number in [0u64, 2, 11, 21, 1 << 40] {
                assert_eq!(counted(number, noun).to_string(), format!("{number} {plural}"));
            }
        }
    }
}
