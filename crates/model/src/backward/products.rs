//! The products of a block in training: by integers where both sides are quantized, else by blocked GEMMs;
//! adapters with some of their inputs dropped; as much of a quantization as has set in.

use tritforge_config::Projection;
use tritforge_kernels::{WriteMode, attention_varlen, gemm, ternary_matmul_many};
use tritforge_ternary::fold_bias;

use super::relation::RelationBuffers;
use super::workspace::AdapterBuffers;
use crate::ModelError;
use crate::block::Block;
use crate::device::{Attend, Cpu, Input, InputForm, Projections, sized};
use crate::forward::BlockShape;

/// The products of one block in a pass.
pub(super) struct Products<'a> {
    pub(super) block: &'a Block,
    pub(super) tokens: usize,
    /// Of the random numbers of this block in this pass.
    pub(super) seed: u64,
    pub(super) adapters: &'a mut AdapterBuffers,
    /// Keeps queries and keys where the relations of this block's states are learned.
    pub(super) relation: Option<&'a mut RelationBuffers>,
}

impl Projections<Cpu> for Products<'_> {
    type Error = ModelError;

    fn form(&self, projections: &[Projection]) -> InputForm {
        self.block.input_form(projections, self.block.input_blend)
    }

    fn project<const N: usize>(
        &mut self,
        projections: [Projection; N],
        input: &Input,
        plain: &Vec<f32>,
        results: [&mut Vec<f32>; N],
    ) -> Result<(), ModelError> {
        let linears = projections.map(|projection| self.block.linear(projection));
        let mut weights = Vec::with_capacity(N);
        let mut outputs = Vec::with_capacity(N);
        for (linear, y) in linears.iter().zip(results) {
            weights.extend(linear.integers().map(|weights| &**weights));
            outputs.push(sized(y, self.tokens * linear.dims().0));
        }
        // Inputs that are quantized in part are numbers.
        if weights.len() == N && input.values.is_empty() {
            ternary_matmul_many(&input.rows, &weights, &mut outputs);
        } else {
            for (linear, y) in linears.iter().zip(&mut outputs) {
                let x = input.matrix(linear.dims().1);
                linear.with_matrix(|weight| gemm(x, weight.transposed(), y, WriteMode::Overwrite))?;
            }
        }
        let plain = input.plain(plain, self.form(&projections));
        for (projection, y) in projections.into_iter().zip(outputs) {
            self.block.adapter_forward(projection, self.seed, plain, self.adapters, y);
            let part = self.block.linear(projection).blend();
            self.block.add_bias(projection, part, y);
        }
        Ok(())
    }

    fn states(&mut self, [q, k, _]: [&Vec<f32>; 3]) {
        if let Some(relation) = &mut self.relation {
            relation.keep(q, k);
        }
    }
}

impl Block {
    /// Adds a projection's bias, if it has one, to its output y [tokens, out], with as much of that of its dead zone as is to
    /// be seen.
    pub(crate) fn add_bias(&self, projection: Projection, part: f32, y: &mut [f32]) {
        let own = self.bias(projection).map(|bias| bias.weight.read());
        let own = own.as_ref().map(|values| &values[..]);
        let folded = self.linear(projection).dead_zone_bias().map(|dead| fold_bias(own, dead, part));
        let Some(bias) = folded.as_deref().or(own) else { return };
        for row in y.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
    }
}

/// Attention within the segments of a batch.
pub(crate) struct Segments<'a> {
    pub(crate) shape: BlockShape,
    /// Tokens of each segment, one after the other.
    pub(crate) lengths: &'a [usize],
}

impl Attend<Cpu> for Segments<'_> {
    fn attend(
        &mut self,
        _layer: usize,
        [q, k, v]: [&Vec<f32>; 3],
        out: &mut Vec<f32>,
        log_sum_exp: &mut Vec<f32>,
    ) {
        let shape = self.shape.attention;
        let tokens = q.len() / shape.q_size();
        let (out, lse) = (sized(out, q.len()), sized(log_sum_exp, tokens * shape.heads));
        attention_varlen(shape, self.lengths, q, k, v, out, lse);
    }
}
