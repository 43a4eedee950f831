//! Continuous batching on a small model with random weights: every sequence gets what it gets alone.

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use tritforge_config::ModelConfig;
use tritforge_gguf::GgmlType;
use tritforge_infer::{
    Adapter, Finish, GenerateOptions, Generation, InferError, Model, Sampling, ScaledAdapter, Scheduler,
    SchedulerOptions, Sequence, Session, TokenLogprobs, Vocabulary, generate_pieces,
};

use common::{CONTEXT, f32s, full_precision, model, rewrite, tokens, write, write_adapter};

fn options(seed: u64, max_tokens: usize) -> GenerateOptions {
    // One of three is greedy.
    let temperature = if seed.is_multiple_of(3) { 0.0 } else { 0.9 };
    let sampling = Sampling { temperature, seed, ..Sampling::default() };
    GenerateOptions {
        sampling,
        max_tokens,
        logprobs: Some(2),
        ignore_eos: true,
        ..GenerateOptions::default()
    }
}

fn sequence<'m>(model: &'m Model, prompt: &[u32], options: GenerateOptions) -> Sequence<'m> {
    Sequence::new(Vocabulary::of(model), prompt, options, 0..CONTEXT).unwrap()
}

/// A generation, and what the callback got.
type Result = (Generation, String, Vec<TokenLogprobs>);

fn alone(
    model: &Arc<Model>,
    prompt: &[u32],
    options: &GenerateOptions,
    adapters: &[ScaledAdapter],
) -> Result {
    let mut session = Session::new(Arc::clone(model), CONTEXT).unwrap();
    session.set_adapters(adapters);
    let (mut text, mut tokens) = (String::new(), Vec::new());
    let generation = generate_pieces(&mut session, prompt, options, |piece| {
        text.push_str(piece.text);
        tokens.extend_from_slice(piece.tokens);
        ControlFlow::Continue(())
    });
    (generation.unwrap(), text, tokens)
}

/// Runs all sequences of a scheduler to their ends; the results by their tags, and the number of passes.
fn run(scheduler: &mut Scheduler<'_, usize>) -> (BTreeMap<usize, Result>, usize) {
    let mut results = BTreeMap::new();
    let mut pieces: BTreeMap<usize, (String, Vec<TokenLogprobs>)> = BTreeMap::new();
    let mut passes = 0;
    while !scheduler.is_empty() {
        passes += 1;
        let ended = scheduler.pass(|tag, piece| {
            let (text, tokens) = pieces.entry(*tag).or_default();
            text.push_str(piece.text);
            tokens.extend_from_slice(piece.tokens);
            ControlFlow::Continue(())
        });
        for (tag, generation) in ended {
            let (text, tokens) = pieces.remove(&tag).unwrap_or_default();
            results.insert(tag, (generation.unwrap(), text, tokens));
        }
    }
    (results, passes)
}

fn assert_same(found: &Result, right: &Result, what: &str) {
    assert_eq!(found.0.tokens, right.0.tokens, "{what}");
    assert_eq!((found.0.finish, found.0.prompt_tokens), (right.0.finish, right.0.prompt_tokens), "{what}");
    assert_eq!((&found.0.text, &found.1), (&right.0.text, &right.1), "{what}");
    assert_eq!(found.2.len(), right.2.len(), "{what}");
    for (found, right) in found.2.iter().zip(&right.2) {
        assert_eq!(found.id, right.id, "{what}");
        assert_eq!(found.logprob.to_bits(), right.logprob.to_bits(), "{what}");
        assert_eq!(found.top, right.top, "{what}");
    }
}

