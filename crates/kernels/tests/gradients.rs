//! The backward kernels against central differences of naive forwards in f64.
//!
//! Each check takes the scalar loss `Σ dy · f(inputs)` for a random `dy`. In f64 a step of 1e-5 makes
//! differences exact to about 1e-9, so that only the f32 rounding of the kernels remains: a few hundred fused
//! multiply-adds of numbers below 1.

mod common;

use common::numbers;
use tritforge_kernels::{
    AttentionShape, Direction, Gate, RopeTable, WriteMode, attention, attention_backward, glu, glu_backward,
    rms_norm_backward, rope_in_place,
};

/// Checks every `every`-th gradient of input `which` of a loss in f64.
fn check(
    what: &str,
    inputs: &[&[f32]],
    which: usize,
    gradient: &[f32],
    every: usize,
    tolerance: f64,
    loss: impl Fn(&[Vec<f64>]) -> f64,
) {
    let mut inputs: Vec<Vec<f64>> =
        inputs.iter().map(|x| x.iter().map(|x| f64::from(*x)).collect()).collect();
    assert_eq!(gradient.len(), inputs[which].len());
    for i in (0..gradient.len()).step_by(every) {
        let x = inputs[which][i];
        let mut at = |x: f64| {
            inputs[which][i] = x;
            loss(&inputs)
        };
        let expected = (at(x + 1e-5) - at(x - 1e-5)) / 2e-5;
        at(x);
        let found = f64::from(gradient[i]);
        let bound = tolerance * expected.abs().max(1.0);
        assert!((found - expected).abs() <= bound, "{what}: input {which}[{i}]: {found} against {expected}");
    }
}

fn dot(a: &[f64], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum()
}

/// Causal attention of one sequence, as the definition says; q, k, v.
fn naive_attention(s: AttentionShape, inputs: &[Vec<f64>]) -> Vec<f64> {
    let (width, kv, hd) = (s.q_size(), s.kv_size(), s.head_dim);
    let [q, k, v] = inputs else { panic!("q, k, v") };
    let mut out = vec![0f64; q.len()];
    for t in 0..q.len() / width {
        for head in 0..s.heads {
            let at = head / (s.heads / s.kv_heads) * hd;
            let q = &q[t * width + head * hd..][..hd];
            let score = |j: usize| -> f64 {
                let k = &k[j * kv + at..][..hd];
                q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (hd as f64).sqrt()
            };
            let weights: Vec<f64> = (0..=t).map(|j| score(j).exp()).collect();
            let total: f64 = weights.iter().sum();
            for (j, weight) in weights.iter().enumerate() {
                for i in 0..hd {
                    out[t * width + head * hd + i] += weight / total * v[j * kv + at + i];
                }
            }
        }
    }
    out
}

#[test]
fn attention_gradients() {
    // Blocks of rows, tiles of four, and columns of every kind: 64, 32, 16 and single ones.
    for (heads, kv_heads, head_dim, n) in
        [(1, 1, 2, 1), (4, 2, 6, 9), (3, 1, 20, 23), (2, 2, 64, 37), (5, 1, 113, 13), (2, 1, 48, 40)]
    {
        let s = AttentionShape { heads, kv_heads, head_dim };
        let (q_len, kv_len) = (n * s.q_size(), n * s.kv_size());
        // Two sequences at once; each is checked by itself.
        let (q, k, v) = (numbers(1, 2 * q_len), numbers(2, 2 * kv_len), numbers(3, 2 * kv_len));
        let dout = numbers(4, 2 * q_len);
        let (mut out, mut lse) = (vec![0f32; q.len()], vec![0f32; 2 * heads * n]);
        attention(s, 2, &q, &k, &v, 0, &mut out, Some(&mut lse));
        let (mut dq, mut dk, mut dv) =
            (vec![f32::NAN; q.len()], vec![f32::NAN; k.len()], vec![f32::NAN; v.len()]);
        attention_backward(s, 2, &q, &k, &v, &out, &lse, &dout, &mut dq, &mut dk, &mut dv);
        for b in 0..2 {
            let (rows, kv) = (b * q_len..(b + 1) * q_len, b * kv_len..(b + 1) * kv_len);
            let inputs: [&[f32]; 3] = [&q[rows.clone()], &k[kv.clone()], &v[kv.clone()]];
            let loss = |inputs: &[Vec<f64>]| dot(&naive_attention(s, inputs), &dout[rows.clone()]);
            for (which, gradient) in
                [&dq[rows.clone()], &dk[kv.clone()], &dv[kv.clone()]].into_iter().enumerate()
            {
                let every = gradient.len() / 40 + 1;
                check(&format!("{s:?}, n {n}"), &inputs, which, gradient, every, 2e-6, loss);
            }
        }
    }
}

