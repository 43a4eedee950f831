//! A GPU and its compiled kernels.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tritforge_kernels::{DenseType, KvType};

use crate::arguments::{Addition, Append, Attention, Largest, Lookup, Matrix, Products, Rope, Rows, Scaling};
use crate::driver::{Buffer, Context, CudaError, Graph, Kernel, Module, Number};

/// The kernels' PTX, as `tools/ptx.py` makes it.
const PTX: [&str; 5] = [
    include_str!("../ptx/attention.ptx"),
    include_str!("../ptx/dense.ptx"),
    include_str!("../ptx/largest.ptx"),
    include_str!("../ptx/rows.ptx"),
    include_str!("../ptx/ternary.ptx"),
];

/// The types of keys and values that have kernels.
pub const CACHE_TYPES: [KvType; 2] = [KvType::F32, KvType::F16];

/// Products of ternary weights by the most tokens that a kernel takes.
#[derive(Debug)]
pub(crate) struct TernaryKernels {
    pub(crate) few: [(usize, Kernel<Products>); 4],
    /// On tensor cores; none where groups have scales.
    pub(crate) some: Vec<(usize, Kernel<Products>)>,
    pub(crate) many: Kernel<Products>,
}

/// The kernels that read or write a cache of one type.
#[derive(Debug)]
pub(crate) struct CacheKernels {
    pub(crate) append: Kernel<Append>,
    pub(crate) scores: Kernel<Attention>,
    pub(crate) values: Kernel<Attention>,
    pub(crate) tokens: Kernel<Attention>,
}

/// The kernels of a dense type.
#[derive(Debug)]
pub(crate) struct DenseKernels {
    pub(crate) one: Kernel<Matrix>,
    pub(crate) four: Kernel<Matrix>,
    pub(crate) embed: Kernel<Matrix>,
}

/// A GPU whose kernels are compiled.
#[derive(Debug)]
pub struct Gpu {
    pub(crate) context: Arc<Context>,
    pub(crate) ternary: TernaryKernels,
    pub(crate) grouped: TernaryKernels,
    pub(crate) embed_ternary: Kernel<Lookup>,
    pub(crate) norm_quantize: Kernel<Rows>,
    pub(crate) gate_norm_quantize: Kernel<Rows>,
    pub(crate) rope: Kernel<Rope>,
    pub(crate) add: Kernel<Addition>,
    pub(crate) scale: Kernel<Scaling>,
    pub(crate) combine: Kernel<Attention>,
    pub(crate) largest: Kernel<Largest>,
    cache: [(KvType, CacheKernels); 2],
    dense: [(DenseType, DenseKernels); 5],
    /// After the kernels, which are of no use without it.
    _modules: [Module; 5],
}

impl Gpu {
    /// Opens a GPU by its number, from 0. At the first time on a machine the driver compiles the kernels,
    /// which takes seconds; it keeps the result.
    ///
    /// # Errors
    /// If there is no driver or no such GPU, either is too old, or the driver does not compile the kernels.
    pub fn open(ordinal: usize) -> Result<Self, CudaError> {
        let context = Context::open(ordinal)?;
        let [attention, dense, largest, rows, ternary] = PTX.map(|ptx| context.load(ptx));
        let (attention, dense, largest, rows, ternary) = (attention?, dense?, largest?, rows?, ternary?);
        let ternary_kernels = |prefix: &str, some: &[usize]| {
            let kernel = |tokens: usize| ternary.kernel(&format!("{prefix}_{tokens}")).map(|k| (tokens, k));
            let few = [kernel(1)?, kernel(2)?, kernel(4)?, kernel(8)?];
            let some = some.iter().map(|tokens| kernel(*tokens)).collect::<Result<_, _>>()?;
            let many = ternary.kernel(&format!("{prefix}_many"))?;
            Ok::<_, CudaError>(TernaryKernels { few, some, many })
        };
        let cache = |ty: KvType| {
            let kernels = CacheKernels {
                append: attention.kernel(&format!("append_{ty}"))?,
                scores: attention.kernel(&format!("attention_scores_{ty}"))?,
                values: attention.kernel(&format!("attention_values_{ty}"))?,
                tokens: attention.kernel(&format!("attention_tokens_{ty}"))?,
            };
            Ok::<_, CudaError>((ty, kernels))
        };
        let dense_kernels = |ty: DenseType| {
            let name = ty.name();
            let kernels = DenseKernels {
                one: dense.kernel(&format!("dense_{name}_1"))?,
                four: dense.kernel(&format!("dense_{name}_4"))?,
                embed: dense.kernel(&format!("embed_{name}"))?,
            };
            Ok::<_, CudaError>((ty, kernels))
        };
        let [f32, f16] = CACHE_TYPES.map(cache);
        let [a, b, c, d, e] = DenseType::ALL.map(dense_kernels);
        Ok(Self {
            ternary: ternary_kernels("ternary", &[16, 32, 64])?,
            grouped: ternary_kernels("ternary_groups", &[])?,
            embed_ternary: ternary.kernel("embed_ternary")?,
            norm_quantize: rows.kernel("norm_quantize")?,
            gate_norm_quantize: rows.kernel("gate_norm_quantize")?,
            rope: rows.kernel("rope")?,
            add: rows.kernel("add")?,
            scale: rows.kernel("scale")?,
            combine: attention.kernel("attention_combine")?,
            largest: largest.kernel("largest")?,
            cache: [f32?, f16?],
            dense: [a?, b?, c?, d?, e?],
            _modules: [attention, dense, largest, rows, ternary],
            context,
        })
    }

