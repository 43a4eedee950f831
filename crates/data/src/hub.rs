//! Files of the Hugging Face Hub, by address: `hf://datasets/OWNER/NAME/FILE` and `hf://OWNER/NAME`, each
//! with an optional `@REVISION`.
//!
//! The environment is that of the hub's own tools: `HF_ENDPOINT` is the server, `HF_HOME` the directory with
//! the cache and the token, and with `HF_HUB_OFFLINE=1` only the cache is asked. A file in the cache is not
//! downloaded again.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use sha2::{Digest, Sha256};

use crate::DataError;

/// How addresses of the hub begin.
pub(crate) const SCHEME: &str = "hf://";
/// How often a transfer that breaks off is taken up again.
const RESUMES: usize = 5;

/// A file of the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Whether the repository is a data set and not a model.
    pub dataset: bool,
    /// `OWNER/NAME`.
    pub repository: String,
    /// The file's path in the repository; empty if none is given.
    pub file: String,
    /// A branch, tag or commit; `main` if none is given.
    pub revision: String,
}

impl FromStr for Address {
    type Err = DataError;

    /// Reads an address. The revision stands after the file (`hf://datasets/o/n/f.parquet@v1`) or after the
    /// name.
    fn from_str(text: &str) -> Result<Self, DataError> {
        let fault =
            |message: &str| DataError::Hub { address: text.to_string(), message: message.to_string() };
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| fault("expected hf://…"))?;
        let (rest, dataset) = match rest.strip_prefix("datasets/") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let mut parts = rest.splitn(3, '/');
        let (owner, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let file = parts.next().unwrap_or_default();
        let ((name, early), (file, late)) = (at(name), at(file));
        if early.is_some() && late.is_some() {
            return Err(fault("two revisions: expected one @REVISION"));
        }
        let revision = early.or(late).unwrap_or("main");
        let bad = |part: &str| part.is_empty() || part == "." || part == "..";
        let named = !bad(owner) && !bad(name) && !bad(revision) && !owner.contains('@');
        if !named || (!file.is_empty() && file.split('/').any(bad)) {
            return Err(fault(
                "expected hf://datasets/OWNER/NAME/FILE[@REVISION] or hf://OWNER/NAME[@REVISION]",
            ));
        }
        let repository = format!("{owner}/{name}");
        Ok(Self { dataset, repository, file: file.to_string(), revision: revision.to_string() })
    }
}

/// A text and what follows its last `@`.
fn at(text: &str) -> (&str, Option<&str>) {
    text.rsplit_once('@').map_or((text, None), |(text, revision)| (text, Some(revision)))
}

/// A server and a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hub {
    /// The server, as in `https://huggingface.co`.
    pub endpoint: String,
    /// The directory of the cache, in the layout of the hub's own tools.
    pub cache: PathBuf,
    /// Whether only the cache is asked.
    pub offline: bool,
    /// Whether a bar shows the progress of downloads.
    pub progress: bool,
}

