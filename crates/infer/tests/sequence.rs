//! A sequence without a model: logits made by hand, a token a byte.

use std::ops::ControlFlow;

use tritforge_infer::{Finish, GenerateOptions, Generation, InferError, LogitsRequest, Sequence, Vocabulary};
use tritforge_text::{SpecialTokens, Tokenizer};

/// The 256 bytes and `<|endoftext|>`.
fn tokenizer() -> Tokenizer {
    Tokenizer::train_bpe(["ab"], 257, &SpecialTokens::default()).unwrap()
}

/// The token of a text of one byte.
fn id(tokenizer: &Tokenizer, text: &str) -> u32 {
    tokenizer.encode(text, false).unwrap()[0]
}

/// Logits of which the token's is the largest.
fn logits(size: usize, id: u32) -> Vec<f32> {
    let mut logits = vec![0f32; size];
    logits[id as usize] = 1.0;
    logits
}

/// What comes of a sequence whose model says these tokens, one after the other, and the pieces of text.
fn said(options: &GenerateOptions, tokens: &[u32]) -> (Generation, Vec<String>) {
    let tokenizer = tokenizer();
    let end_ids = tokenizer.end_ids();
    let vocabulary = Vocabulary { tokenizer: &tokenizer, end_ids: &end_ids, size: 260 };
    let prompt = tokenizer.encode("prompt", false).unwrap();
    let mut sequence = Sequence::new(vocabulary, &prompt, options.clone(), 0..16).unwrap();
    assert_eq!(sequence.next_input(100), (prompt.as_slice(), LogitsRequest::Last));
    assert_eq!(sequence.next_input(4), (&prompt[..4], LogitsRequest::None));
    assert!(sequence.accept(4, &[], |_| ControlFlow::Continue(())).unwrap().is_none());
    let mut pieces = Vec::new();
    for token in tokens {
        let ended = sequence.accept(sequence.waiting(), &logits(260, *token), |piece| {
            pieces.push(piece.text.to_string());
            ControlFlow::Continue(())
        });
        if let Some(finish) = ended.unwrap() {
            let generation = sequence.finish(finish, |piece| {
                pieces.push(piece.text.to_string());
                ControlFlow::Continue(())
            });
            let generation = generation.unwrap();
            assert_eq!(pieces.concat(), generation.text);
            assert_eq!(generation.prompt_tokens, 6);
            return (generation, pieces);
        }
        assert_eq!(sequence.waiting(), 1);
        assert!(!sequence.is_prefilling());
    }
    panic!("the sequence wants more than {tokens:?}");
}

fn ids(text: &str) -> Vec<u32> {
    tokenizer().encode(text, false).unwrap()
}

#[test]
fn it_ends_at_a_token_a_string_its_length_and_the_context() {
    let end = tokenizer().eos().unwrap();
    let options = GenerateOptions { stop: vec!["END".to_string()], ..GenerateOptions::default() };
    let (generation, _) = said(&options, &[ids("ab"), vec![end]].concat());
    assert_eq!((generation.text.as_str(), generation.finish), ("ab", Finish::Eos));
    assert_eq!(generation.tokens, ids("ab"));
    let (generation, pieces) = said(&options, &ids("aEND"));
    assert_eq!((generation.text.as_str(), generation.finish), ("a", Finish::Stop));
    assert_eq!(pieces, ["a", "", "", ""]);
    // What only looked like a stop string belongs to the text.
    let (generation, _) = said(&options, &[ids("aEN"), vec![end]].concat());
    assert_eq!((generation.text.as_str(), generation.finish), ("aEN", Finish::Eos));
    let (generation, _) = said(&GenerateOptions { max_tokens: 2, ..options.clone() }, &ids("abc"));
    assert_eq!((generation.text.as_str(), generation.finish), ("ab", Finish::Length));
    let (generation, _) = said(&GenerateOptions { max_tokens: 0, ..options.clone() }, &ids("a"));
    assert_eq!((generation.text.as_str(), generation.finish), ("", Finish::Length));
    // The last token that fits is chosen, but not run: 16 positions, 6 of them the prompt's.
    let (generation, _) = said(&options, &ids("0123456789x"));
    assert_eq!((generation.text.as_str(), generation.finish), ("0123456789x", Finish::ContextFull));
    // Half a character is shown as what it is once nothing can complete it.
    let (generation, _) = said(&options, &[ids("é")[..1].to_vec(), vec![end]].concat());
    assert_eq!(generation.text, "\u{fffd}");
}

