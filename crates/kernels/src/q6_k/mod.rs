//! Q6_K matrices (`block_q6_K` of ggml): 6.5625 bits a weight, for the output head and the embedding.
//!
//! A block of 256 weights is 210 bytes: 128 bytes of low nibbles, 64 bytes of high bit pairs, sixteen int8
//! scales, one f16 scale `d`. A weight is `d · scale · (code − 32)`: at most 11 + 7 + 5 significant bits, so
//! it is exact in f32, and a product with decoded rows and one that decodes as it multiplies agree bit for
//! bit.

mod products;
mod quantize;

pub(crate) use self::products::{MOST_TOKENS, products};
pub use self::quantize::f32_to_q6_k;
use crate::vector::f16_bits_to_f32;

/// Weights of a block.
pub(crate) const BLOCK: usize = 256;
/// Bytes of a block.
const BLOCK_BYTES: usize = 210;
/// Weights that share an int8 scale.
const GROUP: usize = 16;
/// Groups of a block.
const GROUPS: usize = BLOCK / GROUP;
/// Where the parts of a block begin.
const HIGH: usize = 128;
const SCALES: usize = 192;
const D: usize = 208;
/// Bytes of a row of `cols` weights.
///
/// # Panics
/// If 256 does not divide them.
pub(crate) fn row_bytes(cols: usize) -> usize {
    assert!(cols.is_multiple_of(BLOCK), "Q6_K stores blocks of 256, a row has {cols}");
    cols / BLOCK * BLOCK_BYTES
}

/// A row as f32 numbers.
///
/// # Panics
/// If `bytes` are not the blocks of `out`.
#[inline(always)]
pub(crate) fn decode_row(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), row_bytes(out.len()), "bytes of {} weights", out.len());
    let mut codes = [0i8; BLOCK];
    for (block, out) in bytes.as_chunks::<BLOCK_BYTES>().0.iter().zip(out.chunks_exact_mut(BLOCK)) {
        unpack(block, &mut codes);
        let scales = scales(block);
        for (i, (x, code)) in out.iter_mut().zip(&codes).enumerate() {
            *x = f32::from(*code) * scales[i / GROUP];
        }
    }
}

/// The codes − 32 of a block, in the order of the weights.
#[inline(always)]
fn unpack(block: &[u8; BLOCK_BYTES], codes: &mut [i8; BLOCK]) {
    // Each half has 64 bytes of nibbles and 32 of bit pairs for 4 × 32 weights.
    for half in 0..2 {
        let low = &block[half * 64..][..64];
        let high = &block[HIGH + half * 32..][..32];
        let codes = &mut codes[half * 128..][..128];
        for l in 0..32 {
            codes[l] = ((low[l] & 15) | (high[l] << 4 & 0x30)).wrapping_sub(32) as i8;
            codes[l + 32] = ((low[l + 32] & 15) | (high[l] << 2 & 0x30)).wrapping_sub(32) as i8;
            codes[l + 64] = ((low[l] >> 4) | (high[l] & 0x30)).wrapping_sub(32) as i8;
            codes[l + 96] = ((low[l + 32] >> 4) | (high[l] >> 2 & 0x30)).wrapping_sub(32) as i8;
        }
    }
}

/// `d · scale` of each group: exact.
#[inline(always)]
fn scales(block: &[u8; BLOCK_BYTES]) -> [f32; GROUPS] {
    let d = f16_bits_to_f32(u16::from_le_bytes([block[D], block[D + 1]]));
    let mut out = [0f32; GROUPS];
    for i in 0..GROUPS {
        out[i] = f32::from(block[SCALES + i] as i8) * d;
    }
    out
}
