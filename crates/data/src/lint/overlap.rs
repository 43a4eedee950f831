//! Questions of evaluation sets among the training examples, by words in a row (Brown et al. 2020, appendix C).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use serde_json::Value;
use tritforge_support::counted;

use super::words::{gram, words};
use super::{Finding, FindingKind, Lint, LintOptions, LintProgress, each, quoted, texts};
use crate::examples::Example;
use crate::text::TextReader;
use crate::{DataError, Format, corpus, read_records};

/// Items of an evaluation set that may have words in common: words that more have belong to the set's form.
const BOILERPLATE: usize = 10;
/// Words in a row that a question must have to be looked for, where it has fewer than a window.
const SHORTEST: usize = 8;

/// An item of an evaluation set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgainstItem {
    /// Where it stands, `test.jsonl: line 3`.
    pub source: String,
    /// Its texts: all strings of a record, whatever their fields are called.
    pub texts: Vec<String>,
}

/// Evaluation sets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Against {
    /// Their items.
    pub items: Vec<AgainstItem>,
}

impl Against {
    /// Reads files, directories, patterns and `hf://` addresses: tables of any layout; a text file is one item.
    ///
    /// # Errors
    /// If one cannot be read, or has no records.
    pub fn read(paths: &[PathBuf]) -> Result<Self, DataError> {
        let mut items = Vec::new();
        for path in paths {
            let before = items.len();
            for file in corpus::files(path, Format::Auto)? {
                if !matches!(file.format, Format::Table(_)) {
                    items.push(AgainstItem { source: file.name, texts: vec![TextReader::read(&file.path)?] });
                    continue;
                }
                for record in read_records(&file.path, None)? {
                    let mut texts = Vec::new();
                    record.fields.values().for_each(|value| strings(value, &mut texts));
                    items.push(AgainstItem { source: format!("{}: {}", file.name, record.place), texts });
                }
            }
            if items.len() == before {
                return Err(DataError::NoText(format!("{}: no records to compare with", path.display())));
            }
        }
        Ok(Self { items })
    }
}

fn strings(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| strings(value, texts)),
        Value::Object(values) => values.values().for_each(|value| strings(value, texts)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Which items have words in a row: by number of words, then by their hash.
#[derive(Default)]
struct Index {
    grams: BTreeMap<usize, HashMap<u64, Vec<u32>>>,
    /// Different grams of each item.
    of_item: Vec<usize>,
    /// Grams that were left out as a part of the set's form.
    boilerplate: usize,
}

impl Index {
    fn new(against: &Against, ngram: usize) -> Self {
        let mut index = Self { of_item: vec![0; against.items.len()], ..Self::default() };
        for (number, item) in against.items.iter().enumerate() {
            let texts: Vec<_> = item.texts.iter().map(|text| words(text)).collect();
            let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
            let length = longest.min(ngram);
            if length < SHORTEST.min(ngram) {
                continue;
            }
            let grams = index.grams.entry(length).or_default();
            for hash in texts.iter().flat_map(|words| words.windows(length)).map(gram) {
                let items: &mut Vec<u32> = grams.entry(hash).or_default();
                if items.last() != Some(&(number as u32)) {
                    items.push(number as u32);
                }
            }
        }
        for grams in index.grams.values_mut() {
            let before = grams.len();
            grams.retain(|_, items| items.len() <= BOILERPLATE);
            index.boilerplate += before - grams.len();
            grams.values().flatten().for_each(|item| index.of_item[*item as usize] += 1);
        }
        index
    }

    /// How many different grams an example shares with each item, and where the first one stands in its texts.
    fn shared(&self, example: &Example) -> BTreeMap<u32, (HashSet<u64>, String)> {
        let mut shared: BTreeMap<u32, (HashSet<u64>, String)> = BTreeMap::new();
        for text in texts(&example.body) {
            let words = words(text);
            for (length, grams) in &self.grams {
                for window in words.windows(*length) {
                    let hash = gram(window);
                    for item in grams.get(&hash).into_iter().flatten() {
                        let first = || text[window[0].start..window[length - 1].end].to_string();
                        let entry = shared.entry(*item).or_insert_with(|| (HashSet::new(), first()));
                        entry.0.insert(hash);
                    }
                }
            }
        }
        shared
    }
}

/// Finds training examples that share words with an evaluation set.
pub(super) fn find(
    train: &[Example],
    against: &Against,
    options: LintOptions,
    progress: &LintProgress<'_>,
    found: &mut Lint,
) {
    if against.items.is_empty() {
        return;
    }
    let index = Index::new(against, options.ngram);
    let all: Vec<&Example> = train.iter().collect();
    let share = |item: u32, hits: usize| hits as f64 / index.of_item[item as usize] as f64;
    // A finding with its share, and the items that the example has anything of.
    let mut leaks: Vec<(f64, Finding, Vec<u32>)> =
        each(&all, "looking for evaluation sets", progress, |example| {
            let shared = index.shared(example);
            let items: Vec<u32> = shared.keys().copied().collect();
            let best = shared.into_iter().max_by(|(a, (x, _)), (b, (y, _))| {
                share(*a, x.len()).total_cmp(&share(*b, y.len())).then(b.cmp(a))
            });
            let finding = best.map(|(item, (hits, words))| {
                let (hits, all) = (hits.len(), index.of_item[item as usize]);
                let detail = format!(
                    "{:.0} % ({hits} of {all} word sequences): {}",
                    100.0 * share(item, hits),
                    quoted(&words, false)
                );
                let other = Some(against.items[item as usize].source.clone());
                let finding =
                    Finding { kind: FindingKind::Leak, source: example.source.clone(), detail, other };
                (share(item, hits), finding, items)
            });
            finding.into_iter().collect()
        });
    let leaked: HashSet<u32> = leaks.iter().flat_map(|(_, _, items)| items).copied().collect();
    // Stable: equal shares stay in the order of the examples.
    leaks.sort_by(|a, b| b.0.total_cmp(&a.0));
    found.findings.extend(leaks.into_iter().map(|(_, finding, _)| finding));
    let checked = index.of_item.iter().filter(|grams| **grams > 0).count();
    let unchecked = against.items.len() - checked;
    found.notes.push(format!(
        "{} of {} of the evaluation sets share at least {} words in a row with the training data",
        leaked.len(),
        counted(checked, "item"),
        options.ngram
    ));
    if unchecked > 0 {
        found.notes.push(format!(
            "not looked for: {}, of fewer than {} words in a row, or only words that more than {BOILERPLATE} items have",
            counted(unchecked, "item"),
            SHORTEST.min(options.ngram)
        ));
    }
    if index.boilerplate > 0 {
        found.notes.push(format!(
            "{} that more than {BOILERPLATE} items have in common, the form of an evaluation set, not looked for",
            counted(index.boilerplate, "word sequence")
        ));
    }
}
