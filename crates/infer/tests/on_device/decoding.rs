//! What runs on a device: tokens one at a time, and how they are chosen.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use tritforge_config::{HiddenAct, ModelConfig};
use tritforge_export::ExportOptions;
use tritforge_infer::{
    GenerateOptions, Generation, LogitsRequest, Sampling, Scheduler, SchedulerOptions, Sequence,
    SequenceInput, Session, Vocabulary, generate, step,
};

use super::both;
use crate::common::{CONTEXT, bits, config, tokens, write};

/// Single tokens over the end of a page, in batches that grow and shrink, between prompts that make the buffers move.
#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn single_tokens() {
    const LONG: usize = 300;
    let with_norms =
        ModelConfig { use_qk_norm: true, use_sub_norm: false, hidden_act: HiddenAct::Silu, ..config() };
    for base in [ModelConfig { num_hidden_layers: 1, ..config() }, with_norms] {
        let config = ModelConfig { max_position_embeddings: LONG, ..base };
        let (_dir, path) = write(&config, &ExportOptions::default());
        let [cpu, gpu] = both(&path).map(|model| {
            let session = || Session::new(Arc::clone(&model), LONG).unwrap();
            let (mut sessions, mut logits) = ([session(), session(), session()], Vec::new());
            let mut decode = |sessions: &mut [Session], steps: u32| {
                for i in 0..steps {
                    let ids: Vec<[u32; 1]> = (0..sessions.len() as u32).map(|s| [i * 3 + s * 50]).collect();
                    let mut parts: Vec<SequenceInput<'_>> = (sessions.iter_mut().zip(&ids))
                        .map(|(session, ids)| SequenceInput { session, ids, request: LogitsRequest::Last })
                        .collect();
                    logits.extend(step(&mut parts).unwrap().iter().map(|logits| bits(logits)));
                }
            };
            sessions[0].forward(&tokens(5, 2), LogitsRequest::Last).unwrap();
            decode(&mut sessions[..1], 8);
            sessions[1].forward(&tokens(247, 1), LogitsRequest::None).unwrap();
            decode(&mut sessions[..2], 6);
            sessions[2].forward(&tokens(9, 3), LogitsRequest::None).unwrap();
            decode(&mut sessions, 8);
            sessions[1].truncate(200);
            decode(&mut sessions[..2], 6);
            decode(&mut sessions[1..], 4);
            logits
        });
        assert_eq!(cpu.len(), gpu.len());
        for (i, (cpu, gpu)) in cpu.iter().zip(&gpu).enumerate() {
            assert_eq!(cpu, gpu, "logits {i}");
        }
    }
}

/// Tokens that are chosen in [`choices`].
pub(crate) const CHOICES: usize = 5 * 16 + 4 * 12;

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn choices() {
    let (_dir, path) = write(&config(), &ExportOptions::default());
    let models = both(&path);
    let base = Sampling { seed: 3, ..Sampling::default() };
    let drawn = Sampling { temperature: 1.5, top_k: 6, ..base.clone() };
    let bias = BTreeMap::from([(5, 3.0), (77, -50.0)]);
    let all = [
        base.clone(),
        drawn.clone(),
        Sampling { top_p: 0.7, min_p: 0.05, ..drawn.clone() },
        Sampling { repetition_penalty: 1.3, repeat_last_n: 8, ..base },
        Sampling { frequency_penalty: 0.7, logit_bias: bias, ..drawn },
    ];
    let options = |sampling: &Sampling, max_tokens| GenerateOptions {
        sampling: sampling.clone(),
        max_tokens,
        min_tokens: 3,
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    let [cpu, gpu] = models.each_ref().map(|model| {
        let mut chosen = Vec::new();
        for sampling in &all {
            let mut session = Session::new(Arc::clone(model), CONTEXT).unwrap();
            let options = options(sampling, 16);
            let generation =
                generate(&mut session, &tokens(9, 1), &options, |_| ControlFlow::Continue(())).unwrap();
            chosen.push(generation.tokens);
        }
        let limits = SchedulerOptions::of(model, 3);
        let mut scheduler = Scheduler::new(model, limits).unwrap();
        let sequences = (0..4).map(|i| {
            let (vocabulary, prompt) = (Vocabulary::of(model), tokens(3 + 4 * i, i as u32));
            let options = options(&all[i], 12);
            Sequence::new(vocabulary, &prompt, options, 0..CONTEXT).map(|sequence| (i, sequence))
        });
        let done = |_, result: Result<Generation, _>| {
            chosen.push(result?.tokens);
            Ok(())
        };
        scheduler.run(sequences, || false, done).unwrap();
        chosen
    });
    assert_eq!(cpu, gpu);
    assert_eq!(cpu.iter().map(Vec::len).sum::<usize>(), CHOICES);
}

/// Where a choice looks at all logits, or they are shown, all are copied.
#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn draws_from_the_whole_vocabulary() {
    let (_dir, path) = write(&config(), &ExportOptions::default());
    let [cpu, gpu] = both(&path).map(|model| {
        let sampling = Sampling { temperature: 1.0, seed: 3, ..Sampling::default() };
        let options = GenerateOptions { sampling, max_tokens: 9, logprobs: Some(2), ..Default::default() };
        let mut session = Session::new(model, CONTEXT).unwrap();
        generate(&mut session, &tokens(9, 1), &options, |_| ControlFlow::Continue(())).unwrap().tokens
    });
    assert_eq!(cpu, gpu);
}
