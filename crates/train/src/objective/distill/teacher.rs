//! The teacher of a distillation: what it thinks likeliest at every position of a batch, computed or read
//! from a cache, and how the tokens relate to each other in one of its layers.
//!
//! The teacher is a checkpoint, a directory in Hugging Face's layout or an adapter with its base, run as
//! training runs them; a GGUF file, run by the engine; of any architecture and precision that they run; or a
//! directory in Hugging Face's layout, run by `candle-transformers`. It has the vocabulary of the student. A cache keeps a
//! file for every micro-batch, named after its place in the run, in a directory named after a hash of all that
//! its content depends on (the files of the teacher, the engine, the number of tokens kept, the data and how it
//! is put into batches): trying another learning rate or another student costs no second pass. Queries, keys
//! and values are too many to be kept: they are computed anew.

mod files;
mod pretrained;
mod relation_config;
mod topk_cache;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tritforge_config::ModelConfig;
use tritforge_export::{ImportOptions, LoadedModel, Located, locate};
use tritforge_infer::{KvType, LogitsRequest, Model, Session};
use tritforge_kernels::parallel_for_each;
use tritforge_model::{AttentionStates, Batch, Decoder, Distillation};
use tritforge_support::counted;
use tritforge_ternary::{NotFinite, check_finite};

use self::pretrained::Pretrained;
use self::relation_config::RelationConfig;
use self::topk_cache::{TopK, read, top_k, write};
use super::{Distill, Engine};
use crate::{TrainError, identity};

/// The frozen model that the student learns from.
#[derive(Debug)]
enum TeacherModel {
    Decoder(Box<Decoder>),
    Gguf(Arc<Model>),
    Pretrained(Box<Pretrained>),
}

/// A teacher and the cache of its top-k logits.
#[derive(Debug)]
pub(super) struct Teacher {
    model: TeacherModel,
    /// None where its distribution has no weight.
    top_k: Option<usize>,
    relation: Option<RelationConfig>,
    cache: Option<Cache>,
    vocab_size: usize,
    /// SHA-256 of its files.
    fingerprint: String,
    /// For errors.
    path: PathBuf,
}

/// Where the top-k logits of a teacher are cached.
#[derive(Debug)]
struct Cache {
    dir: PathBuf,
    /// Everything that they depend on beside the batch itself, in a hash.
    key: String,
}

/// The output of a teacher for a batch: its top-k logits, and the states of one layer if relations are
/// learned.
#[derive(Debug)]
pub(super) struct TeacherOutput {
    top: TopK,
    /// Where relations are learned; each [tokens, width].
    states: AttentionStates,
}

impl Teacher {
    /// Opens the teacher that a recipe names, for a student of a given shape. `data` tells what the batches
    /// are made of: the cache of one data set is not that of another.
    pub(super) fn open(distill: &Distill, student: &ModelConfig, data: &str) -> Result<Self, TrainError> {
        let path = &distill.teacher;
        let fault = |message: String| TrainError::Teacher { path: path.clone(), message };
        let (model, fingerprint) = opened(distill).map_err(|e| match e {
            TrainError::Io { .. } => e,
            other => fault(other.to_string()),
        })?;
        let vocab_size = student.vocab_size;
        let found = model.config().vocab_size;
        if found != vocab_size {
            return Err(fault(format!(
                "a vocabulary of {found}, but the student has {vocab_size}: teacher and student must \
                 use the same tokenizer",
                found = counted(found, "token")
            )));
        }
        let relation = RelationConfig::new(distill, student, model.config()).map_err(fault)?;
        if relation.is_some() && matches!(model, TeacherModel::Pretrained(_)) {
            let message = "candle-transformers does not expose the queries, keys and values that \
                           distill.relation_weight needs; use distill.engine = \"tritforge\"";
            return Err(fault(message.to_string()));
        }
        let top_k = (distill.kl > 0.0).then(|| distill.top_k.min(vocab_size));
        let cache = distill.cache.as_ref().zip(top_k).map(|(dir, k)| {
            // The engines sum in another order: what one says is not, to the bit, what the other says.
            let key =
                identity::of_bytes(format!("{:?} {fingerprint} top {k} {data}", distill.engine).as_bytes());
            Cache { dir: dir.join(format!("{}-{key}", short_name(path))), key }
        });
        if let Some(Cache { dir, .. }) = &cache {
            fs::create_dir_all(dir).map_err(TrainError::io(dir, "create"))?;
        }
        Ok(Self { model, top_k, relation, cache, vocab_size, fingerprint, path: path.clone() })
    }