#[test]
fn a_sequence_has_the_same_bits_alone_and_in_any_company() {
    let (_dir, model) = model();
    let requests: Vec<(Vec<u32>, GenerateOptions)> = (0..9)
        .map(|i| (tokens(1 + i * 53 % 120, i as u32), options(i as u64, 3 + i * 7 % 30)))
        .chain([(tokens(CONTEXT - 2, 9), options(9, 50)), (tokens(5, 1), options(1, 0))])
        .collect();
    let right: Vec<Result> =
        requests.iter().map(|(prompt, options)| alone(&model, prompt, options, &[])).collect();
    assert_eq!(right[9].0.finish, Finish::ContextFull);
    for (max_sequences, max_pass_tokens) in [(1, 512), (3, 512), (4, 7), (32, 64), (32, 1)] {
        let limits = SchedulerOptions { max_pass_tokens, ..SchedulerOptions::of(&model, max_sequences) };
        let mut scheduler = Scheduler::new(&model, limits).unwrap();
        for (tag, (prompt, options)) in requests.iter().enumerate() {
            scheduler.submit(tag, sequence(&model, prompt, options.clone()), model.adapters());
        }
        assert_eq!(scheduler.len(), requests.len());
        let (results, _) = run(&mut scheduler);
        for (tag, result) in results {
            let what = format!("sequence {tag} of {max_sequences}, {max_pass_tokens} tokens a pass");
            assert_same(&result, &right[tag], &what);
        }
        assert!(scheduler.idle() <= max_sequences);
    }
}

#[test]
fn a_prompt_goes_on_from_a_kept_session_that_begins_alike() {
    let (_dir, model) = model();
    let limits = SchedulerOptions { max_pass_tokens: 10, ..SchedulerOptions::of(&model, 2) };
    let mut scheduler = Scheduler::new(&model, limits).unwrap();
    let (prompt, other) = (tokens(100, 1), tokens(60, 2));
    scheduler.submit(0, sequence(&model, &prompt, options(3, 1)), model.adapters());
    assert_eq!(run(&mut scheduler).1, 10);
    // Another prompt has a session of its own as long as a place is free.
    scheduler.submit(1, sequence(&model, &other, options(3, 1)), model.adapters());
    assert_eq!(run(&mut scheduler).1, 6);
    assert_eq!(scheduler.idle(), 2);
    let longer = [prompt.clone(), tokens(20, 3)].concat();
    scheduler.submit(2, sequence(&model, &longer, options(4, 5)), model.adapters());
    let (results, passes) = run(&mut scheduler);
    assert_eq!(passes, 2 + 4, "20 tokens of prompt, and five that are chosen");
    assert_same(&results[&2], &alone(&model, &longer, &options(4, 5), &[]), "after reuse");
    // The same prompt again still runs its last token; nothing is left after the sessions are forgotten.
    scheduler.submit(3, sequence(&model, &longer, options(4, 5)), model.adapters());
    let (results, passes) = run(&mut scheduler);
    assert_eq!(passes, 5);
    assert_same(&results[&3], &alone(&model, &longer, &options(4, 5), &[]), "after reuse of all");
    scheduler.retain_idle(|session| session.tokens().starts_with(&other));
    assert_eq!(scheduler.idle(), 1);
    scheduler.submit(4, sequence(&model, &longer, options(4, 1)), model.adapters());
    assert_eq!(run(&mut scheduler).1, 12);
}

#[test]
fn sequences_have_adapters_of_their_own_and_sessions_are_reused_only_with_the_same() {
    let (dir, model) = model();
    let path = dir.path().join("adapter.gguf");
    write_adapter(&path, &model, |_, _| ());
    let adapter = Arc::new(Adapter::open(&path, &model).unwrap());
    let scaled = |scale| vec![ScaledAdapter { adapter: Arc::clone(&adapter), scale }];
    let sets = [vec![], scaled(1.0), scaled(0.5)];
    let prompt = tokens(40, 5);
    let right: Vec<Result> = sets.iter().map(|set| alone(&model, &prompt, &options(3, 12), set)).collect();
    assert!(right[0].0.tokens != right[1].0.tokens && right[1].0.tokens != right[2].0.tokens);
    for max_sequences in [1, 2, 3] {
        let limits = SchedulerOptions { max_pass_tokens: 10, ..SchedulerOptions::of(&model, max_sequences) };
        let mut scheduler = Scheduler::new(&model, limits).unwrap();
        for _ in 0..2 {
            for (tag, set) in sets.iter().enumerate() {
                scheduler.submit(tag, sequence(&model, &prompt, options(3, 12)), set.clone().into());
            }
            for (tag, result) in run(&mut scheduler).0 {
                assert_same(&result, &right[tag], &format!("adapters {tag}, {max_sequences} at once"));
            }
        }
    }
}

