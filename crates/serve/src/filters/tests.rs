//! Filters against the `regex` crate on whole texts.

use proptest::prelude::*;
use regex::{NoExpand, Regex};

use super::stream::{Automaton, LONGEST_MATCH, Stream};
use super::*;

const PATTERNS: &[&str] = &[
    "ab",
    "a+b?",
    "a|ab|abc",
    "abc|c",
    "abcb|c",
    "(?:ab)+?c",
    r"\bab\b",
    r"\Bb",
    r"(?-u:\b)a",
    "^a",
    "a$",
    "(?m)^b",
    "(?m)a$",
    "(?mR)c$",
    r"\w+é",
    "é+",
    "(?i)AB",
    ".b",
    "(?s).b",
    "[^a]c",
    r"a\s*b",
    r"\d(?:[ -]?\d){2,4}",
    "a.*b",
    r"\p{Greek}a?",
    r"\b{start}a",
    r"b\b{end}",
    r"a\b{end-half}",
    "(?:a|b){2,3}c?",
    "a{3}|b",
];

/// What comes of a text in pieces.
fn in_pieces(pattern: &str, pieces: &[&str], replacement: Option<&str>) -> (String, bool) {
    let automaton = Automaton::new(pattern).unwrap();
    let mut stream = Stream::new(&automaton);
    let mut out = String::new();
    for (i, piece) in pieces.iter().enumerate() {
        let last = i + 1 == pieces.len();
        if stream.push(&automaton, piece, last, &mut out, || replacement) {
            return (out, true);
        }
        assert!(stream.held() <= LONGEST_MATCH + 4, "{pattern}: {}", stream.held());
    }
    assert_eq!(stream.held(), 0);
    (out, false)
}

/// A text cut before these characters.
fn cut<'a>(text: &'a str, at: &[usize]) -> Vec<&'a str> {
    let mut ends: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
    ends = at.iter().filter_map(|i| ends.get(i % ends.len().max(1)).copied()).collect();
    ends.sort_unstable();
    let mut pieces = Vec::new();
    let mut begin = 0;
    for end in ends.into_iter().chain([text.len()]) {
        pieces.push(&text[begin..end]);
        begin = end;
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_get_what_the_whole_text_gets(
        which in 0..PATTERNS.len(),
        text in "[abcé α1 \n\r-]{0,24}",
        at in proptest::collection::vec(0..24_usize, 0..24),
    ) {
        let regex = Regex::new(PATTERNS[which]).unwrap();
        let pieces = cut(&text, &at);
        let (redacted, _) = in_pieces(PATTERNS[which], &pieces, Some("*"));
        prop_assert_eq!(&redacted, &regex.replace_all(&text, NoExpand("*")), "{} {:?}", PATTERNS[which], pieces);
        let (free, blocked) = in_pieces(PATTERNS[which], &pieces, None);
        let found = regex.find(&text);
        prop_assert_eq!(blocked, found.is_some());
        prop_assert_eq!(free, &text[..found.map_or(text.len(), |found| found.start())]);
    }

    #[test]
    fn a_chain_of_filters_is_each_on_what_the_last_one_left(
        text in "[abcx1 ]{0,40}",
        at in proptest::collection::vec(0..40_usize, 0..40),
        order in 0..6_usize,
        block in proptest::option::of(0..3_usize),
    ) {
        let patterns = ["ab+", r"\b1", "x?c|a"];
        let [i, j, k] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]][order];
        let mut file = String::new();
        for (place, which) in [i, j, k].into_iter().enumerate() {
            let action = if block == Some(place) { "block" } else { "redact\"\nreplacement = \"1x" };
            file.push_str(&format!("[[filters]]\nname = \"{which}\"\npattern = '{}'\naction = \"{action}\"\n", patterns[which]));
        }
        let set = Arc::new(FilterSet::parse(&file).unwrap());
        let mut expected = text.clone();
        let mut blocks = false;
        for (place, which) in [i, j, k].into_iter().enumerate() {
            let regex = Regex::new(patterns[which]).unwrap();
            if block == Some(place) {
                if let Some(found) = regex.find(&expected) {
                    expected.truncate(found.start());
                    blocks = true;
                }
            } else {
                expected = regex.replace_all(&expected, NoExpand("1x")).into_owned();
            }
        }
        let metrics = Arc::new(Metrics::new("m"));
        let mut filter = AnswerFilter::new(&set, &metrics).unwrap();
        let pieces = cut(&text, &at);
        let mut out = String::new();
        for (n, piece) in pieces.iter().enumerate() {
            out.push_str(&filter.push(piece, n + 1 == pieces.len()));
        }
        prop_assert_eq!(out, expected);
        prop_assert_eq!(filter.is_blocked(), blocks);
    }
}

#[test]
fn text_is_free_as_soon_as_nothing_can_match_it() {
    let automaton = Automaton::new(r"\bsecret\b").unwrap();
    let mut stream = Stream::new(&automaton);
    let mut out = String::new();
    for (piece, free) in [
        ("a word ", "a word "),
        ("sec", "a word "),
        ("ond", "a word second"),
        (" secret", "a word second "),
        ("ary", "a word second secretary"),
        (" secret", "a word second secretary "),
        (".", "a word second secretary [x]."),
    ] {
        assert!(!stream.push(&automaton, piece, false, &mut out, || Some("[x]")));
        assert_eq!(out, free, "{piece:?}");
    }
}

#[test]
fn no_more_is_held_back_than_the_longest_match() {
    let automaton = Automaton::new("a[^b]*").unwrap();
    let mut stream = Stream::new(&automaton);
    let mut out = String::new();
    for _ in 0..LONGEST_MATCH + 10 {
        stream.push(&automaton, "a", false, &mut out, || Some("*"));
        assert!(stream.held() <= LONGEST_MATCH);
    }
    assert_eq!((out.as_str(), stream.held()), ("*", 10));
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    let filter = |rest: &str| format!("[[filters]]\nname = \"n\"\n{rest}");
    for (text, expected) in [
        (String::new(), "no filters"),
        ("[[filter]]".to_string(), "filter"),
        (filter("action = \"block\""), "pattern"),
        (filter("pattern = 'a'"), "action"),
        (filter("pattern = 'a'\naction = \"delete\""), "delete"),
        (filter("pattern = '('\naction = \"block\""), "filter \"n\": pattern \"(\""),
        (filter("pattern = 'a*'\naction = \"block\""), "matches the empty text"),
        (filter("pattern = '\\b'\naction = \"block\""), "matches the empty text"),
        (filter("pattern = '(?:\\w{100}){100}'\naction = \"block\""), "size limit"),
        (filter("pattern = 'a'\naction = \"block\"\nwhere = \"there\""), "there"),
        (filter("pattern = 'a'\naction = \"block\"\nreplacement = \"x\""), "replacement"),
        (filter(&format!("pattern = '{}'\naction = \"block\"", "a".repeat(5000))), "5000 bytes"),
        (filter("pattern = 'a'\naction = \"block\"\n").repeat(2), "two of that name"),
        (filter("pattern = 'a'\naction = \"block\"\n").repeat(300), "300 filters"),
    ] {
        let message = FilterSet::parse(&text).unwrap_err();
        assert!(message.contains(expected), "{expected}: {message}");
    }
}