    /// The GPU's name.
    pub fn name(&self) -> &str {
        &self.context.name
    }

    /// Free bytes of the GPU's memory, and all of them.
    ///
    /// # Errors
    /// If the driver cannot say.
    pub fn memory(&self) -> Result<(usize, usize), CudaError> {
        self.context.memory()
    }

    /// A buffer of `len` numbers, which are anything.
    ///
    /// # Errors
    /// If the GPU has no room for them.
    pub fn allocate<T: Number>(&self, len: usize) -> Result<Buffer<T>, CudaError> {
        let mut buffer = Buffer::default();
        buffer.resize(&self.context, len)?;
        Ok(buffer)
    }

    /// Copies numbers to the GPU.
    ///
    /// # Errors
    /// If it has no room for them.
    pub fn upload<T: Number>(&self, numbers: &[T]) -> Result<Buffer<T>, CudaError> {
        Buffer::of(&self.context, numbers)
    }

    /// Replaces what a buffer holds.
    ///
    /// # Errors
    /// As [`Gpu::upload`].
    pub fn write<T: Number>(&self, buffer: &mut Buffer<T>, numbers: &[T]) -> Result<(), CudaError> {
        buffer.write(&self.context, numbers)
    }

    /// Makes a buffer `len` numbers long, which are anything if it must grow.
    ///
    /// # Errors
    /// If the GPU has no room for them.
    pub fn resize<T: Number>(&self, buffer: &mut Buffer<T>, len: usize) -> Result<(), CudaError> {
        buffer.resize(&self.context, len)
    }

    /// How often memory has been allocated: while this stays the same, no buffer has moved.
    pub fn allocations(&self) -> u64 {
        self.context.allocations.load(Ordering::Relaxed)
    }

    /// Captures the work that `work` queues, to launch it at once and many times. It is not done now. Nothing may be allocated,
    /// copied to or from the GPU or waited for meanwhile on this thread, and what the kernels read and write must stay where it
    /// is as long as the graph is launched.
    ///
    /// # Errors
    /// If `work` fails or does what a capture forbids.
    pub fn capture(&self, work: impl FnOnce() -> Result<(), CudaError>) -> Result<Graph, CudaError> {
        self.context.capture(work)
    }

    pub(crate) fn cache_kernels(&self, ty: KvType) -> &CacheKernels {
        &self.cache.iter().find(|(of, _)| *of == ty).expect("only types of the GPU come here").1
    }

    pub(crate) fn dense_kernels(&self, ty: DenseType) -> &DenseKernels {
        &self.dense.iter().find(|(of, _)| *of == ty).expect("all types have kernels").1
    }
}

/// A length as kernels take it.
///
/// # Panics
/// If it is 2³¹ or more.
pub(crate) fn int(n: usize) -> i32 {
    i32::try_from(n).expect("shapes are below 2^31")
}
