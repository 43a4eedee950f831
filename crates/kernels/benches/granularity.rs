//! What scales of rows and groups cost: the same products with one scale a tensor, one a row, and one for 128 and 64
//! inputs, side by side, in turns. The tensor has the layout that decodes fastest here, as the engine gives it.
//!
//! `cargo bench -p tritforge-kernels --bench granularity` prints GMAC/s and ratios to the tensor; `-- avx2` names a
//! backend. A ratio is the median of those of the rounds.

use std::hint::black_box;
use std::time::Instant;

use tritforge_kernels::{Backend, QuantizedRows, TernaryLayout, TernaryWeights, ternary_matmul_with};
use tritforge_ternary::{Granularity, Scales};

/// Turns that every granularity takes.
const ROUNDS: usize = 15;

/// Bytes of weights that a product cycles through where few tokens read them: more than caches hold.
const BYTES: usize = 96 << 20;

const GRANULARITIES: [Granularity; 4] =
    [Granularity::Tensor, Granularity::Row, Granularity::Group(128), Granularity::Group(64)];

fn main() {
    tritforge_machine::keep_pages();
    let name = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let backend = match name.map(|name| name.parse::<Backend>()) {
        None => Backend::active(),
        Some(Ok(backend)) if backend.is_supported() => backend,
        Some(Ok(backend)) => return eprintln!("this processor does not support the {backend} backend"),
        Some(Err(error)) => return eprintln!("{error}"),
    };
    println!("{backend}, {} threads", rayon::current_num_threads());
    println!("    m      K      N   scales      GMAC/s   of tensor");
    for (m, k, n) in [
        (1, 2560, 6912),
        (1, 6912, 2560),
        (8, 2560, 6912),
        (64, 2560, 6912),
        (512, 2560, 6912),
        (512, 6912, 2560),
    ] {
        table(backend, m, k, n);
    }
}

fn table(backend: Backend, m: usize, k: usize, n: usize) {
    let codes = pseudo_random(n * k).map(|r| (r % 3) as i8 - 1).collect::<Vec<i8>>();
    let x = pseudo_random(m * k).map(|r| r as u8 as i8).collect();
    let x = QuantizedRows::from_codes(x, vec![0.01; m], k);
    let mut y = vec![0f32; m * n];
    let weights = GRANULARITIES.map(|granularity| {
        let scales = vec![0.03125; granularity.count(n, k)];
        let scales = Scales::new(granularity, [n, k], scales).expect("scales of this shape");
        TernaryWeights::with_layout(&codes, n, k, scales, TernaryLayout::for_decoding())
    });
    let calls = if m <= 8 { BYTES.div_ceil(weights[0].packed_bytes()) } else { 1 };
    let copies = weights.map(|weights| vec![weights; calls]);
    let mut times = [const { Vec::new() }; GRANULARITIES.len()];
    for round in 0..=ROUNDS {
        for (matrices, times) in copies.iter().zip(&mut times) {
            let start = Instant::now();
            for w in matrices {
                ternary_matmul_with(backend, &x, black_box(w), &mut y);
            }
            // The first round fills buffers.
            if round > 0 {
                times.push(start.elapsed().as_secs_f64() / calls as f64);
            }
        }
    }
    for (granularity, found) in GRANULARITIES.iter().zip(&times) {
        let speed = (m * k * n) as f64 / median(found.clone()) * 1e-9;
        let ratio = median(times[0].iter().zip(found).map(|(tensor, own)| tensor / own).collect());
        println!("{m:>5} {k:>6} {n:>6}   {:<8} {speed:>9.1} {ratio:>11.3}", granularity.to_string());
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn pseudo_random(n: usize) -> impl Iterator<Item = u32> {
    (0..n as u32).map(|i| (i ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b1) >> 8)
}
