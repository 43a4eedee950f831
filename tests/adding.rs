//! What CONTRIBUTING.md says under "Adding" is true of what is there: how many source files name one optimizer, quantizer,
//! endpoint and so on. Documentation and tests are not counted, nor files that use the name for something else.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The kind, files that may name a member of it, and members: the file of each, relative to `crates`, and its names.
const KINDS: [(&str, usize, &[Member]); 8] = [
    (
        "optimizer",
        3,
        &[
            ("train/src/optimizer/lion.rs", &["lion", "Lion"]),
            ("train/src/optimizer/muon.rs", &["muon", "Muon"]),
        ],
    ),
    (
        "schedule",
        3,
        &[
            ("train/src/schedule/wsd.rs", &["wsd", "Wsd"]),
            ("train/src/schedule/two_stage.rs", &["two_stage", "two-stage", "TwoStage"]),
        ],
    ),
    (
        "objective",
        3,
        &[
            ("train/src/objective/simpo.rs", &["simpo", "Simpo"]),
            ("train/src/objective/orpo.rs", &["orpo", "Orpo"]),
        ],
    ),
    (
        "quantizer",
        4,
        &[
            ("ternary/src/quantizer/absmedian.rs", &["absmedian", "Absmedian"]),
            ("ternary/src/quantizer/twn.rs", &["twn", "Twn"]),
            ("ternary/src/quantizer/sherry.rs", &["sherry", "Sherry"]),
            ("ternary/src/quantizer/lsq.rs", &["lsq", "Lsq"]),
            ("ternary/src/quantizer/dqt.rs", &["dqt", "Dqt"]),
        ],
    ),
    ("packing", 3, &[("ternary/src/packing/ptq1_0.rs", &["ptq1_0", "Ptq1_0", "PTQ1_0"])]),
    ("architecture", 5, &[("config/src/architecture/qwen3.rs", &["qwen3", "Qwen3", "QWEN3"])]),
    ("format of tables", 3, &[("data/src/rows/parquet.rs", &["parquet", "Parquet", "PARQUET"])]),
    (
        "endpoint",
        2,
        &[
            ("serve/src/routes/tokens.rs", &["mod tokens", "/tokenize", "/detokenize", "/apply-template"]),
            ("serve/src/routes/batch.rs", &["/v1/generate/batch"]),
        ],
    ),
];

