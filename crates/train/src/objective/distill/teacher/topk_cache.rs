//! The top-k logits of a teacher for a batch, and the files that cache them.

use std::fs;
use std::path::Path;

use tritforge_data::Fingerprint;
use tritforge_ternary::check_finite;

use crate::TrainError;

/// The likeliest tokens of every position of a batch and their logits, each [tokens, k].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TopK {
    pub(super) ids: Vec<u32>,
    pub(super) logits: Vec<f32>,
    pub(super) k: usize,
}

/// The largest numbers of a row, in descending order; of equal ones the first.
pub(super) fn top_k(row: &[f32], ids: &mut [u32], values: &mut [f32]) {
    let mut order: Vec<u32> = (0..row.len() as u32).collect();
    let greater = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
    if ids.len() < order.len() {
        order.select_nth_unstable_by(ids.len() - 1, greater);
        order.truncate(ids.len());
    }
    order.sort_unstable_by(greater);
    ids.copy_from_slice(&order);
    values.iter_mut().zip(&order).for_each(|(value, id)| *value = row[*id as usize]);
}

/// A cached file holds the batch's tokens, then the teacher's, then their logits, as little-endian words, and
/// the SHA-256 of a key (what they depend on beside the batch) and all of them. None if it is not there, is
/// of another batch or key, is damaged, or has NaN or infinity.
pub(super) fn read(file: &Path, key: &str, batch: &[u32], k: usize, vocab_size: usize) -> Option<TopK> {
    let bytes = fs::read(file).ok()?;
    let (bytes, hash) = bytes.split_last_chunk::<32>()?;
    if *hash != checksum(key, bytes) {
        return None;
    }
    let words: Vec<u32> = bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    if bytes.len() != 4 * batch.len() * (1 + 2 * k) {
        return None;
    }
    let (tokens, rest) = words.split_at(batch.len());
    let (ids, logits) = rest.split_at(batch.len() * k);
    let logits: Vec<f32> = logits.iter().map(|w| f32::from_bits(*w)).collect();
    let possible = ids.iter().all(|id| (*id as usize) < vocab_size) && check_finite(&logits, k).is_ok();
    (tokens == batch && possible).then(|| TopK { ids: ids.to_vec(), logits, k })
}

fn checksum(key: &str, bytes: &[u8]) -> [u8; 32] {
    Fingerprint::of(&[key.as_bytes(), bytes].concat(), &[], None).0
}

pub(super) fn write(file: &Path, key: &str, batch: &[u32], top: &TopK) -> Result<(), TrainError> {
    let words = batch.iter().chain(&top.ids).copied().chain(top.logits.iter().map(|x| x.to_bits()));
    let mut bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
    bytes.extend(checksum(key, &bytes));
    let temporary = file.with_extension("tmp");
    fs::write(&temporary, bytes).map_err(TrainError::io(&temporary, "write"))?;
    fs::rename(&temporary, file).map_err(TrainError::io(file, "rename into"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_in_order() {
        let row = [0.5, 3.0, -1.0, 3.0, 2.0];
        let (mut ids, mut values) = ([0; 3], [0.0; 3]);
        top_k(&row, &mut ids, &mut values);
        assert_eq!((ids, values), ([1, 3, 4], [3.0, 3.0, 2.0]));
        let (mut ids, mut values) = ([0; 5], [0.0; 5]);
        top_k(&row, &mut ids, &mut values);
        assert_eq!(ids, [1, 3, 4, 0, 2]);
    }

    #[test]
    fn a_cached_file_is_that_of_its_batch() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("1-0.bin");
        let top = TopK { ids: vec![1, 2, 3, 4], logits: vec![0.5, -1.0, f32::MIN, 2.5], k: 2 };
        write(&file, "key", &[7, 8], &top).unwrap();
        assert_eq!(read(&file, "key", &[7, 8], 2, 5), Some(top.clone()));
        assert_eq!(read(&file, "key", &[7, 9], 2, 5), None);
        assert_eq!(read(&file, "key", &[7, 8], 1, 5), None);
        // A teacher with other weights or another vocabulary, and a file that was cut or changed.
        assert_eq!(read(&file, "other", &[7, 8], 2, 5), None);
        assert_eq!(read(&file, "key", &[7, 8], 2, 4), None);
        let broken = TopK { logits: vec![0.5, f32::NAN, 1.0, 2.5], ..top.clone() };
        write(&file, "key", &[7, 8], &broken).unwrap();
        assert_eq!(read(&file, "key", &[7, 8], 2, 5), None);
        write(&file, "key", &[7, 8], &top).unwrap();
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(read(&file, "key", &[7, 8], 2, 5), None);
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 1;
            fs::write(&file, other).unwrap();
            assert_eq!(read(&file, "key", &[7, 8], 2, 5), None, "byte {at}");
        }
    }
}
