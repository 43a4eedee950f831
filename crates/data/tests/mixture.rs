//! Mixtures, several shards, documents and their positions: what is drawn, and that it can be taken up again.

use std::path::Path;

use tritforge_data::{
    Batches, Document, Fingerprint, IGNORE_INDEX, Mixture, MixturePart, Packing, Shard, TokenizeOptions,
    cached_or_tokenize_parts, tokenize_parts,
};

/// Documents of bytes as shards of at most about `shard_tokens` tokens.
fn shards(path: &Path, texts: &[&str], shard_tokens: usize) -> Vec<Shard> {
    let documents: Vec<_> = texts.iter().map(|t| Document::new("d", *t)).collect();
    tokenize_parts(&documents, path, shard_tokens, &options(&documents), encode, |_| ()).unwrap()
}

fn options(documents: &[Document]) -> TokenizeOptions {
    TokenizeOptions { vocab_size: 256, eos: None, fingerprint: Fingerprint::of(b"bytes", documents, None) }
}

fn encode(text: &str) -> Result<Vec<u32>, std::convert::Infallible> {
    Ok(text.bytes().map(u32::from).collect())
}

#[test]
fn several_shards_are_one_text() {
    let dir = tempfile::tempdir().unwrap();
    let texts = ["abcdefgh", "ij", "klmnopqrs", "tuvwx", "yz"];
    let one = Mixture::new(vec![MixturePart {
        shards: shards(&dir.path().join("one.bin"), &texts, 1000),
        weight: 1.0,
    }]);
    let many = shards(&dir.path().join("many.bin"), &texts, 9);
    assert_eq!(many.iter().map(Shard::len).collect::<Vec<_>>(), [10, 9, 7]);
    assert_eq!(many.iter().map(Shard::text_bytes).sum::<u64>(), 26);
    assert_eq!(many[2].documents().collect::<Vec<_>>(), [0, 5]);
    assert_eq!(many[1].path(), dir.path().join("many.1.bin"));
    let (one, many) = (one.unwrap(), Mixture::new(vec![MixturePart { shards: many, weight: 3.0 }]).unwrap());
    assert!(one.iter().eq(many.iter()));
    let mut a = Batches::new(&one, 4, Batches::start(5)).unwrap();
    let mut b = Batches::new(&many, 4, Batches::start(5)).unwrap();
    // A single shard without a mixture draws the same.
    let mut c = Batches::new(&one.parts()[0].shards[0], 4, Batches::start(5)).unwrap();
    for _ in 0..20 {
        let batch = a.next_batch(3).unwrap();
        assert_eq!(batch, b.next_batch(3).unwrap());
        assert_eq!(batch, c.next_batch(3).unwrap());
        // Documents begin at these letters; a sample begins a segment too.
        for (at, id) in batch.inputs.iter().enumerate() {
            let begins = b"aikty".contains(&(*id as u8)) || at % 4 == 0;
            assert_eq!(batch.segments.contains(&at), begins, "{at} {}", *id as u8 as char);
        }
    }
}

#[test]
fn shards_that_do_not_belong_together_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.bin");
    let documents: Vec<_> = ["aaaa", "bbbb", "cccc"].map(|t| Document::new("d", t)).into();
    let run = || {
        let mut encoded = false;
        let made =
            cached_or_tokenize_parts(&documents, &path, 4, &options(&documents), encode, |_| encoded = true);
        assert_eq!(made.unwrap().len(), 3);
        encoded
    };
    assert!(run() && !run());
    std::fs::remove_file(dir.path().join("t.2.bin")).unwrap();
    assert!(run() && !run());
    std::fs::copy(dir.path().join("t.2.bin"), dir.path().join("t.1.bin")).unwrap();
    assert!(run() && !run());
}

#[test]
fn a_mixture_draws_its_shares_and_resumes_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let part = |name: &str, text: String, weight| MixturePart {
        shards: shards(&dir.path().join(name), &[&text], 1000),
        weight,
    };
    let mixture =
        Mixture::new(vec![part("a", "a".repeat(101), 3.0), part("b", "b".repeat(23), 1.0)]).unwrap();
    for packing in [Packing::Concat, Packing::Masked, Packing::Documents] {
        let open = |position| Batches::packed(&mixture, 5, packing, position).unwrap();
        let mut batches = open(Batches::start(1));
        let mut from_b = 0;
        for _ in 0..40 {
            let position = batches.position();
            let batch = batches.next_batch(2).unwrap();
            assert_eq!(open(position).next_batch(2).unwrap(), batch);
            from_b += batch.inputs.chunks(5).filter(|row| row[0] == u32::from(b'b')).count();
        }
        assert_eq!(from_b, 20);
    }
}

