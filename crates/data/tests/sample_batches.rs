//! Batches of samples with masks: every sample once an epoch, none seen by another, taken up again anywhere.

use std::convert::Infallible;

use proptest::prelude::*;
use tritforge_data::{
    Batch, Batches, Body, ChatTurn, Example, IGNORE_INDEX, OnBadSample, Packing, Preference,
    PreferenceBatches, Report, Sample, SampleBatches, SampleOptions, Supplied, Truncation, preferences,
    sample_fingerprint, sample_windows, samples,
};

/// A sample whose ids tell it from all others: its number in hundreds.
fn sample(number: u32, tokens: usize) -> Sample {
    let ids: Vec<u32> = (0..tokens as u32).map(|at| 100 * (number + 1) + at).collect();
    let mask = (0..tokens).map(|at| at > 0 && at % 3 != 1).collect();
    Sample { ids, mask, source: format!("line {number}"), bytes: tokens }
}

/// The samples of a batch, taken apart at its segments; each is checked against the one that it must be.
fn numbers(batch: &Batch, all: &[Sample], seq_len: usize) -> Vec<usize> {
    assert_eq!((batch.inputs.len() % seq_len, batch.inputs.len()), (0, batch.targets.len()));
    let mut found = Vec::new();
    let ends = batch.segments.iter().skip(1).copied().chain([batch.inputs.len()]);
    for (start, end) in batch.segments.iter().copied().zip(ends) {
        assert_eq!(start / seq_len, (end - 1) / seq_len, "a segment lies in one row");
        if batch.inputs[start] == 0 {
            assert!(batch.inputs[start..end].iter().all(|id| *id == 0));
            assert!(batch.targets[start..end].iter().all(|id| *id == IGNORE_INDEX));
            continue;
        }
        let number = batch.inputs[start] as usize / 100 - 1;
        let sample = &all[number];
        assert_eq!(batch.inputs[start..end], sample.ids[..sample.ids.len() - 1]);
        for (target, (id, learned)) in
            batch.targets[start..end].iter().zip(sample.ids.iter().zip(&sample.mask).skip(1))
        {
            assert_eq!(*target, if *learned { *id } else { IGNORE_INDEX });
        }
        found.push(number);
    }
    assert_eq!(
        batch.inputs.len().div_ceil(seq_len),
        batch.segments.iter().filter(|at| *at % seq_len == 0).count()
    );
    found
}

proptest! {
    #[test]
    fn every_sample_comes_once_an_epoch_and_a_run_goes_on_anywhere(
        lengths in prop::collection::vec(2usize..18, 1..60),
        masked in any::<bool>(),
        seed in any::<u64>(),
        batch_size in 1usize..5,
    ) {
        let all: Vec<Sample> = lengths.iter().enumerate().map(|(i, tokens)| sample(i as u32, *tokens)).collect();
        let packing = if masked { Packing::Masked } else { Packing::Documents };
        let mut batches = SampleBatches::new(&all, 17, packing, Batches::start(seed)).unwrap();
        let rows = batches.rows();
        prop_assert!(masked || rows == all.len());
        let mut epoch = Vec::new();
        for _ in 0..rows {
            epoch.extend(numbers(&batches.next_batch(1).unwrap(), &all, 17));
        }
        epoch.sort_unstable();
        prop_assert_eq!(epoch, (0..all.len()).collect::<Vec<_>>());
        // The next epoch is another one, and begins in the middle of a batch.
        for _ in 0..3 {
            let mut again = SampleBatches::new(&all, 17, packing, batches.position()).unwrap();
            prop_assert_eq!(again.next_batch(batch_size).unwrap(), batches.next_batch(batch_size).unwrap());
            prop_assert_eq!(again.position(), batches.position());
        }
        // An evaluation goes through them once and in order of their rows.
        let mut seen: Vec<usize> =
            sample_windows(&all, 17, batch_size).unwrap().flat_map(|batch| numbers(&batch, &all, 17)).collect();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..all.len()).collect::<Vec<_>>());
    }
}

#[test]
fn packing_leaves_little_room() {
    let all: Vec<Sample> = (0..2000).map(|i| sample(i, 10 + (i as usize * 7919) % 60)).collect();
    let batches = SampleBatches::new(&all, 256, Packing::Masked, Batches::start(1)).unwrap();
    let inputs: usize = all.iter().map(Sample::inputs).sum();
    let filled = inputs as f64 / (batches.rows() * 256) as f64;
    assert!(filled > 0.95, "{filled}");
}

#[test]
fn positions_and_samples_of_other_data_are_refused() {
    let all = [sample(0, 5), sample(1, 9)];
    let start = Batches::start(1);
    let error = |result: Result<SampleBatches<'_>, tritforge_data::DataError>| {
        result.map(|_| ()).unwrap_err().to_string()
    };
    let late = tritforge_data::BatchPosition { index: 3, ..start };
    assert!(error(SampleBatches::new(&all, 8, Packing::Documents, late)).contains("different data set"));
    assert!(error(SampleBatches::new(&all, 7, Packing::Masked, start)).contains("line 1: 9 tokens"));
    assert!(error(SampleBatches::new(&all, 8, Packing::Concat, start)).contains("cannot be concatenated"));
    assert!(error(SampleBatches::new(&[], 8, Packing::Masked, start)).contains("no samples"));
    assert!(SampleBatches::new(&all, 8, Packing::Masked, start).unwrap().next_batch(0).is_err());
    let mut other = all.clone();
    assert_eq!(sample_fingerprint(&all), sample_fingerprint(&other));
    other[1].mask[2] = !other[1].mask[2];
    assert_ne!(sample_fingerprint(&all), sample_fingerprint(&other));
}

