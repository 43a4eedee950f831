//! Token shards: files of token ids, memory-mapped, checked whole before they are used.
//!
//! # Layout
//!
//! All numbers are little-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic, `TRITSHRD` |
//! | 8 | 4 | version, 2 |
//! | 12 | 4 | bytes of a token: 2 where `vocab_size` ≤ 65536, else 4 |
//! | 16 | 8 | `vocab_size`; every id is below it |
//! | 24 | 8 | number of tokens |
//! | 32 | 8 | bytes of the text that the tokens encode, for bits per byte |
//! | 40 | 32 | fingerprint of the tokenizer and the text |
//! | 72 | 8 | number of documents |
//! | 80 | 4 | which shard of its text this is, from 0 |
//! | 84 | 4 | 1 if it is the last shard of its text, else 0 |
//! | 88 | 32 | SHA-256 of bytes 128 to the end followed by bytes 0–87 |
//! | 120 | 8 | zeros |
//! | 128 | … | the ids |
//! | … | 0–7 | zeros up to a multiple of 8 |
//! | … | 8 each | for each document the position of its first token in this shard: the first is 0, each is above the one before |

use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use sha2::{Digest, Sha256};
use tritforge_support::counted;

use crate::{DataError, Fingerprint, mmap};

pub(crate) const MAGIC: &[u8; 8] = b"TRITSHRD";
pub(crate) const VERSION: u32 = 2;
pub(crate) const HEADER: usize = 128;
/// Bytes of the header that the checksum covers.
pub(crate) const COVERED: usize = 88;

/// The numbers of a shard's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) token_bytes: usize,
    pub(crate) vocab_size: usize,
    pub(crate) tokens: usize,
    pub(crate) text_bytes: u64,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) documents: usize,
    /// Which shard of its text this is.
    pub(crate) index: u32,
    /// Whether it is the last of its text.
    pub(crate) last: bool,
}

impl Header {
    /// Bytes 0–87.
    pub(crate) fn encode(&self) -> [u8; COVERED] {
        let mut bytes = [0u8; COVERED];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.token_bytes as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&(self.vocab_size as u64).to_le_bytes());
        bytes[24..32].copy_from_slice(&(self.tokens as u64).to_le_bytes());
        bytes[32..40].copy_from_slice(&self.text_bytes.to_le_bytes());
        bytes[40..72].copy_from_slice(&self.fingerprint.0);
        bytes[72..80].copy_from_slice(&(self.documents as u64).to_le_bytes());
        bytes[80..84].copy_from_slice(&self.index.to_le_bytes());
        bytes[84..].copy_from_slice(&u32::from(self.last).to_le_bytes());
        bytes
    }

    /// Reads the header of a file of `length` bytes and checks everything that can be checked without the
    /// payload.
    fn decode(bytes: &[u8; HEADER], length: usize) -> Result<Self, String> {
        let u32_at = |at: usize| u32::from_le_bytes(array(&bytes[at..]));
        let u64_at = |at: usize| u64::from_le_bytes(array(&bytes[at..]));
        if &bytes[..8] != MAGIC {
            return Err("not a token shard (its first bytes are not TRITSHRD)".to_string());
        }
        if u32_at(8) != VERSION {
            return Err(format!(
                "shard version {}, but this version of tritforge reads version {VERSION}: delete the file, \
                 it will be rebuilt",
                u32_at(8)
            ));
        }
        let fits = |value: u64, field: &str| {
            usize::try_from(value).map_err(|_| format!("{field} = {value}: too large for this machine"))
        };
        let vocab_size = fits(u64_at(16), "vocab_size")?;
        let token_bytes = token_bytes(vocab_size)?;
        if u32_at(12) as usize != token_bytes {
            return Err(format!(
                "{} bytes per token with vocab_size = {vocab_size}, expected {token_bytes}: the file is \
                 damaged",
                u32_at(12)
            ));
        }
        let tokens = fits(u64_at(24), "number of tokens")?;
        let documents = fits(u64_at(72), "number of documents")?;
        let ids = tokens.checked_mul(token_bytes).and_then(|ids| ids.checked_add(HEADER));
        let table = documents.checked_mul(8);
        let expected = ids
            .and_then(|end| end.checked_next_multiple_of(8))
            .zip(table)
            .and_then(|(a, b)| a.checked_add(b));
        if expected != Some(length) {
            return Err(format!(
                "{length}, but {tokens} of {token_bytes}, {documents} and the \
                 header need {}: the file is truncated or damaged; delete it, it will be rebuilt",
                expected.map_or("too large for the file".to_string(), |e| e.to_string()),
                documents = counted(documents, "document"),
                token_bytes = counted(token_bytes, "byte"),
                tokens = counted(tokens, "token"),
                length = counted(length, "byte")
            ));
        }
        if bytes[COVERED + 32..].iter().any(|b| *b != 0) || u32_at(84) > 1 {
            return Err("invalid value in the header: the file is damaged".to_string());
        }
        let fingerprint = Fingerprint(array(&bytes[40..]));
        Ok(Self {
            token_bytes,
            vocab_size,
            tokens,
            text_bytes: u64_at(32),
            fingerprint,
            documents,
            index: u32_at(80),
            last: u32_at(84) == 1,
        })
    }
}

