//! Packed ternary weights, of the layout and shape that the first bytes say: refused, or all codes are ternary.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tritforge_ternary::{PackedRows, Packing, unpack_stripes};

fuzz_target!(|bytes: &[u8]| {
    let Some(([kind, rows, blocks], bytes)) = bytes.split_first_chunk::<3>() else { return };
    let (rows, cols) = (usize::from(*rows), usize::from(*blocks) * 32);
    let packing = Packing::ALL[usize::from(*kind) % Packing::ALL.len()];
    if let Ok(unpacked) = packing.unpack(bytes, rows, cols) {
        assert!(unpacked.codes.iter().all(|code| (-1..=1).contains(code)));
    }
    if let Ok(packed) = PackedRows::new(packing, bytes, rows, cols) {
        let _ = packed.uniform_scale();
    }
    let _ = unpack_stripes(bytes, rows, cols);
});
