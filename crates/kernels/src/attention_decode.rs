//! Causal attention over a [`KvCache`]: the engine's, for prefill and decode.
//!
//! The work is cut into units: some rows of a sequence and the query heads that share a key head. Where there
//! are enough of them each is one task. Where there are few (one token of one sequence), threads share a unit
//! in three steps: scores by blocks of positions, exponentials, weighted sums by columns. Every number is
//! computed in the order of [`crate::attention`], so both give its bits ([`crate::decode_tiles`]).

use std::cell::Cell;

use crate::attention::AttentionShape;
use crate::decode_tiles::{Step, Unit, run};
use crate::kv_cache::{BLOCK, COLUMNS};
use crate::{Backend, KvCache, pool};

/// Queries of a unit, about: they share what is read of the keys and values, and their scores stay near.
const QUERIES: usize = 32;

/// Units a thread from which each is a task of its own.
const UNITS: usize = 4;

/// Fused multiply-adds from which threads share the work.
const PARALLEL_PRODUCTS: usize = 1 << 17;

/// New rows of one sequence, whose keys and values are the last ones of its cache.
#[derive(Debug)]
pub struct CachedRows<'a> {
    /// Queries, [tokens, heads · head_dim].
    pub q: &'a [f32],
    /// The keys and values of all positions up to the last row's.
    pub cache: &'a KvCache,
    /// As long as `q`.
    pub out: &'a mut [f32],
}

/// Causal attention of new queries q [tokens, heads · head_dim] at the last positions of the cache (their
/// keys and values are already appended); `out` likewise. The bits are those of [`crate::attention`] on the
/// numbers that the cache holds, for any cut of the tokens, any backend and any number of threads.
///
/// # Panics
/// If the shape is not the cache's, there are more tokens than positions, or `out` is not as long as `q`.
pub fn attention_cached(shape: AttentionShape, q: &[f32], cache: &KvCache, out: &mut [f32]) {
    attention_cached_batch(shape, &mut [CachedRows { q, cache, out }]);
}

/// [`attention_cached`] of several sequences at once.
///
/// # Panics
/// As [`attention_cached`].
pub fn attention_cached_batch(shape: AttentionShape, sequences: &mut [CachedRows<'_>]) {
    let backend = Backend::active();
    let rows_of_unit = (QUERIES / shape.group()).max(1);
    let part = shape.group() * shape.head_dim;
    let (mut tasks, mut products) = (Vec::new(), 0);
    for CachedRows { q, cache, out } in sequences {
        let rows = shape.rows_of(1, q);
        let (layout, len) = (cache.layout(), cache.len());
        assert!(
            (layout.kv_heads, layout.head_dim) == (shape.kv_heads, shape.head_dim),
            "the cache has {} heads of {}",
            layout.kv_heads,
            layout.head_dim
        );
        assert!(rows <= len, "{rows} tokens, {len} positions");
        assert_eq!(out.len(), q.len(), "out is as long as q");
        products += q.len() * len;
        for (i, out) in out.chunks_mut(rows_of_unit * shape.q_size()).enumerate() {
            let (first, rows) = (i * rows_of_unit, out.len() / shape.q_size());
            let base = tasks.len();
            tasks.extend((0..shape.kv_heads).map(|kv_head| {
                let unit = Unit {
                    layout,
                    blocks: cache.blocks(),
                    kv_head,
                    group: shape.group(),
                    start: len - q.len() / shape.q_size() + first,
                    queries: rows * shape.group(),
                    scale: shape.scale(),
                    q: &q[first * shape.q_size()..][..rows * shape.q_size()],
                    tiles: Vec::new(),
                };
                Task { unit, out: Vec::with_capacity(rows) }
            }));
            for row in out.chunks_exact_mut(shape.q_size()) {
                for (task, part) in tasks[base..].iter_mut().zip(row.chunks_exact_mut(part)) {
                    task.out.push(part);
                }
            }
        }
    }
    if products < PARALLEL_PRODUCTS {
        tasks.iter_mut().for_each(|task| task.whole(backend));
    } else if tasks.len() >= UNITS * pool::threads() {
        pool::for_each(tasks.iter_mut(), |task| task.whole(backend));
    } else {
        shared(backend, &mut tasks);
    }
}

/// A unit and where its results go.
struct Task<'a> {
    unit: Unit<'a>,
    /// A row's part of the output, `[group · head_dim]`.
    out: Vec<&'a mut [f32]>,
}

