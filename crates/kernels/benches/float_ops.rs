//! Speed of the float kernels: attention forward and backward in GFLOP/s (causal products counted, not the
//! skipped half), norms and gates in ns an element, the output head in GB/s of weights read; on one thread
//! and on all.
//!
//! `cargo bench -p tritforge-kernels --bench float_ops`; `TRITFORGE_BACKEND=avx2` restricts it to one
//! instruction set. The argument `cached` runs only attention over a KV cache and the Q6_K head. A figure is
//! the fastest of at least [`REPEATS`] runs.

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;
use tritforge_kernels::{
    AttentionShape, Backend, DenseMatrix, DenseType, Direction, Gate, KvCache, KvType, RopeTable, WriteMode,
    attention, attention_backward, attention_cached, f32_to_f16, f32_to_q6_k, f32_to_q8_0, glu, glu_backward,
    rms_norm, rms_norm_backward, rope_in_place, set_threads, softmax_in_place,
};

/// Runs of which a figure is the fastest, at least.
const REPEATS: usize = 7;

/// Seconds a figure is measured for, at least.
const SECONDS: f64 = 0.2;

fn main() {
    tritforge_machine::keep_pages();
    println!("backend: {}", Backend::active());
    let only_cached = std::env::args().any(|arg| arg == "cached");
    let mut counts = vec![1, rayon::current_num_threads()];
    counts.dedup();
    for threads in counts {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
        set_threads(threads);
        pool.install(|| {
            println!("threads: {threads}");
            if only_cached {
                cached_attention();
                return output_heads();
            }
            training_attention();
            decoding_attention();
            cached_attention();
            element_wise();
            output_heads();
        });
    }
}