#[test]
fn options_bar_tokens_and_leave_special_ones_out() {
    let tokenizer = tokenizer();
    let end = tokenizer.eos().unwrap();
    let name = tokenizer.token(end).unwrap();
    // Barred tokens leave the next best one, which is the first of all others.
    let first = tokenizer.decode(&[u32::from(end == 0)]).unwrap();
    let early = GenerateOptions { min_tokens: 2, ..GenerateOptions::default() };
    let (generation, _) = said(&early, &[end, end, end]);
    assert_eq!((generation.text, generation.finish), (first.repeat(2), Finish::Eos));
    let suppressed = GenerateOptions { suppress_ids: vec![end], max_tokens: 3, ..GenerateOptions::default() };
    assert_eq!(said(&suppressed, &[end; 3]).0.text, first.repeat(3));
    // Padding cannot be decoded.
    let padding = GenerateOptions { suppress_ids: (257..260).collect(), max_tokens: 1, ..early.clone() };
    assert_eq!(said(&padding, &[258]).0.text, first);

    let skip = GenerateOptions { skip_special_tokens: true, ignore_eos: true, ..GenerateOptions::default() };
    let tokens = [ids("a"), vec![end], ids("b")].concat();
    let three = GenerateOptions { max_tokens: 3, ..skip.clone() };
    let (generation, _) = said(&three, &tokens);
    assert_eq!((generation.text.as_str(), &generation.tokens), ("ab", &tokens));
    let kept = GenerateOptions { skip_special_tokens: false, ..three };
    assert_eq!(said(&kept, &tokens).0.text, format!("a{name}b"));
    let stop = GenerateOptions { stop: vec![name], ..skip };
    let (generation, _) = said(&stop, &tokens);
    assert_eq!((generation.text.as_str(), generation.finish), ("a", Finish::Stop));
}

#[test]
fn a_callback_ends_it_and_nothing_more_comes() {
    let tokenizer = tokenizer();
    let vocabulary = Vocabulary { tokenizer: &tokenizer, end_ids: &[], size: 257 };
    let options = GenerateOptions { stop: vec!["ab".to_string()], ..GenerateOptions::default() };
    let mut sequence = Sequence::new(vocabulary, &[1, 2], options, 0..9).unwrap();
    let a = logits(257, id(&tokenizer, "a"));
    let ended = sequence.accept(2, &a, |piece| {
        assert_eq!(piece.text, "", "the text is held back, but the sequence asks");
        ControlFlow::Break(())
    });
    assert_eq!(ended.unwrap(), Some(Finish::Cancelled));
    let generation = sequence.finish(Finish::Cancelled, |_| panic!("nobody wants more")).unwrap();
    assert_eq!((generation.text.as_str(), generation.tokens.len()), ("", 1));
}

#[test]
fn what_cannot_begin_is_named() {
    let tokenizer = tokenizer();
    let vocabulary = Vocabulary { tokenizer: &tokenizer, end_ids: &[], size: 257 };
    let new =
        |prompt: &[u32], options| Sequence::new(vocabulary, prompt, options, 3..8).map(|_| ()).unwrap_err();
    assert!(matches!(new(&[], GenerateOptions::default()), InferError::EmptyPrompt));
    assert!(matches!(
        new(&[257], GenerateOptions::default()),
        InferError::Token { id: 257, vocab_size: 257 }
    ));
    assert!(matches!(
        new(&[1; 6], GenerateOptions::default()),
        InferError::ContextFull { used: 3, asked: 6, context: 8 }
    ));
    let options = GenerateOptions { stop_ids: vec![300], ..GenerateOptions::default() };
    assert!(new(&[1], options).to_string().starts_with("stop_token_ids = token 300"));
}
