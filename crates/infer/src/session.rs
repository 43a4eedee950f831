//! `Session`: one sequence of tokens with its KV cache.

use std::ops::Range;
use std::sync::Arc;

use tritforge_kernels::{KvCache, KvType, Observer};

use crate::adapter::ScaledAdapter;
use crate::draft::{Draft, DraftSession};
use crate::products::StateCapture;
use crate::step::{LogitsRequest, SequenceInput, step_observed};
use crate::{InferError, Model};

/// Most tokens that one pass over the weights takes of a prompt: enough to be bound by arithmetic, few enough
/// that the buffers of a pass stay small.
pub const PREFILL_CHUNK: usize = 512;
/// Positions in which a cache grows ([`KvCache::new`]).
pub(crate) const KV_STEP: usize = 256;

/// A sequence of tokens and the keys and values of all its positions. A clone goes its own way from there.
#[derive(Debug, Clone)]
pub struct Session {
    model: Arc<Model>,
    context: usize,
    pub(crate) tokens: Vec<u32>,
    kv: KvType,
    adapters: Arc<[ScaledAdapter]>,
    /// Keys and values of each block.
    pub(crate) caches: Vec<KvCache>,
    /// The session of what proposes tokens, if anything does.
    pub(crate) draft: Option<DraftSession>,
    /// Keys and values on a GPU, if the model runs there.
    #[cfg(feature = "cuda")]
    pub(crate) pages: tritforge_kernels_cuda::Pages,
}

impl Session {
    /// An empty sequence of at most `context` tokens, whose keys and values are kept as f16.
    ///
    /// # Errors
    /// If the context is 0 or longer than the model's.
    pub fn new(model: Arc<Model>, context: usize) -> Result<Self, InferError> {
        Self::with_kv(model, context, KvType::F16)
    }

