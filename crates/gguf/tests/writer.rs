//! The writer refuses what may not stand in a file, and never leaves half a file behind.

use std::{fs, path::Path};

use tritforge_gguf::{Error, GgmlType, Gguf, Metadata, TensorSpec, Writer};

fn spec(name: &str, dims: &[u64], ty: GgmlType) -> TensorSpec {
    TensorSpec { name: name.into(), dims: dims.into(), ty }
}

fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Asserts that a file with this header is refused, in words that contain these, before anything is written.
fn refused(metadata: &Metadata, tensors: Vec<TensorSpec>, words: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let result = Writer::create(directory.path().join("model.gguf"), metadata, tensors);
    let message = result.expect_err("a header that must be refused").to_string();
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
    assert!(files(directory.path()).is_empty());
}

#[test]
fn headers_that_no_reader_accepts_are_refused() {
    let none = Metadata::new();
    let twin = spec("twin", &[1], GgmlType::F32);
    refused(&none, vec![twin.clone(), twin], &["model.gguf", "tensor `twin`", "second time"]);
    let long = "n".repeat(64);
    refused(&none, vec![spec(&long, &[1], GgmlType::F32)], &["a name of 64 bytes", "at most 63"]);
    refused(&none, vec![spec("a", &[1; 5], GgmlType::F32)], &["tensor `a`", "5 dimensions", "at most 4"]);
    refused(&none, vec![spec("a", &[2, 0], GgmlType::F32)], &["F32", "[2, 0]", "at least 1"]);
    refused(&none, vec![spec("a", &[64, 4], GgmlType::I2_S)], &["I2_S", "[64, 4]", "multiple of 128"]);
    refused(&none, vec![spec("a", &[128, 4], GgmlType::TQ1_0)], &["TQ1_0", "multiple of 256"]);
    refused(&none, vec![spec("a", &[1 << 62], GgmlType::F32)], &["fits 64 bits"]);
    // Each fits, their sum does not.
    let huge = |name| spec(name, &[(1 << 63) - 64], GgmlType::I8);
    refused(&none, vec![huge("a"), huge("b"), huge("c")], &["tensor `c`", "size fits 64 bits"]);

    let mut metadata = Metadata::new();
    metadata.insert("k".repeat(65_536), 1u8);
    refused(&metadata, vec![], &["metadata key `kkk", "65536 bytes", "at most 65535"]);
    let mut metadata = Metadata::new();
    for alignment in [0u32, 4, 48, 1 << 21] {
        metadata.insert("general.alignment", alignment);
        refused(&metadata, vec![], &["general.alignment", &format!("u32 {alignment}"), "power of two"]);
    }
    metadata.insert("general.alignment", 32u64);
    refused(&metadata, vec![], &["u64 32"]);
}

#[test]
fn data_out_of_order_or_of_another_size_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    let specs = vec![spec("a", &[2], GgmlType::F32), spec("b", &[128, 2], GgmlType::I2_S)];
    let mut writer = Writer::create(&path, &Metadata::new(), specs).unwrap();
    let message = |result: Result<(), Error>| result.unwrap_err().to_string();

    assert!(message(writer.write_tensor("b", &[0; 96])).contains("found `b`, expected tensor `a`"));
    assert!(message(writer.write_tensor("a", &[0; 7])).contains("found 7 bytes, expected 8 bytes (F32 [2])"));
    writer.write_tensor("a", &[1; 8]).unwrap();
    assert_eq!(writer.next_tensor().map(|t| (t.name.as_str(), t.nbytes)), Some(("b", 96)));
    // The scale is missing.
    assert!(message(writer.write_tensor("b", &[0; 64])).contains("found 64 bytes, expected 96 bytes"));
    writer.write_tensor("b", &[2; 96]).unwrap();
    assert!(message(writer.write_tensor("b", &[2; 96])).contains("all declared tensors are written"));
    writer.finish().unwrap();

    // The refusals left no trace in the file.
    let model = Gguf::open(&path).unwrap();
    assert_eq!(model.data(model.tensor("a").unwrap()), [1; 8]);
    assert_eq!(model.data(model.tensor("b").unwrap()), [2; 96]);
}

#[test]
fn an_unfinished_file_never_has_the_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    fs::write(&path, "the old file").unwrap();
    let create = || Writer::create(&path, &Metadata::new(), vec![spec("a", &[2], GgmlType::F32)]).unwrap();

    // Dropped, and finished too early.
    drop(create());
    let error = create().finish().unwrap_err().to_string();
    assert!(error.contains("tensor `a`") && error.contains("0 of 1 tensor written"), "{error}");
    assert_eq!(files(directory.path()), ["model.gguf"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "the old file");

    // Two writers of one path do not meet; the last to finish gives the file its content.
    let (mut first, mut second) = (create(), create());
    first.write_tensor("a", &[1; 8]).unwrap();
    second.write_tensor("a", &[2; 8]).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "the old file");
    second.finish().unwrap();
    first.finish().unwrap();
    assert_eq!(files(directory.path()), ["model.gguf"]);
    let model = Gguf::open(&path).unwrap();
    assert_eq!(model.data(&model.tensors()[0]), [1; 8]);
}

#[test]
fn a_file_that_is_open_may_be_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    let write = |byte| {
        let mut writer =
            Writer::create(&path, &Metadata::new(), vec![spec("a", &[8], GgmlType::I8)]).unwrap();
        writer.write_tensor("a", &[byte; 8]).unwrap();
        writer.finish().unwrap();
    };
    write(1);
    let old = Gguf::open(&path).unwrap();
    write(2);
    assert_eq!(old.data(&old.tensors()[0]), [1; 8]);
    let new = Gguf::open(&path).unwrap();
    assert_eq!(new.data(&new.tensors()[0]), [2; 8]);
}

#[test]
fn paths_that_cannot_be_opened_or_written_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.gguf");
    let error = Gguf::open(&missing).unwrap_err();
    assert!(matches!(&error, Error::Io { action: "open", path, .. } if *path == missing), "{error}");
    assert!(Gguf::open(directory.path()).unwrap_err().to_string().contains("not a regular file"));

    let empty = directory.path().join("empty.gguf");
    fs::write(&empty, "").unwrap();
    let error = Gguf::open(&empty).unwrap_err().to_string();
    assert!(error.contains("empty.gguf: byte 0: magic: found 0 bytes"), "{error}");

    let none = Metadata::new();
    assert!(matches!(
        Writer::create(missing.join("x.gguf"), &none, vec![]),
        Err(Error::Io { action: "create", .. })
    ));
    assert!(Writer::create("/", &none, vec![]).unwrap_err().to_string().contains("no file name"));
}
