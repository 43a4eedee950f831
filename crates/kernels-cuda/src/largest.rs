//! The largest numbers of rows: what the choice of a token needs of its logits.

use crate::arguments;
use crate::driver::{Buffer, CudaError};
use crate::kernels::{Gpu, int};

/// Numbers of a block.
const CHUNK: usize = 2048;
const THREADS: usize = 256;

/// Most numbers that can be chosen of a row.
pub const MOST_LARGEST: usize = 256;

/// The memory in which the largest numbers of rows are found.
#[derive(Debug, Default)]
pub struct Largest {
    /// What one pass leaves to the next.
    keys: [Buffer<u64>; 2],
    chosen: Buffer<u32>,
}

impl Gpu {
    /// The `most` largest numbers of every row of x, which are `width` wide, largest first, of equals the first ones: their
    /// places and they themselves, row by row. If a row has a NaN or an infinity, the first place of one comes first.
    ///
    /// # Errors
    /// If the GPU has no room, or the work that x comes from failed.
    ///
    /// # Panics
    /// If x is no whole rows, or `most` is 0, more than a row has, or more than [`MOST_LARGEST`].
    pub fn largest(
        &self,
        x: &Buffer<f32>,
        width: usize,
        most: usize,
        scratch: &mut Largest,
    ) -> Result<Vec<(u32, f32)>, CudaError> {
        assert!(width > 0 && x.len().is_multiple_of(width), "x is rows of {width}");
        assert!(
            (1..=width.min(MOST_LARGEST)).contains(&most),
            "{most} of {width}, and at most {MOST_LARGEST}"
        );
        let rows = x.len() / width;
        let Largest { keys: [from, to], chosen } = scratch;
        chosen.resize(&self.context, 2 * rows * most)?;
        let mut argument = arguments::Largest {
            numbers: x.address(),
            width: int(width),
            count: int(width),
            most: int(most),
            ..arguments::Largest::default()
        };
        let mut count = width;
        loop {
            let blocks = count.div_ceil(CHUNK);
            if blocks == 1 {
                argument.chosen = chosen.address();
            } else {
                to.resize(&self.context, rows * blocks * most)?;
                argument.out = to.address();
            }
            let sorted = count.min(CHUNK).max(most).next_power_of_two();
            let shared = 8 * if most == 1 { THREADS / 32 } else { sorted };
            self.largest.launch([blocks, rows, 1], THREADS as u32, shared, &argument)?;
            if blocks == 1 {
                break;
            }
            count = blocks * most;
            std::mem::swap(from, to);
            (argument.keys, argument.count) = (from.address(), int(count));
        }
        let pairs = chosen.download()?;
        Ok(pairs.chunks_exact(2).map(|pair| (pair[0], f32::from_bits(pair[1]))).collect())
    }
}