type Member = (&'static str, &'static [&'static str]);

/// Files and folders that mean something else by a name.
const OTHERS: [(&str, &str); 6] = [
    // Their recipe or their configuration that the binary carries, and examples of `--help` with such files.
    ("orpo", "cli/src/commands/recipes.rs"),
    ("parquet", "cli/src/commands/eval/mod.rs"),
    ("Qwen3", "cli/src/commands/quantize.rs"),
    // A package of crates.io.
    ("parquet", "data/src/rust_sources/packages.rs"),
    // Tables that are written.
    ("parquet", "ablate/src/report"),
    // The tokenizers of the same family.
    ("qwen3", "text/src/pre.rs"),
];

#[test]
fn so_many_files_name_one_of_a_kind() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = sources(&crates);
    assert!(sources.len() > 300, "{} files", sources.len());
    for (kind, most, members) in KINDS {
        for (own, names) in members {
            let others: Vec<&str> =
                OTHERS.iter().filter(|(name, _)| names.contains(name)).map(|(_, path)| *path).collect();
            let naming: Vec<&String> = (sources.iter())
                .filter(|(path, text)| {
                    !others.iter().any(|other| path.starts_with(other)) && names.iter().any(|n| has(text, n))
                })
                .map(|(path, _)| path)
                .collect();
            assert!(naming.iter().any(|path| path == own), "{own} names itself: {naming:?}");
            assert!(naming.len() <= most, "{kind} {own}: at most {most} files, found {naming:#?}");
        }
    }
}

/// The code of every source file by its path in `crates`, without comments and tests.
fn sources(crates: &Path) -> BTreeMap<String, String> {
    let mut files = Vec::new();
    for member in fs::read_dir(crates).unwrap() {
        collect(&member.unwrap().path().join("src"), &mut files);
    }
    let mut sources: BTreeMap<PathBuf, String> =
        files.into_iter().map(|path| (path.clone(), code(&fs::read_to_string(path).unwrap()))).collect();
    // Modules that only tests have, in files of their own.
    let tests: Vec<PathBuf> = sources.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    sources.retain(|path, _| {
        !tests.iter().any(|test| path.starts_with(test) || *path == test.with_extension("rs"))
    });
    let relative = |path: PathBuf| path.strip_prefix(crates).unwrap().to_str().unwrap().to_string();
    sources.into_iter().map(|(path, text)| (relative(path), text)).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

/// The folders of the modules that a file declares for tests alone.
fn test_modules(path: &Path, text: &str) -> Vec<PathBuf> {
    let stem = path.file_stem().unwrap();
    let dir = path.parent().unwrap();
    let dir =
        if stem == "mod" || stem == "lib" || stem == "main" { dir.to_path_buf() } else { dir.join(stem) };
    let declared = text.split("#[cfg(test)]").skip(1).filter_map(|rest| {
        let rest = rest.trim_start();
        let rest = rest.strip_prefix("pub(crate) ").unwrap_or(rest);
        rest.strip_prefix("mod ")?.split_once(';').map(|(name, _)| name)
    });
    declared.filter(|name| !name.contains('{')).map(|name| dir.join(name)).collect()
}

/// A file's text without comments, up to the tests at its end.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['/', '"', '\'']) {
        let (before, from) = rest.split_at(at);
        code.push_str(before);
        let length = if from.starts_with("//") {
            code.push('\n');
            rest = from.split_once('\n').map_or("", |(_, after)| after);
            continue;
        } else if from.starts_with('"') {
            let hashes = before.len() - before.trim_end_matches('#').len();
            let raw = before[..before.len() - hashes].ends_with('r');
            string(from, raw.then_some(hashes))
        } else if from.starts_with("'\"'") {
            3
        } else if let Some(escaped) = from.strip_prefix("'\\") {
            escaped.find('\'').map_or(2, |end| end + 3)
        } else {
            1
        };
        code.push_str(&from[..length]);
        rest = &from[length..];
    }
    code.push_str(rest);
    let tests = code.match_indices("#[cfg(test)]").find(|(at, _)| {
        let module = code[*at..].split_once(']').map_or("", |(_, after)| after.trim_start());
        module.contains("mod ") && module.find(['{', ';']).is_some_and(|at| module[at..].starts_with('{'))
    });
    tests.map_or(code.clone(), |(at, _)| code[..at].to_string())
}

/// Bytes of the string that a text begins with; one without escapes ends with a quote and as many hashes.
fn string(text: &str, raw: Option<usize>) -> usize {
    if let Some(hashes) = raw {
        let end = format!("\"{}", "#".repeat(hashes));
        return text[1..].find(&end).map_or(text.len(), |at| at + 1 + end.len());
    }
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

/// Whether a text has a name that is no part of another.
fn has(text: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    text.match_indices(name)
        .any(|(at, _)| !text[..at].ends_with(part) && !text[at + name.len()..].starts_with(part))
}

#[test]
fn comments_and_tests_are_no_code() {
    let text = "//! lion\nconst A: &str = \"// wsd\\\"\"; // orpo\nconst B: char = '\"'; /// muon\nconst C: &str = r#\"a\"twn\"#;\n\
                #[cfg(test)]\nmod sgd;\nfn f<'a>() {}\n#[cfg(test)]\nmod tests { simpo }";
    let code = code(text);
    for (name, there) in
        [("lion", false), ("wsd", true), ("orpo", false), ("muon", false), ("twn", true), ("simpo", false)]
    {
        assert_eq!(has(&code, name), there, "{name}: {code}");
    }
    assert_eq!(test_modules(Path::new("src/a/mod.rs"), &code), [Path::new("src/a/sgd")]);
    assert!(has("a Lion,", "Lion") && !has("Lions", "Lion") && !has("qwen3-1.7b", "qwen3"));
}
