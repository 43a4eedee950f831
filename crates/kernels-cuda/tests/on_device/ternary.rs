//! Products of ternary weights.

use tritforge_kernels::{
    Backend, TernaryLayout, TernaryWeights, quantize_rows, ternary_matmul_i32, ternary_matmul_with,
};
use tritforge_kernels_cuda::{Buffer, Codes, Gpu, Rounding, Ternary};
use tritforge_ternary::{Granularity, Scales};

use super::{assert_bits, gpu, numbers};

fn weights(rows: usize, cols: usize, granularity: Granularity) -> TernaryWeights {
    let codes: Vec<i8> =
        (0..rows * cols).map(|i| ((i.wrapping_mul(2_654_435_761) >> 9) % 3) as i8 - 1).collect();
    // Exact in f16, as scales of groups are.
    let scale = |i: usize| (i * 37 % 1013 + 1) as f32 / 1024.0;
    let scales = (0..granularity.count(rows, cols)).map(scale).collect();
    let scales = Scales::new(granularity, [rows, cols], scales).unwrap();
    TernaryWeights::with_layout(&codes, rows, cols, scales, TernaryLayout::FiveTrits)
}

fn check(gpu: &Gpu, granularity: Granularity, (rows, cols): (usize, usize), tokens: &[usize]) {
    let weights = weights(rows, cols, granularity);
    let on_device = Ternary::new(gpu, &weights).unwrap();
    for tokens in tokens {
        let mut x = numbers(7, tokens * cols);
        // A row that is not finite gives NaN.
        if *tokens > 4 {
            x[3 * cols] = f32::INFINITY;
        }
        let mut expected = vec![0f32; tokens * rows];
        ternary_matmul_with(Backend::Scalar, &quantize_rows(&x, cols), &weights, &mut expected);
        let (mut codes, mut y) = (Codes::default(), Buffer::default());
        let there = gpu.upload(&x).unwrap();
        gpu.rows(&there, None, cols, None, Rounding::default(), (Some(&mut codes), None)).unwrap();
        gpu.ternary_matmul(&codes, &on_device, &mut y).unwrap();
        let what = format!("[{tokens}, {rows}, {cols}], {granularity}");
        assert_bits(&y.download().unwrap(), &expected, &what);
        let mut sums = vec![0; tokens * rows];
        ternary_matmul_i32(&quantize_rows(&x, cols), &weights, &mut sums);
        assert_eq!(gpu.ternary_sums(&codes, &on_device).unwrap(), sums, "{what}");
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn scales_of_tensors_and_rows() {
    let gpu = gpu();
    for granularity in [Granularity::Tensor, Granularity::Row] {
        check(&gpu, granularity, (1, 1), &[1, 9]);
        check(&gpu, granularity, (33, 100), &[1, 2, 3, 5, 8, 9]);
        check(&gpu, granularity, (64, 2600), &[1, 7]);
        check(&gpu, granularity, (130, 321), &[4, 12, 16, 17, 33, 64, 65, 130]);
        check(&gpu, granularity, (40, 2600), &[31]);
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn scales_of_groups() {
    let gpu = gpu();
    for group in Granularity::GROUPS {
        check(&gpu, Granularity::Group(group), (33, 3 * group), &[1, 2, 3, 8, 9]);
        check(&gpu, Granularity::Group(group), (40, 2304 + group), &[1, 5, 17]);
        check(&gpu, Granularity::Group(group), (130, 5 * group), &[70]);
    }
}

/// Matrices of several heights, scaled in several ways: in as few launches as their groups allow.
#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn several_matrices_of_one_input() {
    let gpu = gpu();
    let cols = 384;
    let all = [
        (70, Granularity::Tensor),
        (1, Granularity::Row),
        (33, Granularity::Row),
        (130, Granularity::Tensor),
        (40, Granularity::Group(128)),
        (32, Granularity::Group(128)),
        (65, Granularity::Group(64)),
    ];
    let weights = all.map(|(rows, granularity)| weights(rows, cols, granularity));
    let there = weights.each_ref().map(|weights| Ternary::new(&gpu, weights).unwrap());
    for tokens in [1, 3, 8, 9, 40, 70] {
        let x = numbers(7, tokens * cols);
        let (mut codes, mut results) = (Codes::default(), all.map(|_| Buffer::default()));
        let x_there = gpu.upload(&x).unwrap();
        gpu.rows(&x_there, None, cols, None, Rounding::default(), (Some(&mut codes), None)).unwrap();
        let mut products: Vec<_> = there.iter().zip(&mut results).collect();
        gpu.ternary_matmul_many(&codes, &mut products).unwrap();
        for ((weights, (rows, granularity)), result) in weights.iter().zip(all).zip(&results) {
            let mut expected = vec![0f32; tokens * rows];
            ternary_matmul_with(Backend::Scalar, &quantize_rows(&x, cols), weights, &mut expected);
            assert_bits(
                &result.download().unwrap(),
                &expected,
                &format!("[{tokens}, {rows}], {granularity}"),
            );
        }
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn rows_of_embeddings() {
    let gpu = gpu();
    for (granularity, rows, cols) in [
        (Granularity::Tensor, 1, 1),
        (Granularity::Row, 70, 300),
        (Granularity::Tensor, 33, 64),
        (Granularity::Group(32), 40, 96),
        (Granularity::Group(64), 65, 320),
        (Granularity::Group(256), 31, 512),
    ] {
        let weights = weights(rows, cols, granularity);
        let there = Ternary::new(&gpu, &weights).unwrap();
        let ids = [0, rows / 2, rows - 1, rows / 3].map(|id| id as u32);
        let mut expected = vec![0f32; ids.len() * cols];
        for (id, row) in ids.iter().zip(expected.chunks_exact_mut(cols)) {
            weights.row(*id as usize, row);
        }
        let mut found = Buffer::default();
        gpu.embed_ternary(&there, &gpu.upload(&ids).unwrap(), &mut found).unwrap();
        assert_bits(&found.download().unwrap(), &expected, &format!("[{rows}, {cols}], {granularity}"));
    }
}
