//! Output heads: products of few tokens with rows of a type, in the order of the file and rearranged for decoding, in
//! turns; microseconds a product, and GB/s of the file's bytes.
//!
//! `cargo bench -p tritforge-kernels --bench heads`; `-- avx2` names a backend, a number one count of tokens. Weights
//! are pseudo-random bytes with a scale of one f16, more of them than caches hold. A figure is the median of the turns.

use std::hint::black_box;
use std::time::Instant;

use tritforge_kernels::{Backend, DenseMatrix, DenseType};

/// Turns that every matrix takes.
const ROUNDS: usize = 9;
/// The columns of the 2B4T head, and half its rows.
const SHAPE: [usize; 2] = [64_000, 2560];
/// Counts of tokens.
const TOKENS: [usize; 9] = [1, 2, 4, 8, 9, 12, 16, 24, 32];

fn main() {
    tritforge_machine::keep_pages();
    let (mut backend, mut counts) = (Backend::active(), TOKENS.to_vec());
    for argument in std::env::args().skip(1).filter(|argument| !argument.starts_with('-')) {
        match (argument.parse(), argument.parse::<Backend>()) {
            (Ok(tokens), _) => counts = vec![tokens],
            (_, Ok(named)) if named.is_supported() => backend = named,
            (_, Ok(named)) => return eprintln!("this processor does not support the {named} backend"),
            (_, Err(error)) => return eprintln!("{error}"),
        }
    }
    let [rows, cols] = SHAPE;
    println!("{backend}, {} threads, head of [{rows}, {cols}]", rayon::current_num_threads());
    let files = [DenseType::F16, DenseType::Q8_0, DenseType::Q6K].map(|ty| (ty, stored(ty, rows, cols)));
    let mut matrices = Vec::new();
    for (ty, bytes) in &files {
        let matrix = DenseMatrix::from_bytes(*ty, bytes, rows, cols);
        let rearranged = matrix.for_decoding();
        matrices.push((ty.name().to_string(), matrix));
        matrices.extend(rearranged.map(|matrix| (format!("{} rearranged", ty.name()), matrix)));
    }
    println!("tokens   matrix                  µs      GB/s   µs a token");
    for tokens in counts {
        let x: Vec<f32> = (0..tokens * cols).map(|i| (i * 37 % 401) as f32 * 0.005 - 1.0).collect();
        let mut y = vec![0f32; tokens * rows];
        let mut times = vec![Vec::new(); matrices.len()];
        for round in 0..=ROUNDS {
            for ((_, matrix), times) in matrices.iter().zip(&mut times) {
                let start = Instant::now();
                matrix.matmul_with(backend, black_box(&x), &mut y);
                // The first round fills buffers.
                if round > 0 {
                    times.push(start.elapsed().as_secs_f64() * 1e6);
                }
            }
        }
        for ((name, matrix), mut times) in matrices.iter().zip(times) {
            times.sort_by(f64::total_cmp);
            let time = times[ROUNDS / 2];
            let bytes = (rows * matrix.dense_type().row_bytes(cols)) as f64;
            println!(
                "{tokens:>6}   {name:<16} {time:>10.0} {:>9.1} {:>12.0}",
                bytes / time * 1e-3,
                time / tokens as f64
            );
        }
    }
}

/// Rows of blocks whose f16 numbers are all finite.
fn stored(ty: DenseType, rows: usize, cols: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..(rows * ty.row_bytes(cols)) as u32).map(|i| (i.wrapping_mul(0x9e37_79b1) >> 13) as u8).collect();
    // 2⁻¹⁰ as f16.
    let scale = 0x1400u16.to_le_bytes();
    let block = ty.row_bytes(ty.block());
    for block in bytes.chunks_exact_mut(block) {
        match ty {
            DenseType::Q8_0 => block[..2].copy_from_slice(&scale),
            DenseType::Q6K => block[208..].copy_from_slice(&scale),
            // The sign and the codes of a number below 2.
            _ => block[1] &= 0xbf,
        }
    }
    bytes
}
