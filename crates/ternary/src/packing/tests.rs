//! What holds of every layout.

use super::*;
use crate::{Scales, TernaryTensor};

fn codes(count: usize) -> Vec<i8> {
    (0..count).map(|i| (i * i / 7 % 3) as i8 - 1).collect()
}

/// Scales that f16 holds, no two neighbours the same.
fn scales(granularity: Granularity, shape: [usize; 2]) -> Scales {
    let value = |i: usize| 0.25 + (i * 5 % 7) as f32 / 64.0;
    let count = granularity.count(shape[0], shape[1]);
    Scales::new(granularity, shape, (0..count).map(value).collect()).unwrap()
}

const GRANULARITIES: [Granularity; 6] = [
    Granularity::Tensor,
    Granularity::Row,
    Granularity::Group(256),
    Granularity::Group(128),
    Granularity::Group(64),
    Granularity::Group(32),
];

#[test]
fn names_and_types_are_those_of_one_layout() {
    for (i, packing) in Packing::ALL.into_iter().enumerate() {
        assert_eq!(packing as usize, i);
        let arm = (packing == Packing::I2SArm).then_some(I2_S_ARM);
        assert_eq!(Packing::in_file(packing.ggml_type(), arm), Some(packing));
        assert_eq!(Packing::from_option(packing.option()), Some(packing));
        assert_eq!(packing.option(), packing.name().to_ascii_lowercase());
        assert!(!packing.help().is_empty());
    }
    assert_eq!(Packing::in_file("Q8_0", None), None);
    assert_eq!(Packing::from_option("TQ2_0"), None);
}

#[test]
fn scales_are_held_exactly_or_refused() {
    let shape @ [rows, cols] = [3, 512];
    let codes = codes(rows * cols);
    for packing in Packing::ALL {
        for granularity in GRANULARITIES {
            let name = format!("{} {granularity}", packing.name());
            let scales = scales(granularity, shape);
            let bytes = match packing.pack_codes(&codes, shape, &scales) {
                Ok(bytes) => bytes,
                Err(error) => {
                    assert!(!packing.holds(granularity), "{name}: {error}");
                    let error = error.to_string();
                    assert!(error.starts_with(packing.name()) && error.contains("no room"), "{error}");
                    assert!(Packing::holding(granularity).iter().all(|name| error.contains(name)), "{error}");
                    continue;
                }
            };
            assert!(packing.holds(granularity), "{name}");
            assert_eq!(bytes.len(), packing.packed_len(rows, cols).unwrap(), "{name}");
            let packed = PackedRows::new(packing, &bytes, rows, cols).unwrap();
            let mut unpacked = vec![0; codes.len()];
            packed.unpack(0, &mut unpacked).unwrap();
            assert_eq!(unpacked, codes, "{name}");
            let beside =
                (packing.is_f16() && granularity == Granularity::Tensor).then_some(scales.values()[0]);
            // By what the file says, and by the blocks alone.
            assert_eq!(packed.scales(beside, Some(granularity)).unwrap(), scales, "{name}");
            assert_eq!(packed.scales(beside, None).unwrap(), scales, "{name}");
        }
    }
}

#[test]
fn the_coarsest_granularity_is_read_and_any_finer_one_if_it_is_named() {
    let shape @ [rows, cols] = [2, 512];
    let of_rows = scales(Granularity::Row, shape);
    let bytes = Packing::Q2_0.pack_codes(&codes(1024), shape, &of_rows).unwrap();
    let packed = PackedRows::new(Packing::Q2_0, &bytes, rows, cols).unwrap();
    assert_eq!(packed.scales(None, None).unwrap(), of_rows);
    let groups = packed.scales(None, Some(Granularity::Group(128))).unwrap();
    assert_eq!(groups, of_rows.refined(Granularity::Group(128), shape).unwrap());
    // Finer than a block.
    assert_eq!(packed.scales(None, Some(Granularity::Group(32))).unwrap().row(1), [of_rows.values()[1]; 16]);
    assert_eq!(packed.scales(None, Some(Granularity::Tensor)).unwrap_err(), TernaryError::Scales);
    let bytes =
        Packing::Q2_0.pack_codes(&codes(1024), shape, &scales(Granularity::Group(64), shape)).unwrap();
    let packed = PackedRows::new(Packing::Q2_0, &bytes, rows, cols).unwrap();
    let error = packed.scales(None, Some(Granularity::Group(128))).unwrap_err().to_string();
    assert!(error.contains("not those of granularity 128"), "{error}");
    let error = packed.scales(None, Some(Granularity::Group(48))).unwrap_err().to_string();
    assert!(error.contains("a group of 48"), "{error}");
    // Beside them a scale multiplies all, and has to leave f16 numbers.
    let half = packed.scales(Some(0.5), None).unwrap();
    assert_eq!(half.values()[3], scales(Granularity::Group(64), shape).values()[3] / 2.0);
    assert!(packed.scales(Some(0.1), None).unwrap_err().to_string().contains("f16"));
}

