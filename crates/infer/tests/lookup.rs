//! Prompt look-up: the same tokens, text and log-probabilities as without it, in fewer passes.

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;

use common::{CONTEXT, model, tokens};
use tritforge_infer::{
    GenerateOptions, Generation, Grammar, Model, Sampling, Scheduler, SchedulerOptions, Sequence, Session,
    TokenLogprobs, Vocabulary, generate_pieces,
};

/// A generation, what the callback got, and the tokens in the cache behind it.
type Result = (Generation, String, Vec<TokenLogprobs>, Vec<u32>);

fn alone(model: &Arc<Model>, prompt: &[u32], options: &GenerateOptions) -> Result {
    let mut session = Session::new(Arc::clone(model), CONTEXT).unwrap();
    let (mut text, mut scored) = (String::new(), Vec::new());
    let generation = generate_pieces(&mut session, prompt, options, |piece| {
        text.push_str(piece.text);
        scored.extend_from_slice(piece.tokens);
        ControlFlow::Continue(())
    });
    (generation.unwrap(), text, scored, session.tokens().to_vec())
}

fn same(found: &Generation, right: &Generation, what: &str) {
    assert_eq!(
        (&found.tokens, &found.text, found.finish),
        (&right.tokens, &right.text, right.finish),
        "{what}"
    );
}

/// Prompts that repeat themselves, and texts greedy, drawn, biased to repeat, constrained and cut short.
fn requests(model: &Model) -> Vec<(Vec<u32>, GenerateOptions)> {
    let repeated = |n: usize| tokens(6, 3).into_iter().cycle().take(n).collect::<Vec<u32>>();
    let options = |temperature: f32, seed: u64, max_tokens: usize| GenerateOptions {
        sampling: Sampling { temperature, seed, ..Sampling::default() },
        max_tokens,
        ignore_eos: true,
        logprobs: Some(1),
        ..GenerateOptions::default()
    };
    let mut biased = options(1.0, 4, 50);
    biased.sampling.logit_bias = [(65, 30.0), (66, 29.0), (67, 28.0)].into_iter().collect();
    let mut penalized = options(0.0, 0, 40);
    penalized.sampling.frequency_penalty = 1.0;
    let mut constrained = options(1.0, 2, 60);
    constrained.constraint = Some(model.constraint(&Grammar::Regex("(abc, ){6}[abc]*".to_string())).unwrap());
    let mut stopped = biased.clone();
    stopped.stop = vec!["BBB".to_string(), "AB".to_string()];
    vec![
        (repeated(40), options(0.0, 0, 60)),
        (repeated(9), options(0.9, 7, 33)),
        (repeated(30), biased),
        (repeated(20), penalized),
        (tokens(20, 1), constrained),
        (tokens(5, 1), stopped),
        (repeated(200), options(0.0, 1, usize::MAX)),
        (tokens(3, 2), options(0.0, 1, 1)),
    ]
}

#[test]
fn what_is_generated_does_not_depend_on_it() {
    let (_dir, model) = model();
    let requests = requests(&model);
    let right: Vec<Result> =
        requests.iter().map(|(prompt, options)| alone(&model, prompt, options)).collect();
    for lookup in [1, 3, 10] {
        for (i, ((prompt, options), right)) in requests.iter().zip(&right).enumerate() {
            let options = GenerateOptions { prompt_lookup: lookup, ..options.clone() };
            let found = alone(&model, prompt, &options);
            let what = format!("request {i}, {lookup} tokens");
            same(&found.0, &right.0, &what);
            assert_eq!((&found.1, &found.2), (&right.1, &right.2), "{what}");
            // What did not come is not in the cache.
            let whole = [prompt.as_slice(), &found.0.tokens].concat();
            assert!(whole.starts_with(&found.3), "{what}");
        }
        // In company, some with and some without, in passes of few tokens.
        for max_pass_tokens in [3, 512] {
            let limits = SchedulerOptions { max_pass_tokens, ..SchedulerOptions::of(&model, 5) };
            let mut scheduler = Scheduler::new(&model, limits).unwrap();
            for (tag, (prompt, options)) in requests.iter().enumerate() {
                let prompt_lookup = if tag % 3 == 2 { 0 } else { lookup };
                let options = GenerateOptions { prompt_lookup, ..options.clone() };
                let sequence = Sequence::new(Vocabulary::of(&model), prompt, options, 0..CONTEXT).unwrap();
                scheduler.submit(tag, sequence, model.adapters());
            }
            while !scheduler.is_empty() {
                for (tag, generation) in scheduler.pass(|_, _| ControlFlow::Continue(())) {
                    same(&generation.unwrap(), &right[tag].0, &format!("sequence {tag}, {lookup} tokens"));
                }
            }
        }
    }
}

#[test]
fn a_text_that_repeats_itself_takes_fewer_passes() {
    let (_dir, model) = model();
    let passes = |prompt_lookup: usize| {
        // One token again and again.
        let sampling = Sampling { logit_bias: [(65, 100.0)].into_iter().collect(), ..Sampling::default() };
        let options =
            GenerateOptions { sampling, max_tokens: 101, prompt_lookup, ..GenerateOptions::default() };
        let mut scheduler = Scheduler::new(&model, SchedulerOptions::of(&model, 1)).unwrap();
        let sequence = Sequence::new(Vocabulary::of(&model), &[1, 2], options, 0..CONTEXT).unwrap();
        scheduler.submit((), sequence, model.adapters());
        let mut passes = 0;
        while !scheduler.is_empty() {
            passes += 1;
            for ((), generation) in scheduler.pass(|_, _| ControlFlow::Continue(())) {
                assert_eq!(generation.unwrap().tokens, [65; 101]);
            }
        }
        passes
    };
    assert_eq!(passes(0), 101);
    // Five at a time as soon as the text has begun to repeat itself.
    assert!(passes(4) < 25, "{}", passes(4));
}
