//! What a path names: the one place where it is found out.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use tritforge_checkpoint::{AdapterFiles, CONFIG, Checkpoint, MANIFEST, MODEL, latest, steps};
use tritforge_config::{ADAPTER_CONFIG, ADAPTER_MODEL};

use crate::ExportError;
use crate::import::{INDEX, nothing_to_read};

/// What was found at a path.
pub enum Located {
    /// A checkpoint: the path itself, or the newest whole one of the run in that directory.
    Checkpoint(Checkpoint),
    /// A GGUF file.
    Gguf(PathBuf),
    /// A directory in Hugging Face's layout, one of its safetensors files, or their index.
    HuggingFace(PathBuf),
    /// An adapter, of a run or as peft writes it, which is no model without its base.
    Adapter(Box<AdapterFiles>),
}

/// What a path may name, for messages.
const ANY: &str =
    "expected a checkpoint, a run directory, a GGUF file, a Hugging Face directory or an adapter";

/// Finds out what a path names.
///
/// # Errors
/// If it is none of these, or what it is cannot be read; the message says what was found instead.
pub fn locate(path: &Path) -> Result<Located, ExportError> {
    found(path, ANY)
}

/// [`locate`], where only some forms would be right: `expected` says which.
fn found(path: &Path, expected: &str) -> Result<Located, ExportError> {
    let fault = |message: String| ExportError::Import { path: path.to_path_buf(), message };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => directory(path),
        Ok(found) if found.is_file() => file(path, expected),
        Ok(_) => Err(fault(format!("neither a file nor a directory: {expected}"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(fault(format!("no such file or directory: {expected}")))
        }
        Err(source) => Err(ExportError::io(path, "open")(source)),
    }
}

/// The checkpoint that a path names: itself, or the newest whole one of the run in that directory.
///
/// # Errors
/// If it names something else; the message says what, and how a checkpoint is made of it.
pub fn open_checkpoint(path: &Path) -> Result<Checkpoint, ExportError> {
    checkpoint_of(found(path, "expected a checkpoint or a run directory")?, path)
}

/// [`open_checkpoint`] for what [`locate`] has found at `path`.
///
/// # Errors
/// As there.
pub fn checkpoint_of(located: Located, path: &Path) -> Result<Checkpoint, ExportError> {
    let place = path.display();
    let import = format!(
        "expected a checkpoint or a run directory; `tritforge import {place} -o DIR` makes a checkpoint of it"
    );
    let message = match located {
        Located::Checkpoint(checkpoint) => return Ok(checkpoint),
        Located::Gguf(_) => format!("a GGUF file: {import}"),
        Located::HuggingFace(_) => format!("a model in the layout of Hugging Face: {import}"),
        Located::Adapter(_) => without_base(path),
    };
    Err(ExportError::Import { path: path.to_path_buf(), message })
}

/// The GGUF file that a path names, which is what the engine runs.
///
/// # Errors
/// If it names something else; the message says what, and how a GGUF file is made of it.
pub fn gguf_file(path: &Path) -> Result<PathBuf, ExportError> {
    let place = path.display();
    let message = match found(path, "expected a GGUF file")? {
        Located::Gguf(file) => return Ok(file),
        Located::Checkpoint(_) => format!(
            "a checkpoint: expected a GGUF file; `tritforge export {place} -o model.gguf` makes one of it"
        ),
        Located::HuggingFace(_) => format!(
            "a model in the layout of Hugging Face: expected a GGUF file; `tritforge import {place} -o DIR` and \
             `tritforge export DIR -o model.gguf` make one of it"
        ),
        Located::Adapter(_) => format!(
            "an adapter, which is no model by itself: pass it with --lora beside its base as a GGUF file, or \
             merge it with `tritforge merge {place} -o DIR`"
        ),
    };
    Err(ExportError::Import { path: path.to_path_buf(), message })
}

/// What to do with an adapter where a model is wanted.
pub(crate) fn without_base(path: &Path) -> String {
    format!(
        "an adapter, which is no model by itself: `tritforge merge {} -o DIR` makes one of it and its base",
        path.display()
    )
}

fn directory(path: &Path) -> Result<Located, ExportError> {
    let has = |name: &str| path.join(name).is_file();
    if let Some(adapter) = AdapterFiles::find(path)? {
        return Ok(Located::Adapter(Box::new(adapter)));
    }
    if has(MANIFEST) {
        return Ok(Located::Checkpoint(Checkpoint::open(path)?));
    }
    if has(CONFIG) || has(MODEL) || has(INDEX) {
        return Ok(Located::HuggingFace(path.to_path_buf()));
    }
    if let Some(newest) = latest(path)? {
        return Ok(Located::Checkpoint(Checkpoint::open(&newest)?));
    }
    match steps(path)?.last() {
        None => Err(match model_inside(path) {
            None => nothing_to_read(path),
            Some(inside) => ExportError::Import {
                path: path.to_path_buf(),
                message: format!("no model itself, but {} is one: give that directory", inside.display()),
            },
        }),
        Some((_, newest)) => Err(ExportError::Import {
            path: path.to_path_buf(),
            message: format!(
                "a run directory without a whole checkpoint; the newest is damaged: {}",
                damage(newest)
            ),
        }),
    }
}

/// A run or a checkpoint in a directory that is none, such as `runs`.
fn model_inside(dir: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
    let model = |path: &PathBuf| {
        path.is_dir() && (path.join(MANIFEST).is_file() || steps(path).is_ok_and(|steps| !steps.is_empty()))
    };
    entries.filter(model).min()
}

/// What is wrong with a checkpoint that is not whole.
fn damage(dir: &Path) -> String {
    let found = Checkpoint::open(dir)
        .and_then(|checkpoint| checkpoint.files().try_for_each(|(name, _)| checkpoint.check_file(name)));
    found.map_or_else(|error| error.to_string(), |()| dir.display().to_string())
}

fn file(path: &Path, expected: &str) -> Result<Located, ExportError> {
    let fault = |message: String| Err(ExportError::Import { path: path.to_path_buf(), message });
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    if name == ADAPTER_CONFIG || name == ADAPTER_MODEL {
        return fault("one of the two files of an adapter: give their directory".to_string());
    }
    let extension = path.extension().map(|end| end.to_string_lossy().to_lowercase()).unwrap_or_default();
    match extension.as_str() {
        "gguf" => return Ok(Located::Gguf(path.to_path_buf())),
        "safetensors" | "json" => return Ok(Located::HuggingFace(path.to_path_buf())),
        _ => {}
    }
    let head = head(path)?;
    if head.starts_with(b"GGUF") {
        return Ok(Located::Gguf(path.to_path_buf()));
    }
    if head.get(8) == Some(&b'{') {
        return Ok(Located::HuggingFace(path.to_path_buf()));
    }
    if ["bin", "pt", "pth", "ckpt"].contains(&extension.as_str()) {
        return fault(format!("a pickle file, which can execute code when it is loaded: {expected}"));
    }
    let found = if head.is_empty() { "an empty file".to_string() } else { begins(&head) };
    fault(format!("{found}: {expected}"))
}

fn begins(head: &[u8]) -> String {
    format!("a file that begins with \"{}\", neither GGUF nor safetensors", head.escape_ascii())
}

/// The first nine bytes of a file, or all of a shorter one: the magic of GGUF; or the length of the header of
/// safetensors, and the `{` that it begins with.
fn head(path: &Path) -> Result<Vec<u8>, ExportError> {
    let io = |source| ExportError::io(path, "open")(source);
    let mut head = Vec::new();
    fs::File::open(path).map_err(io)?.take(9).read_to_end(&mut head).map_err(io)?;
    Ok(head)
}
