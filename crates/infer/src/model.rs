//! `Model`: everything a GGUF file says, ready to run; shared and immutable.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use tritforge_config::{ModelConfig, Projection};
use tritforge_constrain::{Compiler, ConstrainError, Constraint, Grammar};
use tritforge_gguf::{Gguf, Override};
use tritforge_kernels::{DenseMatrix, RopeTable, TernaryWeights};
use tritforge_text::Tokenizer;

use crate::InferError;
use crate::adapter::ScaledAdapter;
use crate::load::Loader;
use crate::weights::{Block, Dense, Source, Table, TernaryInfo, Weight};

/// A model loaded from a GGUF file. Full-precision matrices stay in the file's pages where the kernels
/// multiply their type, but for a head that decodes faster in another order.
#[derive(Debug)]
pub struct Model {
    path: PathBuf,
    pub(crate) gguf: Gguf,
    config: ModelConfig,
    tokenizer: Tokenizer,
    end_ids: Vec<u32>,
    pub(crate) embedding: Weight,
    pub(crate) head: Option<Weight>,
    /// The head, rearranged for decoding.
    rearranged_head: Option<DenseMatrix<'static>>,
    pub(crate) norm: Vec<f32>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) rope: RopeTable,
    /// What new sessions begin with.
    adapters: RwLock<Arc<[ScaledAdapter]>>,
    /// What compiles grammars for the vocabulary, once one is asked for.
    compiler: OnceLock<Result<Compiler, ConstrainError>>,
    /// The model on a GPU, if it runs there.
    #[cfg(feature = "cuda")]
    pub(crate) cuda: Option<crate::cuda::CudaModel>,
}

/// The name of the embedding in a GGUF file.
pub(crate) const EMBEDDING: &str = "token_embd.weight";
/// That of a head of its own.
pub(crate) const HEAD: &str = "output.weight";

/// The memory of a loaded model, in bytes; a session adds its keys and values ([`crate::Session::kv_bytes`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelMemory {
    /// The file. It is mapped; only what is read of it takes memory, and the system may take that back.
    pub file_bytes: usize,
    /// The ternary weights in the layout of the kernels, a ternary embedding and head among them, and the matrices that
    /// were converted, in memory of the process.
    pub weight_bytes: usize,
    /// The head as it was rearranged for decoding, in memory of the process; 0 if it stays in the file.
    pub rearranged_head_bytes: usize,
    /// The full-precision matrices, embedding and head among them, as far as they are read from the mapped
    /// file.
    pub resident_file_bytes: usize,
}

impl Model {
    /// Loads a GGUF file: maps it, checks every tensor that the architecture needs, and unpacks the ternary
    /// ones.
    ///
    /// # Errors
    /// If the file is damaged, of an unknown architecture, lacks a tensor, has one of another type or shape,
    /// or one that the architecture has no place for; if a norm, a bias, a scale or a converted matrix has
    /// NaN or infinity. Full-precision matrices that stay in the file are not read here:
    /// [`Model::check_finite`] looks at all of them, and what they give is looked at in every pass.
    pub fn open(path: &Path) -> Result<Self, InferError> {
        Self::open_with(path, &[])
    }

