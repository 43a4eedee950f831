//! Byte for byte against `gguf` 0.19.0 (TQ1_0, TQ2_0) and against independent layouts of the others
//! (`tests/golden/make_packings.py`).

use std::collections::BTreeMap;

use serde::Deserialize;
use tritforge_ternary::{Granularity, PackedRows, Packing, ScalePlace, Scales, TernaryTensor};

#[derive(Deserialize)]
struct Case {
    name: String,
    rows: usize,
    cols: usize,
    scale: f32,
    /// One of `-0+` a weight.
    codes: String,
    tq1_0: Packed,
    tq2_0: Packed,
    i2_s: Packed,
    i2_s_arm: Packed,
    q2_0: Packed,
    iq2_bn: Packed,
}

#[derive(Deserialize)]
struct Packed {
    hex: String,
    d: Option<Vec<f32>>,
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn packed_bytes_are_those_of_gguf() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../../tests/golden/packings.json")).unwrap();
    assert!(cases.len() >= 5);
    for case in &cases {
        let codes = case.codes.bytes().map(|c| match c {
            b'+' => 1,
            b'0' => 0,
            _ => -1,
        });
        let tensor = TernaryTensor::from_codes(codes.collect(), case.rows, case.cols, case.scale).unwrap();
        for (packing, golden) in [
            (Packing::Tq1_0, &case.tq1_0),
            (Packing::Tq2_0, &case.tq2_0),
            (Packing::I2S, &case.i2_s),
            (Packing::I2SArm, &case.i2_s_arm),
            (Packing::Q2_0, &case.q2_0),
            (Packing::Iq2Bn, &case.iq2_bn),
        ] {
            let name = format!("{} {}", case.name, packing.name());
            let mut golden_bytes = bytes(&golden.hex);
            if packing.scales() == ScalePlace::Tensor {
                // The golden is the codes; eight copies of the f32 scale follow them.
                golden_bytes.extend(case.scale.to_le_bytes().repeat(8));
            }
            let unpacked = packing.unpack(&golden_bytes, case.rows, case.cols).unwrap();
            assert_eq!(unpacked.codes, tensor.codes(), "{name}");
            match &golden.d {
                // A block of zeros has scale 0 in `gguf`, whatever the tensor's scale.
                Some(d) if unpacked.uniform_scale() == Some(d[0]) => {
                    let packed = packing.pack_with_block_scale(&tensor, d[0]).unwrap();
                    assert_eq!(packed, golden_bytes, "{name}");
                }
                Some(d) => assert_eq!(&unpacked.scales, d, "{name}"),
                None => assert_eq!(packing.pack(&tensor).unwrap(), golden_bytes, "{name}"),
            }
        }
    }
}

/// A matrix with scales of the tensor, of rows or of groups.
#[derive(Deserialize)]
struct Scaled {
    rows: usize,
    cols: usize,
    codes: String,
    granularity: serde_json::Value,
    scales: Vec<f32>,
    packings: BTreeMap<String, String>,
}

#[test]
fn scales_of_rows_and_groups_stand_where_others_read_them() {
    let text = include_str!("../../../tests/golden/packing_scales.json");
    let cases: Vec<Scaled> = serde_json::from_str(text).unwrap();
    let mut seen = 0;
    for case in &cases {
        let codes = case.codes.bytes().map(|c| match c {
            b'+' => 1,
            b'0' => 0,
            _ => -1,
        });
        let codes: Vec<i8> = codes.collect();
        let shape = [case.rows, case.cols];
        let granularity: Granularity = match &case.granularity {
            serde_json::Value::String(name) => name.parse().unwrap(),
            size => size.to_string().parse().unwrap(),
        };
        let scales = Scales::new(granularity, shape, case.scales.clone()).unwrap();
        for (name, hex) in &case.packings {
            let name = format!("{name} {granularity}");
            let packing =
                Packing::ALL.into_iter().find(|packing| name.starts_with(&format!("{} ", packing.name())));
            let (packing, golden) = (packing.unwrap(), bytes(hex));
            assert_eq!(packing.pack_codes(&codes, shape, &scales).unwrap(), golden, "{name}");
            let packed = PackedRows::new(packing, &golden, case.rows, case.cols).unwrap();
            let mut unpacked = vec![0; codes.len()];
            packed.unpack(0, &mut unpacked).unwrap();
            assert_eq!(unpacked, codes, "{name}");
            assert_eq!(packed.scales(None, None).unwrap(), scales, "{name}");
            seen += 1;
        }
        // All that have room and store scales as f16 are there.
        for packing in
            Packing::ALL.into_iter().filter(|packing| packing.is_f16() && packing.holds(granularity))
        {
            assert!(case.packings.contains_key(packing.name()), "{} {granularity}", packing.name());
        }
    }
    assert_eq!(seen, 7 + 8 + 6 + 4 + 1);
}