/// Seconds of the fastest call.
fn seconds(mut call: impl FnMut()) -> f64 {
    call();
    let start = Instant::now();
    let (mut best, mut runs) = (f64::INFINITY, 0);
    while runs < REPEATS || start.elapsed().as_secs_f64() < SECONDS {
        let start = Instant::now();
        call();
        best = best.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}

fn training_attention() {
    for (batch, n, heads, kv_heads, head_dim) in [(8, 256, 4, 2, 64), (8, 256, 4, 2, 32), (2, 512, 8, 2, 128)]
    {
        let shape = AttentionShape { heads, kv_heads, head_dim };
        let (q_len, kv_len) = (batch * n * shape.q_size(), batch * n * shape.kv_size());
        let (q, k, v, dout) = (floats(q_len), floats(kv_len), floats(kv_len), floats(q_len));
        let (mut out, mut lse) = (vec![0.0; q_len], vec![0.0; batch * heads * n]);
        let forward = seconds(|| attention(shape, batch, &q, &k, &v, 0, &mut out, Some(&mut lse)));
        let (mut dq, mut dk, mut dv) = (vec![0.0; q_len], vec![0.0; kv_len], vec![0.0; kv_len]);
        let backward = seconds(|| {
            attention_backward(shape, batch, &q, &k, &v, &out, &lse, &dout, &mut dq, &mut dk, &mut dv);
        });
        // Two products forward and five backward, 2 operations each, over n(n+1)/2 pairs of positions.
        let product = (batch * heads * n * (n + 1) * head_dim) as f64;
        println!(
            "  attention [{batch}, {n}], {heads} heads, {kv_heads} kv, {head_dim} wide: \
             forward {:.2} ms, {:.1} GFLOP/s; backward {:.2} ms, {:.1} GFLOP/s",
            forward * 1e3,
            2.0 * product / forward * 1e-9,
            backward * 1e3,
            5.0 * product / backward * 1e-9
        );
    }
}

fn decoding_attention() {
    for (context, heads, kv_heads, head_dim) in [(1024, 20, 5, 128), (256, 4, 2, 64)] {
        let shape = AttentionShape { heads, kv_heads, head_dim };
        let (q, k) = (floats(shape.q_size()), floats(context * shape.kv_size()));
        let (v, mut out) = (k.clone(), vec![0.0; shape.q_size()]);
        let time = seconds(|| attention(shape, 1, black_box(&q), &k, &v, context - 1, &mut out, None));
        println!(
            "  attention, one token after {context}, {heads} heads, {kv_heads} kv, {head_dim} wide: {:.1} us, {:.1} GFLOP/s",
            time * 1e6,
            (4 * context * shape.q_size()) as f64 / time * 1e-9
        );
    }
}

/// The shape of BitNet b1.58 2B4T: decode over the caches of several layers, which no processor cache holds
/// together, in GB/s of keys and values read; and prefill of one layer.
fn cached_attention() {
    const CACHED_BYTES: usize = 160 << 20;
    let memory = vec![1u64; CACHED_BYTES / 8];
    let time = seconds(|| {
        black_box(memory.par_chunks(1 << 16).map(|part| part.iter().fold(0u64, |a, x| a ^ x)).max());
    });
    println!("  memory read: {:.1} GB/s", CACHED_BYTES as f64 / time * 1e-9);
    drop(memory);
    let shape = AttentionShape { heads: 20, kv_heads: 5, head_dim: 128 };
    for context in [256, 1500, 4096] {
        for ty in KvType::ALL {
            let bytes = KvCache::bytes_for(ty, shape.kv_heads, shape.head_dim, context);
            let rows = floats(context * shape.kv_size());
            let cache = || {
                let mut cache = KvCache::new(ty, shape.kv_heads, shape.head_dim, context);
                cache.append(&rows, &rows);
                cache
            };
            let caches: Vec<KvCache> = (0..CACHED_BYTES.div_ceil(bytes)).map(|_| cache()).collect();
            let (q, mut out) = (floats(shape.q_size()), vec![0.0; shape.q_size()]);
            let time = seconds(|| {
                caches.iter().for_each(|cache| attention_cached(shape, black_box(&q), cache, &mut out));
            });
            println!(
                "  cached attention, one token after {context}, {ty}: {:.1} us, {:.1} GB/s",
                time / caches.len() as f64 * 1e6,
                (caches.len() * bytes) as f64 / time * 1e-9
            );
        }
    }
    for (context, tokens) in [(512, 512), (2048, 512)] {
        let (q, k) = (floats(tokens * shape.q_size()), floats(context * shape.kv_size()));
        let mut out = vec![0.0; q.len()];
        let start = context - tokens;
        let products = (tokens * (2 * start + tokens + 1) / 2 * shape.q_size() * 4) as f64;
        let report = |what: &str, time: f64| {
            println!(
                "  {what}, {tokens} tokens up to {context}: {:.2} ms, {:.1} GFLOP/s",
                time * 1e3,
                products / time * 1e-9
            );
        };
        report("attention", seconds(|| attention(shape, 1, &q, &k, &k, start, &mut out, None)));
        for ty in KvType::ALL {
            let mut cache = KvCache::new(ty, shape.kv_heads, shape.head_dim, context);
            let time = seconds(|| {
                cache.truncate(0);
                cache.append(&k, &k);
            });
            println!("  append of {context}, {ty}: {:.1} ns a position", time / context as f64 * 1e9);
            let time = seconds(|| attention_cached(shape, &q, &cache, &mut out));
            report(&format!("cached attention, {ty}"), time);
        }
    }
}

fn element_wise() {
    let report = |what: &str, elements: usize, time: f64| {
        println!("  {what}: {:.3} ns an element", time / elements as f64 * 1e9);
    };
    let (rows, width) = (2048, 256);
    let (x, w, dy) = (floats(rows * width), floats(width), floats(rows * width));
    let (mut y, mut dw) = (vec![0.0; x.len()], vec![0.0; width]);
    report("rms_norm [2048, 256]", x.len(), seconds(|| rms_norm(&x, &w, 1e-5, &mut y)));
    let time = seconds(|| {
        rms_norm_backward(
            &x,
            &w,
            1e-5,
            &dy,
            (&mut y, WriteMode::Overwrite),
            Some((&mut dw, WriteMode::Overwrite)),
        );
    });
    report("rms_norm backward [2048, 256]", x.len(), time);
    let table = RopeTable::new(64, 10_000.0, 256);
    let positions: Vec<u32> = (0..rows as u32).map(|t| t % 256).collect();
    let time = seconds(|| rope_in_place(&table, &mut y, 4, &positions, Direction::Forward));
    report("rope [2048, 4 heads of 64]", x.len(), time);
    let (gate, up, dy) = (floats(2048 * 768), floats(2048 * 768), floats(2048 * 768));
    let (mut out, mut second) = (gate.clone(), gate.clone());
    for kind in Gate::ALL {
        let time = seconds(|| glu(kind, &gate, &up, &mut out));
        report(&format!("gated {kind:?} [2048, 768]"), gate.len(), time);
        let time = seconds(|| glu_backward(kind, &gate, &up, &dy, &mut out, &mut second));
        report(&format!("gated backward {kind:?} [2048, 768]"), gate.len(), time);
    }
    let mut row = floats(32_000);
    report("softmax of 32000", row.len(), seconds(|| softmax_in_place(&mut row)));
}

fn output_heads() {
    println!("  output head          m      K      N   GFLOP/s  GB/s of weights read");
    for (m, cols, rows) in [(1, 256, 4096), (1, 2560, 32_000), (256, 256, 4096)] {
        let (x, values) = (floats(m * cols), floats(rows * cols));
        let mut y = vec![0.0; m * rows];
        let f32_bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let types = [
            (DenseType::F32, f32_bytes),
            (DenseType::F16, f32_to_f16(&values)),
            (DenseType::Q8_0, f32_to_q8_0(&values)),
            (DenseType::Q6K, f32_to_q6_k(&values)),
        ];
        for (ty, bytes) in types {
            let matrix = DenseMatrix::from_bytes(ty, &bytes, rows, cols);
            let time = seconds(|| matrix.matmul(black_box(&x), &mut y));
            println!(
                "    {:<12} {m:>8} {cols:>6} {rows:>6} {:>9.1} {:>6.1}",
                format!("{ty:?}"),
                (2 * m * rows * cols) as f64 / time * 1e-9,
                bytes.len() as f64 / time * 1e-9
            );
        }
    }
}

fn floats(n: usize) -> Vec<f32> {
    let numbers = (0..n as u32).map(|i| (i ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b1) >> 8);
    numbers.map(|r| (r % 2001) as f32 * 1e-3 - 1.0).collect()
}