#[test]
fn a_document_never_shares_a_sample() {
    let dir = tempfile::tempdir().unwrap();
    let texts = ["abcdefg", "x", "hi", "jklmn"];
    let parts = shards(&dir.path().join("t"), &texts, 4);
    let mixture = Mixture::new(vec![MixturePart { shards: parts, weight: 1.0 }]).unwrap();
    let mut batches = Batches::packed(&mixture, 4, Packing::Documents, Batches::start(9)).unwrap();
    assert_eq!(batches.windows(), 4);
    for _ in 0..3 {
        let batch = batches.next_batch(4).unwrap();
        let mut rows: Vec<(String, String)> = (0..4)
            .map(|row| {
                let row = row * 4..row * 4 + 4;
                let count = batch.targets[row.clone()].iter().filter(|t| **t != IGNORE_INDEX).count();
                let text = |ids: &[u32]| ids[..count].iter().map(|id| *id as u8 as char).collect::<String>();
                (text(&batch.inputs[row.clone()]), text(&batch.targets[row]))
            })
            .collect();
        rows.sort();
        let expected = [("abcd", "bcde"), ("ef", "fg"), ("h", "i"), ("jklm", "klmn")];
        assert_eq!(rows, expected.map(|(a, b)| (a.to_string(), b.to_string())));
        assert_eq!(batch.scored(), 11);
        assert_eq!(batch.segments.len(), 4 + 2, "two samples have padding");
    }
}

#[test]
fn masked_samples_hold_several_documents_and_no_target_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let texts = ["abcdefg", "x", "hi", "jklmn"];
    let parts = shards(&dir.path().join("t"), &texts, 4);
    let mixture = Mixture::new(vec![MixturePart { shards: parts, weight: 1.0 }]).unwrap();
    let open = |packing| Batches::packed(&mixture, 4, packing, Batches::start(9)).unwrap();
    let (mut masked, mut plain) = (open(Packing::Masked), open(Packing::Concat));
    // A document's first letter, and whether it can be reached from the letter before.
    let begins = |id: u32| ["a", "x", "h", "j"].contains(&(id as u8 as char).to_string().as_str());
    let mut unscored = 0;
    for _ in 0..20 {
        let (masked, plain) = (masked.next_batch(3).unwrap(), plain.next_batch(3).unwrap());
        assert_eq!((&masked.inputs, &masked.segments), (&plain.inputs, &plain.segments));
        for (at, (target, follows)) in masked.targets.iter().zip(&plain.targets).enumerate() {
            let expected = if begins(*follows) { IGNORE_INDEX } else { *follows };
            assert_eq!(*target, expected, "after {}", masked.inputs[at]);
            unscored += usize::from(begins(*follows));
        }
        for (at, id) in masked.inputs.iter().enumerate() {
            assert_eq!(masked.segments.contains(&at), at % 4 == 0 || begins(*id));
        }
    }
    assert!(unscored > 20);
    let single = Mixture::new(vec![MixturePart {
        shards: shards(&dir.path().join("u"), &["a", "b", "c"], 9),
        weight: 1.0,
    }]);
    let error = Batches::packed(&single.unwrap(), 2, Packing::Masked, Batches::start(1)).unwrap_err();
    assert!(error.to_string().contains("nothing to train on"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_no_shard() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.bin");
    // The file that the shard is written to before it gets its name, on a device that is full.
    let temporary = dir.path().join(format!(".t.bin.tmp-{}", std::process::id()));
    std::os::unix::fs::symlink("/dev/full", &temporary).unwrap();
    let documents = [Document::new("d", "text")];
    let error =
        tokenize_parts(&documents, &path, 100, &options(&documents), encode, |_| ()).unwrap_err().to_string();
    assert!(error.contains("cannot write") && error.contains("No space left"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