    /// [`Session::new`] with another type of cache: with [`KvType::F32`] logits are, bit for bit, those of
    /// training.
    ///
    /// # Errors
    /// As [`Session::new`]; or if the model is on a GPU, which has no kernels for [`KvType::Q8_0`].
    pub fn with_kv(model: Arc<Model>, context: usize, kv: KvType) -> Result<Self, InferError> {
        let config = model.config();
        if context == 0 || context > config.max_position_embeddings {
            return Err(InferError::Option {
                option: "context",
                found: format!("{context}, of a model with {}", config.max_position_embeddings),
                expected: "1 to the model's context length",
            });
        }
        #[cfg(feature = "cuda")]
        if model.cuda.is_some() && !tritforge_kernels_cuda::CACHE_TYPES.contains(&kv) {
            return Err(InferError::Option {
                option: "kv",
                found: format!("{kv}, of a model on a GPU"),
                expected: "f16 or f32 on a GPU, or the device cpu",
            });
        }
        let cache = || KvCache::new(kv, config.num_key_value_heads, config.head_dim, 0);
        let caches = (0..config.num_hidden_layers).map(|_| cache()).collect();
        let adapters = model.adapters();
        Ok(Self {
            context,
            tokens: Vec::new(),
            kv,
            adapters,
            caches,
            draft: None,
            #[cfg(feature = "cuda")]
            pages: tritforge_kernels_cuda::Pages::default(),
            model,
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The adapters that take part in what the session computes; at first the model's
    /// ([`Model::set_adapters`]).
    pub fn adapters(&self) -> &Arc<[ScaledAdapter]> {
        &self.adapters
    }

    /// Goes on with other adapters. Keys and values that are in the cache stay as they were computed;
    /// [`Session::truncate`] to 0 forgets them.
    pub fn set_adapters(&mut self, adapters: impl Into<Arc<[ScaledAdapter]>>) {
        self.adapters = adapters.into();
    }

    /// Has a draft propose tokens to what is generated in the session; with none, nothing does. What is generated does not
    /// depend on it, how fast it is does.
    ///
    /// # Errors
    /// None of a draft for this model ([`Draft::new`]).
    pub fn set_draft(&mut self, draft: Option<&Draft>) -> Result<(), InferError> {
        self.draft = draft.map(|draft| DraftSession::of(draft, self.context, self.kv)).transpose()?;
        Ok(())
    }

    /// Whether a draft proposes tokens.
    pub fn has_draft(&self) -> bool {
        self.draft.is_some()
    }

    /// The tokens in the cache.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Number of tokens in the cache.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether no token has been seen yet.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Most tokens that the cache will hold.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Forgets all tokens after the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.caches.iter_mut().for_each(|cache| cache.truncate(self.tokens.len()));
    }

    /// How keys and values are stored.
    pub fn kv_type(&self) -> KvType {
        self.kv
    }

    /// Bytes that the keys and values take, those of a draft included.
    pub fn kv_bytes(&self) -> usize {
        let bytes = self.caches.iter().map(KvCache::bytes).sum::<usize>();
        let bytes = bytes + self.draft.as_ref().map_or(0, |draft| draft.session.kv_bytes());
        #[cfg(feature = "cuda")]
        let bytes = bytes + self.pages.bytes();
        bytes
    }

    /// Bytes that the keys and values of so many positions of a model take in a new session.
    pub fn kv_bytes_of(model: &Model, kv: KvType, positions: usize) -> usize {
        crate::memory::kv_bytes(model.config(), kv, positions)
    }

    /// Keeps what the cache has in common with the beginning of `ids` and forgets the rest; returns how many
    /// tokens of `ids` need not be run again. At least the last one is left to run, so that there are logits
    /// to go on from.
    pub fn reuse_prefix(&mut self, ids: &[u32]) -> usize {
        let common = self.tokens.iter().zip(ids).take_while(|(a, b)| a == b).count();
        self.truncate(common.min(ids.len().saturating_sub(1)));
        self.len()
    }

    /// Appends tokens and returns the wanted logits. One token after another or all at once gives the same
    /// bits.
    ///
    /// # Errors
    /// If there is no token, a token is unknown, or the context is full; the session is then as it was.
    pub fn forward(&mut self, ids: &[u32], request: LogitsRequest) -> Result<Vec<f32>, InferError> {
        self.chunks(ids, request, None)
    }

    /// As [`Session::forward`]; with the logits come the queries, keys and values of a layer, counted from 0:
    /// as the projections give them, with biases and adapters, before norms of heads and before RoPE; each
    /// [tokens, width].
    ///
    /// # Errors
    /// As [`Session::forward`], and if there is no such layer.
    pub fn forward_with_states(
        &mut self,
        ids: &[u32],
        request: LogitsRequest,
        layer: usize,
    ) -> Result<(Vec<f32>, [Vec<f32>; 3]), InferError> {
        let layers = self.caches.len();
        if layer >= layers {
            return Err(InferError::Option {
                option: "layer",
                found: format!("{layer}, of a model with {layers}"),
                expected: "a layer of the model, from 0",
            });
        }
        let mut capture = StateCapture { layer, states: Default::default() };
        let logits = self.chunks(ids, request, Some(&mut capture))?;
        Ok((logits, capture.states))
    }

    /// A pass for every chunk of the tokens.
    fn chunks(
        &mut self,
        ids: &[u32],
        request: LogitsRequest,
        mut capture: Option<&mut StateCapture>,
    ) -> Result<Vec<f32>, InferError> {
        self.check(ids)?;
        let mut logits = Vec::new();
        let mut rest = ids;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(PREFILL_CHUNK.min(rest.len()));
            let request =
                if after.is_empty() || request == LogitsRequest::All { request } else { LogitsRequest::None };
            logits.extend(self.pass(chunk, request, None, capture.as_deref_mut())?);
            rest = after;
        }
        Ok(logits)
    }

    /// As [`Session::forward`], in one pass whatever its length; the observer sees every quantized product.
    ///
    /// # Errors
    /// As [`Session::forward`].
    pub fn forward_observed(
        &mut self,
        ids: &[u32],
        request: LogitsRequest,
        observer: &mut Observer<'_>,
    ) -> Result<Vec<f32>, InferError> {
        self.pass(ids, request, Some(observer), None)
    }

    fn pass(
        &mut self,
        ids: &[u32],
        request: LogitsRequest,
        observer: Option<&mut Observer<'_>>,
        capture: Option<&mut StateCapture>,
    ) -> Result<Vec<f32>, InferError> {
        let mut logits =
            step_observed(&mut [SequenceInput { session: self, ids, request }], observer, capture)?;
        Ok(logits.pop().unwrap_or_default())
    }

    /// Whether the tokens can be appended.
    pub(crate) fn check(&self, ids: &[u32]) -> Result<(), InferError> {
        check_tokens(ids, self.model.config().vocab_size, &(self.len()..self.context))
    }

    /// Takes note of tokens whose keys and values have been appended.
    pub(crate) fn extend(&mut self, ids: &[u32]) {
        self.tokens.extend_from_slice(ids);
    }
}

/// Whether tokens of a vocabulary can be appended where these positions of a context are free.
pub(crate) fn check_tokens(
    ids: &[u32],
    vocab_size: usize,
    positions: &Range<usize>,
) -> Result<(), InferError> {
    if ids.is_empty() {
        return Err(InferError::EmptyPrompt);
    }
    if let Some(id) = ids.iter().find(|id| **id as usize >= vocab_size) {
        return Err(InferError::Token { id: *id, vocab_size });
    }
    if ids.len() > positions.len() {
        return Err(InferError::ContextFull {
            used: positions.start,
            asked: ids.len(),
            context: positions.end,
        });
    }
    Ok(())
}