#[test]
fn a_sequence_that_is_cancelled_gives_its_place_to_the_next() {
    let (_dir, model) = model();
    let mut scheduler = Scheduler::new(&model, SchedulerOptions::of(&model, 2)).unwrap();
    for tag in 0..3 {
        scheduler.submit(tag, sequence(&model, &tokens(9, tag as u32), options(3, 20)), model.adapters());
    }
    let mut begun = [0; 3];
    let mut ended = Vec::new();
    while !scheduler.is_empty() {
        ended.extend(scheduler.pass(|tag, piece| {
            begun[*tag] += 1;
            // Before its prompt has been run, and after its fourth token.
            let stop = (*tag == 0 && piece.text.is_empty()) || (*tag == 1 && begun[1] == 5);
            if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }));
    }
    let ends: BTreeMap<usize, Generation> = ended.into_iter().map(|(tag, end)| (tag, end.unwrap())).collect();
    assert_eq!((ends[&0].finish, ends[&0].tokens.len(), begun[0]), (Finish::Cancelled, 0, 1));
    assert_eq!((ends[&1].finish, ends[&1].tokens.len()), (Finish::Cancelled, 4));
    let right = alone(&model, &tokens(9, 2), &options(3, 20), &[]).0;
    assert_eq!((ends[&2].finish, &ends[&2].tokens), (Finish::Length, &right.tokens));

    for tag in 0..3 {
        scheduler.submit(tag, sequence(&model, &tokens(9, tag as u32), options(3, 20)), model.adapters());
    }
    assert!(scheduler.pass(|_, _| ControlFlow::Continue(())).is_empty());
    let lengths: Vec<usize> = (scheduler.cancel_all().into_iter())
        .map(|(_, end)| end.unwrap())
        .inspect(|end| assert_eq!(end.finish, Finish::Cancelled))
        .map(|end| end.tokens.len())
        .collect();
    assert_eq!(lengths, [1, 1, 0]);
    assert!(scheduler.is_empty());
}