impl Hub {
    /// What the environment says.
    pub fn from_env() -> Self {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let offline = set("HF_HUB_OFFLINE")
            .is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str()));
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string());
        Self {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            cache: Cache::from_env().path().clone(),
            offline,
            progress: true,
        }
    }

    /// A file of a data set, on this machine.
    ///
    /// # Errors
    /// If the address is none of a data set's file, or as [`Self::fetch`].
    pub fn dataset_file(&self, address: &str) -> Result<PathBuf, DataError> {
        let parsed: Address = address.parse()?;
        if !parsed.dataset || parsed.file.is_empty() {
            let message =
                "expected a file in a data set, hf://datasets/OWNER/NAME/FILE[@REVISION]".to_string();
            return Err(DataError::Hub { address: address.to_string(), message });
        }
        self.fetch(&parsed, address)
    }

    /// The `tokenizer.json` of a repository, or the file that the address names, on this machine.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub fn tokenizer_file(&self, address: &str) -> Result<PathBuf, DataError> {
        let mut parsed: Address = address.parse()?;
        if parsed.file.is_empty() {
            parsed.file = "tokenizer.json".to_string();
        }
        self.fetch(&parsed, address)
    }

    /// A model on this machine: the file that the address names, or the directory with the repository's
    /// configuration, safetensors and tokenizer.
    ///
    /// # Errors
    /// If the repository has no `config.json` or no safetensors, its index is damaged, or as [`Self::fetch`].
    pub fn model(&self, address: &str) -> Result<PathBuf, DataError> {
        let parsed: Address = address.parse()?;
        if !parsed.file.is_empty() {
            return self.fetch(&parsed, address);
        }
        let fault = |message: String| DataError::Hub { address: address.to_string(), message };
        let file = |name: &str| self.fetch(&Address { file: name.to_string(), ..parsed.clone() }, address);
        let config = file("config.json")?;
        // A repository need not have them; what is missing is missed when it is needed.
        let json = file("tokenizer.json");
        let older = if json.is_err() { &["tokenizer.model", "added_tokens.json"][..] } else { &[] };
        for name in older.iter().chain(&["tokenizer_config.json", "chat_template.jinja"]) {
            let _ = file(name);
        }
        match file("model.safetensors.index.json") {
            Err(_) => {
                file("model.safetensors")?;
            }
            Ok(index) => {
                let text = fs::read(&index).map_err(|e| fault(format!("{}: {e}", index.display())))?;
                let json: serde_json::Value = serde_json::from_slice(&text)
                    .map_err(|e| fault(format!("model.safetensors.index.json: {e}")))?;
                let shards = json["weight_map"].as_object().into_iter().flat_map(|map| map.values());
                let mut shards: Vec<&str> = shards.filter_map(|name| name.as_str()).collect();
                shards.sort_unstable();
                shards.dedup();
                for shard in shards {
                    file(shard)?;
                }
            }
        }
        Ok(config.parent().map(Path::to_path_buf).unwrap_or_default())
    }

    /// The path of a file in the cache, downloaded if it is not there. A transfer that breaks off is taken up
    /// where it broke off, by this call or a later one; a large file whose SHA-256 is not the one that the
    /// hub states is removed. `name` stands for the address in messages.
    ///
    /// # Errors
    /// If the file is not in the cache and cannot be downloaded, or may not be because the hub is offline.
    pub fn fetch(&self, address: &Address, name: &str) -> Result<PathBuf, DataError> {
        let fault = |message: String| DataError::Hub { address: name.to_string(), message };
        let kind = if address.dataset { RepoType::Dataset } else { RepoType::Model };
        let repo = Repo::with_revision(address.repository.clone(), kind, address.revision.clone());
        let cache = Cache::new(self.cache.clone());
        if let Some(path) = cache.repo(repo.clone()).get(&address.file) {
            return Ok(path);
        }
        if self.offline {
            return Err(fault(format!(
                "not in the cache {}, and HF_HUB_OFFLINE forbids downloading it: unset HF_HUB_OFFLINE, or \
                 set HF_HOME to a cache that has it",
                self.cache.display()
            )));
        }
        let api = ApiBuilder::from_cache(cache)
            .with_endpoint(self.endpoint.clone())
            .with_progress(self.progress)
            .build()
            .map_err(|e| fault(e.to_string()))?
            .repo(repo);
        let mut resumes = 0;
        let path = loop {
            match api.download(&address.file) {
                Ok(path) => break path,
                // The transfer broke off; what has arrived is kept, and the next request asks for the rest.
                Err(ApiError::IoError(e)) if broke_off(&e) && resumes < RESUMES => resumes += 1,
                Err(e) => return Err(fault(format!("cannot download from {}: {e}", self.endpoint))),
            }
        };
        verify(&path).map_err(|e| fault(format!("cannot check the download: {e}")))?.map_err(fault)?;
        Ok(path)
    }
}

/// Whether an error is the network's and not the disk's.
fn broke_off(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    !matches!(
        error.kind(),
        Kind::StorageFull | Kind::PermissionDenied | Kind::NotFound | Kind::ReadOnlyFilesystem
    )
}

/// Checks a fresh download. The cache names a large file by its SHA-256, a small one by git's hash.
fn verify(link: &Path) -> io::Result<Result<(), String>> {
    let blob = fs::canonicalize(link)?;
    let name = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name.len() != 64 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(Ok(()));
    }
    let mut hash = Sha256::new();
    io::copy(&mut File::open(&blob)?, &mut hash)?;
    let found = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if found == name {
        return Ok(Ok(()));
    }
    fs::remove_file(link)?;
    fs::remove_file(&blob)?;
    Ok(Err(format!(
        "the download's SHA-256 is {found}, but the hub says {name}: the file was removed; try \
                    again"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_their_revision_in_either_place() {
        let address = |dataset, repository: &str, file: &str, revision: &str| Address {
            dataset,
            repository: repository.to_string(),
            file: file.to_string(),
            revision: revision.to_string(),
        };
        for (text, expected) in [
            ("hf://datasets/o/n/a/b.parquet", address(true, "o/n", "a/b.parquet", "main")),
            ("hf://datasets/o/n/b.parquet@v1", address(true, "o/n", "b.parquet", "v1")),
            ("hf://datasets/o/n@v1/b.parquet", address(true, "o/n", "b.parquet", "v1")),
            ("hf://o/n", address(false, "o/n", "", "main")),
            ("hf://o/n@abc", address(false, "o/n", "", "abc")),
        ] {
            assert_eq!(text.parse::<Address>().unwrap(), expected, "{text}");
        }
        for text in ["o/n", "hf://o", "hf://o/", "hf://datasets/o/n/../x", "hf://o/n@", "hf://o/n@a/b@c"] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
