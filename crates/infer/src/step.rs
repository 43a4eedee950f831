//! One pass over the weights, for one sequence or for many: prefill chunks and single tokens mixed.
//!
//! Rows of all sequences stand one after the other in the same matrices, so that every weight is read once
//! for all of them. Only positions, caches and attention are each sequence's own. A row's result depends on
//! no other row: a sequence gets the same bits alone and in any company. A block's forward is that of
//! `tritforge-model`, which training calls too.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use tritforge_kernels::{
    LM_HEAD, Observer, QuantizedRows, Step, rms_norm, rms_norm_quantize, ternary_matmul, ternary_matmul_i32,
};
use tritforge_model::{Activations, BlockForward, BlockShape, Cpu, Passing};
use tritforge_ternary::{NotFinite, check_finite};

use crate::adapter::Rows;
use crate::model::EMBEDDING;
use crate::products::{Caches, Looking, NonFinite, Products, StateCapture};
use crate::threads::decode_thread_limit;
use crate::weights::Table;
use crate::{InferError, Model, Session};

/// Which logits a pass is to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitsRequest {
    /// None: a part of a prompt that goes on.
    None,
    /// Those of the last token: `[vocab_size]`.
    Last,
    /// Those of every token: [tokens, vocab_size].
    All,
}

/// One sequence's part of a pass: tokens to append to a session.
#[derive(Debug)]
pub struct SequenceInput<'a> {
    /// The sequence.
    pub session: &'a mut Session,
    /// The tokens to append: a chunk of a prompt or the token chosen last.
    pub ids: &'a [u32],
    /// The logits that are needed.
    pub request: LogitsRequest,
}

