//! The adapters of a service: each under a name and a number, put on one request or all of them, loaded and
//! unloaded while it runs.
//!
//! Three ways lead to an adapter. Its name is a model's (`"model": "NAME"`, as in vLLM): the request has that
//! adapter alone, at the scale that it was loaded with. A request's `lora` names numbers and scales (as in
//! llama.cpp's server): it has exactly those. A request with neither has the adapters that are on by default,
//! which `POST /lora-adapters` changes.
//!
//! What a request has is settled when it arrives, as shared handles: unloading an adapter, or changing the
//! defaults, leaves running and waiting requests as they were. Nothing that depends on adapters outlives a
//! request: keys and values are kept for prompts to come only where no adapter took part.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tritforge_infer::{Adapter, Model, ScaledAdapter};

use crate::error::ApiError;

/// Adapters that a service holds at most.
const MOST: usize = 256;
/// Bytes of a name at most.
const LONGEST_NAME: usize = 200;

/// An adapter that a service has.
#[derive(Debug, Clone)]
pub struct NamedAdapter {
    /// Its number in `/lora-adapters`; never that of another, even after it is unloaded.
    pub id: usize,
    /// The model's name that asks for it.
    pub name: String,
    /// The file, as it was given.
    pub path: PathBuf,
    /// The matrices, and the scale that the name asks for.
    pub scaled: ScaledAdapter,
    /// The default scale for requests that do not set one; 0 for off.
    pub default_scale: f32,
}

/// Why an adapter cannot be added or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdapterError {
    /// The name is no name, or not free.
    #[error("adapter name {name:?}: {message}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// The file is no adapter of the model.
    #[error("{0}")]
    File(String),
    /// There is no such adapter.
    #[error("no adapter {0}: GET /lora-adapters lists them")]
    Unknown(String),
    /// No more can be held.
    #[error("{MOST} adapters are loaded: unload one first")]
    Full,
}

/// The adapters of one model.
#[derive(Debug)]
pub struct Adapters {
    /// What the model without adapters is called.
    base: String,
    /// What adapters are read for; an engine without one has none.
    model: Option<Arc<Model>>,
    table: Mutex<AdapterTable>,
}

#[derive(Debug, Default)]
struct AdapterTable {
    next: usize,
    adapters: Vec<NamedAdapter>,
}

