//! Models in several files: read as one, and refused by file and key where the files do not belong together.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tritforge_gguf::{Error, GgmlType, Gguf, Metadata, Override, TensorSpec, Value, Writer};

const FIRST: &str = "m-00001-of-00003.gguf";
const SECOND: &str = "m-00002-of-00003.gguf";
const THIRD: &str = "m-00003-of-00003.gguf";

fn write(path: &Path, metadata: &Metadata, tensors: &[(&str, f32)]) {
    let spec =
        |(name, _): &(&str, f32)| TensorSpec { name: name.to_string(), dims: vec![2], ty: GgmlType::F32 };
    let mut writer = Writer::create(path, metadata, tensors.iter().map(spec).collect()).unwrap();
    for (name, value) in tensors {
        writer.write_tensor(name, &[value.to_le_bytes(), (-value).to_le_bytes()].concat()).unwrap();
    }
    writer.finish().unwrap();
}

/// What a part says about its set, in the types of llama.cpp.
fn part(no: u16) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert("split.no", no);
    metadata.insert("split.count", 3u16);
    metadata.insert("split.tensors.count", 4i32);
    metadata
}

/// A sound set in a directory: the second part has another alignment than the others.
fn set() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut first = part(0);
    first.insert("general.architecture", "llama");
    write(&path(FIRST), &first, &[("a", 1.0)]);
    let mut second = part(1);
    second.insert("general.alignment", 64u32);
    write(&path(SECOND), &second, &[("b", 2.0), ("c", 3.0)]);
    write(&path(THIRD), &part(2), &[("d", 4.0)]);
    directory
}

fn refused(path: &Path, words: &[&str]) {
    let error = Gguf::open(path).expect_err("a set that must be refused");
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
}

#[test]
fn all_parts_are_one_model() {
    let directory = set();
    let model = Gguf::open(directory.path().join(FIRST)).unwrap();
    assert_eq!(model.part_count(), 3);
    let names: Vec<PathBuf> = model.paths().map(Path::to_path_buf).collect();
    assert_eq!(names, [FIRST, SECOND, THIRD].map(|name| directory.path().join(name)));
    let sizes = names.iter().map(|path| fs::metadata(path).unwrap().len());
    assert_eq!(model.file_size(), sizes.sum::<u64>());
    for (name, part, value) in [("a", 0, 1f32), ("b", 1, 2.0), ("c", 1, 3.0), ("d", 2, 4.0)] {
        let tensor = model.tensor(name).unwrap();
        assert_eq!(tensor.part, part);
        model.release(tensor);
        assert_eq!(model.data(tensor), [value.to_le_bytes(), (-value).to_le_bytes()].concat());
    }
    assert_eq!(model.metadata().get_str("general.architecture").unwrap(), "llama");
}

#[test]
fn a_part_alone_is_refused_with_the_name_of_what_is_missing_or_first() {
    let directory = set();
    let path = |name: &str| directory.path().join(name);
    refused(&path(SECOND), &[SECOND, "split.no", "part 2 of 3", FIRST]);
    fs::remove_file(path(THIRD)).unwrap();
    refused(&path(FIRST), &[FIRST, "split.count", THIRD, "missing"]);
    fs::rename(path(FIRST), path("model.gguf")).unwrap();
    refused(&path("model.gguf"), &["split.count", "-00001-of-00003.gguf"]);
    // In memory there is nothing beside a file.
    for name in ["model.gguf", SECOND] {
        let error = Gguf::from_bytes(fs::read(path(name)).unwrap()).unwrap_err();
        assert!(matches!(error, Error::Split { .. }), "{error}");
    }
}

