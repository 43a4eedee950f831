use std::collections::{BTreeMap, HashSet};

use super::*;
use crate::examples::Body;
use crate::{ReadOptions, TextSource};

fn text(source: usize, text: &str) -> Example {
    Example::new(format!("line {source}"), Body::Text(text.to_string()))
}

fn turns(said: &[(&str, &str)]) -> Example {
    let turns = said.iter().map(|(role, content)| ChatTurn::new(role, content)).collect();
    Example::new("x".to_string(), Body::Turns(turns))
}

fn kinds(example: &Example) -> Vec<FindingKind> {
    let one = std::slice::from_ref(example);
    let found = lint(one, &[], &Against::default(), LintOptions::default(), &|_, _, _| ());
    found.findings.iter().map(|finding| finding.kind).collect()
}

/// Numbers that do not depend on what is tested: a linear congruential generator (Knuth's MMIX).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// 150 texts of 60 words, each with four copies in which more and more words are others.
fn alike() -> Vec<Example> {
    let mut random = Random(7);
    let mut found = Vec::new();
    for _ in 0..150 {
        let words: Vec<usize> = (0..60).map(|_| random.below(5000)).collect();
        for changes in [0, 1, 2, 3, 6] {
            let mut copy = words.clone();
            (0..changes).for_each(|_| copy[random.below(60)] = random.below(5000));
            // Equal to the character they would be no near duplicates.
            let said: Vec<String> = copy.iter().map(|word| format!("w{word}")).collect();
            found.push(text(found.len(), &format!("{} {}", said.join(" "), "!".repeat(changes))));
        }
    }
    found
}

/// Set of three words in a row, written down anew.
fn triples(example: &Example) -> HashSet<[usize; 3]> {
    let Body::Text(text) = &example.body else { return HashSet::new() };
    let words: Vec<usize> =
        text.split_whitespace().filter_map(|word| word.strip_prefix('w')?.parse().ok()).collect();
    words.windows(3).map(|words| [words[0], words[1], words[2]]).collect()
}

#[test]
fn near_duplicates_are_those_of_exact_similarity() {
    let examples = alike();
    let all: Vec<&Example> = examples.iter().collect();
    let sets: Vec<HashSet<[usize; 3]>> = examples.iter().map(triples).collect();
    let similarity = |a: usize, b: usize| {
        let common = sets[a].intersection(&sets[b]).count();
        common as f64 / (sets[a].len() + sets[b].len() - common) as f64
    };
    // Some copies of a text lie across the split.
    let across = |index: usize, other: usize| index >= 502 && other < 502;
    for near_at in [0.6, 0.8] {
        let options = LintOptions { near: near_at, ..LintOptions::default() };
        let found = duplicates::near(&all, 502, options, &|_, _, _| ());
        assert_eq!(found.left_out, 0);
        for near in &found.pairs {
            let exact = similarity(near.index, near.other);
            assert!((near.similarity - exact).abs() < 1e-12 && exact >= near_at, "{near:?}: {exact}");
            assert!(near.other < near.index);
        }
        // Which examples have one like them before them, on their side and across.
        let mut expected = HashSet::new();
        for index in 0..examples.len() {
            let alike = (0..index).filter(|other| similarity(index, *other) >= near_at);
            expected.extend(alike.map(|other| (index, across(index, other))));
        }
        let got: HashSet<(usize, bool)> =
            found.pairs.iter().map(|near| (near.index, across(near.index, near.other))).collect();
        assert!(got.is_subset(&expected) && got.len() == found.pairs.len());
        assert!(expected.len() > 250 && expected.iter().any(|(_, across)| *across), "{}", expected.len());
        let recall = got.len() as f64 / expected.len() as f64;
        assert!(recall >= 0.99, "{near_at}: {recall}");
    }
}

