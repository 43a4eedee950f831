//! Products with stored rows, of every type, number of tokens and backend, against products with the decoded
//! rows.

mod common;

use common::numbers;
use tritforge_kernels::{Backend, DenseMatrix, DenseType};

#[test]
fn products_have_the_bits_of_decoded_rows() {
    for (rows, cols) in [(1, 256), (7, 512), (37, 768), (131, 2560), (9, 96), (5, 88)] {
        let values = numbers(rows as u64, rows * cols);
        for ty in DenseType::ALL.into_iter().filter(|ty| cols % ty.block() == 0) {
            let bytes = ty.encode(&values);
            let matrix = DenseMatrix::from_bytes(ty, &bytes, rows, cols);
            let mut decoded = vec![0f32; rows * cols];
            let rearranged = matrix.for_decoding();
            for (i, row) in decoded.chunks_exact_mut(cols).enumerate() {
                matrix.row(i, row);
                if let Some(rearranged) = &rearranged {
                    let mut again = vec![f32::NAN; cols];
                    rearranged.row(i, &mut again);
                    assert_eq!(again, row, "row {i} of [{rows}, {cols}]");
                }
            }
            let decoded = DenseMatrix::from_f32(&decoded, rows, cols);
            for tokens in (1..=10).chain([13, 26]) {
                let x = numbers(3 + tokens as u64, tokens * cols);
                let mut expected = vec![0f32; tokens * rows];
                // One token at a time in plain code: the order that every other way has to follow.
                for (x, y) in x.chunks_exact(cols).zip(expected.chunks_exact_mut(rows)) {
                    decoded.matmul_with(Backend::Scalar, x, y);
                }
                for backend in Backend::supported() {
                    let mut found = vec![f32::NAN; tokens * rows];
                    matrix.matmul_with(backend, &x, &mut found);
                    let same = found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{backend}, {ty:?} [{rows}, {cols}], {tokens} tokens");
                    if let Some(rearranged) = &rearranged {
                        let mut found = vec![f32::NAN; tokens * rows];
                        rearranged.matmul_with(backend, &x, &mut found);
                        let same = found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{backend}, rearranged {ty:?} [{rows}, {cols}], {tokens} tokens");
                    }
                }
            }
        }
    }
}
