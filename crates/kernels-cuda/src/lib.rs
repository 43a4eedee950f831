//! The engine's kernels on NVIDIA GPUs, with the bits of `tritforge-kernels`.
//!
//! Nothing of CUDA is needed to build this crate: the kernels of `kernels/` are compiled to PTX in advance
//! (`tools/ptx.py`), the PTX is part of the binary, and the driver, which compiles it for its GPU, is loaded
//! when a [`Gpu`] is opened. Without a driver that is an error that names what is missing.
//!
//! Sums of integers are exact in any order. Sums of floats follow the CPU's order: norms in 64 lanes, softmax
//! and weighted values in segments of 256 positions, dots in sixteen lanes. What a kernel gives is therefore
//! what the CPU gives, bit for bit, for any number of tokens at once.
//!
//! Work is queued in order on one stream; only [`Buffer::download`] waits for it. `docs/cuda.md` says how all
//! this is tested on machines without a GPU.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod arguments;
mod attention;
mod dense;
mod device;
mod driver;
mod kernels;
mod largest;
mod rows;
mod ternary;

pub use attention::{AttentionScratch, CacheShape, NewTokens, Pages, Place};
pub use dense::Dense;
pub use device::{Cuda, Input};
pub use driver::{Buffer, CudaError, Graph, Number};
pub use kernels::{CACHE_TYPES, Gpu};
pub use largest::{Largest, MOST_LARGEST};
pub use rows::{Codes, Norm, RopeTables, Rounding};
pub use ternary::Ternary;