#[test]
fn similarity_of_texts_that_share_a_long_beginning_is_found_in_crowded_buckets() {
    let mut random = Random(3);
    let form: Vec<String> = (0..40).map(|i| format!("form{i}")).collect();
    let mut examples: Vec<Example> = (0..1000)
        .map(|i| {
            let own: Vec<String> = (0..24).map(|_| format!("w{}", random.below(5000))).collect();
            text(i, &format!("{} {}", form.join(" "), own.join(" ")))
        })
        .collect();
    for i in 0..50 {
        let Body::Text(original) = examples[i * 20].body.clone() else { return };
        examples.push(text(1000 + i, &format!("{original} more")));
    }
    let all: Vec<&Example> = examples.iter().collect();
    let found = duplicates::near(&all, all.len(), LintOptions::default(), &|_, _, _| ());
    let pairs: Vec<(usize, usize)> = found.pairs.iter().map(|near| (near.index, near.other)).collect();
    assert_eq!(pairs, (0..50).map(|i| (1000 + i, i * 20)).collect::<Vec<_>>());
    assert!(found.left_out > 0);
}

#[test]
fn results_do_not_depend_on_threads() {
    let examples = alike();
    let items = examples.iter().step_by(9).map(|example| AgainstItem {
        source: example.source.clone(),
        texts: texts(&example.body).into_iter().map(str::to_string).collect(),
    });
    let against = Against { items: items.collect() };
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (train, held_out) = examples.split_at(500);
        pool.install(|| lint(train, held_out, &against, LintOptions::default(), &|_, _, _| ()))
    };
    let found = run(1);
    assert_eq!(found, run(4));
    for kind in [FindingKind::NearDuplicate, FindingKind::HeldOutNearDuplicate, FindingKind::Leak] {
        assert!(kind == FindingKind::HeldOutNearDuplicate || found.of(kind).count() > 50, "{kind}");
    }
}

#[test]
fn duplicates_are_told_with_the_example_that_they_repeat() {
    let train =
        [text(1, "one two three"), text(2, "other"), text(3, "one two three"), text(4, "One, two: three")];
    let held_out =
        [text(5, "one two three"), text(6, "something"), text(7, "something"), text(8, "one two THREE")];
    let found = lint(&train, &held_out, &Against::default(), LintOptions::default(), &|_, _, _| ());
    let told: Vec<(FindingKind, &str, &str)> = found
        .findings
        .iter()
        .map(|f| (f.kind, f.source.as_str(), f.other.as_deref().unwrap_or("")))
        .collect();
    assert_eq!(
        told,
        [
            (FindingKind::Duplicate, "line 3", "line 1"),
            (FindingKind::Duplicate, "line 7", "line 6"),
            (FindingKind::NearDuplicate, "line 4", "line 1"),
            (FindingKind::HeldOutDuplicate, "line 5", "line 1"),
            (FindingKind::HeldOutNearDuplicate, "line 8", "line 1"),
        ]
    );
}

#[test]
fn leaks_are_told_with_their_share_and_boilerplate_is_not() {
    let question =
        "A farmer has 17 sheep and all but 9 of them run away to the hills before dawn, how many are left?";
    let form = "please choose the one correct answer to the following question out of the four answers below";
    let train = [
        text(1, "nothing of it"),
        // 13 of its 22 words in a row, otherwise spelled.
        text(2, "He said: a FARMER has 17 sheep — and all but 9 of them run away! Then"),
        text(3, form),
        text(4, &format!("Quiz. {question} Answer: 9")),
        text(5, "colder than the moon in a winter's night"),
        // Twelve words are not enough.
        text(6, "a farmer has 17 sheep and all but 9 of them run"),
    ];
    let item = |source: &str, texts: &[&str]| AgainstItem {
        source: source.to_string(),
        texts: texts.iter().map(ToString::to_string).collect(),
    };
    let mut items =
        vec![item("q1", &[question, "9"]), item("short", &["Colder than the moon in a winters night?"])];
    items.push(item("tiny", &["Why so?"]));
    items.extend((0..11).map(|i| item(&format!("f{i}"), &[form, &format!("number {i}")])));
    let found = lint(&train, &[], &Against { items }, LintOptions::default(), &|_, _, _| ());
    let told: Vec<(&str, &str, &str)> = found
        .of(FindingKind::Leak)
        .map(|f| {
            (f.source.as_str(), f.other.as_deref().unwrap_or(""), f.detail.split(':').next().unwrap_or(""))
        })
        .collect();
    assert_eq!(
        told,
        [
            ("line 4", "q1", "100 % (10 of 10 word sequences)"),
            ("line 5", "short", "100 % (1 of 1 word sequences)"),
            ("line 2", "q1", "10 % (1 of 10 word sequences)"),
        ]
    );
    let notes = found.notes.join("\n");
    assert!(notes.contains("2 of 2 items"), "{notes}");
    assert!(notes.contains("not looked for: 12 items") && notes.contains("4 word sequences"), "{notes}");
}

