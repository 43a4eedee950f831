//! What serving a model takes in memory.

use serde::Serialize;
use tritforge_config::ModelConfig;
use tritforge_infer::{PREFILL_CHUNK, PlannedMemory, kv_bytes, pass_bytes};
use tritforge_kernels::KvType;

/// Memory of the service without a model, measured: the pages of the program that it touches, runtime, log.
const PROGRAM: u64 = 18 << 20;
/// Memory of a thread of the engine, measured: the part of its stack and of its allocations that it touches.
const THREAD: u64 = 256 << 10;
/// Memory of a token or a merge of the tokenizer, measured: in the file's metadata and in the tokenizer's tables.
const VOCABULARY_ENTRY: u64 = 280;
/// Memory of a connection with a request, measured.
const REQUEST: u64 = 128 << 10;

/// Memory of the service by what takes it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Weights in memory of the process: ternary ones in the layout of the kernels, converted ones, a head in another order.
    pub weights: u64,
    /// Weights that are read where they lie in the mapped file.
    pub mapped: u64,
    /// Cosines and sines of all positions of the model's context.
    pub rope: u64,
    /// Keys and values.
    pub kv: u64,
    /// Buffers of the largest pass.
    pub workspace: u64,
    /// Program, threads, tokenizer and connections: the only part that is estimated from measurements.
    pub process: u64,
    /// What loading holds at most, before there are keys and values.
    pub loading: u64,
}

impl Memory {
    /// Bytes of a service under full load.
    pub fn serving(&self) -> u64 {
        self.weights + self.mapped + self.rope + self.kv + self.workspace + self.process
    }

    /// The most that there will be.
    pub fn peak(&self) -> u64 {
        self.serving().max(self.loading)
    }
}

/// What decides how much memory is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) model: PlannedMemory,
    pub(crate) vocabulary: usize,
    pub(crate) cores: usize,
    pub(crate) kv: KvType,
}

impl Load<'_> {
    /// Keys and values of a request.
    pub(crate) fn request_kv(&self, context: usize) -> u64 {
        kv_bytes(self.config, self.kv, context) as u64
    }

    /// The memory for so many requests at once of so many tokens each.
    pub(crate) fn memory(&self, context: usize, concurrency: usize) -> Memory {
        let weights = self.model.weights;
        let in_memory = (weights.weight_bytes + weights.rearranged_head_bytes) as u64;
        let rope = self.model.rope_bytes as u64;
        let process = PROGRAM
            + THREAD * self.cores as u64
            + VOCABULARY_ENTRY * self.vocabulary as u64
            + REQUEST * concurrency as u64;
        // The head is copied before the blocks are loaded.
        let head = 2 * self.model.copied_head as u64;
        let blocks = in_memory + self.model.largest_unpacked as u64;
        Memory {
            weights: in_memory,
            mapped: weights.resident_file_bytes as u64,
            rope,
            kv: concurrency as u64 * self.request_kv(context),
            workspace: pass_bytes(self.config, PREFILL_CHUNK.max(concurrency), concurrency) as u64,
            process,
            loading: process + rope + head.max(blocks),
        }
    }
}
