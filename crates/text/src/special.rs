//! The tokens that are no text: where a sequence begins and ends, and what fills a batch.

/// Names of the special tokens of a vocabulary that is being made. One name may have several roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a sequence.
    pub bos: Option<String>,
    /// Ends a sequence.
    pub eos: Option<String>,
    /// Fills batches.
    pub pad: Option<String>,
    /// Others, such as the marks of a chat template.
    pub others: Vec<String>,
}

impl Default for SpecialTokens {
    /// `<|endoftext|>` begins and ends sequences, as in GPT-2.
    fn default() -> Self {
        let end = Some("<|endoftext|>".to_string());
        Self { bos: end.clone(), eos: end, pad: None, others: Vec::new() }
    }
}

impl SpecialTokens {
    /// No special tokens.
    pub fn none() -> Self {
        Self { bos: None, eos: None, pad: None, others: Vec::new() }
    }

    /// The distinct names, in the order of their ids. Empty names are left out.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        let roles = [&self.bos, &self.eos, &self.pad];
        for name in roles.into_iter().flatten().chain(&self.others) {
            if !name.is_empty() && !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }
}

/// Names by which a `tokenizer.json` that comes without `tokenizer_config.json` is known to mean the end of a
/// sequence, the most usual first.
pub(crate) const KNOWN_EOS: [&str; 6] =
    ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<|im_end|>"];

/// Likewise for the beginning.
pub(crate) const KNOWN_BOS: [&str; 5] = ["<|begin_of_text|>", "<s>", "<bos>", "<|bos|>", "<|startoftext|>"];

/// Likewise for padding.
pub(crate) const KNOWN_PAD: [&str; 4] = ["<pad>", "<|pad|>", "[PAD]", "<|padding|>"];
