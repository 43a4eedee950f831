//! The attention-relation loss of BitNet Distillation (arXiv 2510.13998; after MiniLMv2, arXiv 2012.15828)
//! and its gradient.
//!
//! How the tokens of a sequence relate to each other, seen through the queries, the keys or the values A of
//! one layer: with each row of A cut into relation heads and scaled to length 1, `R = softmax(A·Aᵀ / τ)`, row
//! by row. What is learned is the teacher's R, whatever its width. The relation is that of the paper, of
//! every token to every other of its segment: no causal mask. Only the loss looks ahead; the model's
//! attention stays causal.

use std::ops::Range;

use tritforge_config::ModelConfig;
use tritforge_kernels::{Matrix, WriteMode, gemm, parallel_for_each};

use crate::device::sized;
use crate::{Batch, IGNORE_INDEX, ModelError, segments};

/// Rows that are shorter have no direction: they relate to nothing and learn nothing.
const SHORTEST: f32 = 1e-6;

/// `weight · Σᵢ alphas[i] · Σ KL(R_teacher ‖ R_model) / (heads · rows)`, i running over queries, keys and
/// values, the inner sum over relation heads and rows.
#[derive(Debug, Clone, Copy)]
pub struct Relation<'a> {
    /// The model's layer, from 0.
    pub layer: usize,
    /// The teacher's queries, keys and values ([`crate::Decoder::attention_states`]), each [tokens, width].
    /// Widths may differ from the model's.
    pub states: [&'a [f32]; 3],
    /// Relation heads: how many parts every row is cut into.
    pub heads: usize,
    /// τ; none is √d, d the width of a relation head of the model.
    pub temperature: Option<f32>,
    /// γ: the weight of the loss beside the others.
    pub weight: f32,
    /// α of queries, keys and values.
    pub alphas: [f32; 3],
    /// Rows of all micro-batches of the optimizer step ([`Batch::relation_rows`]).
    pub rows: usize,
}

impl Batch<'_> {
    /// Tokens of the segments that have a target: those of padding relate to nothing.
    ///
    /// # Errors
    /// If the segments do not ascend, or there is not one target for each token.
    pub fn relation_rows(&self) -> Result<usize, ModelError> {
        if self.targets.len() != self.ids.len() {
            let (found, expected) =
                (self.targets.len().to_string(), format!("{}, one an id", self.ids.len()));
            return Err(ModelError::Input { what: "targets", found, expected });
        }
        let mut lengths = Vec::new();
        self.segment_lengths(&mut lengths)?;
        Ok(counted(&lengths, self.targets).map(|segment| segment.len()).sum())
    }
}

/// The segments that have a target.
fn counted(lengths: &[usize], targets: &[u32]) -> impl Iterator<Item = Range<usize>> {
    segments::ranges(lengths).filter(|segment| targets[segment.clone()].iter().any(|t| *t != IGNORE_INDEX))
}

/// What the loss needs of the pass, and its memory: two matrices [T, T] for the longest segment, used by one
/// relation head after the other. Empty where there is no such loss.
#[derive(Debug, Default)]
pub(super) struct RelationBuffers {
    /// The model's queries and keys, as their projections gave them.
    queries: Vec<f32>,
    keys: Vec<f32>,
    segments: Vec<Range<usize>>,
    ours: Side,
    theirs: Side,
    /// The gradient of the rows that `ours` holds.
    drows: Vec<f32>,
    /// KL of every row.
    losses: Vec<f64>,
    /// Of the pass, without the weight γ.
    pub(super) loss: f64,
}

/// One relation head of one segment.
#[derive(Debug, Default)]
struct Side {
    /// Rows of length 1, [T, d].
    rows: Vec<f32>,
    /// What their lengths were multiplied by.
    inverse: Vec<f32>,
    /// Their products, [T, T].
    products: Vec<f32>,
}

impl Relation<'_> {
    /// Whether the loss fits a model and a batch of `tokens` tokens.
    pub(super) fn check(&self, config: &ModelConfig, tokens: usize) -> Result<(), ModelError> {
        let fault = |what, found: String, expected: String| Err(ModelError::Input { what, found, expected });
        if self.layer >= config.num_hidden_layers {
            let expected = format!("below the model's {}", config.num_hidden_layers);
            return fault("relation layer", self.layer.to_string(), expected);
        }
        let ours = [config.q_size(), config.kv_size(), config.kv_size()];
        for (name, (states, ours)) in ["queries", "keys", "values"].iter().zip(self.states.iter().zip(ours)) {
            let theirs = states.len() / tokens.max(1);
            if theirs == 0 || theirs * tokens != states.len() {
                let found = format!("{} numbers", states.len());
                return fault("the teacher's states", found, format!("{name} of {tokens} tokens"));
            }
            if self.heads == 0 || !ours.is_multiple_of(self.heads) || !theirs.is_multiple_of(self.heads) {
                let expected = format!(
                    "a divisor of the width of the {name}: {ours} of the model, {theirs} of the teacher"
                );
                return fault("relation heads", self.heads.to_string(), expected);
            }
            if states.iter().any(|x| !x.is_finite()) {
                return fault("the teacher's states", "NaN or ∞".to_string(), format!("finite {name}"));
            }
        }
        if let Some(t) = self.temperature.filter(|t| !(*t > 0.0 && t.is_finite())) {
            return fault("relation temperature", t.to_string(), "a number above 0".to_string());
        }
        if self.rows == 0 {
            return fault("relation rows", "0".to_string(), "the rows of the step".to_string());
        }
        Ok(())
    }
}

