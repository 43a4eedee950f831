//! The default corpus, on the sources that this very build used.

use tritforge_data::{DataError, RustSources, rust_sources};

#[test]
fn the_dependencies_of_this_workspace_are_text_to_learn_from() {
    let (documents, report) = rust_sources(&RustSources::default()).unwrap();
    assert_eq!(report.files, documents.len());
    assert_eq!(report.bytes, documents.iter().map(|d| d.text.len() as u64).sum::<u64>());
    assert!((8_000_000..=12_000_000).contains(&report.bytes), "{report:?}");
    assert!(report.packages > 100, "{report:?}");
    assert!(
        documents.iter().any(|d| d.source.starts_with("thiserror-") && d.source.ends_with("/src/lib.rs"))
    );
    assert!(documents.iter().all(|d| d.text.ends_with('\n') && d.text.len() <= 100_001));
    // The same text at every call.
    let (_, again) = rust_sources(&RustSources::default()).unwrap();
    assert_eq!(report, again);
    // A smaller corpus still has most of the packages.
    let (_, report) = rust_sources(&RustSources { max_bytes: 2_000_000, ..RustSources::default() }).unwrap();
    assert!((1_000_000..=2_000_000).contains(&report.bytes) && report.packages > 100, "{report:?}");
}

#[test]
fn errors_say_what_to_do() {
    let options = RustSources { manifest: Some("absent/Cargo.toml".into()), ..RustSources::default() };
    let error = rust_sources(&options).unwrap_err();
    assert!(matches!(error, DataError::RustSources(_)));
    let message = error.to_string();
    assert!(message.contains("absent/Cargo.toml") && message.contains("--data FILE_OR_DIR"), "{message}");
}