    /// Which model it is: SHA-256 of its files.
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// What of the teacher's description was passed over: fields that may mean another model.
    pub(super) fn unknown(&self) -> &[String] {
        match &self.model {
            TeacherModel::Pretrained(model) => model.unknown(),
            TeacherModel::Decoder(_) | TeacherModel::Gguf(_) => &[],
        }
    }

    /// Whether relations of tokens are learned.
    pub(super) fn learns_relations(&self) -> bool {
        self.relation.is_some()
    }

    /// The output of the teacher for micro-batch number `part` of step `step`.
    pub(super) fn output(
        &self,
        batch: &Batch<'_>,
        step: u64,
        part: usize,
    ) -> Result<TeacherOutput, TrainError> {
        let file = self
            .cache
            .as_ref()
            .map(|cache| (cache.dir.join(format!("{step:08}-{part}.bin")), cache.key.as_str()));
        let tokens = batch.ids.len();
        let known = match self.top_k {
            Some(k) => file.as_ref().and_then(|(file, key)| read(file, key, batch.ids, k, self.vocab_size)),
            // One token and no weight: nothing to listen to.
            None => Some(TopK { ids: vec![0; tokens], logits: vec![0.0; tokens], k: 1 }),
        };
        let mut states = AttentionStates::default();
        if let (Some(top), None) = (&known, &self.relation) {
            return Ok(TeacherOutput { top: top.clone(), states });
        }
        let mut top = TopK { ids: Vec::new(), logits: Vec::new(), k: self.top_k.unwrap_or(1) };
        let length = tokens / batch.sequences;
        // A sequence at a time: the logits of all would take more memory than the student.
        for (sequence, ids) in batch.ids.chunks_exact(length).enumerate() {
            let first = sequence * length;
            let within = |at: &&usize| (first + 1..first + length).contains(*at);
            let starts: Vec<usize> = batch.segments.iter().filter(within).map(|at| at - first).collect();
            let logits = self.run(ids, &starts, known.is_none(), &mut states)?;
            if known.is_none() {
                top.extend(&logits, self.vocab_size);
            }
        }
        if let (Some((file, key)), None) = (&file, &known) {
            write(file, key, batch.ids, &top)?;
        }
        Ok(TeacherOutput { top: known.unwrap_or(top), states })
    }

