//! A draft model: the same tokens, text and log-probabilities as without it, in fewer passes.

mod common;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use common::{CONTEXT, config, model, rewrite, tokens, write_adapter};
use tempfile::TempDir;
use tritforge_config::ModelConfig;
use tritforge_export::{ExportOptions, synth_gguf};
use tritforge_gguf::GgmlType;
use tritforge_infer::{
    Adapter, Draft, GenerateOptions, Generation, Grammar, InferError, KvType, Model, Proposals, Sampling,
    ScaledAdapter, Scheduler, SchedulerOptions, Sequence, Session, TokenLogprobs, Vocabulary,
    generate_pieces,
};

/// What the callback got.
type Pieces = (String, Vec<TokenLogprobs>);

fn open(dir: &TempDir, config: &ModelConfig, seed: u64) -> Arc<Model> {
    let path = dir.path().join(format!("{seed}-{}.gguf", config.vocab_size));
    synth_gguf(config, &path, &ExportOptions::default(), seed, None).unwrap();
    Arc::new(Model::open(&path).unwrap())
}

/// A smaller model that knows nothing of the other one, with a shorter context and a padded vocabulary.
fn stranger(dir: &TempDir) -> Arc<Model> {
    let config = ModelConfig {
        num_hidden_layers: 1,
        num_key_value_heads: 4,
        max_position_embeddings: 100,
        vocab_size: 300,
        ..config()
    };
    open(dir, &config, 7)
}

fn alone(
    model: &Arc<Model>,
    draft: Option<&Draft>,
    prompt: &[u32],
    options: &GenerateOptions,
) -> (Generation, Pieces) {
    let mut session = Session::new(Arc::clone(model), CONTEXT).unwrap();
    session.set_draft(draft).unwrap();
    goes_on(&mut session, prompt, options)
}

fn goes_on(session: &mut Session, prompt: &[u32], options: &GenerateOptions) -> (Generation, Pieces) {
    let (mut text, mut scored) = (String::new(), Vec::new());
    let before = session.tokens().to_vec();
    let generation = generate_pieces(session, prompt, options, |piece| {
        text.push_str(piece.text);
        scored.extend_from_slice(piece.tokens);
        ControlFlow::Continue(())
    });
    let generation = generation.unwrap();
    // What did not come is not in the cache.
    let whole = [&before, prompt, &generation.tokens].concat();
    assert!(whole.starts_with(session.tokens()));
    (generation, (text, scored))
}

fn same(found: &Generation, right: &Generation, what: &str) {
    assert_eq!(
        (&found.tokens, &found.text, found.finish),
        (&right.tokens, &right.text, right.finish),
        "{what}"
    );
}

fn options(temperature: f32, seed: u64, max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        sampling: Sampling { temperature, seed, ..Sampling::default() },
        max_tokens,
        ignore_eos: true,
        logprobs: Some(1),
        ..GenerateOptions::default()
    }
}

/// Texts greedy, drawn, penalized, cut to the most probable, constrained, stopped, scored, and to the end of the context.
fn requests(model: &Model) -> Vec<(Vec<u32>, GenerateOptions)> {
    let mut penalized = options(0.0, 0, 40);
    penalized.sampling.frequency_penalty = 1.0;
    penalized.sampling.repetition_penalty = 1.2;
    let mut cut = options(0.8, 3, 50);
    (cut.sampling.top_k, cut.sampling.top_p, cut.logprobs) = (20, 0.9, None);
    let mut regex = options(1.0, 2, 60);
    regex.constraint = Some(model.constraint(&Grammar::Regex("(abc, ){6}[abc]*".to_string())).unwrap());
    let schema = serde_json::json!({ "type": "object", "properties": { "n": { "type": "integer" }, "s": {
        "enum": ["red", "green", "blue"] } }, "required": ["n", "s"], "additionalProperties": false });
    let mut json = options(1.0, 5, 60);
    json.constraint = Some(model.constraint(&Grammar::JsonSchema(schema)).unwrap());
    let mut stopped = options(1.0, 4, 50);
    stopped.sampling.logit_bias = [(65, 30.0), (66, 29.0), (67, 28.0)].into_iter().collect();
    stopped.stop = vec!["BBB".to_string(), "AB".to_string()];
    let mut ending = options(1.0, 4, 50);
    (ending.ignore_eos, ending.min_tokens) = (false, 5);
    ending.sampling.logit_bias = [(256, 30.0), (66, 29.0)].into_iter().collect();
    let mut scored = options(1.0, 9, 20);
    scored.prompt_logprobs = Some(1);
    vec![
        (tokens(40, 3), options(0.0, 0, 60)),
        (tokens(9, 4), options(0.9, 7, 33)),
        (tokens(20, 5), penalized),
        (tokens(30, 6), cut),
        (tokens(20, 1), regex),
        (tokens(12, 1), json),
        (tokens(5, 1), stopped),
        (tokens(6, 1), ending),
        (tokens(70, 8), scored),
        (tokens(200, 3), options(1.0, 1, usize::MAX)),
        (tokens(3, 2), options(0.0, 1, 1)),
    ]
}

