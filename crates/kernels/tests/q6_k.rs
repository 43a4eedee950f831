//! Q6_K against ggml's reference quantizer and gguf's decoder.

use tritforge_kernels::{DenseMatrix, DenseType, f32_to_q6_k};

fn fnv(items: impl IntoIterator<Item = u64>) -> u64 {
    items.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, x| (hash ^ x).wrapping_mul(0x100_0000_01b3))
}

/// 64 blocks: anything, zeros, zero groups, small numbers, a group of almost nothing, a few large numbers.
fn weights() -> Vec<f32> {
    let number = |i: u32| ((i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0) * 3.7;
    let mut x: Vec<f32> = (0..256 * 64).map(number).collect();
    x[256..512].fill(0.0);
    x[528..560].fill(0.0);
    x[768..1024].iter_mut().for_each(|x| *x *= 1e-3);
    x[1024..1040].iter_mut().for_each(|x| *x *= 1e-9);
    x[1280..1290].fill(60.0);
    x
}

#[test]
fn blocks_are_those_of_ggml_and_decode_as_gguf_does() {
    // By `quantize_row_q6_K_ref` of ggml 0.25 (llama-cpp-python 0.3.36) and gguf 0.19's `quants.dequantize`.
    let bytes = f32_to_q6_k(&weights());
    assert_eq!(bytes.len(), DenseType::Q6K.row_bytes(256 * 64));
    assert_eq!(fnv(bytes.iter().map(|byte| u64::from(*byte))), 0x23ee_9536_4e2b_c020);
    let mut decoded = vec![0f32; 256 * 64];
    DenseMatrix::from_bytes(DenseType::Q6K, &bytes, 1, 256 * 64).row(0, &mut decoded);
    assert_eq!(decoded[..4], [-3.664_978, 0.827_575_7, -2.009_826_7, 2.600_952_1]);
    assert_eq!(fnv(decoded.iter().map(|x| u64::from(x.to_bits()))), 0xfa1a_27cf_6a4d_9065);
}
