//! Documents → tokens → shard, in parallel, to the same bytes whatever the number of threads.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::{DataError, Document, Fingerprint, Shard, ShardWriter};

/// Texts are cut into pieces of about this many bytes: one long document then keeps all threads busy.
const PIECE: usize = 64 << 10;
/// Bytes of text that are encoded before their ids are written.
const GROUP: usize = 4 << 20;

/// What a shard is to say about its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenizeOptions {
    /// Size of the tokenizer's vocabulary.
    pub vocab_size: usize,
    /// The id that ends every document, if the tokenizer has one.
    pub eos: Option<u32>,
    /// [`Fingerprint::of`] the tokenizer and the documents.
    pub fingerprint: Fingerprint,
}

/// Encodes documents into a new shard at `path`. `encode` must add no special tokens; `progress` hears the
/// number of bytes encoded so far. A long document is cut where a line begins without a space, which is a
/// boundary of words for every usual tokenizer.
///
/// # Errors
/// If the tokenizer fails or gives an id outside its vocabulary, or the shard cannot be written.
pub fn tokenize<E: Display>(
    documents: &[Document],
    path: &Path,
    options: &TokenizeOptions,
    encode: impl Fn(&str) -> Result<Vec<u32>, E> + Sync,
    progress: impl FnMut(u64),
) -> Result<Shard, DataError> {
    let mut shards = tokenize_parts(documents, path, usize::MAX, options, encode, progress)?;
    // Without a limit there is one shard, even of no text.
    Ok(shards.remove(0))
}

/// Like [`tokenize()`], into as many shards as needed: a document that would begin at or after `shard_tokens`
/// tokens begins the next one, so a document is never divided. The first shard is `path`; the others stand
/// beside it, `.1`, `.2`, … before the extension.
///
/// # Errors
/// As [`tokenize()`].
pub fn tokenize_parts<E: Display>(
    documents: &[Document],
    path: &Path,
    shard_tokens: usize,
    options: &TokenizeOptions,
    encode: impl Fn(&str) -> Result<Vec<u32>, E> + Sync,
    mut progress: impl FnMut(u64),
) -> Result<Vec<Shard>, DataError> {
    // Shards of an earlier call must not be taken for this one's, should it be interrupted.
    for stale in (1..).map(|index| part_path(path, index)).take_while(|stale| stale.exists()) {
        fs::remove_file(&stale).map_err(DataError::io(&stale, "remove"))?;
    }
    let mut writer = ShardWriter::create(path, options.vocab_size, options.fingerprint)?;
    let mut shards: Vec<Shard> = Vec::new();
    let mut text_bytes = 0u64;
    let mut pieces = documents.iter().flat_map(|d| Pieces { document: d, rest: &d.text }).peekable();
    let mut done = 0u64;
    while pieces.peek().is_some() {
        let mut bytes = 0;
        let mut group = Vec::new();
        while bytes < GROUP {
            let Some(piece) = pieces.next() else { break };
            bytes += piece.text.len();
            group.push(piece);
        }
        // Collected in order: the shard does not depend on which thread was faster.
        let encoded: Vec<_> =
            group.par_iter().map(|piece| encode(piece.text).map_err(|e| e.to_string())).collect();
        for (piece, ids) in group.iter().zip(encoded) {
            let document = || piece.document.source.clone();
            let ids = ids.map_err(|message| DataError::Tokenizer { document: document(), message })?;
            if piece.first && writer.tokens() >= shard_tokens.max(1) {
                let index = shards.len();
                let next = part_path(path, index + 1);
                let next = ShardWriter::create(&next, options.vocab_size, options.fingerprint)?;
                shards.push(std::mem::replace(&mut writer, next).finish_part(
                    text_bytes,
                    index as u32,
                    false,
                )?);
                text_bytes = 0;
            }
            if piece.first {
                writer.begin_document();
            }
            text_bytes += piece.text.len() as u64;
            writer.push(&ids)?;
            if let (true, Some(eos)) = (piece.last, options.eos) {
                writer.push(&[eos])?;
            }
        }
        done += bytes as u64;
        progress(done);
    }
    shards.push(writer.finish_part(text_bytes, shards.len() as u32, true)?);
    Ok(shards)
}

/// The name of a shard: that of the first, with the number before the extension.
fn part_path(first: &Path, index: usize) -> PathBuf {
    match (index, first.extension()) {
        (0, _) => first.to_path_buf(),
        (_, Some(extension)) => first.with_extension(format!("{index}.{}", extension.display())),
        (_, None) => first.with_extension(index.to_string()),
    }
}

/// Opens the shards at `path` if all are whole and have the fingerprint asked for; otherwise makes them anew
/// with [`tokenize_parts`].
///
/// # Errors
/// As [`tokenize()`].
pub fn cached_or_tokenize_parts<E: Display>(
    documents: &[Document],
    path: &Path,
    shard_tokens: usize,
    options: &TokenizeOptions,
    encode: impl Fn(&str) -> Result<Vec<u32>, E> + Sync,
    progress: impl FnMut(u64),
) -> Result<Vec<Shard>, DataError> {
    match open_parts(path, options.fingerprint) {
        Some(shards) => Ok(shards),
        // Absent, stale or damaged: a cache is made again whatever is wrong with it.
        None => tokenize_parts(documents, path, shard_tokens, options, encode, progress),
    }
}