#[test]
fn answers_and_roles() {
    use FindingKind::*;
    let fine: [&[(&str, &str)]; 4] = [
        &[("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
        &[("user", "a"), ("assistant", "b"), ("tool", "3"), ("assistant", "d")],
        &[("user", "a"), ("assistant", "42")],
        &[
            ("user", "q"),
            (
                "assistant",
                "The first is done. For all of the things that it does see https://example.org/a/b",
            ),
        ],
    ];
    for said in fine {
        assert_eq!(kinds(&turns(said)), [], "{said:?}");
    }
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [FindingKind]);
    let cases: [Case<'_>; 9] = [
        (&[("user", "a"), ("assistant", " \n")], &[EmptyAnswer]),
        (&[("user", "Say  Hello"), ("assistant", "say hello ")], &[AnswerIsQuestion]),
        (&[("user", "a"), ("user", "b"), ("assistant", "c")], &[RoleOrder]),
        (&[("user", "a"), ("assistant", "b"), ("assistant", "c")], &[RoleOrder]),
        (&[("assistant", "b"), ("user", "a"), ("assistant", "c")], &[RoleOrder]),
        (&[("user", "a"), ("assistant", "b"), ("system", "s")], &[RoleOrder]),
        (&[("user", "a"), ("assistant", "b"), ("user", "c")], &[RoleOrder]),
        (&[("user", "a"), ("tool", "3"), ("assistant", "b")], &[RoleOrder]),
        (&[("system", "s"), ("assistant", "b")], &[NoUserTurn]),
    ];
    for (said, expected) in cases {
        assert_eq!(kinds(&turns(said)), expected, "{said:?}");
    }
    let mut alpaca = turns(&[("user", "Repeat this\n\nword"), ("assistant", "Repeat this")]);
    let Body::Turns(said) = &mut alpaca.body else { panic!("{alpaca:?}") };
    said[0].message.insert("instruction".to_string(), "Repeat this".into());
    assert_eq!(kinds(&alpaca), [AnswerIsQuestion]);
    let pair = |chosen: &str, rejected: &str| {
        let body = Body::Preference {
            prompt: vec![ChatTurn::new("user", "q")],
            chosen: vec![ChatTurn::new("assistant", chosen)],
            rejected: vec![ChatTurn::new("assistant", rejected)],
        };
        Example::new("x".to_string(), body)
    };
    assert_eq!(kinds(&pair("yes", "no")), []);
    assert_eq!(kinds(&pair("yes", " yes\n")), [SameAnswers]);
    assert_eq!(kinds(&pair("yes", "Well, I think that the best of all is the")), [Truncated]);
}

#[test]
fn answers_that_were_judged() {
    use FindingKind::*;
    let judged = |answer: &str, desirable: bool| {
        let turns = vec![
            ChatTurn { learn: false, ..ChatTurn::new("user", "What is the best of all?") },
            ChatTurn::new("assistant", answer),
        ];
        Example::new(format!("{answer} {desirable}"), Body::Labelled { turns, desirable })
    };
    let broken = "Well, I think that the best of all is the";
    assert_eq!(kinds(&judged(broken, true)), [Truncated]);
    // That may be what is bad of it.
    assert_eq!(kinds(&judged(broken, false)), []);
    assert_eq!(kinds(&judged(" ", true)), [EmptyAnswer]);
    let all = [judged("yes", true), judged("no", false), judged("yes", false), judged("no", false)];
    let found = lint(&all, &[], &Against::default(), LintOptions::default(), &|_, _, _| {});
    let contradictory: Vec<&Finding> = found.of(ContradictoryLabels).collect();
    assert_eq!(contradictory.len(), 1);
    let finding = contradictory[0];
    assert_eq!((finding.source.as_str(), finding.other.as_deref()), ("yes false", Some("yes true")));
    assert!(finding.detail.contains("label = false"), "{}", finding.detail);
}

#[test]
fn answers_that_break_off() {
    let whole = [
        "Paris",
        "answer1",
        "#### 72",
        "Yes. It is so.",
        "```rust\nfn main() {}\n```",
        "First this.\n- a list of things that ends without a full stop anywhere",
        "1, 2, 3",
        "x = (a + b)",
        "他来了。他又走了。",
        "no sentence before and no punctuation at the end of this line",
    ];
    for text in whole {
        assert_eq!(truncated::broken_off(text), None, "{text:?}");
    }
    for (text, why) in [
        ("```rust\nfn main() {", "code fence"),
        ("Bring eggs, milk,", "comma"),
        ("It was the time of the", "middle of a sentence"),
        ("It is as I said a matter of the", "middle of a sentence"),
        ("Some words and then an unfin-", "inside a word"),
        ("That is so. The detective looked at the window and saw that someone", "without punctuation"),
        ("The steps that you need to follow are these:", "colon"),
    ] {
        let found = truncated::broken_off(text);
        // A short line may end with any word.
        let expected = text != "It was the time of the";
        assert_eq!(found.is_some_and(|found| found.contains(why)), expected, "{text:?}: {found:?}");
    }
}

#[test]
fn odd_characters() {
    use FindingKind::*;
    for text in ["Ça va, où? À bientôt – “naïve” €5 ½ 文字", "a\tb\r\nc", "Â quoi, Ã, 20 °C « Été »"]
    {
        assert_eq!(kinds(&self::text(1, text)), [], "{text:?}");
    }
    for (text, kind) in [
        ("lost \u{fffd} here", ReplacementCharacter),
        ("cafÃ© au lait", Mojibake),
        ("donâ€™t", Mojibake),
        ("ä½ å¥½".trim(), Mojibake),
        ("bell \u{7} here", ControlCharacter),
        ("inner \u{feff}mark", ControlCharacter),
        ("null \0 here", Nul),
    ] {
        assert_eq!(kinds(&self::text(1, text)), [kind], "{text:?}");
    }
    // What was meant is what Python's text.encode("cp1252").decode() gives.
    let found = characters::mojibake("cafÃ© donâ€™t ðŸ˜€");
    let meant: String = found.iter().map(|(_, _, right)| right).collect();
    assert_eq!(meant, "é’😀");
}

#[test]
fn every_format_is_read_and_damage_is_a_finding() {
    let dir = tempfile::tempdir().unwrap();
    let files: BTreeMap<&str, &[u8]> = BTreeMap::from([
        ("a.jsonl", b"{\"instruction\":\"a\",\"output\":\"\"}\n{\"instruction\":1,\"output\":\"x\"}\nno\n".as_slice()),
        ("b.json", b"[{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}]"),
        ("c.csv", b"prompt,completion\nq,q\n"),
        ("d.jsonl", b"{\"prompt\":\"p\",\"chosen\":\"x\",\"rejected\":\"x\"}\n"),
        ("e.txt", b"a \xef\xbf\xbd b"),
        ("f.jsonl", b"{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"},{\"from\":\"gpt\",\"value\":\"\\u0000\"}]}\n\xff"),
    ]);
    for (name, bytes) in &files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let options = ReadOptions { keep_empty: true, ..ReadOptions::default() };
    let (read, mut findings) = read_leniently(&[TextSource::new(dir.path())], &options).unwrap();
    assert_eq!((read.report.files, read.report.records, read.examples.len()), (6, 8, 5));
    let found = lint(&read.examples, &[], &Against::default(), LintOptions::default(), &|_, _, _| ());
    findings.extend(found.findings);
    let mut told: Vec<(String, String)> = findings
        .iter()
        .map(|f| (f.source.rsplit('/').next().unwrap().to_string(), f.kind.to_string()))
        .collect();
    told.sort();
    let expected = [
        ("a.jsonl: line 1", "empty-answer"),
        ("a.jsonl: line 2", "malformed"),
        ("a.jsonl: line 3", "malformed"),
        ("b.json: line 1", "nothing-to-learn"),
        ("c.csv: line 2", "answer-is-question"),
        ("d.jsonl: line 1", "same-answers"),
        ("e.txt", "replacement-character"),
        ("f.jsonl", "unreadable"),
        ("f.jsonl: line 1", "nul"),
    ];
    assert_eq!(told, expected.map(|(source, kind)| (source.to_string(), kind.to_string())));
    let missing = [TextSource::new(dir.path().join("missing.jsonl"))];
    assert!(read_leniently(&missing, &options).is_err());
}
