//! Which text is held out.

use sha2::{Digest, Sha256};
use tritforge_support::counted;

use crate::corpus::text_bytes;
use crate::{DataError, Document, Example};

/// How held-out text is chosen. `fraction` is its share, more than 0 and less than 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Split {
    /// The end of the text, counted in bytes, as in nanoGPT; a document on the boundary is cut between two
    /// characters.
    Contiguous {
        /// Share held out.
        fraction: f64,
    },
    /// Whole documents, chosen by a hash of their text: a document stays on its side when others come or go.
    ByDocument {
        /// Share held out, in expectation.
        fraction: f64,
        /// Another seed chooses other documents.
        seed: u64,
    },
}

/// Splits documents into (training, held-out), each in the given order.
///
/// # Errors
/// If the fraction is out of range, or one side would be empty.
pub fn split(documents: Vec<Document>, split: Split) -> Result<(Vec<Document>, Vec<Document>), DataError> {
    let (Split::Contiguous { fraction } | Split::ByDocument { fraction, .. }) = split;
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(DataError::Split(format!(
            "held-out share {fraction}: expected more than 0 and less than 1"
        )));
    }
    let count = documents.len();
    let (train, held_out) = match split {
        Split::Contiguous { fraction } => contiguous(documents, fraction),
        Split::ByDocument { fraction, seed } => {
            documents.into_iter().partition(|d| position(d, seed) >= fraction)
        }
    };
    let empty = match (train.is_empty(), held_out.is_empty()) {
        (false, false) => return Ok((train, held_out)),
        (true, _) => "training",
        (false, true) => "held-out",
    };
    let advice = match split {
        Split::Contiguous { .. } => "give more text",
        Split::ByDocument { .. } => "give more documents, or split contiguously (split = \"contiguous\")",
    };
    Err(DataError::Split(format!(
        "holding out a share of {fraction} of {count} leaves the {empty} part empty: {advice}",
        count = counted(count, "document")
    )))
}

/// Splits examples into (training, held-out), each in the given order. [`Split::Contiguous`] counts examples.
/// Both sides get at least one: of few examples the hash may choose none, or all.
///
/// # Errors
/// If the fraction is out of range, or there are fewer than two examples.
pub fn split_examples(
    examples: Vec<Example>,
    split: Split,
) -> Result<(Vec<Example>, Vec<Example>), DataError> {
    let (Split::Contiguous { fraction } | Split::ByDocument { fraction, .. }) = split;
    let count = examples.len();
    if !(fraction > 0.0 && fraction < 1.0) || count < 2 {
        return Err(DataError::Split(format!(
            "cannot hold out a share of {fraction} of {count} examples: expected a share between 0 and 1, \
             and at least 2 examples"
        )));
    }
    // As for documents, an example is held out by its own place alone, unless one side would be empty.
    let (places, held): (Vec<f64>, usize) = match split {
        Split::Contiguous { .. } => {
            ((0..count).map(|i| (count - i) as f64).collect(), (count as f64 * fraction).round() as usize)
        }
        Split::ByDocument { seed, .. } => {
            let places: Vec<f64> = examples.iter().map(|e| place(&e.digest(), seed)).collect();
            let held = places.iter().filter(|place| **place < fraction).count();
            (places, held)
        }
    };
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|a, b| places[*a].total_cmp(&places[*b]));
    let held = held.clamp(1, count - 1);
    let mut held_out = vec![false; count];
    order[..held].iter().for_each(|i| held_out[*i] = true);
    let mut sides = (Vec::new(), Vec::new());
    for (example, held_out) in examples.into_iter().zip(held_out) {
        if held_out { sides.1.push(example) } else { sides.0.push(example) }
    }
    Ok(sides)
}

