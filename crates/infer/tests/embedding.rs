//! Hidden states and the vectors that are made of them.

mod common;

use std::sync::Arc;

use common::{bits, f32s, full_precision, model, tokens, write};
use tritforge_infer::{LogitsRequest, Model, Pooling, SequenceInput, Session, embed, hidden_states};

/// A text's hidden states, all at once.
fn states(model: &Arc<Model>, ids: &[u32]) -> Vec<f32> {
    let mut session = Session::new(Arc::clone(model), common::CONTEXT).unwrap();
    let part = SequenceInput { session: &mut session, ids, request: LogitsRequest::None };
    hidden_states(&mut [part]).unwrap().remove(0)
}

#[test]
fn the_head_makes_the_logits_of_them() {
    let (_dir, path) = write(&full_precision(), &f32s());
    let model = Arc::new(Model::open(&path).unwrap());
    let ids = tokens(20, 3);
    let states = states(&model, &ids);
    let mut session = Session::new(Arc::clone(&model), common::CONTEXT).unwrap();
    let logits = session.forward(&ids, LogitsRequest::All).unwrap();
    let (width, vocab) = (model.config().hidden_size, model.config().vocab_size);
    let (name, gguf) = ("token_embd.weight", model.gguf());
    let info = gguf.tensors().iter().find(|tensor| tensor.name == name).unwrap();
    let head: Vec<f32> =
        gguf.data(info).chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert!(model.config().tie_word_embeddings && head.len() == vocab * width);
    for (state, logits) in states.chunks_exact(width).zip(logits.chunks_exact(vocab)) {
        for (row, logit) in head.chunks_exact(width).zip(logits) {
            let dot: f64 = row.iter().zip(state).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((dot - f64::from(*logit)).abs() < 1e-3 * (1.0 + logit.abs() as f64), "{dot} {logit}");
        }
    }
}

#[test]
fn a_text_has_the_same_vector_alone_and_beside_others() {
    let (_dir, model) = model();
    let width = model.config().hidden_size;
    let texts: Vec<Vec<u32>> =
        (0..9).map(|i| tokens([3, 120, 1, 200, 60, 7, 256, 90, 30][i], i as u32)).collect();
    for pooling in [Pooling::Mean, Pooling::Last] {
        let all = embed(&model, &texts, pooling, &model.adapters(), || true).unwrap().unwrap();
        assert_eq!(all.len(), texts.len());
        for (ids, vector) in texts.iter().zip(&all) {
            let alone = embed(&model, std::slice::from_ref(ids), pooling, &model.adapters(), || true);
            assert_eq!(bits(&alone.unwrap().unwrap()[0]), bits(vector));
            let states = states(&model, ids);
            for (i, x) in vector.iter().enumerate() {
                let column: Vec<f64> = states.iter().skip(i).step_by(width).map(|x| f64::from(*x)).collect();
                let right = match pooling {
                    Pooling::Mean => column.iter().sum::<f64>() / column.len() as f64,
                    Pooling::Last => column[column.len() - 1],
                };
                assert_eq!(*x, right as f32);
            }
        }
    }
    assert!(embed(&model, &texts, Pooling::Mean, &model.adapters(), || false).unwrap().is_none());
    for (ids, part) in [(vec![], "empty"), (vec![999], "999"), (tokens(257, 1), "257")] {
        let error = embed(&model, &[ids], Pooling::Mean, &model.adapters(), || true).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