    /// The logits of one sequence, in which documents begin at `starts` beside its beginning; none unless
    /// they are wanted. The states are appended where relations are learned.
    fn run(
        &self,
        ids: &[u32],
        starts: &[usize],
        wanted: bool,
        states: &mut AttentionStates,
    ) -> Result<Vec<f32>, TrainError> {
        let layer = self.relation.as_ref().map(|relation| relation.teacher_layer);
        let mut keep = |found: AttentionStates| {
            states.iter_mut().zip(found).for_each(|(states, found)| states.extend(found));
        };
        let segments = || {
            starts
                .iter()
                .copied()
                .chain([ids.len()])
                .scan(0, |begin, end| Some(std::mem::replace(begin, end)..end))
        };
        let mut logits = Vec::new();
        match (&self.model, layer) {
            (TeacherModel::Decoder(decoder), None) => {
                logits = decoder.segment_logits(ids, 1, starts, None)?;
            }
            (TeacherModel::Decoder(decoder), Some(layer)) if wanted => {
                let (found, states) = decoder.segment_logits_and_states(ids, 1, starts, layer)?;
                logits = found;
                keep(states);
            }
            (TeacherModel::Decoder(decoder), Some(layer)) => {
                keep(decoder.attention_states(ids, 1, starts, layer)?);
            }
            (TeacherModel::Gguf(model), layer) => {
                let all = if wanted { LogitsRequest::All } else { LogitsRequest::None };
                for segment in segments() {
                    let mut session = Session::with_kv(Arc::clone(model), segment.len(), KvType::F32)?;
                    let ids = &ids[segment];
                    match layer {
                        None => logits.extend(session.forward(ids, all)?),
                        Some(layer) => {
                            let (found, states) = session.forward_with_states(ids, all, layer)?;
                            logits.extend(found);
                            keep(states);
                        }
                    }
                }
            }
            (TeacherModel::Pretrained(model), _) => {
                for segment in segments() {
                    logits.extend(model.logits(&ids[segment])?);
                }
            }
        }
        let broken = |what: &str, e: NotFinite| {
            let message = format!("its {what} are not finite: {e}; the teacher is broken");
            Err(TrainError::Teacher { path: self.path.clone(), message })
        };
        if let Err(e) = check_finite(&logits, self.vocab_size) {
            return broken("logits", e);
        }
        for state in states.iter() {
            if let Err(e) = check_finite(state, state.len()) {
                return broken("queries, keys or values", e);
            }
        }
        Ok(logits)
    }
}

impl TeacherOutput {
    /// What a pass is to learn from it: one of the passes of a step whose batches have `rows` rows of
    /// relations together.
    pub(super) fn distillation<'a>(
        &'a self,
        distill: &Distill,
        teacher: &Teacher,
        rows: usize,
    ) -> Distillation<'a> {
        let (ce, kl, temperature) = (distill.ce as f32, distill.kl as f32, distill.temperature as f32);
        let relation = teacher.relation.as_ref().map(|relation| relation.objective(&self.states, rows));
        let TopK { ids, logits, k } = &self.top;
        let jsd_beta = distill.jsd_beta as f32;
        Distillation { ids, logits, k: *k, ce, kl, jsd_beta, temperature, relation }
    }
}

impl TeacherModel {
    fn config(&self) -> &ModelConfig {
        match self {
            TeacherModel::Decoder(decoder) => decoder.config(),
            TeacherModel::Gguf(model) => model.config(),
            TeacherModel::Pretrained(model) => model.config(),
        }
    }
}

impl TopK {
    /// Takes the likeliest of further positions, given all of their logits.
    fn extend(&mut self, logits: &[f32], vocab: usize) {
        let (k, first) = (self.k, self.ids.len());
        let more = logits.len() / vocab * k;
        self.ids.resize(first + more, 0);
        self.logits.resize(first + more, 0.0);
        let rows = self.ids[first..].chunks_exact_mut(k).zip(self.logits[first..].chunks_exact_mut(k));
        parallel_for_each(rows.zip(logits.chunks_exact(vocab)), |((ids, values), row)| {
            top_k(row, ids, values);
        });
    }
}

/// The model that a recipe names, and the SHA-256 of its files.
fn opened(distill: &Distill) -> Result<(TeacherModel, String), TrainError> {
    let path = &distill.teacher;
    if distill.engine == Engine::Candle {
        let model = Pretrained::open(path)?;
        let fingerprint = model.fingerprint().to_string();
        return Ok((TeacherModel::Pretrained(Box::new(model)), fingerprint));
    }
    match locate(path)? {
        Located::Gguf(file) => {
            let model = Model::open(&file)?;
            let fingerprint = identity::of_files(model.gguf().paths())?;
            Ok((TeacherModel::Gguf(Arc::new(model)), fingerprint))
        }
        other => {
            let model = LoadedModel::of(other, &ImportOptions::default(), &[])?;
            let fingerprint = identity::of_model(&model)?;
            Ok((TeacherModel::Decoder(Box::new(model.decoder()?)), fingerprint))
        }
    }
}

/// The last part of a path, for people to know a directory by: what tells models apart is the hash behind it.
fn short_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.chars().take(64).map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}
