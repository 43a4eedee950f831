//! One sequence and its cache: how the tokens come changes no bit, and what is refused changes nothing.

mod common;

use std::sync::Arc;

use tritforge_infer::{InferError, LogitsRequest, PREFILL_CHUNK, Session};
use tritforge_kernels::KvType;

use common::{CONTEXT, bits, config, model, tokens, write};

fn all(session: &mut Session, ids: &[u32]) -> Vec<f32> {
    session.forward(ids, LogitsRequest::All).unwrap()
}

#[test]
fn tokens_give_the_same_bits_however_they_are_split() {
    let (_dir, model) = model();
    let ids = tokens(90, 1);
    for kv in KvType::ALL {
        let new = || Session::with_kv(Arc::clone(&model), CONTEXT, kv).unwrap();
        let whole = all(&mut new(), &ids);
        assert_eq!(whole.len(), 90 * 257);
        for split in [&[1usize; 90][..], &[40, 50], &[89, 1], &[7, 64, 19]] {
            let (mut session, mut rest, mut logits) = (new(), ids.as_slice(), Vec::new());
            for n in split {
                logits.extend(all(&mut session, &rest[..*n]));
                rest = &rest[*n..];
            }
            assert_eq!(bits(&logits), bits(&whole), "{kv:?} {split:?}");
        }
        let last = new().forward(&ids, LogitsRequest::Last).unwrap();
        assert_eq!(bits(&last), bits(&whole[89 * 257..]));
        assert!(new().forward(&ids, LogitsRequest::None).unwrap().is_empty());
    }
}

#[test]
fn a_prompt_of_several_chunks_is_one_prompt() {
    let long = PREFILL_CHUNK + 30;
    let config = tritforge_config::ModelConfig { max_position_embeddings: long, ..config() };
    let (_dir, path) = write(&config, &tritforge_export::ExportOptions::default());
    let model = Arc::new(tritforge_infer::Model::open(&path).unwrap());
    let ids = tokens(long, 2);
    let mut session = Session::new(Arc::clone(&model), long).unwrap();
    let logits = session.forward(&ids, LogitsRequest::All).unwrap();
    let mut observed = Session::new(Arc::clone(&model), long).unwrap();
    let mut products = 0;
    // One pass, whatever the length.
    let one = observed.forward_observed(&ids, LogitsRequest::All, &mut |step| {
        assert_eq!(step.input.scales.len(), long);
        products += 1;
    });
    assert_eq!(bits(&logits), bits(&one.unwrap()));
    assert_eq!(products, 2 * 7);
}

#[test]
fn what_is_forgotten_is_forgotten_and_a_clone_goes_its_own_way() {
    let (_dir, model) = model();
    let (first, second, third) = (tokens(30, 1), tokens(20, 2), tokens(20, 3));
    let mut session = Session::new(Arc::clone(&model), CONTEXT).unwrap();
    all(&mut session, &first);
    let mut clone = session.clone();
    let expected = all(&mut clone, &third);
    all(&mut session, &second);
    session.truncate(30);
    assert_eq!((session.len(), session.tokens()), (30, &first[..]));
    assert_eq!(bits(&all(&mut session, &third)), bits(&expected));
    assert_eq!(clone.tokens(), session.tokens());
}

#[test]
fn a_prefix_is_reused_but_for_the_last_token() {
    let (_dir, model) = model();
    let mut session = Session::new(Arc::clone(&model), CONTEXT).unwrap();
    let ids = tokens(30, 1);
    all(&mut session, &ids);
    assert_eq!(session.reuse_prefix(&ids), 29);
    let mut longer = ids[..20].to_vec();
    longer.extend(tokens(20, 5));
    assert_eq!(session.reuse_prefix(&longer), 20);
    let mut fresh = Session::new(Arc::clone(&model), CONTEXT).unwrap();
    let expected = fresh.forward(&longer, LogitsRequest::Last).unwrap();
    let found = session.forward(&longer[20..], LogitsRequest::Last).unwrap();
    assert_eq!(bits(&found), bits(&expected));
    assert_eq!(session.reuse_prefix(&tokens(4, 9)), 0);
    assert!(session.is_empty());
}

#[test]
fn what_cannot_be_appended_leaves_the_session_as_it_was() {
    let (_dir, model) = model();
    let mut session = Session::new(Arc::clone(&model), 40).unwrap();
    all(&mut session, &tokens(30, 1));
    let mut refused = |ids: &[u32]| session.forward(ids, LogitsRequest::Last).unwrap_err();
    assert!(matches!(refused(&[]), InferError::EmptyPrompt));
    assert!(matches!(refused(&[1, 257]), InferError::Token { id: 257, vocab_size: 257 }));
    assert!(matches!(refused(&tokens(11, 1)), InferError::ContextFull { used: 30, asked: 11, context: 40 }));
    assert_eq!(session.len(), 30);
    let mut right = Session::new(Arc::clone(&model), 40).unwrap();
    all(&mut right, &tokens(30, 1));
    assert_eq!(bits(&all(&mut session, &tokens(10, 4))), bits(&all(&mut right, &tokens(10, 4))));
}

#[test]
fn a_context_beyond_the_models_is_refused() {
    let (_dir, model) = model();
    for context in [0, CONTEXT + 1] {
        let error = Session::new(Arc::clone(&model), context).unwrap_err().to_string();
        assert!(error.contains("context") && error.contains(&context.to_string()), "{error}");
    }
}

#[test]
fn caches_of_fewer_bits_take_fewer_bytes() {
    let (_dir, model) = model();
    let bytes = |kv| {
        let mut session = Session::with_kv(Arc::clone(&model), CONTEXT, kv).unwrap();
        all(&mut session, &tokens(64, 1));
        session.kv_bytes()
    };
    let [f32s, f16s, q8s] = KvType::ALL.map(bytes);
    // Two blocks, keys and values, two heads of 64, 64 tokens.
    let numbers = 2 * 2 * 2 * 64 * 64;
    assert!(f32s >= 4 * numbers && f16s >= 2 * numbers && f32s > f16s, "{f32s} {f16s}");
    // A scale of two bytes for each 32 numbers.
    assert_eq!(q8s * 64, f16s * 34);
}

#[test]
fn states_are_those_of_one_layer_and_there_must_be_such_a_layer() {
    let (_dir, model) = model();
    let ids = tokens(12, 1);
    let new = || Session::with_kv(Arc::clone(&model), CONTEXT, KvType::F32).unwrap();
    let (logits, [q, k, v]) = new().forward_with_states(&ids, LogitsRequest::All, 1).unwrap();
    assert_eq!(bits(&logits), bits(&all(&mut new(), &ids)));
    assert_eq!((q.len(), k.len(), v.len()), (12 * 256, 12 * 128, 12 * 128));
    let (_, [first, ..]) = new().forward_with_states(&ids, LogitsRequest::All, 0).unwrap();
    assert_ne!(first, q);
    let error = new().forward_with_states(&ids, LogitsRequest::All, 2).unwrap_err().to_string();
    assert!(error.contains("layer") && error.contains("2, of a model with 2"), "{error}");
}