/// Bytes of a token id.
pub(crate) fn token_bytes(vocab_size: usize) -> Result<usize, String> {
    match vocab_size {
        0 => Err("vocab_size = 0: expected at least 1".to_string()),
        1..=0x1_0000 => Ok(2),
        // The largest u32 marks targets that do not count.
        _ if vocab_size as u64 <= u64::from(u32::MAX) => Ok(4),
        _ => Err(format!("vocab_size = {vocab_size}: expected at most {}", u32::MAX)),
    }
}

/// The first bytes of a slice that is known to be long enough.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0u8; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

/// The tokens of a text.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    header: Header,
    map: Mmap,
}

impl Shard {
    /// Maps a shard and checks all of it: header, length, checksum, and that every id is below the
    /// vocabulary's size.
    ///
    /// # Errors
    /// If the file cannot be mapped, or is foreign, truncated or damaged.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let map = mmap::map(path)?;
        let fault = |message: String| DataError::shard(path, message);
        let Some(head) = map.first_chunk::<HEADER>() else {
            return Err(fault(format!("{}: too short for a token shard", counted(map.len(), "byte"))));
        };
        let header = Header::decode(head, map.len()).map_err(fault)?;
        let (payload, covered) = (&map[HEADER..], &head[..COVERED]);
        let digest: [u8; 32] = Sha256::new().chain_update(payload).chain_update(covered).finalize().into();
        if digest != head[COVERED..COVERED + 32] {
            return Err(fault(
                "checksum mismatch: the file is damaged; delete it, it will be rebuilt".to_string(),
            ));
        }
        let shard = Self { path: path.to_path_buf(), header, map };
        if let Some((at, id)) = shard.iter().enumerate().find(|(_, id)| *id as usize >= header.vocab_size) {
            return Err(fault(format!("token {at} is {id}, but vocab_size = {}", header.vocab_size)));
        }
        let starts: Vec<usize> = shard.documents().collect();
        let ascending = starts.windows(2).all(|pair| pair[0] < pair[1]);
        let begins = starts.first().is_none_or(|first| *first == 0);
        if !ascending || !begins || starts.last().is_some_and(|last| *last >= shard.len()) {
            return Err(fault("its documents are not in order: the file is damaged".to_string()));
        }
        Ok(shard)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.header.tokens
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the vocabulary: every id is below it.
    pub fn vocab_size(&self) -> usize {
        self.header.vocab_size
    }

    /// Bytes of the text that the tokens encode; tokens that separate documents stand for none.
    pub fn text_bytes(&self) -> u64 {
        self.header.text_bytes
    }

    /// Bytes of text a token: what turns a loss in nats a token into bits a byte, `loss / ln 2 /
    /// bytes_per_token`. NaN for an empty shard.
    pub fn bytes_per_token(&self) -> f64 {
        self.text_bytes() as f64 / self.len() as f64
    }

    /// What the shard was made from.
    pub fn fingerprint(&self) -> Fingerprint {
        self.header.fingerprint
    }

    /// Which shard of its text this is, from 0.
    pub fn index(&self) -> usize {
        self.header.index as usize
    }

    /// Whether this is the last shard of its text.
    pub(crate) fn is_last(&self) -> bool {
        self.header.last
    }

    /// Where documents begin: positions of tokens, ascending, the first 0.
    pub fn documents(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        (0..self.header.documents).map(|i| self.document(i))
    }

    /// The positions in `range` at which a document begins.
    pub fn document_starts(&self, range: Range<usize>) -> Vec<usize> {
        let (mut low, mut high) = (0, self.header.documents);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.document(middle) < range.start { low = middle + 1 } else { high = middle }
        }
        (low..self.header.documents).map(|i| self.document(i)).take_while(|at| *at < range.end).collect()
    }

    /// Where a document begins; its number is below that of the header.
    fn document(&self, index: usize) -> usize {
        let table = (HEADER + self.header.tokens * self.header.token_bytes).next_multiple_of(8);
        // Checked on opening to be below the number of tokens; before that any number is only compared.
        u64::from_le_bytes(array(&self.map[table + 8 * index..])) as usize
    }

    /// The ids from `start` on, at most `count` of them: fewer at the end.
    pub fn tokens(&self, start: usize, count: usize) -> Vec<u32> {
        let start = start.min(self.len());
        (start..start.saturating_add(count).min(self.len())).map(|i| self.get(i)).collect()
    }

    /// All ids in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        (0..self.len()).map(|i| self.get(i))
    }

    /// The id at a position below [`Self::len`].
    fn get(&self, index: usize) -> u32 {
        let at = HEADER + index * self.header.token_bytes;
        match self.header.token_bytes {
            2 => u32::from(u16::from_le_bytes([self.map[at], self.map[at + 1]])),
            _ => u32::from_le_bytes(array(&self.map[at..])),
        }
    }
}
