//! Embedding and output head.

use tritforge_kernels::{Backend, DenseMatrix, DenseType};
use tritforge_kernels_cuda::{Buffer, Dense};

use super::{assert_bits, gpu, numbers};

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn products_and_rows_of_every_type() {
    let gpu = gpu();
    for (rows, cols) in [(1, 1), (5, 88), (70, 33), (65, 256), (9, 768), (130, 96)] {
        let values = numbers(rows as u64, rows * cols);
        for ty in DenseType::ALL.into_iter().filter(|ty| cols % ty.block() == 0) {
            let bytes = ty.encode(&values);
            let matrix = DenseMatrix::from_bytes(ty, &bytes, rows, cols);
            let there = Dense::new(&gpu, ty, &bytes, rows, cols).unwrap();
            assert_eq!(there.bytes(), bytes.len());
            for tokens in [1, 2, 5, 8] {
                let x = numbers(3, tokens * cols);
                let mut expected = vec![0f32; tokens * rows];
                matrix.matmul_with(Backend::Scalar, &x, &mut expected);
                let mut y = Buffer::default();
                gpu.dense_matmul(&gpu.upload(&x).unwrap(), &there, &mut y).unwrap();
                let what = format!("{ty:?} [{rows}, {cols}], {tokens} tokens");
                assert_bits(&y.download().unwrap(), &expected, &what);
            }
            let ids: Vec<u32> = [0, rows / 2, rows - 1, rows / 3].map(|id| id as u32).into();
            let mut expected = vec![0f32; ids.len() * cols];
            for (id, row) in ids.iter().zip(expected.chunks_exact_mut(cols)) {
                matrix.row(*id as usize, row);
            }
            let mut found = Buffer::default();
            gpu.embed(&there, &gpu.upload(&ids).unwrap(), &mut found).unwrap();
            assert_bits(&found.download().unwrap(), &expected, &format!("rows of {ty:?} [{rows}, {cols}]"));
        }
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn low_rank_adapters() {
    let gpu = gpu();
    let (cols, rank, rows, tokens) = (100, 3, 37, 6);
    let [a, b] = [numbers(1, rank * cols), numbers(2, rows * rank)];
    let (x, mut y) = (numbers(3, tokens * cols), numbers(4, tokens * rows));
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let there = Dense::new(&gpu, DenseType::F32, &bytes(&a), rank, cols).unwrap();
    let b_there = Dense::new(&gpu, DenseType::F32, &bytes(&b), rows, rank).unwrap();
    let (x_there, mut y_there) = (gpu.upload(&x).unwrap(), gpu.upload(&y).unwrap());
    let mut scratch = [Buffer::default(), Buffer::default()];
    for (range, factor) in [(2..5, 0.3), (0..1, -2.0)] {
        let mut inner = vec![0f32; range.len() * rank];
        let of_rows = &x[range.start * cols..range.end * cols];
        DenseMatrix::from_f32(&a, rank, cols).matmul_with(Backend::Scalar, of_rows, &mut inner);
        inner.iter_mut().for_each(|h| *h *= factor);
        let mut product = vec![0f32; range.len() * rows];
        DenseMatrix::from_f32(&b, rows, rank).matmul_with(Backend::Scalar, &inner, &mut product);
        y[range.start * rows..].iter_mut().zip(&product).for_each(|(y, p)| *y += p);
        gpu.add_low_rank((&x_there, &mut y_there), range, [&there, &b_there], factor, &mut scratch).unwrap();
    }
    assert_bits(&y_there.download().unwrap(), &y, "adapters");
}
