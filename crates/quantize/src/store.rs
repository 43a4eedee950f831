//! What is finished so far, in a directory beside the checkpoint that is to come: a conversion that was ended goes on
//! from there, to the same bits.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use tritforge_checkpoint::{TensorFile, TensorSpec, TensorType, Tensors};
use tritforge_model::Parameter;

use crate::QuantizeError;
use crate::run::WindowReport;

/// The conversion that the directory is of.
const SETTINGS: &str = "settings.json";

/// The directory.
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens the directory for a checkpoint at `out`, or makes it.
    ///
    /// # Errors
    /// If it is of a conversion with other settings, or cannot be written.
    pub(crate) fn open(out: &Path, settings: &serde_json::Value) -> Result<Self, QuantizeError> {
        let Some(name) = out.file_name() else {
            let message = "not the name of a directory".to_string();
            return Err(QuantizeError::Unfinished { path: out.to_path_buf(), message });
        };
        let dir = out.with_file_name(format!("{}.partial", name.to_string_lossy()));
        let path = dir.join(SETTINGS);
        let this = Self { dir };
        if path.exists() {
            let found: serde_json::Value = this.read(SETTINGS)?;
            if found != *settings {
                let message = format!(
                    "an unfinished conversion with other settings ({}): remove the directory, or give the same model, \
                     text and options",
                    difference(&found, settings)
                );
                return Err(QuantizeError::Unfinished { path: this.dir, message });
            }
            return Ok(this);
        }
        fs::create_dir_all(&this.dir).map_err(QuantizeError::io(&this.dir, "create"))?;
        this.write(SETTINGS, &serde_json::to_vec_pretty(settings).unwrap_or_default())?;
        Ok(this)
    }

    /// What was measured of the window that begins at block `first`, and its finished blocks; none if it was not trained
    /// yet.
    pub(crate) fn finished(&self, first: usize) -> Result<Option<(WindowReport, Tensors)>, QuantizeError> {
        let path = self.dir.join(kept(first));
        match path.exists() {
            true => Ok(Some((self.read(&report(first))?, Tensors::open(&path)?))),
            false => Ok(None),
        }
    }

    /// The blocks of the finished window at `first` that the next one goes on with.
    ///
    /// # Errors
    /// If they are gone or damaged.
    pub(crate) fn ahead(&self, first: usize) -> Result<Tensors, QuantizeError> {
        Ok(Tensors::open(&self.dir.join(ahead(first)))?)
    }

    /// Keeps a window: its finished blocks, which are returned as they are stored, and those that the next one goes on
    /// with.
    pub(crate) fn keep(
        &self,
        measured: &WindowReport,
        finished: &[&Parameter],
        unfinished: &[&Parameter],
        previous: Option<usize>,
    ) -> Result<Tensors, QuantizeError> {
        let first = measured.first;
        if !unfinished.is_empty() {
            self.tensors(&ahead(first), unfinished)?;
        }
        self.write(&report(first), &serde_json::to_vec(measured).unwrap_or_default())?;
        // Last: where this file is, the others are.
        self.tensors(&kept(first), finished)?;
        if let Some(path) = previous.map(|first| self.dir.join(ahead(first))).filter(|path| path.exists()) {
            fs::remove_file(&path).map_err(QuantizeError::io(&path, "remove"))?;
        }
        Ok(Tensors::open(&self.dir.join(kept(first)))?)
    }

    /// Removes the directory.
    pub(crate) fn remove(self) -> Result<(), QuantizeError> {
        fs::remove_dir_all(&self.dir).map_err(QuantizeError::io(&self.dir, "remove"))
    }

    fn tensors(&self, name: &str, parameters: &[&Parameter]) -> Result<(), QuantizeError> {
        let (path, temporary) = (self.dir.join(name), self.dir.join(format!(".tmp-{name}")));
        let spec = |p: &&Parameter| TensorSpec {
            name: p.name.clone(),
            shape: p.tensor.dims().to_vec(),
            ty: TensorType::F32,
        };
        let mut file = TensorFile::create(&temporary, parameters.iter().map(spec).collect())?;
        for spec in file.specs().to_vec() {
            let Some(parameter) = parameters.iter().find(|p| p.name == spec.name) else { continue };
            file.write_f32(&spec.name, &parameter.tensor.read())?;
        }
        file.finish()?;
        fs::rename(&temporary, &path).map_err(QuantizeError::io(&path, "rename"))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T, QuantizeError> {
        let path = self.dir.join(name);
        let bytes = fs::read(&path).map_err(QuantizeError::io(&path, "read"))?;
        serde_json::from_slice(&bytes).map_err(|e| QuantizeError::Unfinished {
            message: format!("{e}: damaged: remove {} and start over", self.dir.display()),
            path,
        })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), QuantizeError> {
        let (path, temporary) = (self.dir.join(name), self.dir.join(format!(".tmp-{name}")));
        fs::write(&temporary, bytes).map_err(QuantizeError::io(&temporary, "write"))?;
        fs::rename(&temporary, &path).map_err(QuantizeError::io(&path, "rename"))
    }
}

fn kept(first: usize) -> String {
    format!("blocks-{first:04}.safetensors")
}

fn ahead(first: usize) -> String {
    format!("ahead-{first:04}.safetensors")
}

fn report(first: usize) -> String {
    format!("blocks-{first:04}.json")
}

/// The first setting that is another.
fn difference(found: &serde_json::Value, wanted: &serde_json::Value) -> String {
    let fields = |value: &serde_json::Value| value.as_object().cloned().unwrap_or_default();
    let found = fields(found);
    for (key, wanted) in fields(wanted) {
        match found.get(&key) {
            Some(found) if *found == wanted => {}
            Some(found) if found.is_object() => return difference(found, &wanted),
            found => return format!("{key} was {}", found.unwrap_or(&serde_json::Value::Null)),
        }
    }
    "by another version of the program".to_string()
}
