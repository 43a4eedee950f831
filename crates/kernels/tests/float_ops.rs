//! The float kernels against naive f64, against themselves in other cuts and thread counts, and in odd
//! shapes.
//!
//! That all instruction sets give the same bits is checked by running the same numbers in child processes
//! that `TRITFORGE_BACKEND` limits to one backend each.

mod common;
#[path = "common/program.rs"]
mod program;

use common::numbers;
use program::this_program;
use proptest::prelude::*;
use tritforge_kernels::{
    AttentionShape, Backend, DenseMatrix, DenseType, Direction, Gate, RopeTable, WriteMode, attention,
    attention_backward, f32_to_q8_0, glu, glu_backward, log_sum_exp, rms_norm, rms_norm_backward,
    rope_in_place, softmax_in_place,
};

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn assert_close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*f) - e).abs() <= tolerance, "{what}[{i}]: {f} against {e}");
    }
}

/// One sequence's attention in f64, as the definition says.
fn naive_attention(s: AttentionShape, q: &[f32], k: &[f32], v: &[f32], start: usize) -> Vec<f64> {
    let (width, kv, hd) = (s.heads * s.head_dim, s.kv_heads * s.head_dim, s.head_dim);
    let mut out = vec![0f64; q.len()];
    for t in 0..q.len() / width {
        for head in 0..s.heads {
            let at = head / (s.heads / s.kv_heads) * hd;
            let dot = |j: usize| -> f64 {
                (0..hd).map(|i| f64::from(q[t * width + head * hd + i]) * f64::from(k[j * kv + at + i])).sum()
            };
            let scores: Vec<f64> = (0..=start + t).map(|j| dot(j) / (hd as f64).sqrt()).collect();
            let total: f64 = scores.iter().map(|s| s.exp()).sum();
            for i in 0..hd {
                let sum: f64 =
                    scores.iter().enumerate().map(|(j, s)| s.exp() * f64::from(v[j * kv + at + i])).sum();
                out[t * width + head * hd + i] = sum / total;
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn attention_is_its_definition_in_any_cut(
        kv_heads in 1usize..3, group in 1usize..6, half in 1usize..65, n in 1usize..40, seed in 0u64..1000,
    ) {
        let s = AttentionShape { heads: kv_heads * group, kv_heads, head_dim: 2 * half };
        let (width, kv) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
        let (q, k, v) = (numbers(seed, n * width), numbers(seed + 1, n * kv), numbers(seed + 2, n * kv));
        let mut whole = vec![0f32; q.len()];
        attention(s, 1, &q, &k, &v, 0, &mut whole, None);
        assert_close(&whole, &naive_attention(s, &q, &k, &v, 0), 2e-6, "attention");
        // Row by row, as decoding does; and in two pieces, as chunked prefill does.
        let mut rows = vec![0f32; q.len()];
        for t in 0..n {
            let row = t * width..(t + 1) * width;
            attention(s, 1, &q[row.clone()], &k[..(t + 1) * kv], &v[..(t + 1) * kv], t, &mut rows[row], None);
        }
        prop_assert_eq!(bits(&whole), bits(&rows));
        let cut = n / 2;
        let mut tail = vec![0f32; (n - cut) * width];
        attention(s, 1, &q[cut * width..], &k, &v, cut, &mut tail, None);
        prop_assert_eq!(bits(&whole[cut * width..]), bits(&tail));
        // Two sequences at once.
        let twice = |x: &[f32]| [x, x].concat();
        let mut both = vec![0f32; 2 * q.len()];
        attention(s, 2, &twice(&q), &twice(&k), &twice(&v), 0, &mut both, None);
        prop_assert_eq!(bits(&both), twice(&whole).iter().map(|x| x.to_bits()).collect::<Vec<_>>());
    }

    #[test]
    fn rows_do_not_depend_on_other_rows(
        width in prop_oneof![1usize..300, (1usize..20).prop_map(|blocks| 16 * blocks)],
        n in 1usize..80,
        seed in 0u64..1000,
    ) {
        const ROWS: usize = 37;
        let (x, w) = (numbers(seed, n * width), numbers(seed + 1, width));
        let mut whole = vec![0f32; x.len()];
        rms_norm(&x, &w, 1e-5, &mut whole);
        let weights = numbers(seed + 2, ROWS * width);
        let matrix = DenseMatrix::from_f32(&weights, ROWS, width);
        let mut products = vec![0f32; n * ROWS];
        matrix.matmul(&x, &mut products);
        for t in 0..n {
            let row = &x[t * width..(t + 1) * width];
            let mut alone = vec![0f32; width];
            rms_norm(row, &w, 1e-5, &mut alone);
            prop_assert_eq!(bits(&alone), bits(&whole[t * width..(t + 1) * width]));
            let mean: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
            let inverse = 1.0 / (mean + 1e-5).sqrt();
            let exact: Vec<f64> = row.iter().zip(&w).map(|(x, w)| f64::from(*x) * inverse * f64::from(*w)).collect();
            assert_close(&alone, &exact, 1e-6 * inverse.max(1.0), "rms_norm");
            let mut product = vec![0f32; ROWS];
            matrix.matmul(row, &mut product);
            prop_assert_eq!(bits(&product), bits(&products[t * ROWS..(t + 1) * ROWS]));
            let mut weights = vec![0f32; width];
            matrix.row(t % ROWS, &mut weights);
            let exact: f64 = row.iter().zip(&weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            // Terms below 1: at most width/16 + 5 roundings a lane of sums below width.
            let bound = (width as f64 / 16.0 + 5.0) * width as f64 * f64::from(f32::EPSILON);
            prop_assert!((f64::from(product[t % ROWS]) - exact).abs() <= bound);
        }
    }

    #[test]
    fn softmax_is_its_definition(row in prop::collection::vec(-30f32..30.0, 1..200)) {
        let max = row.iter().fold(f64::MIN, |m, x| m.max(f64::from(*x)));
        let total: f64 = row.iter().map(|x| (f64::from(*x) - max).exp()).sum();
        let exact: Vec<f64> = row.iter().map(|x| (f64::from(*x) - max).exp() / total).collect();
        prop_assert!((f64::from(log_sum_exp(&row)) - max - total.ln()).abs() < 4e-6);
        let mut found = row;
        softmax_in_place(&mut found);
        assert_close(&found, &exact, 1e-6, "softmax");
    }
}

#[test]
fn rope_turns_by_the_angle_and_back() {
    let (heads, hd) = (3, 10);
    let table = RopeTable::new(hd, 10_000.0, 50);
    let positions = [0, 7, 49];
    let x = numbers(1, 3 * heads * hd);
    let mut y = x.clone();
    rope_in_place(&table, &mut y, heads, &positions, Direction::Forward);
    for (t, position) in positions.iter().enumerate() {
        for i in 0..hd / 2 {
            let angle = f64::from(*position) * 10_000f64.powf(-(2.0 * i as f64) / hd as f64);
            let at = (t * heads + 1) * hd + i;
            let (a, b) = (f64::from(x[at]), f64::from(x[at + hd / 2]));
            assert!((f64::from(y[at]) - (a * angle.cos() - b * angle.sin())).abs() < 1e-5);
            assert!((f64::from(y[at + hd / 2]) - (b * angle.cos() + a * angle.sin())).abs() < 1e-5);
        }
    }
    rope_in_place(&table, &mut y, heads, &positions, Direction::Backward);
    let exact: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
    assert_close(&y, &exact, 1e-6, "rope back");
}

#[test]
fn gates_are_their_formulas() {
    let (gate, up) = (numbers(1, 1003), numbers(2, 1003));
    let mut out = vec![0f32; gate.len()];
    glu(Gate::Silu, &gate, &up, &mut out);
    let f = |x: f32| f64::from(x);
    let silu: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| f(*g) / (1.0 + (-f(*g)).exp()) * f(*u)).collect();
    assert_close(&out, &silu, 3e-7, "silu");
    glu(Gate::Relu2, &gate, &up, &mut out);
    let relu2: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| f(*g).max(0.0).powi(2) * f(*u)).collect();
    assert_close(&out, &relu2, 3e-7, "relu2");
    let mut dgate = [1f32];
    let mut dup = [1f32];
    glu_backward(Gate::Relu2, &[0.0], &[5.0], &[1.0], &mut dgate, &mut dup);
    assert_eq!((dgate, dup), ([0.0], [0.0]));
}

#[test]
fn stored_matrices_give_the_same_bits_for_one_token_and_for_many() {
    let (rows, cols, tokens) = (71, 96, 9);
    let f16: Vec<u8> =
        numbers(1, rows * cols).iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    let q8_0 = f32_to_q8_0(&numbers(2, rows * cols));
    let x = numbers(3, tokens * cols);
    for (ty, bytes) in [(DenseType::F16, &f16), (DenseType::Q8_0, &q8_0)] {
        let matrix = DenseMatrix::from_bytes(ty, bytes, rows, cols);
        let mut decoded = vec![0f32; rows * cols];
        decoded.chunks_exact_mut(cols).enumerate().for_each(|(i, row)| matrix.row(i, row));
        let mut exact = vec![0f32; tokens * rows];
        DenseMatrix::from_f32(&decoded, rows, cols).matmul(&x, &mut exact);
        for together in [1, 2, 3, 4, 5, 9] {
            let mut y = vec![0f32; tokens * rows];
            for (x, y) in x.chunks(together * cols).zip(y.chunks_mut(together * rows)) {
                matrix.matmul(x, y);
            }
            assert_eq!(bits(&y), bits(&exact), "{ty:?}, {together} at once");
        }
    }
}

#[test]
fn dense_matrices_read_what_was_written() {
    let values = numbers(5, 3 * 64);
    let q8 = f32_to_q8_0(&values);
    let matrix = DenseMatrix::from_bytes(DenseType::Q8_0, &q8, 3, 64);
    let mut row = vec![0f32; 64];
    matrix.row(1, &mut row);
    let absmax = values[64..96].iter().fold(0f32, |m, x| m.max(x.abs()));
    for (stored, exact) in row[..32].iter().zip(&values[64..96]) {
        // Half a step, and the rounding of the scale to f16.
        assert!((stored - exact).abs() <= absmax / 254.0 + absmax / 2048.0);
    }
    let f16: Vec<u8> = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    DenseMatrix::from_bytes(DenseType::F16, &f16, 3, 64).row(2, &mut row);
    for (stored, exact) in row.iter().zip(&values[128..]) {
        assert_eq!(*stored, half::f16::from_f32(*exact).to_f32());
    }
}

#[test]
fn q8_0_blocks_are_those_of_ggml() {
    // By gguf 0.19's `quants.quantize(x, GGMLQuantizationType.Q8_0)`: ties, which go away from zero; zeros;
    // anything.
    let ties = (0..31).map(|i| if i % 2 == 0 { i as f32 + 0.5 } else { -(i as f32 + 0.5) });
    let odd = (0..32).map(|i| ((i * 37 + 11) % 101 - 50) as f32 / 17.0);
    let values: Vec<f32> = std::iter::once(127.0).chain(ties).chain([0.0; 32]).chain(odd).collect();
    let hex: String = f32_to_q8_0(&values).iter().map(|byte| format!("{byte:02x}")).collect();
    let ties = "003c7f01fe03fc05fa07f809f60bf40df20ff011ee13ec15ea17e819e61be41de21f";
    let odd = "ee259dfb59b61472d02e8be947a50361be1c7ad73593f14fac0a68c62481df3d9af8";
    assert_eq!(hex, format!("{ties}{}{odd}", "00".repeat(34)));
    // The FNV-1a hash of what it makes of 4096 blocks.
    let number = |i: u32| ((i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0) * 3.7;
    let bytes = f32_to_q8_0(&(0..32 * 4096).map(number).collect::<Vec<_>>());
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    assert_eq!(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv), 0x2516_caf9_f805_1a88);
}

#[test]
fn what_is_not_a_number_stays_visible() {
    for broken in [f32::NAN, f32::INFINITY] {
        let mut row = vec![0.5; 37];
        row[35] = broken;
        softmax_in_place(&mut row);
        assert!(row.iter().any(|x| x.is_nan()), "softmax of {broken}");
        // A row of attention that sees the broken value; the row before does not.
        let s = AttentionShape { heads: 4, kv_heads: 1, head_dim: 16 };
        let (q, k, mut v) = (numbers(1, 8 * 64), numbers(2, 8 * 16), numbers(3, 8 * 16));
        v[6 * 16] = broken;
        let mut out = vec![0f32; q.len()];
        attention(s, 1, &q, &k, &v, 0, &mut out, None);
        assert!(out[..6 * 64].iter().all(|x| x.is_finite()), "rows before {broken}");
        assert!(!out[6 * 64].is_finite() && !out[7 * 64].is_finite(), "rows that see {broken}");
    }
    assert_eq!(log_sum_exp(&[f32::NEG_INFINITY; 20]), f32::NEG_INFINITY);
    assert_eq!(log_sum_exp(&[0.0, f32::INFINITY]), f32::INFINITY);
    assert_eq!(log_sum_exp(&[]), f32::NEG_INFINITY);
    assert!(log_sum_exp(&[0.0, f32::NAN]).is_nan());
}

/// Everything that the kernels compute from fixed numbers, folded into one number.
fn fingerprint() -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut fold = |x: &[f32]| {
        for x in x {
            hash = (hash ^ u64::from(x.to_bits())).wrapping_mul(0x100_0000_01b3);
        }
    };
    let s = AttentionShape { heads: 4, kv_heads: 2, head_dim: 22 };
    let n = 70;
    let (q, k, v) = (numbers(1, 2 * n * 88), numbers(2, 2 * n * 44), numbers(3, 2 * n * 44));
    let (mut out, mut lse) = (vec![0f32; q.len()], vec![0f32; 2 * 4 * n]);
    attention(s, 2, &q, &k, &v, 0, &mut out, Some(&mut lse));
    let (mut dq, mut dk, mut dv) = (out.clone(), k.clone(), v.clone());
    attention_backward(s, 2, &q, &k, &v, &out, &lse, &numbers(4, q.len()), &mut dq, &mut dk, &mut dv);
    for x in [&out, &lse, &dq, &dk, &dv] {
        fold(x);
    }
    let w = numbers(5, 88);
    let (mut y, mut dx, mut dw) = (q.clone(), q.clone(), w.clone());
    rms_norm(&q, &w, 1e-5, &mut y);
    rms_norm_backward(
        &q,
        &w,
        1e-5,
        &y,
        (&mut dx, WriteMode::Overwrite),
        Some((&mut dw, WriteMode::Overwrite)),
    );
    for x in [&y, &dx, &dw] {
        fold(x);
    }
    let table = RopeTable::new(22, 500_000.0, n);
    let positions: Vec<u32> = (0..2 * n as u32).map(|i| i % n as u32).collect();
    rope_in_place(&table, &mut y, 4, &positions, Direction::Forward);
    fold(&y);
    for gate in Gate::ALL {
        let (mut a, mut b, mut c) = (y.clone(), y.clone(), y.clone());
        glu(gate, &q, &dx, &mut a);
        glu_backward(gate, &q, &dx, &a, &mut b, &mut c);
        for x in [&a, &b, &c] {
            fold(x);
        }
    }
    for (ty, bytes) in [
        (DenseType::F32, numbers(6, 37 * 96).iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()),
        (
            DenseType::F16,
            numbers(7, 37 * 96).iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
        ),
        (DenseType::Q8_0, f32_to_q8_0(&numbers(8, 37 * 96))),
    ] {
        let mut y = vec![0f32; 5 * 37];
        DenseMatrix::from_bytes(ty, &bytes, 37, 96).matmul(&numbers(9, 96), &mut y[..37]);
        fold(&y);
        DenseMatrix::from_bytes(ty, &bytes, 37, 96).matmul(&numbers(9, 5 * 96), &mut y);
        fold(&y);
        fold(&[log_sum_exp(&y)]);
        softmax_in_place(&mut y);
        fold(&y);
    }
    // Enough work for several threads.
    let (n, width) = (1001, 88);
    let (x, dy) = (numbers(20, n * width), numbers(21, n * width));
    let (mut y, mut dx, mut dw) = (x.clone(), x.clone(), w.clone());
    rms_norm(&x, &w, 1e-5, &mut y);
    rms_norm_backward(
        &x,
        &w,
        1e-5,
        &dy,
        (&mut dx, WriteMode::Overwrite),
        Some((&mut dw, WriteMode::Overwrite)),
    );
    let positions: Vec<u32> = (0..n as u32).map(|i| i % 70).collect();
    rope_in_place(&table, &mut dx, 4, &positions, Direction::Backward);
    for x in [&y, &dx, &dw] {
        fold(x);
    }
    for gate in Gate::ALL {
        glu(gate, &x, &dy, &mut y);
        fold(&y);
        glu_backward(gate, &x, &x, &dy, &mut y, &mut dx);
        fold(&y);
        fold(&dx);
    }
    let mut y = vec![0f32; 1001 * 37];
    DenseMatrix::from_f32(&numbers(22, 37 * 88), 37, 88).matmul(&x, &mut y);
    fold(&y);
    let mut y = vec![0f32; 500 * 37];
    DenseMatrix::from_f32(&numbers(23, 37 * 176), 37, 176).matmul(&x[..500 * 176], &mut y);
    fold(&y);
    // Decoding: one row after a long context, shared among threads.
    let s = AttentionShape { heads: 6, kv_heads: 2, head_dim: 64 };
    let (q, k) = (numbers(24, 384), numbers(25, 1000 * 128));
    let mut out = vec![0f32; 384];
    attention(s, 1, &q, &k, &k, 999, &mut out, None);
    fold(&out);
    hash
}

#[test]
fn every_backend_gives_the_same_bits() {
    // A child process runs this very test with one backend and prints its fingerprint.
    if std::env::var_os("TRITFORGE_FINGERPRINT").is_some() {
        println!("fingerprint {:016x}", fingerprint());
        return;
    }
    let here = fingerprint();
    for backend in Backend::supported() {
        let output = this_program()
            .args(["every_backend_gives_the_same_bits", "--exact", "--nocapture"])
            .env("TRITFORGE_FINGERPRINT", "1")
            .env("TRITFORGE_BACKEND", backend.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(&format!("fingerprint {here:016x}")), "{backend}: {text}");
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let with =
        |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(fingerprint);
    let one = with(1);
    for threads in [2, 3, 5] {
        assert_eq!(with(threads), one, "{threads} threads");
    }
}
