//! API keys: a file with the hash, the role and the limits of each, read again when it changes.
//!
//! ```toml
//! [[keys]]
//! name = "alice"
//! sha256 = "…64 hexadecimal digits…"
//! role = "user"                # or "admin"
//! requests_per_minute = 60     # optional
//! tokens_per_minute = 20000    # optional
//! ```

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::rate_limit::Limits;
use crate::reload::{self, FileError};

/// Bytes of a file of keys at most.
const LONGEST_FILE: u64 = 16 << 20;
/// Characters of a key at least. Its hash has no salt, so that only a long one cannot be guessed from it.
const SHORTEST_KEY: usize = 16;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Ask for text.
    User,
    /// Change what others get, and read the metrics, too.
    Admin,
}

/// A key, by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) name: String,
    sha256: [u8; 32],
    pub(crate) role: Role,
    pub(crate) limits: Limits,
}

impl Key {
    /// The one key of a service, which may do everything.
    pub(crate) fn only(key: &str) -> Self {
        let sha256 = Sha256::digest(key.as_bytes()).into();
        Self { name: "default".to_string(), sha256, role: Role::Admin, limits: Limits::default() }
    }
}

/// The key that a client presents, in a time that depends neither on which one it is nor on where it differs.
pub(crate) fn find<'a>(keys: impl Iterator<Item = &'a Key>, presented: &str) -> Option<&'a Key> {
    let hash = Sha256::digest(presented.as_bytes());
    let mut found = None;
    for key in keys {
        if bool::from(key.sha256.ct_eq(hash.as_slice())) {
            found = Some(key);
        }
    }
    found
}

/// An entry of a file of keys for a key.
///
/// # Errors
/// If the name or the key cannot be one.
pub fn key_entry(name: &str, key: &str) -> Result<String, String> {
    check_name(name)?;
    if key.chars().count() < SHORTEST_KEY {
        let found = key.chars().count();
        return Err(format!(
            "the key has {found} characters; expected at least {SHORTEST_KEY}, chosen at random"
        ));
    }
    if !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(
            "the key has characters that a header cannot have; expected ASCII without spaces".to_string()
        );
    }
    let digits: String = Sha256::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let name = toml::Value::from(name);
    Ok(format!("[[keys]]\nname = {name}\nsha256 = \"{digits}\"\nrole = \"user\"\n"))
}

fn check_name(name: &str) -> Result<(), String> {
    if name.trim().is_empty() || name.len() > 200 || name.contains(char::is_control) {
        return Err(format!("name {name:?}: expected 1 to 200 bytes without control characters"));
    }
    Ok(())
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    keys: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    sha256: String,
    #[serde(default = "user")]
    role: Role,
    requests_per_minute: Option<u64>,
    tokens_per_minute: Option<u64>,
}

fn user() -> Role {
    Role::User
}

/// The keys of a file.
#[derive(Debug)]
pub struct Keys {
    path: PathBuf,
    keys: RwLock<Arc<[Key]>>,
}

impl Keys {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, has no keys, or one of them is wrong.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Ok(Self { path: path.to_path_buf(), keys: RwLock::new(read(path)?) })
    }

    /// The keys as they are now.
    pub(crate) fn current(&self) -> Arc<[Key]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the file again. Requests that have been let in stay.
    ///
    /// # Errors
    /// As [`Self::open`]; the keys stay as they were then.
    pub fn reload(&self) -> Result<(), FileError> {
        let keys = read(&self.path)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// Reads the file again whenever it changes, or the process gets SIGHUP. Never returns.
    pub(crate) async fn watch(self: Arc<Self>) {
        let paths = vec![self.path.clone()];
        reload::watch(paths, "the API keys", move || self.reload().map_err(|e| e.to_string())).await;
    }
}

