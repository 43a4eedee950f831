//! Which weight files of a directory in Hugging Face's layout are read: those that `from_pretrained` of
//! `transformers` reads.
//!
//! `model.safetensors` goes before an index of shards. Whatever else lies in the directory and contradicts
//! the files that are read, or looks as if it should have been read, is an error or told.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use tritforge_checkpoint::Tensors;
use tritforge_config::ADAPTER_CONFIG;

use crate::ExportError;
use crate::locate::without_base;

/// The index of shards.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// The weights of a directory.
pub(super) struct WeightFiles {
    pub(super) files: Vec<Tensors>,
    /// Tensor → which file.
    pub(super) index: HashMap<String, usize>,
}

fn fault(path: &Path, message: impl Into<String>) -> ExportError {
    ExportError::Import { path: path.to_path_buf(), message: message.into() }
}

/// Opens the weights of a source: a directory, a safetensors file, or an index of shards.
///
/// # Errors
/// If there are none, or they contradict each other or their index; the message names the file and the
/// tensor.
pub(super) fn open(path: &Path, directory: &Path) -> Result<WeightFiles, ExportError> {
    if path.is_dir() {
        refuse_adapter(directory)?;
        let (single, index) = (directory.join(SINGLE), directory.join(INDEX));
        if single.is_file() {
            if index.is_file() {
                log::warn!(
                    "{}: reading {SINGLE}, as transformers does; the shards of {INDEX} in the same directory \
                     are ignored: remove the stale files",
                    directory.display()
                );
            }
            return one_file(&single);
        }
        return if index.is_file() { shards(&index, directory) } else { Err(nothing_to_read(directory)) };
    }
    if path.extension().is_some_and(|e| e == "json") {
        return shards(path, directory);
    }
    if let Some(of) = shard_number(&file_name(path)) {
        return Err(fault(
            path,
            format!("this is shard {of}: give the directory or the shard index instead"),
        ));
    }
    one_file(path)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// "1 of 3" of a name such as `model-00001-of-00003.safetensors`.
fn shard_number(name: &str) -> Option<String> {
    let (rest, count) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
    let number = rest.rsplit_once('-')?.1;
    Some(format!("{} of {}", number.parse::<u32>().ok()?, count.parse::<u32>().ok()?))
}

/// `from_pretrained` takes a directory with an adapter's configuration for the adapter, and its base from
/// elsewhere.
fn refuse_adapter(directory: &Path) -> Result<(), ExportError> {
    let config = directory.join(ADAPTER_CONFIG);
    match config.is_file() {
        true if ![SINGLE, INDEX].iter().any(|name| directory.join(name).is_file()) => {
            Err(fault(directory, without_base(directory)))
        }
        true => Err(fault(
            &config,
            "an adapter is in the model's directory: transformers would load it on top of the base that it \
             names. Merge it, or move it elsewhere",
        )),
        false => Ok(()),
    }
}

fn one_file(path: &Path) -> Result<WeightFiles, ExportError> {
    let tensors = Tensors::open(path)?;
    let index = tensors.list()?.into_iter().map(|(name, ..)| (name, 0)).collect();
    Ok(WeightFiles { files: vec![tensors], index })
}

/// The shards of an index: each tensor has to be where the index says, and nowhere else.
fn shards(index_path: &Path, directory: &Path) -> Result<WeightFiles, ExportError> {
    let text = fs::read_to_string(index_path).map_err(|e| fault(index_path, format!("cannot read: {e}")))?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| fault(index_path, e.to_string()))?;
    let Some(map) = json["weight_map"].as_object() else {
        return Err(fault(index_path, "no weight_map: expected a safetensors shard index"));
    };
    let mut names = BTreeSet::new();
    for (tensor, name) in map {
        // A shard stands beside its index, nowhere else.
        match name.as_str().filter(|name| Path::new(name).file_name() == Some(name.as_ref())) {
            Some(name) => names.insert(name),
            None => {
                let message = format!(
                    "weight_map.{tensor} = {name}: expected the name of a file in the same \
                             directory"
                );
                return Err(fault(index_path, message));
            }
        };
    }
    let mut weights = WeightFiles { files: Vec::new(), index: HashMap::new() };
    for name in &names {
        let path = directory.join(name);
        if !path.is_file() {
            return Err(fault(
                index_path,
                format!("it lists {name}, which is not in {}", directory.display()),
            ));
        }
        let tensors = Tensors::open(&path)?;
        for (tensor, ..) in tensors.list()? {
            if let Some(other) = weights.index.insert(tensor.clone(), weights.files.len()) {
                let other = names.iter().nth(other).copied().unwrap_or_default();
                return Err(fault(
                    &path,
                    format!("tensor {tensor} is also in {other}: is one a shard of another model?"),
                ));
            }
            match map.get(&tensor).and_then(|name| name.as_str()) {
                Some(expected) if expected == *name => {}
                Some(expected) => {
                    let message = format!("tensor {tensor} is in this file, but the index says {expected}");
                    return Err(fault(&path, message));
                }
                None => {
                    let message = format!(
                        "tensor {tensor} is not in {}: is this a shard of another model?",
                        file_name(index_path)
                    );
                    return Err(fault(&path, message));
                }
            }
        }
        weights.files.push(tensors);
    }
    if let Some((tensor, name)) = map.iter().find(|(tensor, _)| !weights.index.contains_key(*tensor)) {
        return Err(fault(index_path, format!("tensor {tensor} should be in {name}, but is missing")));
    }
    warn_of_other_shards(directory, &names);
    Ok(weights)
}

