//! One pass for many sequences: each gets the bits that it gets alone.

mod common;

use std::sync::Arc;

use tritforge_infer::{Adapter, LogitsRequest, Model, ScaledAdapter, SequenceInput, Session, step};

use common::{CONTEXT, bits, model, tokens, write_adapter};

fn session(model: &Arc<Model>, before: &[u32]) -> Session {
    let mut session = Session::new(Arc::clone(model), CONTEXT).unwrap();
    if !before.is_empty() {
        session.forward(before, LogitsRequest::None).unwrap();
    }
    session
}

#[test]
fn a_prompt_a_chunk_and_a_token_pass_together() {
    let (_dir, model) = model();
    let before = [vec![], tokens(50, 1), tokens(9, 2), tokens(33, 3)];
    let ids = [tokens(40, 4), tokens(1, 5), tokens(7, 6), tokens(1, 7)];
    let requests = [LogitsRequest::Last, LogitsRequest::Last, LogitsRequest::All, LogitsRequest::None];
    let mut sessions: Vec<Session> = before.iter().map(|before| session(&model, before)).collect();
    let mut parts: Vec<SequenceInput<'_>> = (sessions.iter_mut().zip(&ids).zip(requests))
        .map(|((session, ids), request)| SequenceInput { session, ids, request })
        .collect();
    let together = step(&mut parts).unwrap();
    assert_eq!(together.iter().map(Vec::len).collect::<Vec<_>>(), [257, 257, 7 * 257, 0]);
    for (i, logits) in together.iter().enumerate() {
        let mut alone = session(&model, &before[i]);
        let expected = alone.forward(&ids[i], requests[i]).unwrap();
        assert_eq!(bits(logits), bits(&expected), "part {i}");
        assert_eq!(sessions[i].tokens(), alone.tokens());
        // What it left in the cache is the same too.
        let next = sessions[i].forward(&[3], LogitsRequest::Last).unwrap();
        assert_eq!(bits(&next), bits(&alone.forward(&[3], LogitsRequest::Last).unwrap()), "after part {i}");
    }
}

#[test]
fn each_part_has_its_own_adapters() {
    let (dir, model) = model();
    let path = dir.path().join("adapter.gguf");
    write_adapter(&path, &model, |_, _| ());
    let adapter = Arc::new(Adapter::open(&path, &model).unwrap());
    let scaled = |scale: f32| vec![ScaledAdapter { adapter: Arc::clone(&adapter), scale }];
    let adapters = [vec![], scaled(1.0), scaled(-0.5), vec![]];
    let ids = tokens(20, 1);
    let with = |adapters: &Vec<ScaledAdapter>| {
        let mut session = session(&model, &[]);
        session.set_adapters(adapters.clone());
        session
    };
    let mut sessions: Vec<Session> = adapters.iter().map(with).collect();
    let mut parts: Vec<SequenceInput<'_>> = (sessions.iter_mut())
        .map(|session| SequenceInput { session, ids: &ids, request: LogitsRequest::Last })
        .collect();
    let together = step(&mut parts).unwrap();
    for (logits, adapters) in together.iter().zip(&adapters) {
        let expected = with(adapters).forward(&ids, LogitsRequest::Last).unwrap();
        assert_eq!(bits(logits), bits(&expected));
    }
    assert_eq!(bits(&together[0]), bits(&together[3]));
    assert_ne!(together[0], together[1]);
    assert_ne!(together[1], together[2]);
}

#[test]
fn a_part_that_is_refused_refuses_all_and_changes_none() {
    let (_dir, model) = model();
    let (mut first, mut second) = (session(&model, &tokens(5, 1)), session(&model, &tokens(6, 2)));
    for bad in [&[][..], &[257], &tokens(CONTEXT, 1)] {
        let (a, b) = (&mut first, &mut second);
        let mut parts = [
            SequenceInput { session: a, ids: &[1, 2], request: LogitsRequest::Last },
            SequenceInput { session: b, ids: bad, request: LogitsRequest::Last },
        ];
        step(&mut parts).unwrap_err();
        assert_eq!((first.len(), second.len()), (5, 6));
    }
    let next = first.forward(&[9], LogitsRequest::Last).unwrap();
    let expected = session(&model, &tokens(5, 1)).forward(&[9], LogitsRequest::Last).unwrap();
    assert_eq!(bits(&next), bits(&expected));
}

#[test]
fn sessions_of_two_models_do_not_pass_together() {
    let ((_a, model_a), (_b, model_b)) = (model(), model());
    let (mut first, mut second) = (session(&model_a, &[]), session(&model_b, &[]));
    let mut parts = [
        SequenceInput { session: &mut first, ids: &[1], request: LogitsRequest::Last },
        SequenceInput { session: &mut second, ids: &[1], request: LogitsRequest::Last },
    ];
    let error = step(&mut parts).unwrap_err().to_string();
    assert!(error.contains("sessions of different models"), "{error}");
    assert!(step(&mut []).unwrap().is_empty());
}

#[test]
fn threads_change_no_bit() {
    let (_dir, model) = model();
    let ids = tokens(64, 1);
    let on = |threads: usize| {
        tritforge_kernels::set_threads(threads);
        let mut session = session(&model, &[]);
        let mut logits = session.forward(&ids, LogitsRequest::All).unwrap();
        logits.extend(session.forward(&[5], LogitsRequest::Last).unwrap());
        logits
    };
    let (one, many) = (on(1), on(tritforge_kernels::max_threads()));
    assert_eq!(bits(&one), bits(&many));
}
