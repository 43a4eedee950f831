//! Ten thousand mutated files, and the worst files we know: memory stays within a small multiple of the file.
//!
//! The bound, 7.5 times the file and 4 KiB, follows from what the reader holds a byte of the file at worst,
//! each byte justifying one thing only. A metadata entry of at least 13 bytes is 56 bytes of list and, the
//! table of the set of keys being a power of two at most 7/8 full, up to 16/7 · 17 = 39 bytes of set: 7.3
//! times. All else needs less: a tensor info of at least 24 bytes is 72 bytes of list, 39 of set and 16 of
//! indices (5.3 times); an empty string in an array is 24 bytes for 8; texts and numbers are as long as in
//! the file. The 4 KiB are for the texts of an error.

use std::collections::HashSet;

use tritforge_gguf::Gguf;

use crate::{
    counting::peak,
    raw::{Raw, every_value, sample, strings},
};

/// The most bytes the reader may hold for a file of this size, the file itself not counted.
fn justified(file: usize) -> usize {
    file * 15 / 2 + 4096
}

/// splitmix64: seeded, the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// A number that parsers get wrong: around the file's size, powers of two, multiples that wrap, small
    /// ones.
    fn awkward(&mut self, file: usize) -> u64 {
        let base = match self.below(6) {
            0 => 0,
            1 => file as u64 >> self.below(6),
            2 => 1 << self.below(64),
            3 => u64::MAX >> self.below(4),
            4 => u64::MAX / [2, 3, 4, 8, 13, 24, 66][self.below(7)],
            _ => self.below(40) as u64,
        };
        base.wrapping_add(self.below(5) as u64).wrapping_sub(2)
    }
}

/// One to three changes to a seed file.
fn mutate(seed: &Raw, random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.bytes.clone();
    for _ in 0..1 + random.below(3) {
        let size = bytes.len();
        let at = random.below(size);
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => {
                for _ in 0..1 + random.below(8) {
                    let at = random.below(size);
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << random.below(8);
                    }
                }
            }
            // An awkward number in a field, or where one might be.
            2 | 3 if !seed.fields.is_empty() => {
                let (_, at, width) = seed.fields[random.below(seed.fields.len())];
                put(&mut bytes, at, width, random.awkward(size));
            }
            2..=4 => put(&mut bytes, at, [4, 8][random.below(2)], random.awkward(size)),
            // A piece of the file again, somewhere else.
            _ => {
                let piece = bytes[at..size.min(at + random.below(80))].to_vec();
                let to = random.below(size);
                bytes.splice(to..to, piece);
            }
        }
    }
    bytes
}

fn put(bytes: &mut [u8], at: usize, width: usize, value: u64) {
    if let Some(field) = bytes.get_mut(at..at + width) {
        field.copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

/// Checks a model that the reader accepted without its help.
fn assert_sound(model: &Gguf, file: &[u8]) {
    let keys: HashSet<&str> = model.metadata().iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), model.metadata().len());
    let mut taken: Vec<(usize, usize)> = Vec::new();
    for tensor in model.tensors() {
        let data = model.data(tensor);
        let start = (model.data_offset() + tensor.offset) as usize;
        assert_eq!(data, &file[start..start + tensor.nbytes as usize]);
        assert!(tensor.dims.len() <= 4 && tensor.elements() > 0);
        assert!(taken.iter().all(|&(a, b)| start >= b || start + data.len() <= a), "{tensor:?}");
        taken.push((start, start + data.len()));
    }
}

#[test]
fn ten_thousand_mutated_files_are_errors_or_sound() {
    let written = Raw {
        bytes: include_bytes!("../../../../tests/golden/gguf_writer.bin").to_vec(),
        fields: Vec::new(),
    };
    let seeds = [sample(), every_value(), sample(), written, Raw::new(0, 0)];
    let mut random = Random(0x5eed);
    let (mut sound, mut refused) = (0, 0);
    for i in 0..10_000 {
        let bytes = mutate(&seeds[i % seeds.len()], &mut random);
        let file = bytes.clone();
        let (read, held) = peak(|| Gguf::from_bytes(bytes));
        assert!(held <= justified(file.len()), "file {i}: {held} bytes held for {} of file", file.len());
        match read {
            Ok(model) => {
                assert_sound(&model, &file);
                sound += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains(": byte "), "{error}");
                refused += 1;
            }
        }
    }
    // Both sides are exercised: a reader that refuses everything, or nothing, fails.
    assert!(sound > 500 && refused > 5_000, "{sound} sound, {refused} refused");
}

#[test]
fn the_greediest_files_stay_within_the_bound() {
    const MANY: u64 = 20_000;
    // As many of the smallest things as fit: entries, tensors (refused for want of data, after all were
    // read), empty strings.
    let mut entries = Raw::new(0, MANY);
    let mut tensors = Raw::new(MANY, 0);
    let mut flat = Raw::new(MANY, 0);
    for i in 0..MANY {
        entries.entry(&format!("{i:x}"), 0, &[0]);
        tensors.tensor(&format!("{i:x}"), &[1], 24, 32 * i);
        flat.tensor(&format!("{i:x}"), &[1, 1, 1, 1], 24, 32 * i);
    }
    tensors.data(32, 32);
    flat.data(32, 32 * MANY as usize);
    let mut empty_strings = Raw::new(0, 1);
    empty_strings.array("s", 8, MANY, &strings(&[""]).repeat(MANY as usize));
    let mut bytes = Raw::new(0, 1);
    bytes.array("b", 0, MANY, &vec![0; MANY as usize]);

    // Counts as large as the bytes left allow, with nothing behind them; sizes around powers of two, where
    // the rounding of hash tables is worst.
    let mut files: Vec<Vec<u8>> = [entries, tensors, flat, empty_strings, bytes].map(|raw| raw.bytes).into();
    for things in [1_000u64, 1_792, 1_793, 14_336, 14_337, 28_673] {
        for (least, tensors) in [(13, false), (24, true)] {
            let mut raw = if tensors { Raw::new(things, 0) } else { Raw::new(0, things) };
            raw.bytes.resize(24 + (least * things) as usize, 0xff);
            files.push(raw.bytes);
        }
        let mut raw = Raw::new(0, 1);
        raw.array("s", 8, things, &vec![0xff; 8 * things as usize]);
        files.push(raw.bytes);
        // The same bytes promised to tensors, to entries, and to the strings of the first entry's value.
        for (tensors, entries) in [(0, things), (things / 2, things), (things / 2, things / 13), (0, 1)] {
            let mut raw = Raw::new(tensors, entries);
            raw.array("s", 8, (13 * things - 25) / 8, &[]);
            raw.bytes.resize(24 + 13 * things as usize, 0);
            files.push(raw.bytes);
        }
    }
    let mut greediest = 0.0f64;
    for file in files {
        let size = file.len();
        let (_, held) = peak(|| Gguf::from_bytes(file));
        assert!(held <= justified(size), "{held} bytes held for {size} of file");
        greediest = greediest.max(held as f64 / size as f64);
    }
    // The bound is not slack: the greediest file comes near it.
    assert!(greediest > 7.0, "{greediest}");
}