    /// Loads a GGUF file as [`Model::open`] does, with keys of its metadata set from outside.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_with(path: &Path, overrides: &[Override]) -> Result<Self, InferError> {
        let fault = |source| InferError::Gguf { path: path.to_path_buf(), source };
        Self::load(path, Gguf::open_with(path, overrides).map_err(fault)?)
    }

    fn load(path: &Path, gguf: Gguf) -> Result<Self, InferError> {
        let mut config = ModelConfig::from_gguf_file(&gguf)
            .map_err(|source| InferError::Config { path: path.to_path_buf(), source })?;
        let tokenizer = Tokenizer::from_gguf(gguf.metadata())?;
        let loader = Loader { path, gguf: &gguf };
        let (vocab, d) = (config.vocab_size, config.hidden_size);
        let embedding = loader.table(EMBEDDING, [vocab, d], &mut config.ternary_embedding)?;
        let untied = !config.tie_word_embeddings;
        let head = untied.then(|| loader.table(HEAD, [vocab, d], &mut config.ternary_head)).transpose()?;
        let mut frequencies = RopeTable::frequencies(config.head_dim, config.rope_theta);
        let scaling = config.rope_scaling.as_ref();
        let factor = scaling.map_or(1.0, |scaling| scaling.apply(&mut frequencies, config.rope_theta));
        let norm = loader.vector("output_norm.weight", d)?;
        let output = head.as_ref().unwrap_or(&embedding).dense();
        let rearranged_head = output.and_then(|output| output.matrix(&gguf).for_decoding());
        if let (Some(_), Some(Dense { source: Source::File(info), .. })) = (&rearranged_head, output) {
            gguf.release(info);
        }
        // After the head, whose copy and pages are in memory at once for a while.
        let blocks = loader.blocks(&mut config)?;
        Ok(Self {
            path: path.to_path_buf(),
            embedding,
            head,
            rearranged_head,
            norm,
            blocks,
            rope: RopeTable::with_frequencies(&frequencies, factor, config.max_position_embeddings),
            gguf,
            config,
            end_ids: tokenizer.end_ids(),
            tokenizer,
            adapters: RwLock::default(),
            compiler: OnceLock::new(),
            #[cfg(feature = "cuda")]
            cuda: None,
        })
    }

    /// Looks at what loading leaves to the use: every number of the full-precision matrices that stay in the
    /// file.
    ///
    /// # Errors
    /// If one is NaN or infinite; tensor and element are named.
    pub fn check_finite(&self) -> Result<(), InferError> {
        let layers = 0..self.config.num_hidden_layers;
        let projections = layers.flat_map(|layer| Projection::ALL.map(|p| p.gguf_weight(layer)));
        let names = [EMBEDDING, HEAD].map(str::to_string).into_iter().chain(projections);
        names.into_iter().try_for_each(|name| self.check_tensor(&name))
    }

    /// The same of one tensor.
    pub(crate) fn check_tensor(&self, name: &str) -> Result<(), InferError> {
        Loader { path: &self.path, gguf: &self.gguf }.check_finite(name)
    }

    /// Puts these adapters on the model, in the place of those before: every session that begins from now on
    /// has them.
    pub fn set_adapters(&self, adapters: impl Into<Arc<[ScaledAdapter]>>) {
        *self.adapters.write().unwrap_or_else(PoisonError::into_inner) = adapters.into();
    }

    /// The adapters that new sessions have.
    pub fn adapters(&self) -> Arc<[ScaledAdapter]> {
        Arc::clone(&self.adapters.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's metadata and tensors.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The ids of the tokens that end a generation, ascending ([`Tokenizer::end_ids`]).
    pub fn end_ids(&self) -> &[u32] {
        &self.end_ids
    }

    /// A grammar for [`crate::GenerateOptions::constraint`], compiled for the model's vocabulary. Those used last
    /// are kept.
    ///
    /// # Errors
    /// If the grammar is wrong or too large, or the tokenizer's tokens are not made of bytes.
    pub fn constraint(&self, grammar: &Grammar) -> Result<Constraint, InferError> {
        let new = || Compiler::new(&self.tokenizer, &self.end_ids, self.config.vocab_size);
        let compiler = self.compiler.get_or_init(new).as_ref().map_err(Clone::clone)?;
        Ok(compiler.compile(grammar)?)
    }

    /// All ternary tensors, block by block.
    pub fn ternary(&self) -> impl Iterator<Item = TernaryInfo<'_>> {
        self.blocks.iter().enumerate().flat_map(|(layer, block)| block.info(layer))
    }

    /// The embedding, [vocab_size, hidden_size].
    pub fn embedding(&self) -> Table<'_> {
        match (&self.head, &self.rearranged_head) {
            // Tied: what the head has read is in memory.
            (None, Some(matrix)) => Table::Dense(matrix.borrowed()),
            _ => self.embedding.table(&self.gguf),
        }
    }

    /// The output head, [vocab_size, hidden_size]: the embedding where they are tied.
    pub fn head(&self) -> Table<'_> {
        match &self.rearranged_head {
            Some(matrix) => Table::Dense(matrix.borrowed()),
            None => self.head.as_ref().unwrap_or(&self.embedding).table(&self.gguf),
        }
    }

    /// Where the model's bytes are.
    pub fn memory(&self) -> ModelMemory {
        let tables = || [&self.embedding].into_iter().chain(&self.head);
        let dense = || {
            let blocks = self.blocks.iter().flat_map(Block::dense);
            tables().filter_map(Weight::dense).chain(blocks).map(Dense::bytes)
        };
        // What the head read of the file is in memory where it was rearranged.
        let output = self.head.as_ref().unwrap_or(&self.embedding).dense();
        let output = output.filter(|_| self.rearranged_head.is_some());
        let rearranged = output.map_or(0, |output| output.bytes().0);
        let projections: usize = self.ternary().map(|info| info.weights.packed_bytes()).sum();
        let tables = tables().filter_map(Weight::ternary).map(TernaryWeights::packed_bytes);
        let ternary = projections + tables.sum::<usize>();
        ModelMemory {
            file_bytes: self.gguf.file_size() as usize,
            weight_bytes: ternary + dense().map(|(_, memory)| memory).sum::<usize>(),
            rearranged_head_bytes: self.rearranged_head.as_ref().map_or(0, DenseMatrix::stored_bytes),
            resident_file_bytes: dense().map(|(file, _)| file).sum::<usize>() - rearranged,
        }
    }
}
