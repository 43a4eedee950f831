//! Products of ternary weights.

use tritforge_kernels::{
    Backend, TernaryLayout, TernaryWeights, quantize_rows, ternary_matmul_i32, ternary_matmul_with,
};
use tritforge_kernels_cuda::{Buffer, Codes, Gpu, Ternary};
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
        gpu.rows(&gpu.upload(&x).unwrap(), None, cols, None, (Some(&mut codes), None)).unwrap();
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
        check(&gpu, granularity, (130, 321), &[4, 12, 130]);
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
