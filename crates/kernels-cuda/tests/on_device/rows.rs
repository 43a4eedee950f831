//! Norms, gates, quantization, RoPE, additions.

use tritforge_kernels::{
    Direction, Gate, QuantizedRows, RopeTable, glu, glu_norm_quantize, quantize_rows, rms_norm,
    rms_norm_quantize, rope_in_place,
};
use tritforge_kernels_cuda::{Buffer, Codes, RopeTables};

use super::{assert_bits, gpu, numbers};

/// From one number to more than shared memory holds.
const WIDTHS: [usize; 9] = [1, 15, 63, 64, 65, 300, 1024, 2560, 30_000];

#[track_caller]
fn assert_codes(found: &Codes, expected: &QuantizedRows, what: &str) {
    let found = found.download().unwrap();
    assert_eq!((found.codes, found.sums), (expected.codes.clone(), expected.sums.clone()), "{what}");
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
        gpu.rows(&x_there, None, width, Some(norm), (None, Some(&mut plain))).unwrap();
        assert_bits(&plain.download().unwrap(), &normed, &format!("norm of {width}"));
        gpu.rows(&x_there, None, width, Some(norm), (Some(&mut codes), None)).unwrap();
        assert_codes(&codes, &quantized, &format!("norm and codes of {width}"));
        gpu.rows(&x_there, None, width, Some(norm), (Some(&mut codes), Some(&mut plain))).unwrap();
        assert_codes(&codes, &quantized, &format!("norm, numbers and codes of {width}"));
        assert_bits(&plain.download().unwrap(), &normed, &format!("numbers beside codes of {width}"));
        gpu.rows(&x_there, None, width, None, (Some(&mut codes), None)).unwrap();
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
        gpu.rows(&gpu.upload(&x).unwrap(), None, x.len(), None, (Some(&mut codes), None)).unwrap();
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
        for act in [Gate::Silu, Gate::Relu2] {
            let mut product = vec![0f32; gate.len()];
            glu(act, &gate, &up, &mut product);
            for norm in [false, true] {
                let mut expected = QuantizedRows::default();
                glu_norm_quantize(act, &gate, &up, width, norm.then_some((&weight, 1e-6)), &mut expected);
                let norm = norm.then_some((weight_there, 1e-6));
                let (mut codes, mut plain) = (Codes::default(), Buffer::default());
                let gated = Some((act, up_there));
                gpu.rows(gate_there, gated, width, norm, (Some(&mut codes), None)).unwrap();
                assert_codes(&codes, &expected, &format!("{act:?} of {width}"));
                gpu.rows(gate_there, gated, width, norm, (Some(&mut codes), Some(&mut plain))).unwrap();
                assert_codes(&codes, &expected, &format!("{act:?} of {width} beside numbers"));
                if norm.is_none() {
                    assert_bits(&plain.download().unwrap(), &product, &format!("{act:?} of {width}"));
                }
                let mut alone = Buffer::default();
                gpu.rows(gate_there, gated, width, norm, (None, Some(&mut alone))).unwrap();
                assert_bits(&alone.download().unwrap(), &plain.download().unwrap(), "without codes");
            }
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
