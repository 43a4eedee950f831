//! Packings against `gguf` 0.19 (bytes made by `tests/golden/make_packings.py`) and as round trips.

use proptest::prelude::*;
use tritforge_ternary::{Packing, TernaryError, TernaryTensor};

fn tensor() -> impl Strategy<Value = TernaryTensor> {
    (1usize..4, 1usize..4, 1e-5f32..10.0).prop_flat_map(|(rows, blocks, scale)| {
        let cols = blocks * 256;
        prop::collection::vec(-1i8..=1, rows * cols)
            .prop_map(move |codes| TernaryTensor::from_codes(codes, rows, cols, scale).unwrap())
    })
}

proptest! {
    #[test]
    fn unpack_undoes_pack(tensor in tensor()) {
        for packing in Packing::ALL {
            let bytes = packing.pack(&tensor).unwrap();
            prop_assert_eq!(bytes.len(), packing.packed_len(tensor.rows(), tensor.cols()).unwrap());
            let back = packing.unpack(&bytes, tensor.rows(), tensor.cols()).unwrap();
            prop_assert_eq!(back.codes.as_slice(), tensor.codes());
            let scale = if packing == Packing::I2S { tensor.scale() } else { 1.0 };
            prop_assert_eq!(back.uniform_scale(), Some(scale));
        }
    }

    #[test]
    fn any_bytes_are_codes_or_an_error(bytes in prop::collection::vec(any::<u8>(), 96)) {
        for (packing, len) in [(Packing::Tq1_0, 54), (Packing::Tq2_0, 66), (Packing::I2S, 96)] {
            let cols = 256;
            if let Ok(unpacked) = packing.unpack(&bytes[..len], 1, cols) {
                prop_assert!(unpacked.codes.iter().all(|c| (-1..=1).contains(c)));
            }
        }
    }
}

#[test]
fn columns_that_no_block_divides_are_refused() {
    let tensor = TernaryTensor::from_codes(vec![0; 3 * 192], 3, 192, 1.0).unwrap();
    let error = Packing::Tq2_0.pack(&tensor).unwrap_err();
    assert_eq!(error, TernaryError::Columns { packing: "TQ2_0", block: 256, cols: 192 });
}

#[test]
fn a_code_of_three_is_refused() {
    let mut bytes =
        Packing::I2S.pack(&TernaryTensor::from_codes(vec![0; 128], 1, 128, 0.5).unwrap()).unwrap();
    bytes[5] = 0b0101_0111; // the last code of byte 5: weight 101
    assert_eq!(Packing::I2S.unpack(&bytes, 1, 128).unwrap_err(), TernaryError::Code { index: 101, found: 2 });
}

#[test]
fn wrong_byte_counts_are_refused() {
    let error = Packing::Tq1_0.unpack(&[0; 53], 1, 256).unwrap_err();
    assert!(error.to_string().contains("found 53, expected 54"), "{error}");
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let error = TernaryTensor::quantize(&[1.0, f32::NAN], 1, 2).unwrap_err();
    assert!(error.to_string().starts_with("weight 1 is NaN"), "{error}");
}
