//! The largest numbers of rows.

use tritforge_kernels_cuda::{Largest, MOST_LARGEST};

use super::{assert_bits, gpu, numbers};

/// By a sort of all: numbers descending, of equals the first one first.
fn sorted(row: &[f32]) -> Vec<(u32, f32)> {
    let mut all: Vec<(u32, f32)> = (0..).zip(row.iter().copied()).collect();
    all.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap());
    all
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn largest_numbers_of_rows() {
    let gpu = gpu();
    let mut scratch = Largest::default();
    for (rows, width) in [(1, 1), (3, 7), (2, 257), (5, 2048), (2, 2049), (1, 20_001), (1, 140_000)] {
        let mut x = numbers(width as u64, rows * width);
        // Equal numbers, zeros of both signs among them.
        x.iter_mut().filter(|x| x.abs() < 0.4).for_each(|x| *x = 0.0 * x.signum());
        let there = gpu.upload(&x).unwrap();
        for most in [1, 2, 3, 40, 64, 200, MOST_LARGEST].into_iter().filter(|most| *most <= width) {
            let found = gpu.largest(&there, width, most, &mut scratch).unwrap();
            let expected: Vec<(u32, f32)> =
                x.chunks_exact(width).flat_map(|row| sorted(row).into_iter().take(most)).collect();
            let what = format!("{most} of [{rows}, {width}]");
            let split = |pairs: &[(u32, f32)]| pairs.iter().copied().unzip::<_, _, Vec<u32>, Vec<f32>>();
            let ((found_ids, found), (ids, expected)) = (split(&found), split(&expected));
            assert_eq!(found_ids, ids, "{what}");
            assert_bits(&found, &expected, &what);
        }
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn equal_numbers_and_what_is_no_number() {
    let gpu = gpu();
    let mut scratch = Largest::default();
    let ids = |pairs: &[(u32, f32)]| pairs.iter().map(|(id, _)| *id).collect::<Vec<_>>();
    let mut x = vec![-3.5f32; 5000];
    let equal = gpu.largest(&gpu.upload(&x).unwrap(), 5000, 100, &mut scratch).unwrap();
    assert_eq!(ids(&equal), (0..100).collect::<Vec<_>>());
    x[4000] = f32::MAX;
    x[17] = f32::NEG_INFINITY;
    x[3000] = f32::NAN;
    x[4999] = f32::INFINITY;
    for most in [1, 2, 4] {
        let found = gpu.largest(&gpu.upload(&x).unwrap(), 5000, most, &mut scratch).unwrap();
        assert_eq!(ids(&found), [17, 3000, 4999, 4000][..most], "{most}");
        assert_eq!(found[0].1, f32::NEG_INFINITY);
    }
}
