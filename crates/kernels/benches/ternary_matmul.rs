//! Speed of the integer kernels: prefill and training shapes in GMAC/s, decoding and conversions in GB/s, for
//! every backend that the machine supports, on one thread and on all.
//!
//! `cargo bench -p tritforge-kernels` prints the tables; `-- avx2` restricts them to one backend. A figure is
//! the median of at least [`REPEATS`] runs.

use std::hint::black_box;
use std::time::Instant;

use tritforge_kernels::{
    Backend, QuantizedRows, TernaryWeights, quantize_rows_into_with, set_threads, ternary_matmul_with,
};

/// Runs a figure is the median of, at least.
const REPEATS: usize = 7;

/// Seconds a figure is measured for, at least.
const SECONDS: f64 = 0.2;

/// Bytes of weights that a decoding figure cycles through: more than caches hold.
const DECODE_BYTES: usize = 192 << 20;

fn main() {
    tritforge_machine::keep_pages();
    // Cargo passes `--bench`; anything else names a backend.
    let name = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let backends = match name.map(|name| name.parse::<Backend>()) {
        None => Backend::supported(),
        Some(Ok(backend)) if backend.is_supported() => vec![backend],
        Some(Ok(backend)) => return eprintln!("this processor does not support the {backend} backend"),
        Some(Err(error)) => return eprintln!("{error}"),
    };
    let all = rayon::current_num_threads();
    let mut counts = vec![1, all];
    counts.dedup();
    for threads in counts {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
        pool.install(|| {
            set_threads(threads);
            println!("threads: {threads}");
            println!("  weights f32 -> 2 bits, [2048, 2048]: {:.1} GB/s of f32 read", build_speed());
            for &backend in &backends {
                tables(backend);
            }
        });
    }
}

fn tables(backend: Backend) {
    println!("  {backend}");
    let (quantize_large, quantize_small) = (quantize_speed(backend, 2048), quantize_speed(backend, 16));
    println!(
        "    activations f32 -> i8, 2048 columns: {quantize_large:.1} GB/s (2048 rows), {quantize_small:.1} GB/s (16 rows)"
    );
    println!("    product            m      K      N   GMAC/s");
    let shapes = [(256, 256), (256, 1024), (1024, 256), (512, 512), (1024, 1024), (2048, 2048), (4096, 2048)];
    let shapes = shapes.map(|(k, n)| (2048, k, n)).into_iter();
    for (m, k, n) in shapes.chain([(16, 2048, 2048), (64, 2048, 2048), (256, 2560, 6912), (256, 6912, 2560)])
    {
        let speed = prefill_speed(backend, m, k, n);
        println!("    prefill     {m:>8} {k:>6} {n:>6} {speed:>8.1}");
    }
    println!("    product            m      K      N   GMAC/s  GB/s of weights read");
    for (m, k, n) in
        [(1, 2560, 6912), (1, 6912, 2560), (1, 1024, 1024), (2, 2560, 6912), (4, 2560, 6912), (8, 2560, 6912)]
    {
        let (products, bytes) = decode_speed(backend, m, k, n);
        println!("    decode      {m:>8} {k:>6} {n:>6} {products:>8.1} {bytes:>8.1}");
    }
}

/// Median seconds of one call.
fn seconds(mut call: impl FnMut()) -> f64 {
    call();
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < REPEATS || start.elapsed().as_secs_f64() < SECONDS {
        let start = Instant::now();
        call();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn prefill_speed(backend: Backend, m: usize, k: usize, n: usize) -> f64 {
    let (x, w) = (activations(m, k), TernaryWeights::new(&ternary(n * k), n, k, 0.02));
    let mut y = vec![0.0; m * n];
    let time = seconds(|| ternary_matmul_with(backend, &x, black_box(&w), &mut y));
    (m * n * k) as f64 / time * 1e-9
}

/// GMAC/s, and GB/s of packed weights; every call reads another matrix.
fn decode_speed(backend: Backend, m: usize, k: usize, n: usize) -> (f64, f64) {
    let x = activations(m, k);
    let first = TernaryWeights::new(&ternary(n * k), n, k, 0.02);
    let bytes = first.packed_bytes();
    let matrices = vec![first; DECODE_BYTES.div_ceil(bytes)];
    let mut y = vec![0.0; m * n];
    let mut calls = matrices.iter().cycle();
    // A block of calls a sample: single small products are near the resolution of the clock.
    let block = (4usize << 20).div_ceil(bytes);
    let time = seconds(|| {
        for w in calls.by_ref().take(block) {
            ternary_matmul_with(backend, &x, black_box(w), &mut y);
        }
    }) / block as f64;
    ((m * n * k) as f64 / time * 1e-9, bytes as f64 / time * 1e-9)
}

fn quantize_speed(backend: Backend, rows: usize) -> f64 {
    let x = floats(rows * 2048);
    let mut out = QuantizedRows::default();
    let time = seconds(|| quantize_rows_into_with(backend, black_box(&x), 2048, &mut out));
    (x.len() * 4) as f64 / time * 1e-9
}

fn build_speed() -> f64 {
    let latent = floats(2048 * 2048);
    let time = seconds(|| {
        black_box(TernaryWeights::quantize(black_box(&latent), 2048, 2048, 0.5));
    });
    (latent.len() * 4) as f64 / time * 1e-9
}

fn pseudo_random(n: usize) -> impl Iterator<Item = u32> {
    (0..n as u32).map(|i| (i ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b1) >> 8)
}

fn activations(m: usize, cols: usize) -> QuantizedRows {
    let codes = pseudo_random(m * cols).map(|r| r as u8 as i8).collect();
    QuantizedRows::from_codes(codes, vec![0.01; m], cols)
}

fn ternary(n: usize) -> Vec<i8> {
    pseudo_random(n).map(|r| (r % 3) as i8 - 1).collect()
}

fn floats(n: usize) -> Vec<f32> {
    pseudo_random(n).map(|r| (r % 2001) as f32 * 1e-3 - 1.0).collect()
}