fn read(path: &Path) -> Result<Arc<[Key]>, FileError> {
    let cannot = |source| FileError::Read { what: "the API keys", path: path.to_path_buf(), source };
    let invalid = |message: String| FileError::Invalid { path: path.to_path_buf(), message };
    let length = std::fs::metadata(path).map_err(cannot)?.len();
    if length > LONGEST_FILE {
        return Err(invalid(format!("{length} bytes; expected at most {LONGEST_FILE}")));
    }
    let text = std::fs::read_to_string(path).map_err(cannot)?;
    parse(&text).map_err(invalid)
}

fn parse(text: &str) -> Result<Arc<[Key]>, String> {
    let file: File = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_string())?;
    if file.keys.is_empty() {
        let expected = "expected [[keys]] with name and sha256 (tritforge serve --hash-key NAME writes one)";
        return Err(format!("no keys; {expected}"));
    }
    let mut keys: Vec<Key> = Vec::with_capacity(file.keys.len());
    for (i, entry) in file.keys.into_iter().enumerate() {
        let number = i + 1;
        let wrong = |message: String| format!("key {number} ({:?}): {message}", entry.name);
        check_name(&entry.name).map_err(wrong)?;
        let sha256 = from_hex(&entry.sha256).ok_or_else(|| {
            wrong(format!(
                "sha256 has {} characters; expected 64 hexadecimal digits",
                entry.sha256.chars().count()
            ))
        })?;
        for (key, limit) in [
            ("requests_per_minute", entry.requests_per_minute),
            ("tokens_per_minute", entry.tokens_per_minute),
        ] {
            if limit == Some(0) {
                return Err(wrong(format!("{key} = 0; expected at least 1, or remove the key's entry")));
            }
        }
        if let Some(other) = keys.iter().find(|key| key.name == entry.name || key.sha256 == sha256) {
            return Err(wrong(format!(
                "name or sha256 is also that of {:?}; expected one entry a key",
                other.name
            )));
        }
        let limits = Limits { requests: entry.requests_per_minute, tokens: entry.tokens_per_minute };
        keys.push(Key { sha256, role: entry.role, limits, name: entry.name });
    }
    Ok(keys.into())
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_admits_its_key_and_no_other() {
        let entry = key_entry("a \"b\"", "0123456789abcdef").unwrap();
        let more = key_entry("second", "fedcba9876543210").unwrap().replace("\"user\"", "\"admin\"");
        let keys = parse(&format!("{entry}requests_per_minute = 7\n{more}")).unwrap();
        let found = find(keys.iter(), "0123456789abcdef").unwrap();
        assert_eq!(
            (found.name.as_str(), found.role, found.limits.requests),
            ("a \"b\"", Role::User, Some(7))
        );
        assert_eq!(find(keys.iter(), "fedcba9876543210").unwrap().role, Role::Admin);
        for other in ["", "0123456789abcde", "0123456789abcdeF", "0123456789abcdef "] {
            assert_eq!(find(keys.iter(), other), None, "{other:?}");
        }
        // The SHA-256 of "abc" in FIPS 180-2.
        let abc = from_hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        assert_eq!(Key::only("abc").sha256, abc);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        let good = key_entry("one", "0123456789abcdef").unwrap();
        let digits = "0".repeat(64);
        for (text, expected) in [
            (String::new(), "no keys"),
            (good.replace("role", "rule"), "rule"),
            (good.replace("\"user\"", "\"root\""), "root"),
            (good.replace("sha256 = \"", "sha256 = \"x"), "key 1 (\"one\"): sha256 has 65 characters"),
            (format!("{good}{good}"), "key 2 (\"one\")"),
            (format!("{good}tokens_per_minute = 0"), "tokens_per_minute = 0"),
            (format!("[[keys]]\nname = \" \"\nsha256 = \"{digits}\""), "expected 1 to 200 bytes"),
            (format!("[[keys]]\nsha256 = \"{digits}\""), "name"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(key_entry("a", "short").unwrap_err().contains("5 characters"));
        assert!(key_entry("a", "0123456789abcde f").is_err());
    }
}