impl Task<'_> {
    /// All steps, on this thread.
    fn whole(&mut self, backend: Backend) {
        self.unit.set_layout(backend);
        let unit = &self.unit;
        let lens = [unit.scores_len(), unit.queries, unit.sums_len()];
        with_scratch(lens, |[scores, factors, sums]| {
            for (block, scores) in scores.chunks_exact_mut(unit.queries * BLOCK).enumerate() {
                run(backend, unit, Step::Scores { block, scores });
            }
            run(backend, unit, Step::Exps { scores, factors });
            sums.fill(0.0);
            for (piece, sums) in sums.chunks_exact_mut(unit.queries * COLUMNS).enumerate() {
                run(backend, unit, Step::Sums { piece, scores, sums });
            }
            write(unit, factors, sums, &mut self.out);
        });
    }
}

/// The steps one after another, each shared by all threads.
fn shared(backend: Backend, tasks: &mut [Task<'_>]) {
    let mut lens = [0; 3];
    for Task { unit, .. } in &mut *tasks {
        unit.set_layout(backend);
        lens = [lens[0] + unit.scores_len(), lens[1] + unit.queries, lens[2] + unit.sums_len()];
    }
    with_scratch(lens, |[mut scores, mut factors, mut sums]| {
        sums.fill(0.0);
        let mut parts = Vec::with_capacity(tasks.len());
        for Task { unit, out } in tasks {
            let unit = &*unit;
            let (mine, rest) = scores.split_at_mut(unit.scores_len());
            scores = rest;
            let (my_factors, rest) = factors.split_at_mut(unit.queries);
            factors = rest;
            let (my_sums, rest) = sums.split_at_mut(unit.sums_len());
            sums = rest;
            parts.push((unit, mine, my_factors, my_sums, out));
        }
        let by_block = parts.iter_mut().flat_map(|(unit, scores, ..)| {
            let unit = *unit;
            scores.chunks_exact_mut(unit.queries * BLOCK).enumerate().map(move |part| (unit, part))
        });
        pool::for_each(by_block, |(unit, (block, scores))| {
            run(backend, unit, Step::Scores { block, scores });
        });
        pool::for_each(parts.iter_mut(), |(unit, scores, factors, ..)| {
            run(backend, unit, Step::Exps { scores, factors });
        });
        let by_columns = parts.iter_mut().flat_map(|(unit, scores, _, sums, _)| {
            let (unit, scores) = (*unit, &**scores);
            sums.chunks_exact_mut(unit.queries * COLUMNS).enumerate().map(move |part| (unit, scores, part))
        });
        pool::for_each(by_columns, |(unit, scores, (piece, sums))| {
            run(backend, unit, Step::Sums { piece, scores, sums });
        });
        for (unit, _, factors, sums, out) in &mut parts {
            write(unit, factors, sums, out);
        }
    });
}

/// The weighted sums, [column pieces, queries, COLUMNS], times each query's factor.
fn write(unit: &Unit<'_>, factors: &[f32], sums: &[f32], out: &mut [&mut [f32]]) {
    for (piece, sums) in sums.chunks_exact(unit.queries * COLUMNS).enumerate() {
        for (i, (sums, factor)) in sums.chunks_exact(COLUMNS).zip(factors).enumerate() {
            let head =
                &mut out[i / unit.group][i % unit.group * unit.layout.head_dim..][..unit.layout.head_dim];
            for (out, sum) in head[piece * COLUMNS..].iter_mut().zip(sums) {
                *out = sum * factor;
            }
        }
    }
}

thread_local! {
    /// Memory that this thread keeps from one call to the next.
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with slices of the given lengths, of any content.
fn with_scratch(lens: [usize; 3], f: impl FnOnce([&mut [f32]; 3])) {
    // Taken, not borrowed: while `f` waits for other threads this one may be given another task that comes
    // here.
    let mut memory = SCRATCH.take();
    let len = lens.iter().sum();
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
    let (a, rest) = memory.split_at_mut(lens[0]);
    let (b, rest) = rest.split_at_mut(lens[1]);
    f([a, b, &mut rest[..lens[2]]]);
    SCRATCH.set(memory);
}
