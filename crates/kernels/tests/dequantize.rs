//! Every block format against the numbers that gguf's decoder reads from the same bytes
//! (`tests/golden/make_blocks.py`).

use std::collections::HashMap;
use std::path::Path;

use tritforge_kernels::BlockFormat;

/// The bytes that the script describes.
fn content(format: &BlockFormat) -> Vec<u8> {
    let blocks = if format.numbers == 1 { 64 } else { 4 };
    let byte = |i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8;
    let mut bytes: Vec<u8> = (0..(blocks * format.bytes) as u32).map(byte).collect();
    for (i, block) in bytes.chunks_exact_mut(format.bytes).enumerate() {
        let mut put = |at: usize, scale: u16| block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        match format.name {
            "Q4_0" | "Q5_0" | "Q8_0" | "IQ4_NL" | "IQ4_XS" | "IQ3_S" => put(0, 0x2e66),
            "Q2_K" => {
                put(80, 0x2e66);
                put(82, 0xa8cd);
            }
            "Q3_K" => put(108, 0x2e66),
            "MXFP4" => block[0] = [0, 1, 127, 130][i],
            "Q4_1" | "Q5_1" | "Q4_K" | "Q5_K" => {
                put(0, 0x2e66);
                put(2, 0xa8cd);
            }
            "Q6_K" => put(208, 0x2e66),
            "F16" => block[1] = 0x3c,
            name => block[format.bytes - 1] = if name.ends_with("F32") || name == "BF16" { 0x3f } else { 0 },
        }
    }
    bytes
}

#[test]
fn formats_decode_as_gguf_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/blocks.json");
    let golden: HashMap<String, Vec<u32>> =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(golden.len(), BlockFormat::all().len());
    for format in BlockFormat::all() {
        let bytes = content(format);
        let mut numbers = vec![0f32; bytes.len() / format.bytes * format.numbers];
        BlockFormat::from_name(format.name).unwrap().decode(&bytes, &mut numbers);
        let expected = &golden[format.name];
        assert_eq!(numbers.len(), expected.len());
        for (i, (found, expected)) in numbers.iter().zip(expected).enumerate() {
            assert_eq!(found.to_bits(), *expected, "{}[{i}]: {found}", format.name);
        }
    }
}
