//! Attention over a KV cache gives the bits of training's attention on the numbers that the cache holds: any
//! shape, cut of the tokens, number of threads and backend (`float_ops` compares the backends; the children
//! below run these tests on each).

mod common;
#[path = "common/program.rs"]
mod program;

use common::numbers;
use half::f16;
use program::this_program;
use proptest::prelude::*;
use tritforge_kernels::{
    AttentionShape, Backend, CachedRows, KvCache, KvType, attention, attention_cached,
    attention_cached_batch, max_threads, set_threads,
};

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// What a cache of this type keeps of rows of heads of so many columns.
fn kept(ty: KvType, head_dim: usize, x: &[f32]) -> Vec<f32> {
    match ty {
        KvType::F32 => x.to_vec(),
        KvType::F16 => x.iter().map(|x| f16::from_f32(*x).to_f32()).collect(),
        KvType::Q8_0 => x.chunks(head_dim).flat_map(|head| head.chunks(32).flat_map(q8_0)).collect(),
    }
}

/// A block of Q8_0 and back.
fn q8_0(x: &[f32]) -> Vec<f32> {
    let scale = x.iter().map(|x| x.abs()).fold(0.0, f32::max) / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    x.iter()
        .map(|x| f32::from((x * inverse).round_ties_even() as i8) * f16::from_f32(scale).to_f32())
        .collect()
}

/// The tokens `from..` in pieces of `piece` by attention over a cache, and by training's attention.
fn both_ways(
    s: AttentionShape,
    ty: KvType,
    n: usize,
    from: usize,
    piece: usize,
    seed: u64,
) -> (Vec<f32>, Vec<f32>) {
    let (width, kv) = (s.q_size(), s.kv_size());
    let (q, k, v) = (numbers(seed, (n - from) * width), numbers(seed + 1, n * kv), numbers(seed + 2, n * kv));
    let mut cache = KvCache::new(ty, s.kv_heads, s.head_dim, 0);
    cache.append(&k[..from * kv], &v[..from * kv]);
    let mut found = vec![0f32; q.len()];
    for ((q, out), (k, v)) in q
        .chunks(piece * width)
        .zip(found.chunks_mut(piece * width))
        .zip(k[from * kv..].chunks(piece * kv).zip(v[from * kv..].chunks(piece * kv)))
    {
        cache.append(k, v);
        attention_cached(s, q, &cache, out);
    }
    let mut expected = vec![0f32; q.len()];
    attention(s, 1, &q, &kept(ty, s.head_dim, &k), &kept(ty, s.head_dim, &v), from, &mut expected, None);
    (found, expected)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_shape_in_any_cut(
        kv_heads in 1usize..4,
        group in 1usize..10,
        head_dim in prop_oneof![1usize..140, Just(64), Just(128)],
        n in 1usize..60,
        from in 0usize..60,
        piece in 1usize..60,
        ty in prop::sample::select(&KvType::ALL[..]),
        seed in 0u64..1000,
    ) {
        let s = AttentionShape { heads: kv_heads * group, kv_heads, head_dim };
        let (found, expected) = both_ways(s, ty, n, from % n, piece, seed);
        prop_assert_eq!(bits(&found), bits(&expected));
    }
}

#[test]
fn long_contexts_on_any_number_of_threads() {
    let s = AttentionShape { heads: 8, kv_heads: 2, head_dim: 64 };
    for threads in 1..=max_threads() {
        set_threads(threads);
        for ty in KvType::ALL {
            for (n, from, piece) in
                [(1100, 1090, 1), (512, 511, 1), (513, 511, 1), (800, 760, 13), (700, 0, 700)]
            {
                let (found, expected) = both_ways(s, ty, n, from, piece, 3);
                assert_eq!(bits(&found), bits(&expected), "{threads} threads, {ty}, {from}..{n} by {piece}");
            }
        }
    }
}

#[test]
fn sequences_together_are_sequences_alone() {
    let s = AttentionShape { heads: 6, kv_heads: 2, head_dim: 48 };
    let lens = [(1, 300), (7, 7), (1, 1), (40, 290), (2, 600)];
    let cached = |(i, (_, n)): (usize, &(usize, usize))| {
        let mut cache = KvCache::new(KvType::F16, s.kv_heads, s.head_dim, *n);
        let seed = 10 * i as u64;
        cache.append(&numbers(seed, n * s.kv_size()), &numbers(seed + 1, n * s.kv_size()));
        cache
    };
    let caches: Vec<KvCache> = lens.iter().enumerate().map(cached).collect();
    let q = lens.map(|(tokens, n)| numbers(n as u64, tokens * s.q_size()));
    let mut together = q.clone();
    let rows = q.iter().zip(&caches).zip(&mut together);
    let mut rows: Vec<_> = rows.map(|((q, cache), out)| CachedRows { q, cache, out }).collect();
    attention_cached_batch(s, &mut rows);
    for ((q, cache), together) in q.iter().zip(&caches).zip(&together) {
        let mut alone = vec![0f32; q.len()];
        attention_cached(s, q, cache, &mut alone);
        assert_eq!(bits(&alone), bits(together));
    }
}