#[test]
fn what_is_generated_does_not_depend_on_it() {
    let (dir, model) = model();
    let requests = requests(&model);
    let right: Vec<_> =
        requests.iter().map(|(prompt, options)| alone(&model, None, prompt, options)).collect();
    for (name, draft) in [("itself", Arc::clone(&model)), ("a stranger", stranger(&dir))] {
        for most in [1, 4] {
            let draft = Draft::new(Arc::clone(&draft), &model, most).unwrap();
            for (i, ((prompt, options), right)) in requests.iter().zip(&right).enumerate() {
                for prompt_lookup in [0, 2] {
                    let options = GenerateOptions { prompt_lookup, ..options.clone() };
                    let found = alone(&model, Some(&draft), prompt, &options);
                    let what = format!("request {i}, {name}, {most} tokens, {prompt_lookup} looked up");
                    same(&found.0, &right.0, &what);
                    assert_eq!(found.1, right.1, "{what}");
                    assert!(prompt_lookup > 0 || found.0.lookup == Proposals::default(), "{what}");
                }
            }
            // In company, in passes of few tokens.
            for max_pass_tokens in [3, 512] {
                let limits = SchedulerOptions { max_pass_tokens, ..SchedulerOptions::of(&model, 5) };
                let scheduler = Scheduler::new(&model, limits).unwrap();
                let mut scheduler = scheduler.with_draft(Some(draft.clone())).unwrap();
                // Twice, so that prompts are found in the cache.
                for (tag, (prompt, options)) in requests.iter().chain(&requests).enumerate() {
                    let sequence =
                        Sequence::new(Vocabulary::of(&model), prompt, options.clone(), 0..CONTEXT).unwrap();
                    scheduler.submit(tag % requests.len(), sequence, model.adapters());
                }
                let mut pieces = vec![Pieces::default(); requests.len()];
                while !scheduler.is_empty() {
                    let ended = scheduler.pass(|tag, piece| {
                        pieces[*tag].0.push_str(piece.text);
                        pieces[*tag].1.extend_from_slice(piece.tokens);
                        ControlFlow::Continue(())
                    });
                    for (tag, generation) in ended {
                        same(&generation.unwrap(), &right[tag].0, &format!("sequence {tag}, {name}, {most}"));
                    }
                }
                for ((text, _), (_, (right, _))) in pieces.iter().zip(&right) {
                    assert_eq!(text, &right.repeat(2));
                }
            }
        }
    }
}

#[test]
fn a_model_accepts_what_it_proposes_itself() {
    let (dir, model) = model();
    let itself = Draft::new(Arc::clone(&model), &model, 4).unwrap();
    let stranger = Draft::new(stranger(&dir), &model, 4).unwrap();
    for (i, (prompt, options)) in requests(&model).iter().enumerate() {
        let (Generation { draft: Proposals { proposed, accepted }, tokens, .. }, _) =
            alone(&model, Some(&itself), prompt, options);
        // Where a stop string or a grammar ends the text, the rest of what was proposed does not come.
        let cut = !options.stop.is_empty() || options.constraint.is_some();
        assert!(accepted == proposed || (cut && accepted + 4 > proposed), "{i}: {accepted} of {proposed}");
        // Four of five, but in the first and the last passes.
        assert!(5 * accepted + 20 >= 4 * tokens.len(), "{i}: {accepted} of {}", tokens.len());
        let (Generation { draft: Proposals { proposed, accepted }, .. }, _) =
            alone(&model, Some(&stranger), prompt, options);
        if options.constraint.is_none() && options.sampling.logit_bias.is_empty() {
            assert!(4 * accepted <= proposed, "{i}: {accepted} of {proposed}");
        }
    }
}

#[test]
fn a_pass_takes_as_many_tokens_as_come() {
    let (_dir, model) = model();
    let passes = |draft: Option<Draft>| {
        let mut scheduler = Scheduler::new(&model, SchedulerOptions::of(&model, 1)).unwrap();
        scheduler = scheduler.with_draft(draft).unwrap();
        let sequence =
            Sequence::new(Vocabulary::of(&model), &tokens(9, 1), options(0.7, 1, 101), 0..CONTEXT).unwrap();
        scheduler.submit((), sequence, model.adapters());
        let mut passes = 0;
        while !scheduler.is_empty() {
            passes += 1;
            scheduler.pass(|(), _| ControlFlow::Continue(()));
        }
        passes
    };
    assert_eq!(passes(None), 101);
    // One for the prompt and the first token, then five tokens each.
    assert_eq!(passes(Some(Draft::new(Arc::clone(&model), &model, 4).unwrap())), 21);
}

