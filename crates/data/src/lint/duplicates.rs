//! Examples that are there twice, to the character or nearly, on one side of the split or across it.
//!
//! Near duplicates are proposed by [`super::minhash`] and confirmed by the exact Jaccard similarity.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;
use tritforge_support::counted;

use super::minhash::{BANDS, Hashes, jaccard};
use super::words::shingles;
use super::{Finding, FindingKind, Lint, LintOptions, LintProgress, each, texts};
use crate::examples::Example;

/// Examples with which an example is compared in a band, of those that agree with it there: where all begin with the
/// same long instruction, many do.
const WINDOW: usize = 64;
/// Pairs that are remembered not to be alike; beyond that some are compared again.
const REMEMBERED: usize = 1 << 22;

/// Finds duplicates among `all`, of which the first `train` are for training.
pub(super) fn find(
    all: &[&Example],
    train: usize,
    options: LintOptions,
    progress: &LintProgress<'_>,
    found: &mut Lint,
) {
    let digests = each(all, "looking for duplicates", progress, |example| vec![example.digest()]);
    // The first example with the same content, of all and of the held-out ones.
    let (mut first, mut first_held_out) = (HashMap::new(), HashMap::new());
    let mut unique = Vec::new();
    let of = |kind, index: usize, other: usize, detail: String| Finding {
        kind,
        source: all[index].source.clone(),
        detail,
        other: Some(all[other].source.clone()),
    };
    for (index, digest) in digests.into_iter().enumerate() {
        if index >= train {
            if let Some(other) = first_held_out.get(&digest) {
                found.findings.push(of(FindingKind::Duplicate, index, *other, String::new()));
                continue;
            }
            first_held_out.insert(digest, index);
        }
        match first.get(&digest) {
            None => {
                first.insert(digest, index);
                unique.push(index);
            }
            Some(other) if index < train => {
                found.findings.push(of(FindingKind::Duplicate, index, *other, String::new()));
            }
            Some(other) => {
                found.findings.push(of(FindingKind::HeldOutDuplicate, index, *other, String::new()));
            }
        }
    }
    let examples: Vec<&Example> = unique.iter().map(|index| all[*index]).collect();
    let boundary = unique.partition_point(|index| *index < train);
    let near = near(&examples, boundary, options, progress);
    for Near { index, other, similarity } in near.pairs {
        let across = index >= boundary && other < boundary;
        let kind = if across { FindingKind::HeldOutNearDuplicate } else { FindingKind::NearDuplicate };
        let detail = format!("similarity {similarity:.2}");
        found.findings.push(of(kind, unique[index], unique[other], detail));
    }
    if near.left_out > 0 {
        found.notes.push(format!(
            "{} of examples that have much in common with more than {WINDOW} others were left out: there may be \
             more near duplicates",
            counted(near.left_out, "comparison")
        ));
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Near {
    pub(super) index: usize,
    /// An example before it.
    pub(super) other: usize,
    pub(super) similarity: f64,
}

#[derive(Default)]
pub(super) struct NearFound {
    /// For each example at most one on its side and, of those held out, one for training.
    pub(super) pairs: Vec<Near>,
    pub(super) left_out: usize,
}

/// Near duplicates of examples, the first `boundary` of which are for training.
pub(super) fn near(
    examples: &[&Example],
    boundary: usize,
    options: LintOptions,
    progress: &LintProgress<'_>,
) -> NearFound {
    let hashes = Hashes::new();
    let set = |example: &Example| shingles(texts(&example.body), options.shingle);
    let bands: Vec<Option<[u64; BANDS]>> = each(examples, "comparing examples", progress, |example| {
        let set = set(example);
        vec![if set.is_empty() { None } else { Some(hashes.bands(&set)) }]
    });
    let mut found = NearFound::default();
    // What is known of an example: whether one like it stands on its side, and on the other.
    let mut known = vec![[false; 2]; examples.len()];
    let mut unlike: HashSet<(u32, u32)> = HashSet::new();
    let across = |index: usize, other: usize| usize::from((index < boundary) != (other < boundary));
    for band in 0..BANDS {
        // In a crowded bucket those that agree in the next bands, too, stand beside each other.
        let next = |by: usize| (band + by) % BANDS;
        let key = |bands: &[u64; BANDS]| [bands[band], bands[next(1)], bands[next(2)]];
        let mut order: Vec<([u64; 3], usize)> = bands
            .iter()
            .enumerate()
            .filter_map(|(index, bands)| Some((key(bands.as_ref()?), index)))
            .collect();
        order.sort_unstable();
        let mut candidates: Vec<(usize, usize)> = Vec::new();
        for bucket in order.chunk_by(|a, b| a.0[0] == b.0[0]) {
            for (at, (_, one)) in bucket.iter().enumerate() {
                let start = at.saturating_sub(WINDOW);
                found.left_out += start;
                let pairs = bucket[start..at].iter().map(|(_, two)| (*one.max(two), *one.min(two)));
                let open = |(index, other): &(usize, usize)| {
                    !known[*index][across(*index, *other)]
                        && !unlike.contains(&(*index as u32, *other as u32))
                };
                candidates.extend(pairs.filter(open));
            }
        }
        candidates.sort_unstable();
        let compared: Vec<Vec<Near>> = candidates
            .par_chunk_by(|a, b| a.0 == b.0)
            .map(|pairs| {
                let own = set(examples[pairs[0].0]);
                let near = |(index, other): &(usize, usize)| Near {
                    index: *index,
                    other: *other,
                    similarity: jaccard(&own, &set(examples[*other])),
                };
                pairs.iter().map(near).collect()
            })
            .collect();
        for near in compared.into_iter().flatten() {
            let known = &mut known[near.index][across(near.index, near.other)];
            if near.similarity < options.near {
                if unlike.len() < REMEMBERED {
                    unlike.insert((near.index as u32, near.other as u32));
                }
            } else if !*known {
                *known = true;
                found.pairs.push(near);
            }
        }
    }
    found.pairs.sort_by_key(|near| (near.index, near.other));
    found
}
