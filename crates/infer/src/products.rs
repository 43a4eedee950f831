//! The products of a loaded model's blocks, and attention over the caches of its sequences: what the forward of
//! `tritforge-model` is given.

use std::convert::Infallible;

use tritforge_config::Projection;
use tritforge_kernels::{
    AttentionShape, CachedRows, Observer, Step, TernaryWeights, attention_cached_batch, ternary_matmul_i32,
    ternary_matmul_many,
};
use tritforge_model::{Attend, Cpu, Input, InputForm, Projections, activation_width};
use tritforge_ternary::{NotFinite, check_finite};

use crate::Model;
use crate::adapter::{Rows, add_products, any_adapted};
use crate::step::SequenceInput;
use crate::weights::{Block, Weight};

/// The queries, keys and values of one layer, of every token that passes: as the projections give them,
/// before norms of heads and before RoPE.
#[derive(Debug)]
pub(crate) struct StateCapture {
    pub(crate) layer: usize,
    /// Each [tokens, width].
    pub(crate) states: [Vec<f32>; 3],
}

/// A result of a pass that is NaN or infinite.
pub(crate) struct NonFinite {
    /// The row of the pass.
    pub(crate) row: usize,
    /// The projection whose output it is, by its tensor; none for a logit.
    pub(crate) tensor: Option<String>,
    pub(crate) column: usize,
    pub(crate) value: String,
}

/// Who looks on during a pass.
pub(crate) struct Looking<'a, 'o> {
    /// Sees every product of integers.
    pub(crate) observer: Option<&'a mut Observer<'o>>,
    pub(crate) capture: Option<&'a mut StateCapture>,
    /// The first result that is NaN or infinite.
    pub(crate) non_finite: Option<NonFinite>,
}

/// The products of one block in a pass over `rows` tokens.
pub(crate) struct Products<'p, 'a, 'o> {
    pub(crate) model: &'p Model,
    pub(crate) block: &'p Block,
    pub(crate) layer: usize,
    pub(crate) rows: usize,
    pub(crate) adapted: &'p Rows,
    pub(crate) looking: &'p mut Looking<'a, 'o>,
}

impl Projections<Cpu> for Products<'_, '_, '_> {
    type Error = Infallible;

    fn form(&self, projections: &[Projection]) -> InputForm {
        let ternary = |p: &Projection| self.block.projections[*p as usize].weight.ternary().is_some();
        let quantized = projections.iter().any(ternary).then_some(1.0);
        let plain = !projections.iter().all(ternary) || any_adapted(self.adapted, self.layer, projections);
        let config = self.model.config();
        let rotated = projections.iter().any(|p| config.rotation.rotates(*p));
        let (width, top_k) = (activation_width(config.activations), config.top_k());
        InputForm { quantized, plain, width, top_k, rotated }
    }

    fn project<const N: usize>(
        &mut self,
        projections: [Projection; N],
        input: &Input,
        plain: &Vec<f32>,
        mut results: [&mut Vec<f32>; N],
    ) -> Result<(), Infallible> {
        let plain = input.plain(plain, self.form(&projections));
        let projected = projections.map(|p| &self.block.projections[p as usize]);
        for (projected, result) in projected.iter().zip(&mut results) {
            result.resize(self.rows * projected.weight.rows(), 0.0);
        }
        if let Some(observer) = self.looking.observer.as_deref_mut() {
            for (projection, projected) in projections.iter().zip(projected) {
                let Some(weights) = projected.weight.ternary() else { continue };
                let mut sums = vec![0i32; self.rows * weights.rows()];
                ternary_matmul_i32(&input.rows, weights, &mut sums);
                let projection = projection.hf_name();
                observer(Step { layer: self.layer, projection, input: &input.rows, sums: &sums });
            }
        }
        let (mut weights, mut outputs): (Vec<&TernaryWeights>, Vec<&mut [f32]>) = (Vec::new(), Vec::new());
        for ((projected, result), projection) in projected.iter().zip(&mut results).zip(projections) {
            match &projected.weight {
                Weight::Ternary(ternary, _) => {
                    weights.push(ternary);
                    outputs.push(result);
                }
                Weight::Dense(dense) => {
                    dense.matrix(&self.model.gguf).matmul(plain, result);
                    let tensor = || projection.gguf_weight(self.layer);
                    check_output(&mut self.looking.non_finite, result, dense.rows, tensor);
                }
            }
        }
        if !weights.is_empty() {
            ternary_matmul_many(&input.rows, &weights, &mut outputs);
        }
        for ((projected, result), projection) in projected.iter().zip(results).zip(projections) {
            add_products(self.adapted, self.layer, projection, plain, result);
            let Some(bias) = &projected.bias else { continue };
            for row in result.chunks_exact_mut(bias.len()) {
                row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
        Ok(())
    }

    fn states(&mut self, states: [&Vec<f32>; 3]) {
        if let Some(capture) = self.looking.capture.as_mut().filter(|capture| capture.layer == self.layer) {
            for (kept, state) in capture.states.iter_mut().zip(states) {
                kept.extend_from_slice(state);
            }
        }
    }
}

/// Takes note of NaN and infinity in what a matrix gives, [tokens, width]. A weight that is one gives nothing
/// else, whatever it is multiplied with, and the output is so much smaller than the matrix that looking at it
/// costs nothing.
fn check_output(
    non_finite: &mut Option<NonFinite>,
    output: &[f32],
    width: usize,
    tensor: impl Fn() -> String,
) {
    if let (None, Err(NotFinite { row, column, value })) = (&non_finite, check_finite(output, width)) {
        *non_finite = Some(NonFinite { row: row.unwrap_or(0), tensor: Some(tensor()), column, value });
    }
}

/// The caches of all sequences of a pass: each sequence's queries attend to its own.
pub(crate) struct Caches<'a, 'p> {
    pub(crate) shape: AttentionShape,
    pub(crate) parts: &'a mut [SequenceInput<'p>],
}

impl Attend<Cpu> for Caches<'_, '_> {
    /// Appends keys and values to the caches. The log-sum-exp is not computed.
    fn attend(
        &mut self,
        layer: usize,
        [q, k, v]: [&Vec<f32>; 3],
        out: &mut Vec<f32>,
        _log_sum_exp: &mut Vec<f32>,
    ) {
        out.resize(q.len(), 0.0);
        let (mut keys, mut values) = (k.as_slice(), v.as_slice());
        for SequenceInput { session, ids, .. } in self.parts.iter_mut() {
            let of = ids.len() * self.shape.kv_size();
            let ((own_keys, rest_keys), (own_values, rest_values)) = (keys.split_at(of), values.split_at(of));
            session.caches[layer].append(own_keys, own_values);
            (keys, values) = (rest_keys, rest_values);
        }
        let (mut queries, mut outputs) = (q.as_slice(), out.as_mut_slice());
        let mut sequences: Vec<CachedRows<'_>> = (self.parts.iter())
            .map(|SequenceInput { session, ids, .. }| {
                let q = queries.split_off(..ids.len() * self.shape.q_size()).expect("one row for each token");
                let out = outputs.split_off_mut(..q.len()).expect("one row for each token");
                CachedRows { q, cache: &session.caches[layer], out }
            })
            .collect();
        attention_cached_batch(self.shape, &mut sequences);
    }
}
