//! JSON that has not come whole yet.

use serde::de::DeserializeOwned;

/// What is known of a beginning.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<T> {
    /// It may become one.
    More,
    /// It is none, whatever comes.
    No,
    /// The value.
    Yes(T),
}

/// The value with which a text begins, and the bytes that it takes.
pub(super) fn value<T: DeserializeOwned>(text: &str) -> Found<(T, usize)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<T>();
    match values.next() {
        None => Found::More,
        Some(Ok(value)) => Found::Yes((value, values.byte_offset())),
        Some(Err(error)) if error.is_eof() => Found::More,
        Some(Err(_)) => Found::No,
    }
}

/// Finds the end of an object that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct ObjectEnd {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl ObjectEnd {
    /// The bytes of the text up to the end of the object that began before or begins here, if it ends here.
    pub(super) fn find(&mut self, text: &str) -> Option<usize> {
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_object_is_found_however_it_is_cut() {
        let text = r#"{"a": ["}", {"\"}": 1}]} rest"#;
        for cut in 0..text.len() {
            let mut end = ObjectEnd::default();
            let found = match end.find(&text[..cut]) {
                Some(at) => at,
                None => cut + end.find(&text[cut..]).unwrap(),
            };
            assert_eq!(&text[found..], " rest", "{cut}");
        }
    }
}
