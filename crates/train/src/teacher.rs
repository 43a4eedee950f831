//! The teacher of a distillation: what it thinks likeliest at every position of a batch, computed or read from a cache.
//!
//! The teacher is a checkpoint, run as training runs it, or a GGUF file, run by the engine; of any architecture and precision that they
//! run, with the vocabulary of the student. A cache keeps a file for every micro-batch, named after its place in the run, in a directory
//! named after all that its content depends on: trying another learning rate or another student costs no second pass.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tritforge_checkpoint::{Checkpoint, MODEL};
use tritforge_config::ADAPTER_MODEL;
use tritforge_infer::{KvType, Model, Session, Wanted};
use tritforge_kernels::parallel_for_each;
use tritforge_nn::{Batch, Decoder, Distillation, NnError};

use crate::recipe::Distill;
use crate::{TrainError, base};

/// A model that is only listened to.
#[derive(Debug)]
enum Listened {
    Checkpoint(Box<Decoder>),
    Gguf(Arc<Model>),
}

/// A teacher, and where what it says is kept.
#[derive(Debug)]
pub(crate) struct Teacher {
    model: Listened,
    top_k: usize,
    cache: Option<PathBuf>,
    vocab_size: usize,
}

/// The likeliest tokens of every position of a batch and their logits, each [tokens, k].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TopK {
    pub(crate) ids: Vec<u32>,
    pub(crate) logits: Vec<f32>,
    pub(crate) k: usize,
}

impl Teacher {
    /// Opens the teacher that a recipe names, for a student of `vocab_size` tokens. `data` tells what the batches are made of: the
    /// cache of one data set is not that of another.
    pub(crate) fn open(distill: &Distill, vocab_size: usize, data: &str) -> Result<Self, TrainError> {
        let path = &distill.teacher;
        let fault = |message: String| TrainError::Teacher { path: path.clone(), message };
        let (model, found, print) = if path.is_file() {
            let model = Model::open(path).map_err(|e| fault(e.to_string()))?;
            let meta = fs::metadata(path).map_err(TrainError::io(path, "read"))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let print = format!("{name}-{}", meta.len());
            let vocab = model.config().vocab_size;
            (Listened::Gguf(Arc::new(model)), vocab, print)
        } else {
            let checkpoint = base::open(path).map_err(|e| fault(e.to_string()))?;
            let decoder = decoder(&checkpoint).map_err(|e| fault(e.to_string()))?;
            let vocab = decoder.config().vocab_size;
            let bytes: u64 = checkpoint.files().map(|(_, bytes)| bytes).sum();
            let name = checkpoint.dir().file_name().unwrap_or_default().to_string_lossy().into_owned();
            (Listened::Checkpoint(Box::new(decoder)), vocab, format!("{name}-{bytes}"))
        };
        if found != vocab_size {
            return Err(fault(format!(
                "a vocabulary of {found} tokens, the student has {vocab_size}: teacher and student must share their tokenizer"
            )));
        }
        let top_k = distill.top_k.min(vocab_size);
        let safe = |text: &str| {
            text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect::<String>()
        };
        let cache =
            distill.cache.as_ref().map(|dir| dir.join(format!("{}-k{top_k}-{}", safe(&print), safe(data))));
        if let Some(dir) = &cache {
            fs::create_dir_all(dir).map_err(TrainError::io(dir, "create"))?;
        }
        Ok(Self { model, top_k, cache, vocab_size })
    }

    /// What the teacher says to micro-batch number `part` of step `step`.
    pub(crate) fn top_k(&self, batch: &Batch<'_>, step: u64, part: usize) -> Result<TopK, TrainError> {
        let file = self.cache.as_ref().map(|dir| dir.join(format!("{step:08}-{part}.bin")));
        if let Some(found) = file.as_deref().and_then(|file| read(file, batch.ids, self.top_k)) {
            return Ok(found);
        }
        let mut out = TopK { ids: Vec::new(), logits: Vec::new(), k: self.top_k };
        let length = batch.ids.len() / batch.sequences;
        // A sequence at a time: the logits of all would take more memory than the student.
        for (sequence, ids) in batch.ids.chunks_exact(length).enumerate() {
            let first = sequence * length;
            let within = |at: &&usize| (first + 1..first + length).contains(*at);
            let starts: Vec<usize> = batch.segments.iter().filter(within).map(|at| at - first).collect();
            self.listen(ids, &starts, &mut out)?;
        }
        if let Some(file) = &file {
            write(file, batch.ids, &out)?;
        }
        Ok(out)
    }