/// The embedding of one token is NaN.
#[test]
fn a_sequence_that_fails_does_not_end_the_others() {
    let (dir, whole) = write(&ModelConfig { tie_word_embeddings: false, ..full_precision() }, &f32s());
    let path = dir.path().join("nan.gguf");
    rewrite(&whole, &path, |_, tensors| {
        let embedding = tensors.iter_mut().find(|tensor| tensor.name == "token_embd.weight").unwrap();
        assert_eq!(embedding.ty, GgmlType::F32);
        embedding.bytes[7 * 256 * 4..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let model = Arc::new(Model::open(&path).unwrap());

    let prompts = [vec![1, 2, 3], vec![4, 7, 5], vec![6, 8]];
    let greedy = || GenerateOptions { suppress_ids: vec![7], ..options(3, 8) };
    let mut scheduler = Scheduler::new(&model, SchedulerOptions::of(&model, 3)).unwrap();
    for (tag, prompt) in prompts.iter().enumerate() {
        scheduler.submit(tag, sequence(&model, prompt, greedy()), model.adapters());
    }
    let mut results = BTreeMap::new();
    while !scheduler.is_empty() {
        results.extend(scheduler.pass(|_, _| ControlFlow::Continue(())));
    }
    let error = results[&1].as_ref().unwrap_err();
    assert!(matches!(error, InferError::Tensor { tensor, .. } if tensor == "token_embd.weight"), "{error}");
    for tag in [0, 2] {
        let right = alone(&model, &prompts[tag], &greedy(), &[]).0;
        assert_eq!(results[&tag].as_ref().unwrap().tokens, right.tokens);
    }
}

#[test]
fn a_list_is_run_to_its_end_or_until_it_is_stopped() {
    let (_dir, model) = model();
    let list = || (0..5).map(|tag| Ok((tag, sequence(&model, &tokens(4 + tag, 1), options(3, 3 + tag)))));
    let mut scheduler = Scheduler::new(&model, SchedulerOptions::of(&model, 2)).unwrap();
    let mut lengths = [0; 5];
    let run = scheduler.run::<InferError>(
        list(),
        || false,
        |tag, generation| {
            lengths[tag] = generation?.tokens.len();
            Ok(())
        },
    );
    run.unwrap();
    assert_eq!(lengths, [3, 4, 5, 6, 7]);
    let asked = std::cell::Cell::new(0);
    let stopped = || asked.replace(asked.get() + 1) == 2;
    let mut ends = Vec::new();
    let run = scheduler.run::<InferError>(list(), stopped, |tag, generation| {
        let generation = generation?;
        ends.push((tag, generation.finish, generation.tokens.len()));
        Ok(())
    });
    run.unwrap();
    assert_eq!(ends, [(0, Finish::Cancelled, 2), (1, Finish::Cancelled, 2)]);
    // An error in the list or of the callback ends the run.
    let failing = list().take(1).chain([Err(InferError::EmptyPrompt)]);
    let error = scheduler.run(failing, || false, |_, _| Ok(())).unwrap_err();
    assert!(matches!(error, InferError::EmptyPrompt));
}

#[test]
fn limits_that_let_nothing_run_are_refused() {
    let (_dir, model) = model();
    let right = SchedulerOptions::of(&model, 2);
    for (limits, option) in [
        (SchedulerOptions { max_sequences: 0, ..right }, "max_sequences"),
        (SchedulerOptions { max_pass_tokens: 0, ..right }, "max_pass_tokens"),
        (SchedulerOptions { context: 0, ..right }, "context"),
        (SchedulerOptions { context: CONTEXT + 1, ..right }, "context"),
    ] {
        let error = Scheduler::<()>::new(&model, limits).unwrap_err();
        assert!(error.to_string().starts_with(option), "{error}");
    }
}

#[test]
fn sequences_wait_for_memory_and_get_the_same() {
    let (_dir, model) = model();
    let requests: Vec<(Vec<u32>, GenerateOptions)> =
        (0..8).map(|i| (tokens(20 + i * 31 % 60, i as u32 % 3), options(i as u64, 4 + i * 5 % 20))).collect();
    let full = Session::kv_bytes_of(&model, Default::default(), CONTEXT);
    // What is reserved is what sessions come to take.
    let mut session = Session::new(Arc::clone(&model), CONTEXT).unwrap();
    generate_pieces(&mut session, &tokens(CONTEXT - 1, 1), &options(0, 1), |_| ControlFlow::Continue(()))
        .unwrap();
    assert_eq!(session.kv_bytes(), full);
    for (room, most) in [(full, 1), (2 * full + full / 2, 2), (usize::MAX, 8)] {
        let limits = SchedulerOptions { max_kv_bytes: room, ..SchedulerOptions::of(&model, 8) };
        let mut scheduler = Scheduler::new(&model, limits).unwrap();
        for (tag, (prompt, options)) in requests.iter().enumerate() {
            scheduler.submit(tag, sequence(&model, prompt, options.clone()), Arc::from([]));
        }
        let mut seen = 0;
        let mut results: BTreeMap<usize, Generation> = BTreeMap::new();
        while !scheduler.is_empty() {
            let ended = scheduler.pass(|_, _| ControlFlow::Continue(()));
            seen = seen.max(scheduler.running().count() + ended.len());
            assert!(scheduler.kv_bytes() <= room, "{} of {room}", scheduler.kv_bytes());
            results.extend(ended.into_iter().map(|(tag, result)| (tag, result.unwrap())));
        }
        assert_eq!(seen, most, "{room}");
        for (tag, (prompt, options)) in requests.iter().enumerate() {
            let right = alone(&model, prompt, options, &[]);
            assert_eq!(results[&tag].tokens, right.0.tokens, "{tag} of {room}");
        }
    }
    let limits = SchedulerOptions { max_kv_bytes: full - 1, ..SchedulerOptions::of(&model, 8) };
    let error = Scheduler::<usize>::new(&model, limits).unwrap_err().to_string();
    assert!(error.contains("max_kv_bytes"), "{error}");
}