impl RelationBuffers {
    pub(super) fn bytes(&self) -> usize {
        let Self { queries, keys, segments, ours, theirs, drows, losses, .. } = self;
        let sides = [ours, theirs].into_iter().flat_map(|side| [&side.rows, &side.inverse, &side.products]);
        let floats: usize = [queries, keys, drows].into_iter().chain(sides).map(|x| 4 * x.capacity()).sum();
        floats + size_of::<Range<usize>>() * segments.capacity() + 8 * losses.capacity()
    }

    /// Begins a pass.
    pub(super) fn begin(&mut self, lengths: &[usize], targets: &[u32]) {
        self.segments.clear();
        self.segments.extend(counted(lengths, targets));
        self.loss = 0.0;
    }

    /// Keeps queries and keys, which norms and RoPE are about to change.
    pub(super) fn keep(&mut self, queries: &[f32], keys: &[f32]) {
        for (kept, x) in [(&mut self.queries, queries), (&mut self.keys, keys)] {
            sized(kept, x.len()).copy_from_slice(x);
        }
    }

    /// Computes the loss of what was kept and of the values, and adds its gradient to those of queries, keys
    /// and values.
    pub(super) fn backward(
        &mut self,
        relation: &Relation<'_>,
        values: &[f32],
        tokens: usize,
        gradients: [&mut [f32]; 3],
    ) {
        let Self { queries, keys, segments, ours, theirs, drows, losses, loss } = self;
        let heads = relation.heads;
        *loss = 0.0;
        let states = [&queries[..], &keys[..], values].into_iter().zip(relation.states);
        for (((states, teacher), alpha), gradient) in states.zip(relation.alphas).zip(gradients) {
            if alpha == 0.0 {
                continue;
            }
            let (width, their_width) = (states.len() / tokens, teacher.len() / tokens);
            let (d, their_d) = (width / heads, their_width / heads);
            let inverse = 1.0 / relation.temperature.unwrap_or((d as f32).sqrt());
            let share = alpha / (heads * relation.rows) as f32;
            let mut sum = 0.0;
            for segment in segments.iter() {
                let n = segment.len();
                for head in 0..heads {
                    let (from, their_from) = (head * d, head * their_d);
                    ours.take(states, width, segment, from..from + d);
                    theirs.take(teacher, their_width, segment, their_from..their_from + their_d);
                    losses.resize(n, 0.0);
                    let rows = ours.products.chunks_exact_mut(n).zip(theirs.products.chunks_exact_mut(n));
                    let scale = relation.weight * share * inverse;
                    parallel_for_each(rows.zip(losses.iter_mut()), |((ours, theirs), loss)| {
                        *loss = loss_and_grad(ours, theirs, inverse, scale);
                    });
                    sum += losses.iter().sum::<f64>();

                    // A row stands on both sides of the products.
                    let dproducts = Matrix::f32(&ours.products, n, n);
                    let rows = Matrix::f32(&ours.rows, n, d);
                    let drows = sized(drows, n * d);
                    gemm(dproducts, rows, drows, WriteMode::Overwrite);
                    gemm(dproducts.transposed(), rows, drows, WriteMode::Accumulate);
                    let gradient =
                        gradient[segment.start * width..segment.end * width].chunks_exact_mut(width);
                    for (i, row) in gradient.enumerate() {
                        let (unit, drow) = (&ours.rows[i * d..][..d], &drows[i * d..][..d]);
                        let along: f32 = unit.iter().zip(drow).map(|(u, g)| u * g).sum();
                        for ((sum, u), g) in row[from..from + d].iter_mut().zip(unit).zip(drow) {
                            *sum += (g - u * along) * ours.inverse[i];
                        }
                    }
                }
            }
            *loss += f64::from(share) * sum;
        }
    }
}