#[test]
fn log_sum_exps_are_those_of_the_scores() {
    let s = AttentionShape { heads: 2, kv_heads: 1, head_dim: 10 };
    let n = 19;
    let (q, k) = (numbers(1, n * 20), numbers(2, n * 10));
    let (mut out, mut lse) = (vec![0f32; n * 20], vec![0f32; 2 * n]);
    attention(s, 1, &q, &k, &k, 0, &mut out, Some(&mut lse));
    for head in 0..2 {
        for t in 0..n {
            let score = |j: usize| -> f64 {
                let q = &q[t * 20 + head * 10..][..10];
                let products = q.iter().zip(&k[j * 10..][..10]).map(|(q, k)| f64::from(*q) * f64::from(*k));
                products.sum::<f64>() / 10f64.sqrt()
            };
            let exact = (0..=t).map(|j| score(j).exp()).sum::<f64>().ln();
            assert!((f64::from(lse[head * n + t]) - exact).abs() < 1e-6, "head {head}, row {t}");
        }
    }
}

#[test]
fn rms_norm_gradients() {
    // More than one piece of rows; a width with a rest.
    for (rows, width) in [(1, 1), (3, 10), (70, 37), (2, 64)] {
        let (x, weight, dy) = (numbers(1, rows * width), numbers(2, width), numbers(3, rows * width));
        let (mut dx, mut dweight) = (vec![f32::NAN; x.len()], vec![f32::NAN; width]);
        rms_norm_backward(
            &x,
            &weight,
            1e-2,
            &dy,
            (&mut dx, WriteMode::Overwrite),
            Some((&mut dweight, WriteMode::Overwrite)),
        );
        let loss = |inputs: &[Vec<f64>]| -> f64 {
            let [x, weight] = inputs else { panic!("x and weight") };
            let rows = x.chunks_exact(width).zip(dy.chunks_exact(width));
            rows.map(|(x, dy)| {
                // The kernel's epsilon is an f32 number.
                let mean = x.iter().map(|x| x * x).sum::<f64>() / width as f64 + f64::from(1e-2f32);
                let y: Vec<f64> = x.iter().zip(weight).map(|(x, w)| x / mean.sqrt() * w).collect();
                dot(&y, dy)
            })
            .sum()
        };
        check("rms_norm", &[&x, &weight], 0, &dx, x.len() / 60 + 1, 4e-6, loss);
        check("rms_norm", &[&x, &weight], 1, &dweight, 1, 4e-6, loss);
    }
}

#[test]
fn gate_gradients() {
    let (gate, up, dy) = (numbers(1, 97), numbers(2, 97), numbers(3, 97));
    // SiLU far from 0, where its sigmoid is saturated.
    let gate: Vec<f32> = gate.iter().map(|g| g * 30.0).collect();
    for kind in Gate::ALL {
        let (mut dgate, mut dup) = (vec![f32::NAN; 97], vec![f32::NAN; 97]);
        glu_backward(kind, &gate, &up, &dy, &mut dgate, &mut dup);
        let loss = |inputs: &[Vec<f64>]| -> f64 {
            let act = |g: f64| match kind {
                Gate::Silu => g / (1.0 + (-g).exp()),
                Gate::Relu2 => g.max(0.0).powi(2),
                Gate::Relu => g.max(0.0),
                Gate::Gelu => g * normal(g),
                Gate::GeluTanh => {
                    0.5 * g
                        * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g.powi(3))).tanh())
                }
            };
            let y: Vec<f64> = inputs[0].iter().zip(&inputs[1]).map(|(g, u)| act(*g) * u).collect();
            dot(&y, &dy)
        };
        check(&format!("{kind:?}"), &[&gate, &up], 0, &dgate, 1, 1e-6, loss);
        check(&format!("{kind:?}"), &[&gate, &up], 1, &dup, 1, 1e-6, loss);
    }
}