/// Appends each part's tokens to its session, in one pass over the weights, and returns the logits that each
/// part wants.
///
/// # Errors
/// If a part has no tokens, a token is unknown, a context is full, or the sessions are of different models;
/// if a token's embedding or a logit is NaN or infinite. No session has changed then.
pub fn step(parts: &mut [SequenceInput<'_>]) -> Result<Vec<Vec<f32>>, InferError> {
    step_observed(parts, None, None)
}

pub(crate) fn step_observed(
    parts: &mut [SequenceInput<'_>],
    observer: Option<&mut Observer<'_>>,
    capture: Option<&mut StateCapture>,
) -> Result<Vec<Vec<f32>>, InferError> {
    let Some(model) = model_of(parts)? else { return Ok(Vec::new()) };
    #[cfg(feature = "cuda")]
    if let Some(cuda) = &model.cuda {
        let logits = cuda.pass(&model, parts, observer, capture)?;
        return end(&model, parts, logits, None);
    }
    let _threads = decode_thread_limit(parts.iter().all(|part| part.ids.len() == 1));
    let mut looking = Looking { observer, capture, non_finite: None };
    let buffers = blocks(&model, parts, &mut looking)?;
    let logits = logits(&model, parts, &buffers.x, looking.observer);
    BUFFERS.set(buffers);
    end(&model, parts, logits, looking.non_finite)
}

/// As [`step`], but returns each part's hidden states behind the last block and the final norm, of which the head
/// makes the logits: [tokens, hidden_size].
///
/// # Errors
/// As [`step`]; if the model runs on a GPU.
pub fn hidden_states(parts: &mut [SequenceInput<'_>]) -> Result<Vec<Vec<f32>>, InferError> {
    let Some(model) = model_of(parts)? else { return Ok(Vec::new()) };
    let config = model.config();
    #[cfg(feature = "cuda")]
    if model.cuda.is_some() {
        return Err(InferError::Option {
            option: "device",
            found: "a GPU".to_string(),
            expected: "cpu, which alone hands out hidden states",
        });
    }
    let mut looking = Looking { observer: None, capture: None, non_finite: None };
    let buffers = blocks(&model, parts, &mut looking)?;
    let mut normed = vec![0f32; buffers.x.len()];
    rms_norm(&buffers.x, &model.norm, config.rms_norm_eps, &mut normed);
    BUFFERS.set(buffers);
    let mut end_of = 0;
    let rows = parts.iter().map(|part| {
        end_of += part.ids.len();
        end_of - part.ids.len()..end_of
    });
    let rows: Vec<Range<usize>> = rows.collect();
    let states = split(&rows, normed, config.hidden_size);
    end_with(&model, parts, states, looking.non_finite, config.hidden_size)
}

/// The model of all parts, whose tokens it can run; none if there is no part.
fn model_of(parts: &[SequenceInput<'_>]) -> Result<Option<Arc<Model>>, InferError> {
    let Some(first) = parts.first() else { return Ok(None) };
    let model = Arc::clone(first.session.model());
    for part in parts {
        if !Arc::ptr_eq(&model, part.session.model()) {
            return Err(InferError::Option {
                option: "parts",
                found: "sessions of different models".to_string(),
                expected: "sessions of one model",
            });
        }
        part.session.check(part.ids)?;
    }
    Ok(Some(model))
}

/// Runs all blocks; the stream behind the last one is in the buffers.
fn blocks(
    model: &Model,
    parts: &mut [SequenceInput<'_>],
    looking: &mut Looking<'_, '_>,
) -> Result<Buffers, InferError> {
    let mut buffers = BUFFERS.take();
    let adapted = begin(model, parts, &mut buffers)?;
    for layer in 0..model.blocks.len() {
        block(model, layer, parts, &adapted, &mut buffers, looking);
    }
    Ok(buffers)
}

/// Hands the logits of a pass out if all its results are finite; if not, it is as if it had not been.
fn end(
    model: &Model,
    parts: &mut [SequenceInput<'_>],
    logits: Vec<Vec<f32>>,
    found: Option<NonFinite>,
) -> Result<Vec<Vec<f32>>, InferError> {
    end_with(model, parts, logits, found, model.config().vocab_size)
}

/// The same of results of so many numbers a row.
fn end_with(
    model: &Model,
    parts: &mut [SequenceInput<'_>],
    logits: Vec<Vec<f32>>,
    found: Option<NonFinite>,
    width: usize,
) -> Result<Vec<Vec<f32>>, InferError> {
    if let Some(non_finite) = found.or_else(|| non_finite_logit(parts, &logits, width)) {
        // The keys and values of this pass are worth nothing.
        parts.iter_mut().for_each(|part| part.session.truncate(part.session.len()));
        return Err(error(non_finite, model, parts));
    }
    for part in parts.iter_mut() {
        part.session.extend(part.ids);
    }
    Ok(logits)
}

/// What to say of a result that is not finite: the weight that it comes of, if there is one.
fn error(found: NonFinite, model: &Model, parts: &[SequenceInput<'_>]) -> InferError {
    let searched = match &found.tensor {
        Some(tensor) => model.check_tensor(tensor),
        None => model.check_finite(),
    };
    if let Err(error) = searched {
        return error;
    }
    let mut row = found.row;
    let mut position = 0;
    for part in parts {
        position = part.session.len() + row;
        if row < part.ids.len() {
            break;
        }
        row -= part.ids.len();
    }
    let what = match found.tensor {
        Some(tensor) => format!("output {} of {tensor}", found.column),
        None => format!("the logit of token {}", found.column),
    };
    InferError::NotFinite { path: model.path().to_path_buf(), what, position, value: found.value }
}

/// The first logit that is NaN or infinite.
fn non_finite_logit(parts: &[SequenceInput<'_>], logits: &[Vec<f32>], vocab: usize) -> Option<NonFinite> {
    let mut end = 0;
    parts.iter().zip(logits).find_map(|(part, logits)| {
        end += part.ids.len();
        let NotFinite { row, column, value } = check_finite(logits, vocab).err()?;
        // The last rows of a part are those whose logits were wanted.
        let row = end - logits.len() / vocab + row.unwrap_or(0);
        Some(NonFinite { row, tensor: None, column, value })
    })
}

thread_local! {
    /// The buffers of the last pass of this thread, kept for the next one.
    static BUFFERS: Cell<Buffers> = Cell::default();
}

/// Everything that a pass computes and nobody keeps, each [rows, …].
#[derive(Default)]
struct Buffers {
    /// The residual stream, and a block's output.
    x: Vec<f32>,
    next: Vec<f32>,
    block: Activations<Cpu>,
    passing: Passing<Cpu>,
    positions: Vec<u32>,
}

/// Fills the stream with the tokens' embeddings and the positions; returns which rows have adapters.
fn begin(model: &Model, parts: &[SequenceInput<'_>], buffers: &mut Buffers) -> Result<Rows, InferError> {
    let d = model.config().hidden_size;
    let rows: usize = parts.iter().map(|part| part.ids.len()).sum();
    buffers.x.resize(rows * d, 0.0);
    buffers.positions.clear();
    let embedding = model.embedding();
    let ids = parts.iter().flat_map(|part| part.ids);
    for (x, id) in buffers.x.chunks_exact_mut(d).zip(ids) {
        embedding.row(*id as usize, x);
        check_finite(x, d).map_err(|NotFinite { column, value, .. }| InferError::Tensor {
            path: model.path().to_path_buf(),
            tensor: EMBEDDING.to_string(),
            message: NotFinite { row: Some(*id as usize), column, value }.to_string(),
        })?;
    }
    for part in parts {
        let start = part.session.len() as u32;
        buffers.positions.extend(start..start + part.ids.len() as u32);
    }
    Ok(adapted_rows(parts))
}

/// Which rows of a pass have adapters.
pub(crate) fn adapted_rows(parts: &[SequenceInput<'_>]) -> Rows {
    let (mut adapted, mut first) = (Rows::new(), 0);
    for part in parts {
        let of_part = first..first + part.ids.len();
        first = of_part.end;
        if !part.session.adapters().is_empty() {
            adapted.push((of_part, Arc::clone(part.session.adapters())));
        }
    }
    adapted
}

/// One block: the stream is replaced by its output.
fn block(
    model: &Model,
    layer: usize,
    parts: &mut [SequenceInput<'_>],
    adapted: &Rows,
    buffers: &mut Buffers,
    looking: &mut Looking<'_, '_>,
) {
    let Buffers { x, next, block: kept, passing, positions } = buffers;
    let block = &model.blocks[layer];
    let shape = BlockShape::new(model.config(), layer);
    let norms = block.norms.each(|norm| norm);
    let forward = BlockForward { device: &Cpu, shape, norms, rope: &model.rope, positions: &positions[..] };
    let products = &mut Products { model, block, layer, rows: positions.len(), adapted, looking };
    let mut caches = Caches { shape: shape.attention, parts };
    let Ok(()) = forward.run(x, products, &mut caches, kept, passing, next);
    std::mem::swap(x, next);
}

/// The logits that each part wants, of the stream x behind the last block.
fn logits(
    model: &Model,
    parts: &[SequenceInput<'_>],
    x: &[f32],
    observer: Option<&mut Observer<'_>>,
) -> Vec<Vec<f32>> {
    let config = model.config();
    let (d, vocab) = (config.hidden_size, config.vocab_size);
    let rows = wanted_rows(parts);
    let wanted: Vec<f32> = rows.iter().flat_map(|rows| &x[rows.start * d..rows.end * d]).copied().collect();
    let mut logits = vec![0f32; wanted.len() / d * vocab];
    match model.head() {
        Table::Dense(head) => {
            let mut normed = vec![0f32; wanted.len()];
            rms_norm(&wanted, &model.norm, config.rms_norm_eps, &mut normed);
            head.matmul(&normed, &mut logits);
        }
        Table::Ternary(..) if logits.is_empty() => {}
        Table::Ternary(head, _) => {
            let mut input = QuantizedRows::default();
            rms_norm_quantize(&wanted, &model.norm, config.rms_norm_eps, &mut input);
            if let Some(observer) = observer {
                let mut sums = vec![0i32; logits.len()];
                ternary_matmul_i32(&input, head, &mut sums);
                let layer = config.num_hidden_layers;
                observer(Step { layer, projection: LM_HEAD, input: &input, sums: &sums });
            }
            ternary_matmul(&input, head, &mut logits);
        }
    }
    split(&rows, logits, vocab)
}

/// The rows of a pass whose logits each part wants.
pub(crate) fn wanted_rows(parts: &[SequenceInput<'_>]) -> Vec<Range<usize>> {
    let mut end = 0;
    let rows = parts.iter().map(|part| {
        end += part.ids.len();
        let count = match part.request {
            LogitsRequest::None => 0,
            LogitsRequest::Last => 1,
            LogitsRequest::All => part.ids.len(),
        };
        end - count..end
    });
    rows.collect()
}

/// The logits of all wanted rows, part by part.
pub(crate) fn split(rows: &[Range<usize>], logits: Vec<f32>, vocab: usize) -> Vec<Vec<f32>> {
    if let [_] = rows {
        return vec![logits];
    }
    let mut rest = logits.as_slice();
    let own = |rows: &Range<usize>| {
        let (own, after) = rest.split_at(rows.len() * vocab);
        rest = after;
        own.to_vec()
    };
    rows.iter().map(own).collect()
}
