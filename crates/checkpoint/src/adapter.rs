//! An adapter on the disk: a checkpoint of a run with `[lora]`, or the directory that peft's
//! `save_pretrained` writes.
//!
//! Both have `adapter_config.json` and `adapter_model.safetensors`. [`AdapterFiles`] is the one way to read
//! them: every tensor of the file is a matrix of a module that the configuration names, every such module has
//! both of its matrices, and all have the shapes that the model asks for, or the adapter is refused.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use tritforge_config::{
    ADAPTER_CONFIG, ADAPTER_MODEL, AdaptedModule, AdapterConfig, LoraMode, ModelConfig, Projection,
};
use tritforge_support::counted;

use crate::{
    CONFIG, Checkpoint, CheckpointError, MANIFEST, MODEL, TOKENIZER, TOKENIZER_CONFIG, Tensors, latest, steps,
};

/// What peft wrote before it had safetensors, and still writes if it is told to.
const PICKLE: &str = "adapter_model.bin";
/// What peft puts before the names of a model's modules.
const PREFIX: &str = "base_model.model.";
/// What trainers save beside an adapter.
const TOKENIZER_FILES: [&str; 4] = [TOKENIZER, TOKENIZER_CONFIG, "tokenizer.model", "chat_template.jinja"];
/// More than any configuration has: peft's own are of a few thousand bytes.
const LONGEST_CONFIG: u64 = 16 << 20;

/// An adapter's configuration and tensors.
#[derive(Debug)]
pub struct AdapterFiles {
    dir: PathBuf,
    config: AdapterConfig,
    tensors: Tensors,
    checkpoint: Option<Checkpoint>,
}

/// A module that has an adapter, and where its matrices are.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterModule {
    /// Which projection it is, with rank and scaling.
    pub module: AdaptedModule,
    /// The tensors A [rank, in] and B [out, rank].
    tensors: [String; 2],
    /// Shapes of A and B.
    shapes: [[usize; 2]; 2],
}

/// A tensor of an adapter's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// The name of its type, as in safetensors.
    pub dtype: String,
    /// Bytes of its values.
    pub bytes: usize,
}

/// The names of A and B of each projection that has one of them.
type Matrices = HashMap<(usize, Projection), [Option<String>; 2]>;

