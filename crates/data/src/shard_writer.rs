//! Writing a shard: ids stream into a file with a temporary name, which gets its real name only when it is
//! whole.

use std::fs::{self, File};
use std::io::{BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::shard::{COVERED, HEADER, Header, token_bytes};
use crate::{DataError, Fingerprint, Shard};

/// A shard in the making. Dropped before [`ShardWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct ShardWriter {
    path: PathBuf,
    /// Where the bytes go; removed on drop unless renamed.
    temporary: PathBuf,
    file: BufWriter<File>,
    hash: Sha256,
    header: Header,
    buffer: Vec<u8>,
    /// Where documents begin.
    documents: Vec<u64>,
    /// Whether the next token begins a document.
    begins: bool,
}

impl ShardWriter {
    /// Begins a shard that is to stand at `path`; missing directories are created.
    ///
    /// # Errors
    /// If the vocabulary's size is 0 or too large, or the file cannot be created.
    pub fn create(path: &Path, vocab_size: usize, fingerprint: Fingerprint) -> Result<Self, DataError> {
        let token_bytes = token_bytes(vocab_size).map_err(|m| DataError::shard(path, m))?;
        let name = path.file_name().ok_or_else(|| DataError::shard(path, "expected a file name"))?;
        let dir = directory(path);
        fs::create_dir_all(dir).map_err(DataError::io(dir, "create"))?;
        let temporary = dir.join(format!(".{}.tmp-{}", name.to_string_lossy(), std::process::id()));
        let file = File::create(&temporary).map_err(DataError::io(&temporary, "create"))?;
        let mut writer = Self {
            path: path.to_path_buf(),
            temporary,
            file: BufWriter::with_capacity(1 << 20, file),
            hash: Sha256::new(),
            header: Header {
                token_bytes,
                vocab_size,
                tokens: 0,
                text_bytes: 0,
                fingerprint,
                documents: 0,
                index: 0,
                last: true,
            },
            buffer: Vec::new(),
            documents: Vec::new(),
            begins: true,
        };
        writer.write(&[0; HEADER])?;
        Ok(writer)
    }

    /// Says that the next token begins a document, as the first one always does. A document without tokens
    /// leaves no trace.
    pub fn begin_document(&mut self) {
        self.begins = true;
    }

    /// Number of tokens so far.
    pub fn tokens(&self) -> usize {
        self.header.tokens
    }

    /// Appends ids.
    ///
    /// # Errors
    /// If an id is not below the vocabulary's size, or the file cannot be written.
    pub fn push(&mut self, ids: &[u32]) -> Result<(), DataError> {
        self.buffer.clear();
        if self.begins && !ids.is_empty() {
            self.documents.push(self.header.tokens as u64);
            self.begins = false;
        }
        for &id in ids {
            if id as usize >= self.header.vocab_size {
                return Err(DataError::shard(
                    &self.path,
                    format!(
                        "token {} is {id}, but vocab_size = {}: vocab_size belongs to a different tokenizer",
                        self.header.tokens, self.header.vocab_size
                    ),
                ));
            }
            match self.header.token_bytes {
                // Below vocab_size ≤ 65536.
                2 => self.buffer.extend_from_slice(&(id as u16).to_le_bytes()),
                _ => self.buffer.extend_from_slice(&id.to_le_bytes()),
            }
            self.header.tokens += 1;
        }
        let buffer = std::mem::take(&mut self.buffer);
        self.hash.update(&buffer);
        self.write(&buffer)?;
        self.buffer = buffer;
        Ok(())
    }

    /// Completes the shard, puts it on disk and gives it its name; `text_bytes` is the length of the text
    /// encoded.
    ///
    /// # Errors
    /// If the file cannot be written, synced or renamed.
    pub fn finish(self, text_bytes: u64) -> Result<Shard, DataError> {
        self.finish_part(text_bytes, 0, true)
    }

    /// Like [`Self::finish`], for one of several shards of a text: `index` says which, from 0, `last` whether
    /// it is the last; `text_bytes` counts the text in this shard.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub(crate) fn finish_part(mut self, text_bytes: u64, index: u32, last: bool) -> Result<Shard, DataError> {
        let padding = (self.header.tokens * self.header.token_bytes).next_multiple_of(8)
            - self.header.tokens * self.header.token_bytes;
        let mut tail = vec![0u8; padding];
        tail.extend(self.documents.iter().flat_map(|at| at.to_le_bytes()));
        self.hash.update(&tail);
        self.write(&tail)?;
        self.header = Header { text_bytes, documents: self.documents.len(), index, last, ..self.header };
        let covered = self.header.encode();
        let digest = std::mem::take(&mut self.hash).chain_update(covered).finalize();
        let mut head = [0u8; HEADER];
        head[..COVERED].copy_from_slice(&covered);
        head[COVERED..COVERED + 32].copy_from_slice(&digest);
        self.file.seek(SeekFrom::Start(0)).map_err(DataError::io(&self.temporary, "write"))?;
        self.write(&head)?;
        self.file.flush().map_err(DataError::io(&self.temporary, "write"))?;
        self.file.get_ref().sync_all().map_err(DataError::io(&self.temporary, "sync"))?;
        fs::rename(&self.temporary, &self.path).map_err(DataError::io(&self.path, "rename a file to"))?;
        let dir = directory(&self.path);
        File::open(dir).and_then(|d| d.sync_all()).map_err(DataError::io(dir, "sync"))?;
        Shard::open(&self.path)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.file.write_all(bytes).map_err(DataError::io(&self.temporary, "write"))
    }
}

impl Drop for ShardWriter {
    fn drop(&mut self) {
        // After the rename there is nothing under this name, and a file that cannot be removed is no one's
        // error.
        let _ = fs::remove_file(&self.temporary);
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    }
}
