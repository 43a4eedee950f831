//! Vocabularies made from texts, and what encoding and decoding promise.

mod common;

use std::collections::HashSet;

use common::{MIXED, corpus};
use proptest::prelude::*;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerImpl};
use tritforge_text::{EncodeOptions, SpecialTokens, TextError, Tokenizer};

fn trained() -> Tokenizer {
    Tokenizer::train_bpe(corpus(), 500, &SpecialTokens::default()).unwrap()
}

/// Merges as `tokenizer.json` lists them.
fn merges(tokenizer: &Tokenizer) -> Vec<serde_json::Value> {
    let json: serde_json::Value = serde_json::from_str(&tokenizer.to_json().unwrap()).unwrap();
    json["model"]["merges"].as_array().unwrap().clone()
}

#[test]
fn every_text_comes_back() {
    let tokenizer = trained();
    for text in MIXED.into_iter().chain(corpus().iter().map(String::as_str)) {
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
    }
    let text = corpus().concat();
    assert!(tokenizer.encode(&text, false).unwrap().len() * 3 < text.len(), "nothing was learned");
}

#[test]
fn the_same_texts_give_the_same_vocabulary() {
    assert_eq!(trained().to_json().unwrap(), trained().to_json().unwrap());
}

#[test]
fn merges_are_those_of_the_tokenizers_crate() {
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(500)
        .min_frequency(2)
        .special_tokens(vec![AddedToken::from("<|endoftext|>", true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect::<HashSet<char>>())
        .build();
    let mut reference: TokenizerImpl<
        BPE,
        tokenizers::NormalizerWrapper,
        ByteLevel,
        ByteLevel,
        tokenizers::DecoderWrapper,
    > = TokenizerImpl::new(BPE::default());
    reference.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    reference.train(&mut trainer, corpus().into_iter()).unwrap();

    let ours = trained();
    let described = serde_json::to_value(reference.get_model()).unwrap();
    assert_eq!(merges(&ours), *described["merges"].as_array().unwrap());
    for (token, id) in reference.get_model().get_vocab() {
        assert_eq!(ours.id(&token), Some(id));
    }
    for text in MIXED {
        let expected = reference.encode_fast(text, false).unwrap();
        assert_eq!(
            ours.encode_with(text, EncodeOptions { add_bos: false, parse_special: true }).unwrap(),
            expected.get_ids()
        );
    }
}

#[test]
fn training_stops_when_nothing_repeats() {
    let tokenizer = Tokenizer::train_bpe(["abc"], 1000, &SpecialTokens::none()).unwrap();
    assert_eq!(tokenizer.vocab_size(), 256);
    assert_eq!(tokenizer.eos(), None);
    let error = Tokenizer::train_bpe(["abc"], 200, &SpecialTokens::default()).unwrap_err();
    assert!(matches!(error, TextError::VocabularyTooSmall { found: 200, needed: 257, .. }), "{error}");
}

#[test]
fn special_tokens_are_text_unless_asked_for() {
    let tokenizer = trained();
    let eos = tokenizer.eos().unwrap();
    assert_eq!((eos, tokenizer.bos()), (0, Some(0)));
    assert!(tokenizer.is_special(eos) && !tokenizer.is_special(1));
    assert_eq!(tokenizer.token(eos).unwrap(), "<|endoftext|>");
    let text = "a<|endoftext|>b";
    let plain = tokenizer.encode(text, false).unwrap();
    assert!(!plain.contains(&eos));
    let parsed = tokenizer.encode_with(text, EncodeOptions { add_bos: false, parse_special: true }).unwrap();
    assert_eq!(parsed.len(), 3);
    assert_eq!(parsed[1], eos);
    for ids in [plain, parsed] {
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
}

#[test]
fn bos_comes_once() {
    let tokenizer = trained();
    let bos = tokenizer.bos().unwrap();
    let options = EncodeOptions { add_bos: true, parse_special: true };
    let expected = [vec![bos], tokenizer.encode("x y", false).unwrap()].concat();
    assert_eq!(tokenizer.encode("x y", true).unwrap(), expected);
    assert_eq!(tokenizer.encode_with("<|endoftext|>x y", options).unwrap(), expected);
    let without = Tokenizer::characters(["ab"], &SpecialTokens::none()).unwrap();
    assert_eq!(without.encode("ba", true).unwrap(), [1, 0]);
}

#[test]
fn characters_have_the_ids_of_nanogpt() {
    let tokenizer = Tokenizer::characters(["hello\n", "World"], &SpecialTokens::default()).unwrap();
    // sorted(set(text)), then <|endoftext|>
    assert_eq!(tokenizer.encode("\nWdehlor", false).unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(tokenizer.eos(), Some(8));
    assert_eq!(tokenizer.vocab_size(), 9);
    assert_eq!(tokenizer.decode(&tokenizer.encode("hello", false).unwrap()).unwrap(), "hello");
}

#[test]
fn characters_beyond_ascii_are_one_token_each() {
    let text = "naïve é世界界🦀🦁 x";
    let tokenizer = Tokenizer::characters([text], &SpecialTokens::none()).unwrap();
    let ids = tokenizer.encode(text, false).unwrap();
    assert_eq!(ids.len(), text.chars().count());
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    let distinct: HashSet<char> = text.chars().collect();
    assert!(ids.iter().all(|id| (*id as usize) < distinct.len()));
}

#[test]
fn characters_outside_the_vocabulary_are_named() {
    // ü is C3 BC and ļ is C4 BC: both bytes of ä (C3 A4) and of ļ may be there without the character.
    let tokenizer = Tokenizer::characters(["aü Ĥ¤"], &SpecialTokens::default()).unwrap();
    for (text, character, offset) in
        [("aüb", 'b', 3), ("ü ä", 'ä', 3), ("a世", '世', 1), ("aü <|endoftext|>", '<', 4), ("  \n", '\n', 2)]
    {
        match tokenizer.encode(text, false).unwrap_err() {
            TextError::UnknownCharacter { character: c, offset: at } => {
                assert_eq!((c, at), (character, offset));
            }
            other => panic!("{other}"),
        }
    }
    let parsed = EncodeOptions { add_bos: false, parse_special: true };
    assert_eq!(tokenizer.encode_with("a<|endoftext|>a", parsed).unwrap()[1], tokenizer.eos().unwrap());
    let error = tokenizer.encode("a世", false).unwrap_err().to_string();
    assert_eq!(error, "character '世' (U+4E16) at byte 1 of the text is not in the vocabulary");
}

#[test]
fn a_special_token_that_is_text_is_refused() {
    let specials = SpecialTokens { eos: Some("l".to_string()), ..SpecialTokens::none() };
    let error = Tokenizer::characters(["hello"], &specials).unwrap_err().to_string();
    assert!(error.contains("\"l\""), "{error}");
    assert!(Tokenizer::train_bpe(["hello"], 300, &specials).is_err());
}

#[test]
fn unknown_ids_are_errors() {
    let tokenizer = trained();
    let size = tokenizer.vocab_size();
    let error = tokenizer.decode(&[1, size as u32]).unwrap_err().to_string();
    assert_eq!(error, format!("token id {size} is outside the vocabulary of {size}"));
    assert!(tokenizer.stream().push(u32::MAX).is_err());
}

#[test]
fn a_broken_character_is_shown_as_such() {
    let tokenizer = trained();
    let ids = tokenizer.encode("🦁", false).unwrap();
    let cut = &ids[..ids.len() - 1];
    assert_eq!(tokenizer.decode(cut).unwrap(), "\u{fffd}");
    let mut stream = tokenizer.stream();
    for id in cut {
        assert_eq!(stream.push(*id).unwrap(), None);
    }
    assert_eq!(stream.finish().unwrap().as_deref(), Some("\u{fffd}"));
}

#[test]
fn long_runs_of_spaces_are_split_like_short_ones() {
    let tokenizer = trained();
    let text = format!("{}x{}\n", " ".repeat(300_000), " ".repeat(300_000));
    let ids = tokenizer.encode(&text, false).unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    // The space before the x belongs to it.
    let x = tokenizer.encode(" x", false).unwrap();
    assert!(ids.windows(x.len()).any(|ids| ids == x));
    // Where the regular expression gives up, nothing is encoded in another way in silence.
    let longer = format!("fn{}x y", " ".repeat(1_500_000));
    for error in [
        tokenizer.encode(&longer, false).unwrap_err(),
        Tokenizer::train_bpe([&longer], 300, &SpecialTokens::none()).unwrap_err(),
    ] {
        assert!(matches!(error, TextError::RunOfSpaces { offset: 2 }), "{error}");
    }
}

fn pieces(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut stream = tokenizer.stream();
    let mut text = String::new();
    for id in ids {
        text.extend(stream.push(*id).unwrap());
    }
    text.extend(stream.finish().unwrap());
    text
}

proptest! {
    #[test]
    fn any_text_comes_back_whole_and_in_pieces(text in "(\\PC|\\s|[a-z'0-9 ]){0,60}") {
        use std::sync::LazyLock;
        static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(trained);
        let ids = TOKENIZER.encode(&text, false).unwrap();
        prop_assert_eq!(&TOKENIZER.decode(&ids).unwrap(), &text);
        prop_assert_eq!(&pieces(&TOKENIZER, &ids), &text);
    }

    #[test]
    fn any_ids_stream_as_they_decode(ids in prop::collection::vec(0u32..400, 0..40)) {
        use std::sync::LazyLock;
        static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(trained);
        prop_assert_eq!(pieces(&TOKENIZER, &ids), TOKENIZER.decode(&ids).unwrap());
    }
}