impl Side {
    /// The columns of a segment's rows, scaled to length 1, and their products.
    fn take(&mut self, states: &[f32], width: usize, segment: &Range<usize>, columns: Range<usize>) {
        let (n, d) = (segment.len(), columns.len());
        self.inverse.resize(n, 0.0);
        let states = states[segment.start * width..segment.end * width].chunks_exact(width);
        let rows = sized(&mut self.rows, n * d).chunks_exact_mut(d);
        for ((row, inverse), state) in rows.zip(&mut self.inverse).zip(states) {
            let state = &state[columns.clone()];
            let length = state.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32;
            *inverse = if length < SHORTEST { 0.0 } else { 1.0 / length };
            row.iter_mut().zip(state).for_each(|(unit, x)| *unit = x * *inverse);
        }
        let rows = Matrix::f32(&self.rows, n, d);
        gemm(rows, rows.transposed(), sized(&mut self.products, n * n), WriteMode::Overwrite);
    }
}

/// Turns a row of the model's products into the gradient of its KL times `scale`, and returns KL(teacher ‖
/// model); both rows are multiplied by `inverse` = 1 / τ before softmax.
fn loss_and_grad(ours: &mut [f32], theirs: &mut [f32], inverse: f32, scale: f32) -> f64 {
    let (mut sum, mut their_sum, mut apart) = (0f64, 0f64, 0f64);
    for (x, y) in ours.iter_mut().zip(theirs.iter_mut()) {
        // No product of rows of length 1 is above 1.
        let (p, q) = (((*y - 1.0) * inverse).exp(), ((*x - 1.0) * inverse).exp());
        apart += f64::from(p) * f64::from((*y - *x) * inverse);
        (sum, their_sum) = (sum + f64::from(q), their_sum + f64::from(p));
        (*x, *y) = (q, p);
    }
    let (of_ours, of_theirs) = (1.0 / sum as f32, 1.0 / their_sum as f32);
    for (x, y) in ours.iter_mut().zip(theirs.iter()) {
        *x = scale * (*x * of_ours - y * of_theirs);
    }
    apart / their_sum + sum.ln() - their_sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_the_teachers_has_no_loss_and_no_gradient() {
        let mut ours = [1.0, 0.5, -0.75];
        let mut theirs = ours;
        assert_eq!(loss_and_grad(&mut ours, &mut theirs, 3.0, 2.0), 0.0);
        assert_eq!(ours, [0.0; 3]);
    }

    #[test]
    fn the_gradient_of_a_row_is_the_difference_of_the_distributions() {
        // At τ = 1: teacher (⅔, ⅓), model (½, ½).
        let (mut ours, mut theirs) = ([0.5, 0.5], [1.0, 1.0 - 2f32.ln()]);
        let loss = loss_and_grad(&mut ours, &mut theirs, 1.0, 6.0);
        let expected = 2.0 / 3.0 * (4f64 / 3.0).ln() + 1.0 / 3.0 * (2f64 / 3.0).ln();
        assert!((loss - expected).abs() < 1e-7, "{loss} {expected}");
        assert!((ours[0] + 1.0).abs() < 1e-6 && (ours[1] - 1.0).abs() < 1e-6, "{ours:?}");
    }

    #[test]
    fn segments_without_a_target_do_not_count() {
        let targets = [1, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, 2, 3];
        assert_eq!(counted(&[2, 2, 2], &targets).collect::<Vec<_>>(), [0..2, 4..6]);
    }

    /// `tests/golden/make_relation.py` made the file with PyTorch.
    #[test]
    fn loss_and_gradient_are_pytorchs() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../../tests/golden/relation.json")).unwrap();
        let number = |key: &str| golden[key].as_f64().unwrap();
        let numbers = |value: &serde_json::Value| -> Vec<f32> {
            value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
        };
        let three = |key: &str| [0, 1, 2].map(|i| numbers(&golden[key][i]));
        let lengths: Vec<usize> = numbers(&golden["lengths"]).iter().map(|x| *x as usize).collect();
        let tokens = lengths.iter().sum();
        let ([q, k, v], theirs, expected) = (three("ours"), three("theirs"), three("gradients"));
        let alphas = numbers(&golden["alphas"]);
        let relation = Relation {
            layer: 0,
            states: theirs.each_ref().map(Vec::as_slice),
            heads: number("heads") as usize,
            temperature: Some(number("temperature") as f32),
            weight: number("weight") as f32,
            alphas: [alphas[0], alphas[1], alphas[2]],
            rows: tokens,
        };
        let mut buffers = RelationBuffers::default();
        buffers.begin(&lengths, &vec![0; tokens]);
        buffers.keep(&q, &k);
        let [mut dq, mut dk, mut dv] = [&q, &k, &v].map(|x| vec![1f32; x.len()]);
        buffers.backward(&relation, &v, tokens, [&mut dq, &mut dk, &mut dv]);
        assert!((buffers.loss - number("loss")).abs() < 1e-6 * number("loss"), "{}", buffers.loss);
        for (ours, expected) in [dq, dk, dv].iter().zip(&expected) {
            // Added to what stood there.
            ours.iter().zip(expected).for_each(|(a, b)| assert!((a - 1.0 - b).abs() < 1e-4, "{a} {b}"));
        }
    }
}