impl AdapterFiles {
    /// Opens the adapter that a path names: a checkpoint of an adapter, the newest of a run, or a directory
    /// of peft.
    ///
    /// # Errors
    /// If there is none, its configuration asks for what is not computed, or a file is damaged.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        if path.is_dir() && !path.join(MANIFEST).is_file() && path.join(ADAPTER_CONFIG).is_file() {
            return Self::of_peft(path);
        }
        Self::find(path)?.ok_or_else(|| CheckpointError::damaged(path, no_adapter(path)))
    }

    /// The same, or nothing if the path names no adapter: a model, or nothing that is known. A directory with
    /// a model's weights beside the adapter is none.
    ///
    /// # Errors
    /// If there is an adapter that cannot be read.
    pub fn find(path: &Path) -> Result<Option<Self>, CheckpointError> {
        if !path.is_dir() {
            return Ok(None);
        }
        let has = |name: &str| path.join(name).is_file();
        if has(MANIFEST) {
            return Self::of_checkpoint(Checkpoint::open(path)?);
        }
        if has(MODEL) || has("model.safetensors.index.json") {
            return Ok(None);
        }
        if has(ADAPTER_CONFIG) {
            return Self::of_peft(path).map(Some);
        }
        if has(ADAPTER_MODEL) || has(PICKLE) {
            return Err(CheckpointError::damaged(path, no_adapter(path)));
        }
        // Manifests say so at once; the newest whole checkpoint is found by reading all of its files.
        let adapters = |dir: &PathBuf| Checkpoint::open(dir).is_ok_and(|found| found.has(ADAPTER_MODEL));
        if !steps(path)?.iter().any(|(_, dir)| adapters(dir)) {
            return Ok(None);
        }
        match latest(path)? {
            Some(newest) if !has(CONFIG) => Self::of_checkpoint(Checkpoint::open(&newest)?),
            _ => Ok(None),
        }
    }

    fn of_checkpoint(checkpoint: Checkpoint) -> Result<Option<Self>, CheckpointError> {
        if !checkpoint.has(ADAPTER_MODEL) {
            return Ok(None);
        }
        let dir = checkpoint.dir().to_path_buf();
        let config = config(&dir, &checkpoint.file(ADAPTER_CONFIG)?)?;
        let tensors = checkpoint.tensors(ADAPTER_MODEL)?;
        Ok(Some(Self { dir, config, tensors, checkpoint: Some(checkpoint) }))
    }

    fn of_peft(dir: &Path) -> Result<Self, CheckpointError> {
        let path = dir.join(ADAPTER_CONFIG);
        let bytes = fs::metadata(&path).map_err(CheckpointError::io(&path, "find"))?.len();
        if bytes > LONGEST_CONFIG {
            let message = format!(
                "{bytes}: expected the few thousand of an adapter's configuration",
                bytes = counted(bytes, "byte")
            );
            return Err(CheckpointError::damaged(&path, message));
        }
        let config = config(dir, &fs::read(&path).map_err(CheckpointError::io(&path, "read"))?)?;
        let model = dir.join(ADAPTER_MODEL);
        if !model.is_file() {
            return Err(CheckpointError::damaged(dir, no_tensors(dir)));
        }
        if let Some(file) = TOKENIZER_FILES.iter().find(|file| dir.join(file).is_file()) {
            log::warn!(
                "{}: not read: tokenizer and chat template are those of the adapter's base",
                dir.join(file).display()
            );
        }
        Ok(Self { dir: dir.to_path_buf(), config, tensors: Tensors::open(&model)?, checkpoint: None })
    }

    /// The directory; of a run, that of its checkpoint.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The configuration.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// The checkpoint, if it is one of this program.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// All tensors, as they are stored.
    ///
    /// # Errors
    /// If the file changed since it was opened.
    pub fn tensors(&self) -> Result<Vec<StoredTensor>, CheckpointError> {
        let stored = |(name, shape, dtype): (String, Vec<usize>, String)| {
            let bytes = self.tensors.raw(&name)?.2.len();
            Ok(StoredTensor { name, shape, dtype, bytes })
        };
        self.tensors.list()?.into_iter().map(stored).collect()
    }

    /// Where the base is: `given`, or what the adapter names.
    ///
    /// # Errors
    /// If it names none, or one that is not on this machine.
    pub fn base_path(&self, given: Option<&Path>) -> Result<PathBuf, CheckpointError> {
        let fault = |message: String| CheckpointError::damaged(&self.dir.join(ADAPTER_CONFIG), message);
        let todo = "`tritforge merge` and `export` take it, a checkpoint, a directory in Hugging Face's layout or a GGUF file, with --base; \
                    `tritforge eval BASE --lora DIR` runs the adapter on it";
        match (given, &self.config.base) {
            (Some(path), _) => Ok(path.to_path_buf()),
            (None, None) => {
                Err(fault(format!("base_model_name_or_path is missing: nothing names the base. {todo}")))
            }
            (None, Some(name)) if Path::new(name).exists() => Ok(PathBuf::from(name)),
            (None, Some(name)) => Err(fault(format!(
                "base_model_name_or_path = {name:?}: its base: no such file or directory here. Fetch it: {todo}"
            ))),
        }
    }

    /// Refuses an adapter that is part of the weights where one beside them is wanted.
    ///
    /// # Errors
    /// If its mode is not [`LoraMode::Adapter`].
    pub fn beside_weights(&self) -> Result<(), CheckpointError> {
        if self.config.mode == LoraMode::Adapter {
            return Ok(());
        }
        let (dir, mode) = (self.dir.display(), self.config.mode.name());
        Err(CheckpointError::damaged(
            &self.dir,
            format!(
                "an adapter of mode {mode} is part of the ternary weights and cannot stand beside them: `tritforge merge {dir} -o DIR` makes \
                 a checkpoint of it and its base, exactly"
            ),
        ))
    }

    /// The modules of a model that have an adapter, block by block. Names, types and shapes of all tensors
    /// are checked.
    ///
    /// # Errors
    /// If the configuration names what the model does not have, a module lacks a matrix, a tensor belongs to
    /// none of the modules, or has another type or shape.
    pub fn modules(&self, model: &ModelConfig) -> Result<Vec<AdapterModule>, CheckpointError> {
        let adapted = self
            .config
            .modules(model)
            .map_err(|source| CheckpointError::Config { path: self.dir.clone(), source })?;
        let mut stored = self.stored(model)?;
        let mut modules = Vec::new();
        for module in adapted {
            let name = module.name();
            let found = stored.remove(&(module.layer, module.projection)).unwrap_or_default();
            let [Some(a), Some(b)] = found else {
                let missing = if found[0].is_none() { "lora_A" } else { "lora_B" };
                let message = format!(
                    "missing: target_modules of {ADAPTER_CONFIG} names {name}, which needs both matrices"
                );
                return Err(self.tensors.fault(&format!("{PREFIX}{name}.{missing}.weight"), message));
            };
            let [rows, cols] = model.projection_shape(module.projection);
            let shapes = [[module.rank, cols], [rows, module.rank]];
            for (tensor, shape) in [&a, &b].into_iter().zip(shapes) {
                let (dtype, found, _) = self.tensors.raw(tensor)?;
                if found != shape {
                    let message = format!(
                        "shape {found:?}, expected {shape:?}: rank {} on a projection of [{rows}, {cols}]",
                        module.rank
                    );
                    return Err(self.tensors.fault(tensor, message));
                }
                if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                    return Err(self
                        .tensors
                        .fault(tensor, format!("type {dtype:?}, expected F32, F16 or BF16")));
                }
            }
            modules.push(AdapterModule { module, tensors: [a, b], shapes });
        }
        let unnamed = stored.into_values().flatten().flatten().min();
        match unnamed {
            None => Ok(modules),
            Some(tensor) => {
                let message = format!(
                    "target_modules of {ADAPTER_CONFIG} does not name its module: expected no such tensor"
                );
                Err(self.tensors.fault(&tensor, message))
            }
        }
    }

    /// The tensors of every projection of the model that has some.
    fn stored(&self, model: &ModelConfig) -> Result<Matrices, CheckpointError> {
        let mut stored = Matrices::new();
        for (tensor, ..) in self.tensors.list()? {
            let (place, side) =
                place(&tensor, model).map_err(|message| self.tensors.fault(&tensor, message))?;
            let slot = &mut stored.entry(place).or_default()[side];
            if let Some(other) = slot.replace(tensor.clone()) {
                return Err(self
                    .tensors
                    .fault(&tensor, format!("{other} is the same matrix: expected one of the two")));
            }
        }
        Ok(stored)
    }

    /// A [rank, in] and B [out, rank] of a module of [`Self::modules`], row-major.
    ///
    /// # Errors
    /// If a number is NaN or infinite.
    pub fn matrices(&self, module: &AdapterModule) -> Result<[Cow<'_, [f32]>; 2], CheckpointError> {
        let [a, b] = [0, 1].map(|side| self.tensors.f32(&module.tensors[side], &module.shapes[side]));
        Ok([a?, b?])
    }
}