#[test]
fn a_scale_that_is_no_f16_number_is_refused_where_f16_holds_it() {
    let shape = [2, 512];
    let rows = Scales::new(Granularity::Row, shape, vec![0.5, 0.1]).unwrap();
    for packing in Packing::ALL.into_iter().filter(|packing| packing.holds(Granularity::Row)) {
        match packing.pack_codes(&codes(1024), shape, &rows) {
            Ok(bytes) => {
                assert_eq!(packing, Packing::Iq2Bn);
                let packed = PackedRows::new(packing, &bytes, 2, 512).unwrap();
                assert_eq!(packed.scales(None, None).unwrap(), rows);
            }
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("of row 1, 0.1, as f16") && error.contains("0.099975586"), "{error}");
                assert!(packing.is_f16() && error.contains("IQ2_BN"), "{error}");
            }
        }
    }
}

#[test]
fn parts_of_zeros_take_the_scale_of_their_neighbours() {
    let shape = [2, 256];
    let mut codes = vec![1i8; 512];
    codes[..128].fill(0);
    let scales = Scales::new(Granularity::Group(128), shape, vec![0.5, 0.5, 0.25, 0.75]).unwrap();
    for packing in [Packing::Q2_0G128, Packing::Pq2_0, Packing::Ptq1_0] {
        let mut bytes = packing.pack_codes(&codes, shape, &scales).unwrap();
        let read = |bytes: &[u8], granularity| {
            PackedRows::new(packing, bytes, 2, 256).unwrap().scales(None, granularity)
        };
        assert_eq!(read(&bytes, None).unwrap(), scales);
        // llama.cpp's quantizers give zeros the scale 0: alone they have the least there is.
        let at = packing.layout().scale_at;
        bytes[at..at + 2].fill(0);
        let least = half::f16::from_f32(crate::EPS).to_f32();
        assert_eq!(read(&bytes, None).unwrap().values(), [least, 0.5, 0.25, 0.75]);
        assert!(read(&bytes, Some(Granularity::Row)).is_err());
        // Where the others of the row have one scale, theirs is the same.
        let rows = packing.pack_codes(
            &codes,
            shape,
            &Scales::new(Granularity::Row, shape, vec![0.5, 0.25]).unwrap(),
        );
        let mut rows = rows.unwrap();
        rows[at..at + 2].fill(0);
        assert_eq!(read(&rows, None).unwrap().values(), [0.5, 0.25]);
        // A block that is not zeros has no scale 0.
        let second = packing.layout().bytes + at;
        rows[second..second + 2].fill(0);
        let error = read(&rows, None).unwrap_err().to_string();
        assert_eq!(error, "the scale of row 0, block 1 is 0: expected a positive number");
    }
}

#[test]
fn a_tensor_of_one_scale_is_written_as_ever() {
    let tensor = TernaryTensor::from_codes(codes(512), 1, 512, 0.0371).unwrap();
    for packing in Packing::ALL {
        let bytes = packing.pack(&tensor).unwrap();
        let packed = PackedRows::new(packing, &bytes, 1, 512).unwrap();
        let stored = if packing.is_f16() { 1.0 } else { 0.0371 };
        assert_eq!(packed.uniform_scale(), Some(stored), "{}", packing.name());
        let beside = packing.is_f16().then_some(0.0371);
        assert_eq!(packed.tensor_scale(beside).unwrap(), 0.0371);
    }
}

#[test]
fn rooms_of_scales() {
    assert_eq!(Packing::holding(Granularity::Tensor).len(), Packing::ALL.len());
    let wide = ["TQ1_0", "TQ2_0", "Q2_0", "Q2_0_G128", "PQ2_0", "PTQ1_0", "NIBBLES"];
    assert_eq!(Packing::holding(Granularity::Group(256)), wide);
    assert_eq!(Packing::holding(Granularity::Group(128)), wide[2..]);
    assert_eq!(Packing::holding(Granularity::Group(64)), ["Q2_0", "NIBBLES"]);
    assert_eq!(Packing::holding(Granularity::Group(32)), ["NIBBLES"]);
    assert!(Packing::Iq1Bn.holds(Granularity::Row) && !Packing::I2S.holds(Granularity::Row));
}