/// All shards of a text, if they are whole and belong together.
fn open_parts(path: &Path, fingerprint: Fingerprint) -> Option<Vec<Shard>> {
    let mut shards: Vec<Shard> = Vec::new();
    while shards.last().is_none_or(|shard| !shard.is_last()) {
        let shard = Shard::open(&part_path(path, shards.len())).ok()?;
        if shard.fingerprint() != fingerprint || shard.index() != shards.len() {
            return None;
        }
        shards.push(shard);
    }
    Some(shards)
}

/// A part of a document.
struct Piece<'a> {
    document: &'a Document,
    text: &'a str,
    /// Whether the document begins here.
    first: bool,
    /// Whether the document ends here.
    last: bool,
}

struct Pieces<'a> {
    document: &'a Document,
    rest: &'a str,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let first = self.rest.len() == self.document.text.len();
        let (text, rest) = self.rest.split_at(cut(self.rest));
        self.rest = rest;
        Some(Piece { document: self.document, text, first, last: rest.is_empty() })
    }
}

/// Where the first piece of a text ends: at the first line after [`PIECE`] bytes that begins without white
/// space.
fn cut(text: &str) -> usize {
    let bytes = text.as_bytes();
    (PIECE..bytes.len())
        // A line feed is a character of its own, and what follows one is the beginning of another.
        .find(|&at| bytes[at - 1] == b'\n' && !text[at..].starts_with(char::is_whitespace))
        .unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn encode(text: &str) -> Result<Vec<u32>, Infallible> {
        Ok(text.chars().map(u32::from).collect())
    }

    fn options(documents: &[Document]) -> TokenizeOptions {
        TokenizeOptions {
            vocab_size: 0x11_0000,
            eos: Some(0),
            fingerprint: Fingerprint::of(b"chars", documents, Some(0)),
        }
    }

    #[test]
    fn documents_are_joined_in_order_with_eos() {
        let dir = tempfile::tempdir().unwrap();
        let documents = [Document::new("a", "né"), Document::new("b", "w")];
        let mut seen = Vec::new();
        let shard =
            tokenize(&documents, &dir.path().join("s"), &options(&documents), encode, |b| seen.push(b))
                .unwrap();
        assert_eq!(shard.iter().collect::<Vec<_>>(), [0x6e, 0xe9, 0, 0x77, 0]);
        assert_eq!((shard.text_bytes(), seen), (4, vec![4]));
    }

    #[test]
    fn long_documents_are_cut_at_lines_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let text: String = (0..200_000).map(|i| format!("{}line {i} é\n", " ".repeat(i % 3))).collect();
        let documents = [Document::new("a", text.clone()), Document::new("b", "x".repeat(3 * PIECE))];
        let pieces: Vec<_> = Pieces { document: &documents[0], rest: &text }.map(|p| p.text).collect();
        assert!(pieces.len() > 30);
        assert!(pieces.iter().all(|p| p.starts_with("line") && p.len() <= PIECE + 100));
        assert_eq!(pieces.concat(), text);
        let path = dir.path().join("s");
        let shard = tokenize(&documents, &path, &options(&documents), encode, |_| ()).unwrap();
        let expected = documents.iter().flat_map(|d| d.text.chars().map(u32::from).chain([0]));
        assert!(shard.iter().eq(expected));
        let first = std::fs::read(&path).unwrap();
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        one.install(|| tokenize(&documents, &path, &options(&documents), encode, |_| ())).unwrap();
        assert!(first == std::fs::read(&path).unwrap());
    }

    #[test]
    fn a_cache_is_used_only_while_it_fits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache/train.shard");
        let mut documents = vec![Document::new("a", "text")];
        let run = |documents: &[Document]| {
            let mut encoded = false;
            let options = options(documents);
            let shards =
                cached_or_tokenize_parts(documents, &path, usize::MAX, &options, encode, |_| encoded = true)
                    .unwrap();
            (shards.iter().map(Shard::len).sum::<usize>(), encoded)
        };
        assert_eq!(run(&documents), (5, true));
        assert_eq!(run(&documents), (5, false));
        documents[0].text.push('!');
        assert_eq!(run(&documents), (6, true));
        std::fs::write(&path, b"damaged").unwrap();
        assert_eq!(run(&documents), (6, true));
    }

    #[test]
    fn failures_name_the_document_and_leave_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let documents = [Document::new("poem.txt", "text")];
        let fails = |_: &str| Err::<Vec<u32>, _>("no such character");
        let error =
            tokenize(&documents, &dir.path().join("s"), &options(&documents), fails, |_| ()).unwrap_err();
        assert_eq!(error.to_string(), "poem.txt: the tokenizer failed: no such character");
        let small = TokenizeOptions { vocab_size: 100, ..options(&documents) };
        let error =
            tokenize(&documents, &dir.path().join("s"), &small, encode, |_| ()).unwrap_err().to_string();
        assert!(error.contains("token 0 is 116, but vocab_size = 100"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