#[test]
fn a_conversation_and_adapters_change_nothing() {
    let (dir, model) = model();
    let file = dir.path().join("adapter.gguf");
    write_adapter(&file, &model, |_, _| {});
    let adapter = Arc::new(Adapter::open(&file, &model).unwrap());
    let draft = Draft::new(Arc::clone(&model), &model, 3).unwrap();
    let run = |draft: Option<&Draft>| {
        let mut session = Session::with_kv(Arc::clone(&model), CONTEXT, KvType::F32).unwrap();
        session.set_draft(draft).unwrap();
        let mut all = Vec::new();
        all.push(goes_on(&mut session, &tokens(10, 1), &options(0.0, 0, 12)).1);
        all.push(goes_on(&mut session, &tokens(10, 2), &options(1.0, 1, 12)).1);
        // Back to the middle, and on with an adapter.
        session.truncate(15);
        session.set_adapters([ScaledAdapter { adapter: Arc::clone(&adapter), scale: 1.0 }]);
        let (generation, pieces) = goes_on(&mut session, &tokens(10, 3), &options(1.0, 1, 30));
        all.push(pieces);
        (all, generation.draft)
    };
    let (right, none) = run(None);
    let (found, with) = run(Some(&draft));
    assert_eq!((found, none), (right, Proposals::default()));
    // The draft has no adapter, so that it is another model now.
    assert!(with.accepted < with.proposed, "{with:?}");
}

#[test]
fn its_keys_and_values_count() {
    let (_dir, model) = model();
    let draft = Draft::new(Arc::clone(&model), &model, 4).unwrap();
    let full = Session::kv_bytes_of(&model, KvType::F16, CONTEXT);
    let bounded = |bytes: usize| {
        let limits = SchedulerOptions { max_kv_bytes: bytes, ..SchedulerOptions::of(&model, 8) };
        Scheduler::<usize>::new(&model, limits).unwrap().with_draft(Some(draft.clone()))
    };
    let error = bounded(2 * full - 1).unwrap_err();
    assert!(matches!(error, InferError::Option { option: "max_kv_bytes", .. }), "{error}");
    // Room for two at a time.
    let mut scheduler = bounded(4 * full).unwrap();
    for tag in 0..6 {
        let prompt = tokens(10, tag as u32);
        let sequence =
            Sequence::new(Vocabulary::of(&model), &prompt, options(1.0, 1, 20), 0..CONTEXT).unwrap();
        scheduler.submit(tag, sequence, model.adapters());
    }
    let mut ended = 0;
    while !scheduler.is_empty() {
        ended += scheduler.pass(|_, _| ControlFlow::Continue(())).len();
        assert!(scheduler.running().count() <= 2);
        assert!(scheduler.kv_bytes() <= 4 * full, "{}", scheduler.kv_bytes());
    }
    assert_eq!(ended, 6);
}

fn refused(draft: &Path, target: &Model) -> String {
    let draft = Arc::new(Model::open(draft).unwrap());
    let error = Draft::new(draft, target, 4).unwrap_err();
    assert!(matches!(error, InferError::Draft { .. }), "{error}");
    error.to_string()
}

#[test]
fn another_vocabulary_is_refused() {
    let (dir, model) = model();
    let other = dir.path().join("other.gguf");
    rewrite(model.path(), &other, |metadata, _| {
        let mut tokens = metadata.get_str_array("tokenizer.ggml.tokens").unwrap().to_vec();
        tokens.swap(40, 41);
        metadata.insert("tokenizer.ggml.tokens", tokens);
    });
    let found = refused(&other, &model);
    for part in ["other.gguf", "token 40 is \"I\", and \"H\"", model.path().to_str().unwrap()] {
        assert!(found.contains(part), "{part}: {found}");
    }
    let longer = open(&dir, &ModelConfig { vocab_size: 258, ..config() }, 1);
    rewrite(longer.path(), &other, |metadata, _| {
        let mut tokens = metadata.get_str_array("tokenizer.ggml.tokens").unwrap().to_vec();
        tokens[257] = "more".to_string();
        metadata.insert("tokenizer.ggml.tokens", tokens);
        let mut types = vec![1i32; 258];
        types[256] = 3;
        metadata.insert("tokenizer.ggml.token_type", types);
    });
    let found = refused(&other, &model);
    assert!(found.contains("258 tokens, and 257 in"), "{found}");
    let none = Draft::new(Arc::clone(&model), &model, 0).unwrap_err();
    assert!(matches!(none, InferError::Option { option: "draft_tokens", .. }), "{none}");
}

#[test]
fn a_damaged_draft_is_named() {
    let (dir, model) = model();
    let file = dir.path().join("damaged.gguf");
    rewrite(model.path(), &file, |_, tensors| {
        let tensor = tensors.iter_mut().find(|tensor| tensor.name == "token_embd.weight").unwrap();
        assert!(matches!(tensor.ty, GgmlType::F16 | GgmlType::F32), "{:?}", tensor.ty);
        tensor.bytes.fill(0xff);
    });
    let draft = Draft::new(Arc::new(Model::open(&file).unwrap()), &model, 4).unwrap();
    let mut session = Session::new(Arc::clone(&model), CONTEXT).unwrap();
    session.set_draft(Some(&draft)).unwrap();
    let error = generate_pieces(&mut session, &[1, 2], &options(0.0, 0, 9), |_| ControlFlow::Continue(()))
        .unwrap_err();
    assert!(error.to_string().contains("damaged.gguf"), "{error}");
}