impl Adapters {
    /// No adapters yet. Without a model there never will be any.
    pub(crate) fn new(base: &str, model: Option<Arc<Model>>) -> Self {
        Self { base: base.to_string(), model, table: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, AdapterTable> {
        // Each change is one push, one removal or one pass of assignments: what a panic leaves behind is
        // whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads an adapter, of any form that the engine reads, and holds it under a name, off by default.
    /// Returns its number.
    ///
    /// # Errors
    /// If the name is taken, or the file is no adapter of the model.
    pub fn load(&self, name: &str, path: &Path, scale: f32) -> Result<usize, AdapterError> {
        let model = self
            .model
            .as_ref()
            .ok_or_else(|| AdapterError::File("this engine does not support adapters".to_string()))?;
        // Before the file is read, so that a name that cannot be had costs nothing.
        self.check_name(&self.lock(), name)?;
        let adapter = Adapter::open(path, model).map_err(|e| AdapterError::File(e.to_string()))?;
        self.add(name, ScaledAdapter { adapter: Arc::new(adapter), scale }, false)
    }

    /// Adds an adapter under a name; `on` applies it to requests that name no adapter. Returns its number.
    ///
    /// # Errors
    /// If the name is taken, or too many are held.
    pub fn add(&self, name: &str, scaled: ScaledAdapter, on: bool) -> Result<usize, AdapterError> {
        let mut table = self.lock();
        self.check_name(&table, name)?;
        if table.adapters.len() >= MOST {
            return Err(AdapterError::Full);
        }
        let id = table.next;
        table.next += 1;
        let default_scale = if on { scaled.scale } else { 0.0 };
        let path = scaled.adapter.path().to_path_buf();
        table.adapters.push(NamedAdapter { id, name: name.to_string(), path, scaled, default_scale });
        Ok(id)
    }

    /// A name after a file that is free: its stem, or a directory's name, with a number if that is taken.
    pub fn free_name(&self, path: &Path) -> String {
        let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
        let stem = name.map_or("adapter".to_string(), |stem| stem.to_string_lossy().into_owned());
        let table = self.lock();
        let free = |name: &String| self.check_name(&table, name).is_ok();
        let numbered = (2..).map(|n| format!("{stem}-{n}"));
        std::iter::once(stem.clone()).chain(numbered).take(MOST + 2).find(free).unwrap_or(stem)
    }

    fn check_name(&self, table: &AdapterTable, name: &str) -> Result<(), AdapterError> {
        let refuse = |message: &str| {
            Err(AdapterError::Name {
                name: name.chars().take(LONGEST_NAME).collect(),
                message: message.to_string(),
            })
        };
        if name.trim().is_empty() || name.len() > LONGEST_NAME || name.contains(char::is_control) {
            return refuse("expected 1 to 200 bytes without control characters");
        }
        if name == self.base {
            return refuse("the model itself has this name");
        }
        if table.adapters.iter().any(|adapter| adapter.name == name) {
            return refuse("already loaded: choose another, or unload that adapter first");
        }
        Ok(())
    }

    /// Lets go of an adapter. Requests that have it keep it to their end.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn unload(&self, name: &str) -> Result<(), AdapterError> {
        let mut table = self.lock();
        let at = table.adapters.iter().position(|adapter| adapter.name == name);
        let at = at.ok_or_else(|| AdapterError::Unknown(format!("{name:?}")))?;
        table.adapters.remove(at);
        Ok(())
    }

    /// All adapters, in the order in which they came.
    pub fn list(&self) -> Vec<NamedAdapter> {
        self.lock().adapters.clone()
    }

    /// What requests have from now on that ask for nothing: these numbers with these scales, every other
    /// adapter off.
    ///
    /// # Errors
    /// If a number is unknown; nothing is changed then.
    pub(crate) fn set_defaults(&self, scales: &[(usize, f32)]) -> Result<(), AdapterError> {
        let mut table = self.lock();
        known(&table, scales)?;
        for adapter in &mut table.adapters {
            let scale = scales.iter().find(|(id, _)| *id == adapter.id);
            adapter.default_scale = scale.map_or(0.0, |(_, scale)| *scale);
        }
        Ok(())
    }

    /// What a request has, and the name of the model that answers it. Adapters with scale 0 are left out: the
    /// base's bits are the base's.
    pub(crate) fn of_request(
        &self,
        model: Option<&str>,
        lora: Option<&[(usize, f32)]>,
    ) -> Result<(String, Arc<[ScaledAdapter]>), ApiError> {
        let table = self.lock();
        let named = match model {
            None => None,
            Some(name) if name == self.base => None,
            Some(name) => Some(table.adapters.iter().find(|a| a.name == name).ok_or_else(|| {
                let names = table.adapters.iter().map(|a| a.name.as_str());
                let names: Vec<&str> = std::iter::once(self.base.as_str()).chain(names).collect();
                let message = format!("the model {name:?} does not exist; available: {}", names.join(", "));
                ApiError::NotFound { message, param: Some("model"), code: Some("model_not_found") }
            })?),
        };
        let with_scale = |adapter: &NamedAdapter, scale: f32| {
            (scale != 0.0).then(|| ScaledAdapter { adapter: Arc::clone(&adapter.scaled.adapter), scale })
        };
        let scaled = match (named, lora) {
            (Some(adapter), Some(_)) => {
                let message = format!(
                    "the model {:?} is an adapter, but lora names others: give only one of the two",
                    adapter.name
                );
                return Err(ApiError::Invalid { message, param: Some("lora") });
            }
            (Some(adapter), None) => with_scale(adapter, adapter.scaled.scale).into_iter().collect(),
            (None, Some(scales)) => {
                known(&table, scales).map_err(|e| match e {
                    AdapterError::Unknown(_) => ApiError::NotFound {
                        message: e.to_string(),
                        param: Some("lora"),
                        code: Some("adapter_not_found"),
                    },
                    _ => ApiError::Invalid { message: e.to_string(), param: Some("lora") },
                })?;
                // In the order of the numbers, whatever that of the request: sums have the same bits.
                let scale =
                    |a: &NamedAdapter| scales.iter().find(|(id, _)| *id == a.id).map(|(_, scale)| *scale);
                table.adapters.iter().filter_map(|a| with_scale(a, scale(a)?)).collect()
            }
            (None, None) => table.adapters.iter().filter_map(|a| with_scale(a, a.default_scale)).collect(),
        };
        let name = named.map_or(&self.base, |adapter| &adapter.name).clone();
        Ok((name, scaled))
    }
}

/// Whether every number is an adapter's.
fn known(table: &AdapterTable, scales: &[(usize, f32)]) -> Result<(), AdapterError> {
    match scales.iter().find(|(id, _)| table.adapters.iter().all(|adapter| adapter.id != *id)) {
        Some((id, _)) => Err(AdapterError::Unknown(format!("with id {id}"))),
        None => Ok(()),
    }
}
