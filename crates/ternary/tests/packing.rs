//! Packings against `gguf` 0.19 (bytes made by `tests/golden/make_packings.py`) and as round trips.

use proptest::prelude::*;
use tritforge_ternary::{Granularity, PackedRows, Packing, ScalePlace, TernaryError, TernaryTensor};

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
            let scale = if packing.is_f16() { 1.0 } else { tensor.scales().of_tensor().unwrap() };
            let zeros = packing.scales() != ScalePlace::Tensor && tensor.codes().iter().all(|c| *c == 0);
            prop_assert_eq!(back.uniform_scale(), Some(scale));
            let rows = PackedRows::new(packing, &bytes, tensor.rows(), tensor.cols()).unwrap();
            prop_assert!(zeros || rows.uniform_scale() == Some(scale));
        }
    }

    #[test]
    fn any_bytes_are_codes_or_an_error(bytes in prop::collection::vec(any::<u8>(), 96)) {
        for packing in Packing::ALL {
            let len = packing.packed_len(1, 256).unwrap();
            if let Ok(unpacked) = packing.unpack(&bytes[..len], 1, 256) {
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
    assert!(error.to_string().starts_with("element 1 is NaN"), "{error}");
}

#[test]
fn ternary_values_are_not_quantized_again() {
    let codes: Vec<i8> = (0..512).map(|i| (i * i % 3) as i8 - 1).collect();
    let tensor = TernaryTensor::from_codes(codes, 2, 256, 0.0371).unwrap();
    assert_eq!(TernaryTensor::from_values(&tensor.values(), 2, 256, Granularity::Tensor).unwrap(), tensor);
    // Quantizing them again keeps the codes and shrinks the scale by the share of zeros.
    let twice = TernaryTensor::quantize(&tensor.values(), 2, 256).unwrap();
    assert_eq!(twice.codes(), tensor.codes());
    assert!(twice.scales().of_tensor().unwrap() < 0.8 * tensor.scales().of_tensor().unwrap());
    let error = TernaryTensor::from_values(&[0.5, 0.0, -0.5, 0.25], 2, 2, Granularity::Tensor)
        .unwrap_err()
        .to_string();
    assert!(error.contains("weight 3 is 0.25"), "{error}");
}

#[test]
fn a_block_of_zeros_has_any_scale() {
    let mut codes = vec![1i8; 512];
    codes[..256].fill(0);
    let tensor = TernaryTensor::from_codes(codes, 1, 512, 1.0).unwrap();
    // Of Q2_0 the scale comes first, and a tensor has four times as many blocks.
    for packing in [Packing::Tq1_0, Packing::Tq2_0] {
        let mut bytes = packing.pack_with_block_scale(&tensor, 0.5).unwrap();
        let end = bytes.len() / 2;
        bytes[end - 2..end].fill(0);
        assert_eq!(PackedRows::new(packing, &bytes, 1, 512).unwrap().uniform_scale(), Some(0.5));
        // A block of ones with another scale is another tensor.
        let last = bytes.len();
        let mut other = packing.pack_with_block_scale(&tensor, 0.5).unwrap();
        other[..end].copy_from_slice(&bytes[end..]);
        other[last - 2..].fill(0);
        assert_eq!(PackedRows::new(packing, &other, 1, 512).unwrap().uniform_scale(), None);
    }
}

#[test]
fn rows_of_different_scales_are_no_tensor_with_one() {
    let codes: Vec<i8> = (0..3 * 128).map(|i| if i < 128 { 0 } else { (i * i % 3) as i8 - 1 }).collect();
    let tensor = TernaryTensor::from_codes(codes, 3, 128, 0.25).unwrap();
    let mut bytes = Packing::Iq2Bn.pack(&tensor).unwrap();
    let scale = |bytes: &[u8]| PackedRows::new(Packing::Iq2Bn, bytes, 3, 128).unwrap().uniform_scale();
    // The first row is zeros: it may have any scale.
    bytes[..4].copy_from_slice(&7f32.to_le_bytes());
    assert_eq!(scale(&bytes), Some(0.25));
    bytes[36..40].copy_from_slice(&0.5f32.to_le_bytes());
    assert_eq!(scale(&bytes), None);
}

#[test]
fn blocks_of_q2_0_may_be_zeros_and_have_a_fourth_code() {
    let mut codes = vec![1i8; 192];
    codes[64..128].fill(0);
    let tensor = TernaryTensor::from_codes(codes, 1, 192, 1.0).unwrap();
    let mut bytes = Packing::Q2_0.pack_with_block_scale(&tensor, 0.5).unwrap();
    bytes[18..20].fill(0);
    assert_eq!(PackedRows::new(Packing::Q2_0, &bytes, 1, 192).unwrap().uniform_scale(), Some(0.5));
    bytes[3] |= 3;
    assert_eq!(Packing::Q2_0.unpack(&bytes, 1, 192).unwrap_err(), TernaryError::Code { index: 4, found: 2 });
}

#[test]
fn the_two_layouts_of_i2_s_hold_the_same_tensor_in_other_places() {
    let codes: Vec<i8> = (0..256).map(|i| (i * i / 7 % 3) as i8 - 1).collect();
    let tensor = TernaryTensor::from_codes(codes, 1, 256, 0.5).unwrap();
    let (x86, arm) = (Packing::I2S.pack(&tensor).unwrap(), Packing::I2SArm.pack(&tensor).unwrap());
    assert_eq!(x86.len(), arm.len());
    // Taken for each other they are valid, and another tensor.
    assert_ne!(Packing::I2S.unpack(&arm, 1, 256).unwrap().codes, tensor.codes());
    assert_eq!(Packing::I2SArm.unpack(&arm, 1, 256).unwrap().codes, tensor.codes());
}

#[test]
fn a_scale_that_f16_does_not_hold_is_refused() {
    let tensor = TernaryTensor::from_codes(vec![1; 256], 1, 256, 0.5).unwrap();
    for packing in Packing::ALL {
        let rounds = packing.is_f16();
        for (scale, stored) in [(1e6, "inf"), (1e-9, "0"), (f32::NAN, "NaN"), (-1.0, "-1")] {
            match packing.pack_with_block_scale(&tensor, scale) {
                Err(error) => {
                    assert!(rounds, "{error}");
                    let error = error.to_string();
                    assert!(error.contains(packing.name()) && error.contains(stored), "{error}");
                }
                Ok(_) => assert!(!rounds, "{} {scale}", packing.name()),
            }
        }
    }
}

#[test]
fn tensors_have_finite_weights_and_positive_scales() {
    let error = |result: Result<TernaryTensor, TernaryError>| result.unwrap_err().to_string();
    for scale in [f32::NAN, f32::INFINITY, -1.0, 0.0] {
        let found = error(TernaryTensor::from_codes(vec![1; 4], 2, 2, scale));
        assert_eq!(found, format!("the scale is {scale}: expected a positive number"));
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let values = [0.5, -0.5, 0.5, bad];
        let expected = format!("row 1, column 1 is {bad}: expected finite numbers");
        assert_eq!(error(TernaryTensor::quantize(&values, 2, 2)), expected);
        assert_eq!(error(TernaryTensor::from_values(&values, 2, 2, Granularity::Tensor)), expected);
    }
}