#[test]
fn rows_are_rounded_kept_and_forgotten() {
    let (heads, hd, n) = (3, 20, 600);
    let (k, v) = (numbers(1, n * heads * hd), numbers(2, n * heads * hd));
    for ty in KvType::ALL {
        let mut cache = KvCache::new(ty, heads, hd, 0);
        assert!(cache.is_empty() && cache.bytes() == 0 && cache.kv_type() == ty);
        cache.append(&k, &v);
        cache.truncate(400);
        assert_eq!(cache.len(), 400);
        cache.append(&k[..200 * heads * hd], &v[..200 * heads * hd]);
        assert_eq!(cache.len(), n);
        // Three blocks of 256 positions; values are padded to 32 columns, and 20 columns have one scale.
        let scales = if ty == KvType::Q8_0 { 2 * 2 } else { 0 };
        assert_eq!(cache.bytes(), 3 * 256 * heads * ((20 + 32) * ty.size() + scales));
        assert_eq!(cache.bytes(), KvCache::bytes_for(ty, heads, hd, n));
        for position in 0..n {
            let row = if position < 400 { position } else { position - 400 } * heads * hd;
            let (mut key, mut value) = (vec![0f32; heads * hd], vec![0f32; heads * hd]);
            cache.read(position, &mut key, &mut value);
            assert_eq!(bits(&key), bits(&kept(ty, hd, &k[row..row + heads * hd])));
            assert_eq!(bits(&value), bits(&kept(ty, hd, &v[row..row + heads * hd])));
        }
    }
}

#[test]
fn codes_are_near_and_what_is_not_finite_takes_its_block_along() {
    let (heads, hd) = (2, 80);
    let mut k = numbers(5, heads * hd);
    k[33] = f32::NAN;
    k[64..80].fill(0.0);
    k[80] = 1e7;
    k[112] = 1e-38;
    let v: Vec<f32> = numbers(6, heads * hd).iter().map(|x| x * 1e-3).collect();
    let mut cache = KvCache::new(KvType::Q8_0, heads, hd, 1);
    cache.append(&k, &v);
    let (mut key, mut value) = (vec![0f32; heads * hd], vec![0f32; heads * hd]);
    cache.read(0, &mut key, &mut value);
    assert!(key[32..64].iter().all(|x| x.is_nan()) && key[64..80].iter().all(|x| *x == 0.0));
    // 1e7 / 127 is more than f16 holds.
    assert!(key[80..112].iter().all(|x| !x.is_finite()));
    let blocks = value.chunks(hd).zip(v.chunks(hd)).flat_map(|(a, b)| a.chunks(32).zip(b.chunks(32)));
    for (found, x) in blocks.chain([(&key[..32], &k[..32])]) {
        let scale = x.iter().map(|x| x.abs()).fold(0.0, f32::max) / 127.0;
        // Half a step, and 127 times what an f16 loses of the scale: 11 bits, down to 2^-24.
        let bound = 0.5 * scale + 127.0 * (scale / 2048.0).max(2f32.powi(-25));
        for (found, x) in found.iter().zip(x) {
            assert!((found - x).abs() <= bound * 1.001, "{found} for {x}, {bound}");
        }
    }
}

#[test]
fn what_overflows_f16_stays_visible_where_it_is_seen() {
    let s = AttentionShape { heads: 4, kv_heads: 1, head_dim: 16 };
    let (q, k, mut v) = (numbers(1, 8 * 64), numbers(2, 8 * 16), numbers(3, 8 * 16));
    v[6 * 16] = 1e5;
    let mut cache = KvCache::new(KvType::F16, 1, 16, 8);
    cache.append(&k, &v);
    let mut out = vec![0f32; q.len()];
    attention_cached(s, &q, &cache, &mut out);
    assert!(out[..6 * 64].iter().all(|x| x.is_finite()));
    assert!(!out[6 * 64].is_finite() && !out[7 * 64].is_finite());
}

#[test]
fn types_parse_back() {
    for ty in KvType::ALL {
        assert_eq!(ty.to_string().parse(), Ok(ty));
    }
    let error = "q3".parse::<KvType>().unwrap_err();
    assert_eq!(error.to_string(), "unknown type of keys and values \"q3\": expected f32, f16 or q8_0");
}

#[test]
fn every_backend_passes() {
    if std::env::var_os("TRITFORGE_BACKEND").is_some() {
        return;
    }
    for backend in Backend::supported() {
        let tests = ["any_shape_in_any_cut", "sequences_together_are_sequences_alone"];
        let output = this_program().args(tests).env("TRITFORGE_BACKEND", backend.to_string()).output();
        let output = output.expect("the test starts");
        assert!(output.status.success(), "{backend}: {}", String::from_utf8_lossy(&output.stdout));
    }
}
