//! Batches and evaluation windows: every token is a target once, and a run that stopped goes on with the same
//! samples.

use std::collections::BTreeMap;

use tempfile::TempDir;
use tritforge_data::{BatchPosition, Batches, Fingerprint, IGNORE_INDEX, Shard, ShardWriter, eval_windows};

/// A shard of the ids 0, 1, 2, …
fn counting(tokens: usize) -> (TempDir, Shard) {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(&dir.path().join("s"), tokens.max(1), Fingerprint([0; 32])).unwrap();
    writer.push(&(0..tokens as u32).collect::<Vec<_>>()).unwrap();
    let shard = writer.finish(3 * tokens as u64).unwrap();
    (dir, shard)
}

#[test]
fn targets_follow_inputs_and_an_epoch_has_every_target_once() {
    let (_dir, shard) = counting(1000);
    let mut batches = Batches::new(&shard, 7, Batches::start(3)).unwrap();
    let mut offsets = Vec::new();
    for epoch in 0..5 {
        let windows = batches.windows();
        let mut seen = BTreeMap::new();
        for _ in 0..windows {
            let batch = batches.next_batch(1).unwrap();
            for (input, target) in batch.inputs.iter().zip(&batch.targets) {
                assert_eq!(input + 1, *target);
                *seen.entry(*target).or_insert(0) += 1;
            }
        }
        assert_eq!(batches.position(), BatchPosition { seed: 3, epoch, index: windows as u64 });
        assert_eq!(seen.len(), windows * 7);
        assert!(seen.values().all(|n| *n == 1));
        // All but the few tokens before the offset and after the last window.
        assert!(seen.len() > 1000 - 14);
        offsets.push(*seen.keys().next().unwrap());
        // The next epoch begins with the next batch.
        let position = batches.position();
        batches.next_batch(1).unwrap();
        batches = Batches::new(&shard, 7, position).unwrap();
        batches.next_batch(1).unwrap();
        let start = BatchPosition { seed: 3, epoch: epoch + 1, index: 0 };
        assert_eq!(batches.position(), BatchPosition { index: 1, ..start });
        batches = Batches::new(&shard, 7, start).unwrap();
    }
    offsets.dedup();
    assert!(offsets.len() > 1, "epochs cut at different places");
}

#[test]
fn a_run_that_stopped_goes_on_with_the_same_samples() {
    let (_dir, shard) = counting(200);
    let mut whole = Batches::new(&shard, 8, Batches::start(1)).unwrap();
    let all: Vec<_> = (0..60).map(|_| whole.next_batch(3).unwrap()).collect();
    for stop in [0, 1, 7, 8, 9, 31] {
        let mut first = Batches::new(&shard, 8, Batches::start(1)).unwrap();
        for _ in 0..stop {
            first.next_batch(3).unwrap();
        }
        let json = serde_json::to_string(&first.position()).unwrap();
        let mut second = Batches::new(&shard, 8, serde_json::from_str(&json).unwrap()).unwrap();
        for expected in &all[stop..] {
            assert_eq!(&second.next_batch(3).unwrap(), expected);
        }
    }
    let mut other = Batches::new(&shard, 8, Batches::start(2)).unwrap();
    assert_ne!(other.next_batch(3).unwrap(), all[0]);
}

#[test]
fn the_order_is_shuffled_and_never_changes() {
    let (_dir, shard) = counting(1 + 4 * 100);
    let mut batches = Batches::new(&shard, 4, Batches::start(1234)).unwrap();
    let batch = batches.next_batch(100).unwrap();
    let starts: Vec<u32> = batch.inputs.chunks(4).map(|w| w[0]).collect();
    let rising = starts.windows(2).filter(|p| p[0] < p[1]).count();
    assert!((25..75).contains(&rising), "{rising}");
    // Old checkpoints rely on it.
    assert_eq!(starts[..6], GOLDEN);
}

/// What `the_order_is_shuffled_and_never_changes` saw when it was written.
const GOLDEN: [u32; 6] = [373, 169, 325, 85, 105, 29];

#[test]
fn the_shortest_shard_gives_one_window() {
    let (_dir, shard) = counting(9);
    let mut batches = Batches::new(&shard, 8, Batches::start(0)).unwrap();
    for _ in 0..3 {
        assert_eq!(batches.next_batch(1).unwrap().inputs, (0..8).collect::<Vec<_>>());
    }
    let (_dir, shard) = counting(8);
    let error = Batches::new(&shard, 8, Batches::start(0)).unwrap_err().to_string();
    assert!(
        error.starts_with("8 tokens, but a training sample of seq_len + 1 tokens needs at least 9"),
        "{error}"
    );
}

#[test]
fn impossible_arguments_are_refused() {
    let (_dir, shard) = counting(100);
    assert!(Batches::new(&shard, 0, Batches::start(0)).is_err());
    assert!(Batches::new(&shard, usize::MAX, Batches::start(0)).is_err());
    assert!(Batches::new(&shard, 8, Batches::start(0)).unwrap().next_batch(0).is_err());
    let beyond = BatchPosition { index: 13, ..Batches::start(0) };
    let error = Batches::new(&shard, 8, beyond).unwrap_err().to_string();
    assert!(error.contains("different data set"), "{error}");
    assert!(eval_windows(&shard, 0, 1).is_err());
    assert!(eval_windows(&shard, 8, 0).is_err());
    let (_dir, one) = counting(1);
    assert!(eval_windows(&one, 8, 1).is_err());
}

#[test]
fn evaluation_scores_every_token_but_the_first_once() {
    for (tokens, seq_len, sequences) in
        [(2, 8, 4), (9, 8, 4), (10, 8, 4), (100, 7, 3), (85, 7, 3), (86, 7, 3)]
    {
        let (_dir, shard) = counting(tokens);
        let mut targets = Vec::new();
        for batch in eval_windows(&shard, seq_len, sequences).unwrap() {
            assert!(batch.sequences >= 1 && batch.sequences <= sequences);
            assert_eq!(batch.inputs.len(), batch.sequences * seq_len);
            assert_eq!(batch.targets.len(), batch.sequences * seq_len);
            let before = targets.len();
            for (input, target) in batch.inputs.iter().zip(&batch.targets) {
                if *target == IGNORE_INDEX {
                    assert_eq!(*input, 0);
                } else {
                    assert_eq!(input + 1, *target);
                    targets.push(*target);
                }
            }
            assert_eq!(batch.scored(), targets.len() - before);
            assert!(batch.scored() > (batch.sequences - 1) * seq_len, "no window is empty");
        }
        assert_eq!(targets, (1..tokens as u32).collect::<Vec<_>>());
    }
}