/// The distribution of a Gaussian, by Simpson's rule over its density.
fn normal(x: f64) -> f64 {
    let n = 2000;
    let step = x.clamp(-40.0, 40.0) / f64::from(n);
    let density = |i: i32| (-(f64::from(i) * step).powi(2) / 2.0).exp();
    let inner: f64 = (1..n).map(|i| density(i) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    0.5 + (density(0) + inner + density(n)) * step / 3.0 / (2.0 * std::f64::consts::PI).sqrt()
}

#[test]
fn gelu_is_its_definition_and_relu_is_exact() {
    let gate: Vec<f32> = (-1200..=1200).map(|i| i as f32 / 100.0).collect();
    let (one, mut y) = (vec![1f32; gate.len()], vec![0f32; gate.len()]);
    let (mut dgate, mut dup) = (y.clone(), y.clone());
    glu(Gate::Gelu, &gate, &one, &mut y);
    glu_backward(Gate::Gelu, &gate, &one, &one, &mut dgate, &mut dup);
    for ((g, y), d) in gate.iter().zip(&y).zip(&dgate) {
        let (x, density) =
            (f64::from(*g), (-f64::from(*g).powi(2) / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt());
        assert!((f64::from(*y) - x * normal(x)).abs() < 4e-7 * x.abs().max(1.0), "{g}: {y}");
        assert!((f64::from(*d) - (normal(x) + x * density)).abs() < 1e-6, "{g}: {d}");
    }
    for gate_of in Gate::ALL {
        // Far from 0 all are 0 or nearly the identity, and their gradients are finite.
        glu_backward(gate_of, &[-1e4, 1e4], &[1.0; 2], &[1.0; 2], &mut dgate[..2], &mut dup[..2]);
        assert!(dgate[0] == 0.0 && dgate[1] >= 1.0 && dgate[1].is_finite() && dup[0] == 0.0, "{gate_of:?}");
    }
    glu(Gate::Relu, &[-2.0, -0.0, 0.0, 3.0, f32::NAN], &[1.5; 5], &mut y[..5]);
    assert!(y[..4] == [0.0, 0.0, 0.0, 4.5] && y[4].is_nan());
    glu_backward(Gate::Relu, &[-2.0, -0.0, 0.0, 3.0], &[1.5; 4], &[2.0; 4], &mut dgate[..4], &mut dup[..4]);
    assert_eq!((&dgate[..4], &dup[..4]), (&[0.0, 0.0, 0.0, 3.0][..], &[0.0, 0.0, 0.0, 6.0][..]));
}

#[test]
fn rope_backward_is_the_transpose() {
    // ⟨R x, y⟩ = ⟨x, Rᵀ y⟩ for all x and y says that Backward is the transpose of Forward.
    let table = RopeTable::new(12, 100.0, 64);
    let positions: Vec<u32> = (0..9).map(|t| t * 7).collect();
    let (x, y) = (numbers(1, 9 * 24), numbers(2, 9 * 24));
    let (mut rotated, mut back) = (x.clone(), y.clone());
    rope_in_place(&table, &mut rotated, 2, &positions, Direction::Forward);
    rope_in_place(&table, &mut back, 2, &positions, Direction::Backward);
    let product = |a: &[f32], b: &[f32]| dot(&a.iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), b);
    assert!((product(&rotated, &y) - product(&x, &back)).abs() < 1e-5);
}