/// A token a byte; answers are learned.
fn encode(body: &Body, _: &Supplied) -> Result<(Vec<u32>, Vec<bool>), Infallible> {
    let Body::Turns(said) = body else { return Ok((Vec::new(), Vec::new())) };
    let bytes = said
        .iter()
        .flat_map(|said| said.content().unwrap_or_default().bytes().map(|b| (u32::from(b), said.learn)));
    Ok(bytes.unzip())
}

fn examples(pairs: &[(&str, &str)]) -> Vec<Example> {
    let example = |(i, (ask, answer)): (usize, &(&str, &str))| {
        let turns = vec![ChatTurn::new("user", ask), ChatTurn::new("assistant", answer)];
        Example::new(format!("line {}", i + 1), Body::Turns(turns))
    };
    pairs.iter().enumerate().map(example).collect()
}

#[test]
fn samples_are_cut_or_left_out_as_asked_for() {
    let examples = examples(&[("ab", "cd"), ("abcdef", "gh"), ("a", "bcdefgh"), ("abc", "")]);
    let bytes = vec![1u32; 256];
    let run = |truncation| {
        let options =
            SampleOptions { seq_len: 4, truncation, on_bad: OnBadSample::Error, token_bytes: &bytes };
        let mut report = Report::default();
        let found = samples(&examples, options, encode, &mut report).map_err(|e| e.to_string());
        let text = |s: Sample| {
            (String::from_utf8(s.ids.iter().map(|id| *id as u8).collect()).unwrap(), s.targets(), s.bytes)
        };
        let dropped: Vec<_> =
            report.counts().into_iter().map(|(reason, n, _)| format!("{reason} {n}")).collect();
        (found.map(|found| found.into_iter().map(text).collect::<Vec<_>>()), dropped, report.cut.len())
    };
    let whole = ("abcd".to_string(), 2, 2);
    let (found, ..) = run(Truncation::Error);
    let error = found.unwrap_err();
    assert!(
        error.contains("line 2: 8 tokens") && error.contains("2 samples too long, the longest with 8"),
        "{error}"
    );
    let (found, dropped, _) = run(Truncation::Drop);
    assert_eq!(
        (found.unwrap(), dropped),
        (vec![whole.clone()], ["nothing in the loss 1", "too long 2"].map(str::to_string).to_vec())
    );
    let (found, dropped, cut) = run(Truncation::Right);
    assert_eq!(found.unwrap(), [whole.clone(), ("abcde".to_string(), 4, 4)]);
    assert_eq!(
        (dropped, cut),
        (["nothing in the loss 1", "answer truncated away 1"].map(str::to_string).to_vec(), 1)
    );
    let (found, dropped, cut) = run(Truncation::Left);
    // The first token that is left has nothing before it.
    assert_eq!(found.unwrap(), [whole, ("defgh".to_string(), 2, 2), ("defgh".to_string(), 4, 4)]);
    assert_eq!((dropped.len(), cut), (1, 2));
}

#[test]
fn pairs_come_in_rows_that_belong_together() {
    let pair = |i: usize| {
        let body = Body::Preference {
            prompt: vec![ChatTurn { learn: false, ..ChatTurn::new("user", &format!("q{i}")) }],
            chosen: vec![ChatTurn::new("assistant", "yes")],
            rejected: vec![ChatTurn::new("assistant", if i == 2 { "much too long" } else { "no" })],
        };
        Example::new(format!("line {}", i + 1), body)
    };
    let bytes = vec![1u32; 256];
    let options = SampleOptions {
        seq_len: 6,
        truncation: Truncation::Drop,
        on_bad: OnBadSample::Error,
        token_bytes: &bytes,
    };
    let mut report = Report::default();
    let pairs: Vec<Preference> =
        preferences(&(0..5).map(pair).collect::<Vec<_>>(), options, encode, &mut report).unwrap();
    assert_eq!((pairs.len(), report.dropped.len(), report.dropped[0].source.as_str()), (4, 1, "line 3"));
    assert_eq!(pairs[0].prompt(), [u32::from(b'q'), u32::from(b'0')]);
    assert_eq!((pairs[0].chosen.targets(), pairs[0].rejected.targets()), (3, 2));
    let mut batches = PreferenceBatches::new(&pairs, 6, Batches::start(3)).unwrap();
    let (batch, drawn) = batches.next_batch(4).unwrap();
    let rows: Vec<&[u32]> = batch.inputs.chunks(6).collect();
    let scored: Vec<usize> =
        batch.targets.chunks(6).map(|row| row.iter().filter(|t| **t != IGNORE_INDEX).count()).collect();
    for (i, pair) in drawn.iter().enumerate() {
        // The better answer stands first, and both answer the same prompt.
        assert_eq!(
            (rows[2 * i][..2].to_vec(), &rows[2 * i][..2]),
            (pairs[*pair].prompt().to_vec(), &rows[2 * i + 1][..2])
        );
        assert_eq!((scored[2 * i], scored[2 * i + 1]), (3, 2));
    }
    let mut again = PreferenceBatches::new(&pairs, 6, batches.position()).unwrap();
    assert_eq!(again.next_batch(3).unwrap(), batches.next_batch(3).unwrap());
    assert!(preferences(&examples(&[("a", "b")]), options, encode, &mut report).is_err());
}