/// Tells of shards that the index does not name.
fn warn_of_other_shards(directory: &Path, names: &BTreeSet<&str>) {
    for name in listed(directory).iter().filter(|name| shard_number(name).is_some()) {
        if !names.contains(name.as_str()) {
            log::warn!("{}: ignored, since it is not in {INDEX}", directory.join(name).display());
        }
    }
}

/// The names in a directory, sorted; none if it cannot be listed.
fn listed(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Why a directory without safetensors that are read is no source.
pub(crate) fn nothing_to_read(directory: &Path) -> ExportError {
    let names = listed(directory);
    let find = |good: &dyn Fn(&str) -> bool| names.iter().find(|name| good(name));
    if let Some(shard) = find(&|name| shard_number(name).is_some()) {
        return fault(directory, format!("found {shard} but no {INDEX}: the shard index is missing"));
    }
    if let Some(other) = find(&|name| name.ends_with(".safetensors")) {
        return fault(
            directory,
            format!("found {other}, which transformers does not load: expected {SINGLE} or {INDEX}"),
        );
    }
    let pickle = [".bin", ".bin.index.json", ".pth", ".pt", ".ckpt"];
    if let Some(pickle) =
        find(&|name| pickle.iter().any(|end| name.ends_with(end)) && !name.starts_with("training_args"))
    {
        let message = format!(
            "found only {pickle}, a pickle file that can execute code when loaded: use a safetensors \
                     version of the model"
        );
        return fault(directory, message);
    }
    if let Some(other) = find(&|name| [".h5", ".msgpack", ".onnx"].iter().any(|end| name.ends_with(end))) {
        return fault(directory, format!("found only {other}: use a safetensors version of the model"));
    }
    if let Some(gguf) = find(&|name| name.ends_with(".gguf")) {
        return fault(directory, format!("no safetensors here, but {gguf}: give that file instead"));
    }
    fault(
        directory,
        format!(
            "a directory with no manifest.json (a checkpoint), no step-N (a run's checkpoints), and neither \
             {SINGLE} nor {INDEX} (a Hugging Face directory); a GGUF file is given by its own path"
        ),
    )
}

/// Files of tokenizers that are not read: without one that is, the model would come without its tokenizer.
const TOKENIZERS: [&str; 6] = [
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "tokenizer.model.v3",
];

/// The tokenizer's file that a directory has instead of one that is read, if it has one.
pub(super) fn other_tokenizer(directory: &Path) -> Option<PathBuf> {
    TOKENIZERS.iter().map(|name| directory.join(name)).find(|path| path.is_file())
}