#[test]
fn parts_of_different_sets_are_refused() {
    let changed = |name: &str, metadata: &Metadata, tensors: &[(&str, f32)], words: &[&str]| {
        let directory = set();
        write(&directory.path().join(name), metadata, tensors);
        refused(&directory.path().join(FIRST), &[&[name], words].concat());
    };
    let two = [("b", 2.0), ("c", 3.0)];
    changed(SECOND, &part(2), &two, &["split.no", "u16 2", "1, as its name says"]);
    let without = |key: &str, no| {
        let mut metadata = part(no);
        metadata.remove(key);
        metadata
    };
    changed(SECOND, &without("split.no", 1), &two, &["split.no", "no such key"]);
    changed(SECOND, &without("split.count", 1), &two, &["split.count", "no such key", "3"]);
    changed(SECOND, &without("split.tensors.count", 1), &two, &["split.tensors.count"]);
    let with = |key: &str, value: Value, no| {
        let mut metadata = part(no);
        metadata.insert(key, value);
        metadata
    };
    changed(SECOND, &with("split.count", 4u16.into(), 1), &two, &["split.count", "found 4", "expected 3"]);
    changed(
        SECOND,
        &with("split.tensors.count", 5i32.into(), 1),
        &two,
        &["split.tensors.count", "found 5", "expected 4"],
    );
    changed(
        SECOND,
        &with("general.architecture", "qwen2".into(), 1),
        &two,
        &["`general.architecture`", "qwen2", "llama", "one model"],
    );
    changed(SECOND, &with("llama.rope.freq_base", 1f32.into(), 1), &two, &["freq_base", "no such key"]);
    changed(SECOND, &part(1), &[("a", 2.0), ("c", 3.0)], &["tensor `a`", "second time"]);
    // A part of an older download: one tensor too few.
    let directory = set();
    write(&directory.path().join(SECOND), &part(1), &two[..1]);
    refused(&directory.path().join(FIRST), &["split.tensors.count", "found 4", "expected 3"]);
    // A damaged part is named.
    fs::write(directory.path().join(THIRD), b"GGUF").unwrap();
    refused(&directory.path().join(FIRST), &[THIRD, "version"]);
}

#[test]
fn what_the_first_part_says_is_checked() {
    let said = |changes: &[(&str, Option<Value>)], words: &[&str]| {
        let directory = set();
        let mut metadata = part(0);
        for (key, value) in changes {
            match value {
                Some(value) => drop(metadata.insert(*key, value.clone())),
                None => drop(metadata.remove(key)),
            }
        }
        write(&directory.path().join(FIRST), &metadata, &[("a", 1.0)]);
        refused(&directory.path().join(FIRST), words);
    };
    said(&[("split.no", None)], &[FIRST, "split.no", "no such key"]);
    said(&[("split.no", Some("zero".into()))], &[FIRST, "split.no", "string `zero`", "integer"]);
    said(&[("split.count", Some(70_000u32.into()))], &["split.count", "70000"]);
    said(&[("split.count", Some((-1i32).into()))], &["split.count", "i32 -1"]);
    said(&[("split.count", Some(2u16.into()))], &["split.count", "-00001-of-00002.gguf"]);
    // One file that says how many tensors it has, and has another number.
    let one = |tensors: i32| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.gguf");
        let mut metadata = Metadata::new();
        metadata.insert("split.no", 0u16);
        metadata.insert("split.count", 0u16);
        metadata.insert("split.tensors.count", tensors);
        write(&path, &metadata, &[("a", 1.0)]);
        Gguf::open(&path).map(|model| model.part_count())
    };
    assert_eq!(one(1).unwrap(), 1);
    assert!(one(2).unwrap_err().to_string().contains("split.tensors.count"));
}

#[test]
fn metadata_can_be_set_from_outside() {
    let directory = set();
    let overrides: Vec<Override> =
        ["general.architecture=str:qwen2", "qwen2.block_count=int:2"].map(|o| o.parse().unwrap()).into();
    let model = Gguf::open_with(directory.path().join(FIRST), &overrides).unwrap();
    assert_eq!(model.metadata().get_str("general.architecture").unwrap(), "qwen2");
    assert_eq!(model.metadata().get_u32("qwen2.block_count").unwrap(), 2);
    assert_eq!(model.part_count(), 3);
}