    /// One sequence, in which documents begin at `starts` beside its beginning.
    fn listen(&self, ids: &[u32], starts: &[usize], out: &mut TopK) -> Result<(), TrainError> {
        let logits = match &self.model {
            Listened::Checkpoint(decoder) => decoder.segment_logits(ids, 1, starts, None)?,
            Listened::Gguf(model) => {
                let mut logits = Vec::new();
                let ends = starts.iter().copied().chain([ids.len()]);
                let mut begin = 0;
                for end in ends {
                    let mut session = Session::with_kv(Arc::clone(model), end - begin, KvType::F32)?;
                    logits.extend(session.forward(&ids[begin..end], Wanted::All)?);
                    begin = end;
                }
                logits
            }
        };
        let (k, vocab) = (self.top_k, self.vocab_size);
        let first = out.ids.len();
        out.ids.resize(first + ids.len() * k, 0);
        out.logits.resize(first + ids.len() * k, 0.0);
        let rows = out.ids[first..].chunks_exact_mut(k).zip(out.logits[first..].chunks_exact_mut(k));
        parallel_for_each(rows.zip(logits.chunks_exact(vocab)), |((ids, values), row)| {
            likeliest(row, ids, values);
        });
        Ok(())
    }
}

impl Distill {
    /// What a pass is to learn from a teacher's words.
    pub(crate) fn objective<'a>(&self, top: &'a TopK) -> Distillation<'a> {
        let (ce, kl, temperature) = (self.ce as f32, self.kl as f32, self.temperature as f32);
        Distillation { ids: &top.ids, logits: &top.logits, k: top.k, ce, kl, temperature }
    }
}

/// The model of a checkpoint, never to be changed.
pub(crate) fn decoder(checkpoint: &Checkpoint) -> Result<Decoder, TrainError> {
    if checkpoint.has(ADAPTER_MODEL) {
        let dir = checkpoint.dir().display();
        return Err(TrainError::State(format!(
            "an adapter: `tritforge merge {dir} -o DIR` makes a checkpoint of it"
        )));
    }
    let tensors = checkpoint.tensors(MODEL)?;
    Ok(Decoder::load(&checkpoint.config()?, |name, shape| match tensors.f32(name, shape) {
        Ok(values) => Ok(values.into_owned()),
        Err(error) => Err(NnError::Tensor { name: name.to_string(), message: error.to_string() }),
    })?)
}

/// The largest numbers of a row, in descending order; of equal ones the first.
fn likeliest(row: &[f32], ids: &mut [u32], values: &mut [f32]) {
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

/// A cached file holds the batch's tokens, then the teacher's, then their logits, as little-endian words. None if it is not there, is of
/// another batch, or was cut short.
fn read(file: &Path, batch: &[u32], k: usize) -> Option<TopK> {
    let bytes = fs::read(file).ok()?;
    let words: Vec<u32> = bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    if bytes.len() != 4 * batch.len() * (1 + 2 * k) {
        return None;
    }
    let (tokens, rest) = words.split_at(batch.len());
    let (ids, logits) = rest.split_at(batch.len() * k);
    (tokens == batch).then(|| TopK {
        ids: ids.to_vec(),
        logits: logits.iter().map(|w| f32::from_bits(*w)).collect(),
        k,
    })
}

fn write(file: &Path, batch: &[u32], top: &TopK) -> Result<(), TrainError> {
    let words = batch.iter().chain(&top.ids).copied().chain(top.logits.iter().map(|x| x.to_bits()));
    let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
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
        likeliest(&row, &mut ids, &mut values);
        assert_eq!((ids, values), ([1, 3, 4], [3.0, 3.0, 2.0]));
        let (mut ids, mut values) = ([0; 5], [0.0; 5]);
        likeliest(&row, &mut ids, &mut values);
        assert_eq!(ids, [1, 3, 4, 0, 2]);
    }

    #[test]
    fn a_cached_file_is_that_of_its_batch() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("1-0.bin");
        let top = TopK { ids: vec![1, 2, 3, 4], logits: vec![0.5, -1.0, f32::MIN, 2.5], k: 2 };
        write(&file, &[7, 8], &top).unwrap();
        assert_eq!(read(&file, &[7, 8], 2), Some(top));
        assert_eq!(read(&file, &[7, 9], 2), None);
        assert_eq!(read(&file, &[7, 8], 1), None);
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(read(&file, &[7, 8], 2), None);
    }
}
