//! Typed access to a recipe's entries. Each call names a key that exists, takes its entry, and notes what is
//! wrong with it; what nobody took in the end is an unknown key.

mod refused;
mod values;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use super::entries::{Entries, Entry};
use super::error::{Fault, Origin};
use super::hints::{self, nearest};
use super::keys::Owned;
use super::kind::{Key, Kind};

/// Entries being read, and the faults found.
#[derive(Debug)]
pub struct Reader {
    entries: Entries,
    /// The recipe's file.
    path: PathBuf,
    /// Whether there is something at a path, which may be a pattern.
    is_there: fn(&Path) -> bool,
    /// Keys asked for so far, in order.
    known: Vec<Key>,
    /// Those that must be given and are not.
    missing: Vec<(&'static str, &'static str)>,
    /// Where the values of keys that were given stand.
    origins: BTreeMap<(&'static str, &'static str), Origin>,
    /// Keys that only some choices of another key have, as each of them reads them.
    pub(crate) owned: Vec<Owned>,
    faults: Vec<Fault>,
}

impl Reader {
    /// A reader of the entries of the recipe at `path`, in which `faults` have been found already. A path that the
    /// recipe gives is looked for beside the recipe first, if `is_there` says that there is something.
    pub fn new(path: &Path, entries: Entries, faults: Vec<Fault>, is_there: fn(&Path) -> bool) -> Self {
        Self {
            entries,
            path: path.to_path_buf(),
            is_there,
            known: Vec::new(),
            missing: Vec::new(),
            origins: BTreeMap::new(),
            owned: Vec::new(),
            faults,
        }
    }

    /// A reader of a recipe that says nothing: reading it tells which keys there are.
    pub fn empty() -> Self {
        Self::new(Path::new("recipe.toml"), Entries::default(), Vec::new(), |_| false)
    }

    /// The keys that were asked for, in order.
    pub fn keys(&self) -> &[Key] {
        &self.known
    }

    /// Those that must be given and are not: section and key.
    pub fn needed(&self) -> &[(&'static str, &'static str)] {
        &self.missing
    }

    /// The keys that only some choices of another key have, as each of them reads them.
    pub fn owned(&self) -> &[Owned] {
        &self.owned
    }

    /// What has been found wrong.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// What has been found wrong.
    pub fn into_faults(self) -> Vec<Fault> {
        self.faults
    }

    /// Makes a key known that something else reads.
    pub fn declare(&mut self, section: &'static str, key: &'static str, kind: Kind) {
        self.known.push(Key { section, name: key, kind });
    }

    /// The entry of a key, if it is given.
    fn take(&mut self, section: &'static str, key: &'static str, kind: Kind) -> Option<Entry> {
        self.declare(section, key, kind);
        let entry = self.entries.sections.get_mut(section)?.remove(key)?;
        self.origins.insert((section, key), entry.value_at.clone());
        Some(entry)
    }

    /// Whether a key is given in the recipe itself or an override, and not yet taken.
    pub fn has_inline(&self, section: &str, key: &str) -> bool {
        self.entries.sections.get(section).and_then(|s| s.get(key)).is_some_and(|e| !e.from_config)
    }

    /// Whether the recipe has a section.
    pub(crate) fn has_section(&self, section: &str) -> bool {
        self.entries.headers.contains_key(section)
    }

    /// Whether the recipe has a section, or a key of it that has been asked for was given.
    pub fn has_any(&self, section: &str) -> bool {
        self.has_section(section) || self.origins.keys().any(|(own, _)| *own == section)
    }

    /// Whether a key was given.
    pub fn given(&self, section: &'static str, key: &'static str) -> bool {
        self.origins.contains_key(&(section, key))
    }

    /// Notes a fault of a key's value, at the value, at the section, or at the file, whichever there is.
    pub fn fault(&mut self, section: &'static str, key: &'static str, message: impl Display) {
        let header = || self.entries.headers.get(section).cloned();
        let origin = self.origins.get(&(section, key)).cloned().or_else(header);
        let origin = origin.unwrap_or_else(|| Origin::File(self.path.clone()));
        self.fault_at(origin, message);
    }

    /// Notes a fault of a section: at its header, or else at one of its keys.
    pub fn section_fault(&mut self, section: &'static str, message: impl Display) {
        let first = || self.origins.iter().find(|((own, _), _)| *own == section).map(|(_, at)| at.clone());
        let origin = self.entries.headers.get(section).cloned().or_else(first);
        let origin = origin.unwrap_or_else(|| Origin::File(self.path.clone()));
        self.fault_at(origin, message);
    }

    /// Notes a fault at a place.
    pub fn fault_at(&mut self, origin: Origin, message: impl Display) {
        self.faults.push(Fault { origin, message: message.to_string() });
    }

    /// A key that must be given is not.
    pub fn missing(&mut self, section: &'static str, key: &'static str, expected: &str) {
        self.missing.push((section, key));
        self.fault(section, key, format!("{section}.{key} is missing: expected {expected}"));
    }

    /// The path that a text at `origin` names.
    pub fn resolve(&self, text: &str, origin: &Origin) -> PathBuf {
        resolve(&self.path, text, origin, self.is_there)
    }

    /// Notes every key that nobody took, and returns all faults, sorted by place.
    pub fn finish(&mut self) -> &[Fault] {
        let entries = std::mem::take(&mut self.entries);
        for (key, entry) in entries.stray {
            let home = self.known.iter().find(|known| known.name == key);
            let hint = home.map_or("expected a [section]".to_string(), |k| format!("did you mean {k}?"));
            let message = format!("{key}: a key outside any section; {hint}");
            self.faults.push(Fault { origin: entry.key_at, message });
        }
        for (section, keys) in entries.sections {
            if !self.known.iter().any(|known| known.section == section) {
                let mut sections: Vec<&str> = Vec::new();
                for key in &self.known {
                    if !sections.contains(&key.section) {
                        sections.push(key.section);
                    }
                }
                let hint = match nearest(&section, sections.iter().copied(), 0.8) {
                    Some(name) => format!("did you mean [{name}]?"),
                    None => format!("expected one of {}", sections.join(", ")),
                };
                let first = keys.into_values().next().map(|e| e.key_at);
                let origin = entries.headers.get(&section).cloned().or(first);
                let origin = origin.unwrap_or_else(|| Origin::File(self.path.clone()));
                self.faults.push(Fault { origin, message: format!("[{section}]: unknown section; {hint}") });
                continue;
            }
            for (key, entry) in keys {
                let message = format!(
                    "{section}.{key}: unknown key; {}",
                    hints::unknown_key(&self.known, &section, &key)
                );
                self.faults.push(Fault { origin: entry.key_at, message });
            }
        }
        self.faults.sort();
        self.faults.dedup();
        &self.faults
    }
}

/// A path that the recipe gives is one beside the recipe, if there is something; otherwise, and in overrides, it is
/// one from the working directory.
pub fn resolve(recipe: &Path, text: &str, origin: &Origin, is_there: fn(&Path) -> bool) -> PathBuf {
    let beside = recipe.parent().unwrap_or(Path::new("")).join(text);
    match origin {
        Origin::Override(_) => PathBuf::from(text),
        _ if is_there(&beside) => beside,
        _ => PathBuf::from(text),
    }
}
