//! Norms, gates, rotation, quantization, RoPE, additions.

use tritforge_kernels::{
    ActivationWidth, Direction, Gate, QuantizedRows, RopeTable, glu, glu_norm_quantize, hadamard_in_place,
    quantize_rows, quantize_rows_into, rms_norm, rms_norm_quantize, rope_in_place,
};
use tritforge_kernels_cuda::{Buffer, Codes, RopeTables, Rounding};
use tritforge_ternary::TopK;

use super::{assert_bits, gpu, numbers};

/// Rounded to int8 as they are.
const AS_THEY_ARE: Rounding = Rounding { rotated: false, width: ActivationWidth::Int8, top_k: None };

/// From one number to more than shared memory holds.
const WIDTHS: [usize; 9] = [1, 15, 63, 64, 65, 300, 1024, 2560, 30_000];

#[track_caller]
fn assert_codes(found: &Codes, expected: &QuantizedRows, what: &str) {
    let found = found.download().unwrap();
    assert_eq!((&found.codes, &found.sums), (&expected.codes, &expected.sums), "{what}");
    let form = |rows: &QuantizedRows| (rows.cols, rows.width, rows.top_k);
    assert_eq!(form(&found), form(expected), "{what}");
    assert_bits(&found.scales, &expected.scales, what);
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn norms_and_quantization() {
    let gpu = gpu();
    for width in WIDTHS {
        let rows = if width > 10_000 { 2 } else { 5 };
        let (mut x, weight) = (numbers(1, rows * width), numbers(2, width));
        x[width - 1] = f32::NAN;
        let (x_there, weight_there) = (gpu.upload(&x).unwrap(), gpu.upload(&weight).unwrap());
        let norm = (&weight_there, 1e-5);
        let (mut codes, mut plain) = (Codes::default(), Buffer::default());

        let (mut normed, mut quantized) = (vec![0f32; x.len()], QuantizedRows::default());
        rms_norm(&x, &weight, 1e-5, &mut normed);
        rms_norm_quantize(&x, &weight, 1e-5, &mut quantized);
        gpu.rows(&x_there, None, width, Some(norm), AS_THEY_ARE, (None, Some(&mut plain))).unwrap();
        assert_bits(&plain.download().unwrap(), &normed, &format!("norm of {width}"));
        gpu.rows(&x_there, None, width, Some(norm), AS_THEY_ARE, (Some(&mut codes), None)).unwrap();
        assert_codes(&codes, &quantized, &format!("norm and codes of {width}"));
        gpu.rows(&x_there, None, width, Some(norm), AS_THEY_ARE, (Some(&mut codes), Some(&mut plain)))
            .unwrap();
        assert_codes(&codes, &quantized, &format!("norm, numbers and codes of {width}"));
        assert_bits(&plain.download().unwrap(), &normed, &format!("numbers beside codes of {width}"));
        gpu.rows(&x_there, None, width, None, AS_THEY_ARE, (Some(&mut codes), None)).unwrap();
        assert_codes(&codes, &quantize_rows(&x, width), &format!("codes of {width}"));
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn rounding_of_halves_and_tiny_rows() {
    let gpu = gpu();
    let halves: Vec<f32> = (0..128).map(|i| i as f32 - 0.5).chain([127.0, -127.0]).collect();
    let mut codes = Codes::default();
    for x in
        [halves, vec![0.0; 130], vec![1e-7; 130], vec![f32::MIN_POSITIVE / 2.0; 130], vec![f32::MAX; 130]]
    {
        gpu.rows(&gpu.upload(&x).unwrap(), None, x.len(), None, AS_THEY_ARE, (Some(&mut codes), None))
            .unwrap();
        assert_codes(&codes, &quantize_rows(&x, x.len()), &format!("{}, …", x[0]));
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn gates() {
    let gpu = gpu();
    for width in WIDTHS {
        let rows = if width > 10_000 { 2 } else { 3 };
        let gate: Vec<f32> = numbers(3, rows * width).iter().map(|x| x * 9.0).collect();
        let (up, weight) = (numbers(4, rows * width), numbers(5, width));
        let there = [&gate, &up, &weight].map(|x| gpu.upload(x).unwrap());
        let [gate_there, up_there, weight_there] = &there;
        for act in Gate::ALL {
            let mut product = vec![0f32; gate.len()];
            glu(act, &gate, &up, &mut product);
            for norm in [false, true] {
                let mut expected = QuantizedRows::default();
                glu_norm_quantize(act, &gate, &up, width, norm.then_some((&weight, 1e-6)), &mut expected);
                let norm = norm.then_some((weight_there, 1e-6));
                let (mut codes, mut plain) = (Codes::default(), Buffer::default());
                let gated = Some((act, up_there));
                gpu.rows(gate_there, gated, width, norm, AS_THEY_ARE, (Some(&mut codes), None)).unwrap();
                assert_codes(&codes, &expected, &format!("{act:?} of {width}"));
                gpu.rows(gate_there, gated, width, norm, AS_THEY_ARE, (Some(&mut codes), Some(&mut plain)))
                    .unwrap();
                assert_codes(&codes, &expected, &format!("{act:?} of {width} beside numbers"));
                if norm.is_none() {
                    assert_bits(&plain.download().unwrap(), &product, &format!("{act:?} of {width}"));
                }
                let mut alone = Buffer::default();
                gpu.rows(gate_there, gated, width, norm, AS_THEY_ARE, (None, Some(&mut alone))).unwrap();
                assert_bits(&alone.download().unwrap(), &plain.download().unwrap(), "without codes");
            }
        }
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn gates_at_their_edges() {
    let gpu = gpu();
    let edges =
        [0.0, 1e-40, 1e-3, 0.5, 1.0, 3.0, 9.0, 14.0, 99.0, 101.0, 1e30, f32::MAX, f32::INFINITY, f32::NAN];
    let gate: Vec<f32> = edges.into_iter().flat_map(|x| [x, -x]).collect();
    let up = vec![1.5; gate.len()];
    let [gate_there, up_there] = [&gate, &up].map(|x| gpu.upload(x).unwrap());
    for act in Gate::ALL {
        let mut expected = vec![0f32; gate.len()];
        glu(act, &gate, &up, &mut expected);
        let (gated, mut found) = (Some((act, &up_there)), Buffer::default());
        gpu.rows(&gate_there, gated, gate.len(), None, AS_THEY_ARE, (None, Some(&mut found))).unwrap();
        assert_bits(&found.download().unwrap(), &expected, &format!("{act:?}"));
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn rotation_and_widths_of_codes() {
    let gpu = gpu();
    // Blocks of 1 to 256 numbers, rows of a part of a warp's to more than all warps', and one beyond shared memory.
    for width in [5, 2, 6, 12, 40, 96, 192, 256, 384, 768, 2560, 6912, 30_208] {
        let rows = 3;
        let (x, up, weight) = (numbers(1, rows * width), numbers(2, rows * width), numbers(3, width));
        let [x_there, up_there, weight_there] = [&x, &up, &weight].map(|x| gpu.upload(x).unwrap());
        for (rotated, integers, part) in [
            (true, ActivationWidth::Int8, 1.0),
            (true, ActivationWidth::Int4, 0.55),
            (false, ActivationWidth::Int4, 1.0),
        ] {
            let rounding = Rounding { rotated, width: integers, top_k: TopK::new(part) };
            let what = format!("{width}, {rounding:?}");
            let mut expected = x.clone();
            glu(Gate::Gelu, &x, &up, &mut expected);
            let product = expected.clone();
            rms_norm(&product, &weight, 1e-5, &mut expected);
            if rotated {
                hadamard_in_place(&mut expected, width);
            }
            let mut quantized =
                QuantizedRows { width: integers, top_k: rounding.top_k, ..QuantizedRows::default() };
            quantize_rows_into(&expected, width, &mut quantized);
            let (gated, norm) = (Some((Gate::Gelu, &up_there)), Some((&weight_there, 1e-5)));
            let (mut codes, mut plain, mut alone) = (Codes::default(), Buffer::default(), Buffer::default());
            gpu.rows(&x_there, gated, width, norm, rounding, (Some(&mut codes), None)).unwrap();
            assert_codes(&codes, &quantized, &what);
            gpu.rows(&x_there, gated, width, norm, rounding, (Some(&mut codes), Some(&mut plain))).unwrap();
            assert_codes(&codes, &quantized, &format!("{what}, beside numbers"));
            assert_bits(&plain.download().unwrap(), &expected, &what);
            gpu.rows(&x_there, gated, width, norm, rounding, (None, Some(&mut alone))).unwrap();
            assert_bits(&alone.download().unwrap(), &expected, &format!("{what}, without codes"));

            let mut expected = x.clone();
            if rotated {
                hadamard_in_place(&mut expected, width);
            }
            quantize_rows_into(&expected, width, &mut quantized);
            gpu.rows(&x_there, None, width, None, rounding, (Some(&mut codes), None)).unwrap();
            assert_codes(&codes, &quantized, &format!("{what}, nothing else"));
        }
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn the_largest_codes_are_kept_and_of_equals_the_first() {
    let gpu = gpu();
    for width in [1, 2, 31, 257, 1000] {
        // Few magnitudes, so that many are equal, zeros of both signs, a row of zeros and one that is not finite.
        let mut x: Vec<f32> = numbers(5, 4 * width).iter().map(|x| (x * 3.0).round() / 3.0).collect();
        x[2 * width..3 * width].fill(-0.0);
        x[4 * width - 1] = f32::INFINITY;
        let x_there = gpu.upload(&x).unwrap();
        for part in [1e-6, 0.1, 0.5, 0.9, 0.999_99] {
            let rounding = Rounding { top_k: TopK::new(part), ..AS_THEY_ARE };
            let mut expected = QuantizedRows { top_k: rounding.top_k, ..QuantizedRows::default() };
            quantize_rows_into(&x, width, &mut expected);
            let mut codes = Codes::default();
            gpu.rows(&x_there, None, width, None, rounding, (Some(&mut codes), None)).unwrap();
            assert_codes(&codes, &expected, &format!("{part} of {width}"));
        }
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn rope() {
    let gpu = gpu();
    for (heads, head_dim) in [(1, 2), (3, 20), (5, 128)] {
        let frequencies = RopeTable::frequencies(head_dim, 1e4);
        let table = RopeTable::with_frequencies(&frequencies, 1.0, 50);
        let [cos, sin] = table.cos_sin().map(|numbers| gpu.upload(numbers).unwrap());
        let tables = RopeTables { cos, sin, half: head_dim / 2 };
        let positions = [0, 7, 49, 7];
        let mut x = numbers(6, positions.len() * heads * head_dim);
        let mut there = gpu.upload(&x).unwrap();
        rope_in_place(&table, &mut x, heads, &positions, Direction::Forward);
        gpu.rope(&tables, &mut there, heads, &gpu.upload(&positions).unwrap()).unwrap();
        assert_bits(&there.download().unwrap(), &x, &format!("{heads} heads of {head_dim}"));
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn additions() {
    let gpu = gpu();
    for (rows, width) in [(1, 1), (3, 100), (7, 999)] {
        let (a, b, bias) = (numbers(8, rows * width), numbers(9, rows * width), numbers(10, width));
        let (there, mut sum) = (gpu.upload(&a).unwrap(), Buffer::default());
        gpu.add(&there, &gpu.upload(&b).unwrap(), &mut sum).unwrap();
        let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        assert_bits(&sum.download().unwrap(), &expected, "sum");
        gpu.add_bias(&mut sum, &gpu.upload(&bias).unwrap()).unwrap();
        let expected: Vec<f32> = expected.iter().enumerate().map(|(i, x)| x + bias[i % width]).collect();
        assert_bits(&sum.download().unwrap(), &expected, "sum and bias");
    }
}