fn contiguous(documents: Vec<Document>, fraction: f64) -> (Vec<Document>, Vec<Document>) {
    let mut left = (text_bytes(&documents) as f64 * (1.0 - fraction)) as usize;
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    for mut document in documents {
        let cut = document.text.floor_char_boundary(left);
        left = left.saturating_sub(document.text.len());
        let tail = document.text.split_off(cut);
        if !tail.is_empty() {
            held_out.push(Document { source: document.source.clone(), text: tail });
            // After a cut everything is held out, even if the boundary lay within a character.
            left = 0;
        }
        if !document.text.is_empty() {
            train.push(document);
        }
    }
    (train, held_out)
}

/// A number in [0, 1) that the document's text and the seed determine.
fn position(document: &Document, seed: u64) -> f64 {
    place(document.text.as_bytes(), seed)
}

/// A number in [0, 1) that bytes and a seed determine.
fn place(bytes: &[u8], seed: u64) -> f64 {
    let hash = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(bytes).finalize();
    let mut first = [0u8; 8];
    first.copy_from_slice(&hash[..8]);
    // 53 bits are exact in f64.
    (u64::from_le_bytes(first) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(texts: &[&str]) -> Vec<Document> {
        texts.iter().enumerate().map(|(i, t)| Document::new(format!("d{i}"), *t)).collect()
    }

    fn texts(documents: &[Document]) -> Vec<&str> {
        documents.iter().map(|d| d.text.as_str()).collect()
    }

    #[test]
    fn contiguous_cuts_where_nanogpt_does() {
        let text: String = (0..1003).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
        let (train, held_out) = split(documents(&[&text]), Split::Contiguous { fraction: 0.1 }).unwrap();
        // int(1003 * 0.9) = 902
        assert_eq!((train[0].text.len(), held_out[0].text.len()), (902, 101));
        assert_eq!(format!("{}{}", train[0].text, held_out[0].text), text);
    }

    #[test]
    fn contiguous_keeps_documents_and_characters_whole() {
        let all = documents(&["aaaa", "bébé", "cccc"]);
        let (train, held_out) = split(all, Split::Contiguous { fraction: 0.55 }).unwrap();
        // 14 · 0.45 = 6.3 → byte 6, the second byte of é moves back to 5.
        assert_eq!(texts(&train), ["aaaa", "b"]);
        assert_eq!(texts(&held_out), ["ébé", "cccc"]);
        let (train, held_out) =
            split(documents(&["aaaa", "bbbb"]), Split::Contiguous { fraction: 0.5 }).unwrap();
        assert_eq!((texts(&train), texts(&held_out)), (vec!["aaaa"], vec!["bbbb"]));
    }

    #[test]
    fn by_document_holds_out_about_the_share_and_does_not_depend_on_the_others() {
        let names: Vec<String> = (0..2000).map(|i| format!("document {i}")).collect();
        let all = documents(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let rule = Split::ByDocument { fraction: 0.1, seed: 7 };
        let (train, held_out) = split(all.clone(), rule).unwrap();
        assert_eq!(train.len() + held_out.len(), 2000);
        // The standard deviation is √(2000 · 0.1 · 0.9) = 13.4.
        assert!((150..250).contains(&held_out.len()), "{}", held_out.len());
        let (_, half) = split(all[..1000].to_vec(), rule).unwrap();
        assert_eq!(held_out[..half.len()], half);
        let (_, other) = split(all, Split::ByDocument { fraction: 0.1, seed: 8 }).unwrap();
        assert_ne!(held_out, other);
    }

    #[test]
    fn an_empty_side_is_an_error() {
        for (texts, rule) in [
            (vec!["one"], Split::ByDocument { fraction: 0.5, seed: 0 }),
            (vec!["a"], Split::Contiguous { fraction: 0.5 }),
        ] {
            let error = split(documents(&texts), rule).unwrap_err().to_string();
            assert!(error.contains("part empty"), "{error}");
        }
        for fraction in [0.0, 1.0, f64::NAN, -0.5] {
            assert!(split(documents(&["abc"]), Split::Contiguous { fraction }).is_err());
        }
    }
}
