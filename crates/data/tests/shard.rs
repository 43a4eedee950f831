//! Shards: what is written is read, and a file that is not whole is refused.

use std::path::Path;

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tritforge_data::{Fingerprint, Shard, ShardWriter};

const FINGERPRINT: Fingerprint = Fingerprint([7; 32]);

fn write(path: &Path, vocab_size: usize, ids: &[u32], text_bytes: u64) -> Shard {
    let mut writer = ShardWriter::create(path, vocab_size, FINGERPRINT).unwrap();
    for part in ids.chunks(3) {
        writer.push(part).unwrap();
    }
    writer.finish(text_bytes).unwrap()
}

fn error(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.shard");
    std::fs::write(&path, bytes).unwrap();
    let message = Shard::open(&path).unwrap_err().to_string();
    assert!(message.contains("x.shard"), "{message}");
    message
}

#[test]
fn the_layout_is_the_documented_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    write(&path, 300, &[1, 258, 0], 9);
    let bytes = std::fs::read(&path).unwrap();
    let mut expected = b"TRITSHRD".to_vec();
    expected.extend([2, 0, 0, 0, 2, 0, 0, 0]);
    expected.extend(300u64.to_le_bytes());
    expected.extend(3u64.to_le_bytes());
    expected.extend(9u64.to_le_bytes());
    expected.extend([7; 32]);
    expected.extend(1u64.to_le_bytes());
    expected.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    // Three ids, zeros up to eight bytes, one document at token 0.
    let payload = [1, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let digest = Sha256::new().chain_update(payload).chain_update(&expected).finalize();
    expected.extend(digest);
    expected.extend([0; 8]);
    expected.extend(payload);
    assert_eq!(bytes, expected);
}

#[test]
fn a_large_vocabulary_takes_four_bytes() {
    let dir = tempfile::tempdir().unwrap();
    for (vocab, width) in [(65_536, 2), (65_537, 4)] {
        let path = dir.path().join(vocab.to_string());
        let ids = [0, 65_535, vocab as u32 - 1];
        let shard = write(&path, vocab, &ids, 1);
        assert_eq!(shard.tokens(0, 3), ids);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 128 + (3u64 * width).next_multiple_of(8) + 8);
    }
}

#[test]
fn reading_stops_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let shard = write(&dir.path().join("s"), 10, &[1, 2, 3], 6);
    assert_eq!(shard.tokens(1, 100), [2, 3]);
    assert!(shard.tokens(3, 1).is_empty());
    assert_eq!((shard.len(), shard.bytes_per_token(), shard.vocab_size()), (3, 2.0, 10));
    assert_eq!(shard.fingerprint(), FINGERPRINT);
    let empty = write(&dir.path().join("e"), 10, &[], 0);
    assert!(empty.is_empty());
}

#[test]
fn foreign_and_truncated_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    write(&path, 300, &[1, 258, 0], 9);
    let whole = std::fs::read(&path).unwrap();
    assert!(error(b"").contains("0 bytes: too short"));
    assert!(error(&whole[..100]).contains("too short"));
    assert!(error(&whole[..130]).contains("truncated"));
    assert!(error(&[&whole[..], &[0, 0]].concat()).contains("damaged"));
    let with = |at: usize, value: &[u8]| {
        let mut bytes = whole.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        error(&bytes)
    };
    assert!(with(0, b"GGUF").contains("not a token shard"));
    assert!(with(8, &[1]).contains("shard version 1, but this version of tritforge reads version 2"));
    assert!(with(12, &[4]).contains("4 bytes per token with vocab_size = 300, expected 2"));
    assert!(with(24, &u64::MAX.to_le_bytes()).contains("too large for the file"));
    assert!(with(32, &[1]).contains("checksum"));
    assert!(with(128, &[2]).contains("checksum"));
}

#[test]
fn ids_outside_the_vocabulary_are_refused_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut writer = ShardWriter::create(&path, 300, FINGERPRINT).unwrap();
    let message = writer.push(&[5, 300]).unwrap_err().to_string();
    assert!(message.contains("token 1 is 300, but vocab_size = 300"), "{message}");
    drop(writer);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a shard given up leaves nothing");
    // A file with a right checksum and a wrong id.
    write(&path, 300, &[5, 299], 9);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[130..132].copy_from_slice(&300u16.to_le_bytes());
    let digest = Sha256::new().chain_update(&bytes[128..]).chain_update(&bytes[..88]).finalize();
    bytes[88..120].copy_from_slice(&digest);
    assert!(error(&bytes).contains("token 1 is 300, but vocab_size = 300"));
}

#[test]
fn a_shard_replaces_the_old_one_while_that_is_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let old = write(&path, 10, &[1, 2, 3], 3);
    let new = write(&path, 10, &[9; 5], 5);
    assert_eq!(old.tokens(0, 9), [1, 2, 3]);
    assert_eq!(new.tokens(0, 9), [9; 5]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_flipped_bit_is_noticed(ids in prop::collection::vec(0u32..500, 1..40), at in 0usize..4096, bit in 0u8..8) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let shard = write(&path, 500, &ids, 77);
        prop_assert_eq!(shard.iter().collect::<Vec<_>>(), ids);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let other = dir.path().join("t");
        std::fs::write(&other, &bytes).unwrap();
        prop_assert!(Shard::open(&other).is_err());
    }
}