fn config(dir: &Path, bytes: &[u8]) -> Result<AdapterConfig, CheckpointError> {
    let path = dir.join(ADAPTER_CONFIG);
    let text = std::str::from_utf8(bytes).map_err(|e| CheckpointError::damaged(&path, e.to_string()))?;
    AdapterConfig::from_json(text)
        .map_err(|source| CheckpointError::Config { path: dir.to_path_buf(), source })
}

/// The projection that a tensor adapts, and whether it is A (0) or B (1).
fn place(tensor: &str, model: &ModelConfig) -> Result<((usize, Projection), usize), String> {
    let expected = format!("expected {PREFIX}model.layers.N.self_attn.q_proj.lora_A.weight and the like");
    let rest = tensor.strip_prefix(PREFIX).ok_or_else(|| expected.clone())?;
    let matrix = [".lora_A.", ".lora_B."].iter().enumerate().find_map(|(side, mark)| {
        let (module, end) = rest.rsplit_once(mark)?;
        // A name of peft's, which a state that torch saved still has.
        matches!(end, "weight" | "default.weight").then_some((module, side))
    });
    let Some((module, side)) = matrix else {
        return Err(format!("no matrix of a low-rank adapter: {expected}, and nothing else"));
    };
    let number = module.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    let found = number.and_then(|(layer, name)| {
        let projection = Projection::ALL.into_iter().find(|projection| projection.hf_name() == name)?;
        let digits = layer.bytes().all(|b| b.is_ascii_digit()) && (layer == "0" || !layer.starts_with('0'));
        Some((layer, projection)).filter(|_| digits && !layer.is_empty())
    });
    let Some((layer, projection)) = found else {
        return Err(format!("{module} is no projection of a block: {expected}"));
    };
    let blocks = model.num_hidden_layers;
    match layer.parse::<usize>().ok().filter(|layer| *layer < blocks) {
        Some(layer) => Ok(((layer, projection), side)),
        None => Err(format!(
            "the model has {blocks}, 0 to {}",
            blocks.saturating_sub(1),
            blocks = counted(blocks, "block")
        )),
    }
}

/// Why a path is no adapter.
fn no_adapter(path: &Path) -> String {
    let expected = format!(
        "expected the checkpoint of a run with [lora], or a directory of peft with {ADAPTER_CONFIG} and {ADAPTER_MODEL}"
    );
    if path.is_file() {
        return format!("a file, and no GGUF adapter: {expected}");
    }
    if !path.exists() {
        return format!("no such file or directory: {expected}");
    }
    if path.join(ADAPTER_MODEL).is_file() || path.join(PICKLE).is_file() {
        return format!("no {ADAPTER_CONFIG}: without it nothing says what the tensors mean; {expected}");
    }
    match named_adapter(path) {
        Some(name) => format!(
            "no {ADAPTER_CONFIG}, but {name} has one: peft saves an adapter under its name; give that directory"
        ),
        None => format!("no adapter in it: {expected}"),
    }
}

/// Why a directory with an adapter's configuration has no tensors.
fn no_tensors(dir: &Path) -> String {
    if dir.join(PICKLE).is_file() {
        return format!(
            "only {PICKLE}, which can run code when it is read: save it as {ADAPTER_MODEL} with peft, save_pretrained(…, \
             safe_serialization=True)"
        );
    }
    format!("no {ADAPTER_MODEL} beside {ADAPTER_CONFIG}: the adapter's tensors are missing")
}

/// A directory inside that holds an adapter.
fn named_adapter(dir: &Path) -> Option<String> {
    let entries = fs::read_dir(dir).ok()?.flatten();
    let found = entries.filter(|entry| entry.path().join(ADAPTER_CONFIG).is_file());
    found.map(|entry| entry.path().display().to_string()).min()
}
