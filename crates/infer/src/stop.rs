//! Stop strings: text is held back for as long as it may be the beginning of one.

/// A filter over streamed text that ends at the first stop string.
#[derive(Debug, Default)]
pub struct StopFilter {
    stops: Vec<String>,
    held: String,
}

/// What became of a piece of text.
#[derive(Debug, PartialEq, Eq)]
pub enum StopMatch {
    /// Text that cannot be part of a stop string any more.
    Text(String),
    /// A stop string has come; this is what stood before it.
    Stopped(String),
}

impl StopFilter {
    /// A filter for these strings; empty ones stop nothing.
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes a piece of text and returns what is certain not to be part of a stop string.
    pub fn push(&mut self, text: &str) -> StopMatch {
        self.held.push_str(text);
        let first =
            self.stops.iter().filter(|s| !s.is_empty()).filter_map(|s| self.held.find(s.as_str())).min();
        if let Some(at) = first {
            let mut before = std::mem::take(&mut self.held);
            before.truncate(at);
            return StopMatch::Stopped(before);
        }
        let keep = self
            .held
            .char_indices()
            .map(|(at, _)| at)
            .find(|at| self.stops.iter().any(|s| s.starts_with(&self.held[*at..])))
            .unwrap_or(self.held.len());
        let held = self.held.split_off(keep);
        StopMatch::Text(std::mem::replace(&mut self.held, held))
    }

    /// What is still held back, at the end of the text.
    pub fn finish(self) -> String {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_string_split_over_pieces_is_found() {
        let mut filter = StopFilter::new(vec!["\n\n".to_string(), "END".to_string()]);
        assert_eq!(filter.push("a\n"), StopMatch::Text("a".into()));
        assert_eq!(filter.push("bE"), StopMatch::Text("\nb".into()));
        assert_eq!(filter.push("N"), StopMatch::Text(String::new()));
        assert_eq!(filter.push("Dx"), StopMatch::Stopped(String::new()));
    }

    #[test]
    fn text_that_only_looked_like_a_stop_comes_out() {
        let mut filter = StopFilter::new(vec!["END".to_string()]);
        assert_eq!(filter.push("xEN"), StopMatch::Text("x".into()));
        assert_eq!(filter.push("é"), StopMatch::Text("ENé".into()));
        assert_eq!(filter.push("E"), StopMatch::Text(String::new()));
        assert_eq!(filter.finish(), "E");
    }
}
