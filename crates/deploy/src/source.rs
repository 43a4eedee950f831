//! A model of which only headers are read.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tritforge_config::{Architecture, ConfigError, ModelConfig, WeightQuant};
use tritforge_export::{
    ExportOptions, ImportOptions, LoadedModel, Located, default_packing, gguf_tensors, locate,
};
use tritforge_gguf::{GgmlType, Gguf};
use tritforge_infer::{EngineLayout, PlannedMemory, planned_memory};
use tritforge_kernels::DenseType;

use crate::DeployError;

/// A model of which only headers are read.
#[derive(Debug)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// What it is, for people.
    pub kind: &'static str,
    /// What the model is.
    pub config: ModelConfig,
    /// The command that makes the GGUF file that is served; none if the model is one.
    pub export: Option<String>,
    /// The GGUF file that is served.
    pub served: PathBuf,
    /// How its projections are stored.
    pub weights: String,
    /// How its embedding, and a head, are stored.
    pub tables: String,
    /// Tokens and merges of its tokenizer.
    pub(crate) vocabulary: usize,
    file_bytes: u64,
    architecture: &'static Architecture,
    types: HashMap<String, GgmlType>,
}

impl Source {
    /// Reads the headers of a GGUF file, a checkpoint, a run, or a directory in Hugging Face's layout. What is no GGUF file
    /// is planned as the one that `export` would make of it, with embeddings in Q8_0.
    ///
    /// # Errors
    /// If it is none of these, is damaged, or has no GGUF architecture.
    pub fn open(path: &Path) -> Result<Self, DeployError> {
        match locate(path)? {
            Located::Gguf(file) => Self::gguf(&file),
            other => {
                let checkpoint = matches!(other, Located::Checkpoint(_));
                Self::exported(path, &LoadedModel::of(other, &ImportOptions::default(), &[])?, checkpoint)
            }
        }
    }

    fn gguf(path: &Path) -> Result<Self, DeployError> {
        let gguf =
            Gguf::open(path).map_err(|source| DeployError::Gguf { path: path.to_path_buf(), source })?;
        let fault = |source| DeployError::Config { path: path.to_path_buf(), source };
        let config = ModelConfig::from_gguf_file(&gguf).map_err(fault)?;
        let metadata = gguf.metadata();
        let name = metadata.get_str("general.architecture").unwrap_or_default();
        let unknown = || fault(ConfigError::Gguf(format!("general.architecture = {name:?} is not known")));
        let architecture = Architecture::from_name(name).ok_or_else(unknown)?;
        let length = |key: &str| metadata.get_str_array(key).map_or(0, <[String]>::len);
        let types = gguf.tensors().iter().map(|tensor| (tensor.name.clone(), tensor.ty)).collect();
        let mut source = Self {
            path: path.to_path_buf(),
            kind: "GGUF file",
            export: None,
            served: path.to_path_buf(),
            weights: String::new(),
            tables: String::new(),
            vocabulary: length("tokenizer.ggml.tokens") + length("tokenizer.ggml.merges"),
            file_bytes: gguf.file_size(),
            architecture,
            types,
            config,
        };
        source.name_types();
        Ok(source)
    }

    fn exported(path: &Path, model: &LoadedModel, checkpoint: bool) -> Result<Self, DeployError> {
        let fault = |source| DeployError::Config { path: path.to_path_buf(), source };
        let config = model.config().clone();
        let options = ExportOptions {
            packing: default_packing(&config),
            embeddings: DenseType::Q8_0,
            ..ExportOptions::default()
        };
        let tensors = gguf_tensors(&config, &options)?;
        let mut file_bytes = 0;
        for tensor in &tensors {
            let bytes = tensor.ty.nbytes(&tensor.dims);
            file_bytes += bytes.map_err(|source| DeployError::Gguf { path: path.to_path_buf(), source })?;
        }
        let stem = path.file_name().map_or("model".into(), |name| name.to_string_lossy());
        let served = PathBuf::from(format!("{stem}.gguf"));
        let ternary = config.weights != WeightQuant::None;
        let format = if ternary { options.packing.option() } else { options.linears.name() };
        let (from, import) = match checkpoint {
            true => (path.display().to_string(), String::new()),
            false => {
                let imported = format!("{stem}-checkpoint");
                (imported.clone(), format!("tritforge import {} -o {imported} && ", path.display()))
            }
        };
        let export = format!(
            "{import}tritforge export {from} -o {} --format {format} --embeddings q8_0",
            served.display()
        );
        let mut source = Self {
            path: path.to_path_buf(),
            kind: if checkpoint { "checkpoint" } else { "Hugging Face directory" },
            export: Some(export),
            served,
            weights: String::new(),
            tables: String::new(),
            // A merge a token is about what tokenizers have.
            vocabulary: 2 * config.vocab_size,
            file_bytes,
            architecture: Architecture::of(&config).map_err(fault)?,
            types: tensors.into_iter().map(|tensor| (tensor.name, tensor.ty)).collect(),
            config,
        };
        source.name_types();
        Ok(source)
    }

    fn name_types(&mut self) {
        let name = |tensor: &str| self.types.get(tensor).map_or("", |ty| ty.name()).to_string();
        (self.weights, self.tables) = (name("blk.0.attn_q.weight"), name("token_embd.weight"));
    }

    /// What the engine takes for the weights on a machine of this layout.
    pub(crate) fn memory(&self, layout: EngineLayout) -> Result<PlannedMemory, DeployError> {
        let type_of = |name: &str| self.types.get(name).copied();
        Ok(planned_memory(&self.path, &self.config, layout, (self.file_bytes, self.architecture), type_of)?)
    }

    /// The same with embedding and head in Q8_0; none if it is no smaller or cannot be.
    pub(crate) fn memory_in_q8_0(&self, layout: EngineLayout) -> Option<PlannedMemory> {
        let tables = ["token_embd.weight", "output.weight"];
        let wide = [GgmlType::F32, GgmlType::F16, GgmlType::BF16];
        if !self.config.hidden_size.is_multiple_of(DenseType::Q8_0.block()) {
            return None;
        }
        let is_wide = |name: &str| self.types.get(name).is_some_and(|ty| wide.contains(ty));
        if !tables.iter().any(|name| is_wide(name)) {
            return None;
        }
        let type_of = |name: &str| match tables.contains(&name) && is_wide(name) {
            true => Some(GgmlType::Q8_0),
            false => self.types.get(name).copied(),
        };
        planned_memory(&self.path, &self.config, layout, (self.file_bytes, self.architecture), type_of).ok()
    }
}
