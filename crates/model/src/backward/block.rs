//! The backward of a block, by hand: what the forward keeps is chosen for it, and norms and gates are computed
//! again.

use tritforge_config::Projection;
use tritforge_kernels::{
    CounterRng, Direction, Matrix, RopeTable, WriteMode, attention_varlen_backward, gemm, glu_norm_backward,
    hadamard_in_place, rms_norm, rms_norm_backward, rope_in_place, weight_gradient,
};

use super::input_gradient::{Rounded, input_gradient};
use super::products::{Products, Segments};
use super::relation::Relation;
use super::workspace::{Activations, AdapterBuffers, Scratch, input};
use crate::block::{Block, Vector};
use crate::device::{Cpu, sized};
use crate::forward::{BlockForward, Passing};
use crate::{Gradients, ModelError};

/// What all blocks of a pass share.
pub(super) struct Pass<'a> {
    /// Tokens of each segment, one after the other: attention stays within them.
    pub(super) lengths: &'a [usize],
    /// Tokens of all segments.
    pub(super) tokens: usize,
    pub(super) rope: &'a RopeTable,
    /// The position of every token in its segment.
    pub(super) positions: &'a [u32],
    /// Seeds the rounding of gradients at random.
    pub(super) noise: u64,
    /// A loss of one layer's queries, keys and values.
    pub(super) relation: Option<&'a Relation<'a>>,
}

impl Pass<'_> {
    /// The loss, if it is of this layer.
    fn relation_of(&self, layer: usize) -> Option<&Relation<'_>> {
        self.relation.filter(|relation| relation.layer == layer)
    }
}

/// What the backward of a projection needs beside its gradient.
struct Kept<'a> {
    /// The block's input and its activations.
    x: &'a [f32],
    kept: &'a Activations,
    /// Gradients rounded to integers.
    rounded: &'a mut Rounded,
    adapter: &'a mut AdapterBuffers,
    /// The input of an adapter.
    plain: &'a mut Vec<f32>,
    /// Of the random numbers of this block in this pass.
    seed: u64,
}

use Projection::{Down, Gate, K, O, Q, Up, V};

impl Block {
    /// The block on this machine, for a pass.
    fn on_cpu<'a>(&'a self, pass: &'a Pass<'_>) -> BlockForward<'a, Cpu> {
        let norms = self.norms.each(|norm| &norm.weight);
        BlockForward { device: &Cpu, shape: self.shape, norms, rope: pass.rope, positions: pass.positions }
    }

    /// Everything of the forward but the last projection: fills the activations from the block's input x
    /// [tokens, hidden_size]. With `out` the last projection too, whose output goes there.
    pub(super) fn forward(
        &self,
        x: &Vec<f32>,
        pass: &Pass<'_>,
        kept: &mut Activations,
        Scratch { passing, adapter, relation, .. }: &mut Scratch,
        out: Option<&mut Vec<f32>>,
    ) -> Result<(), ModelError> {
        let products = &mut Products {
            block: self,
            tokens: pass.tokens,
            seed: CounterRng::derive(pass.noise, self.shape.layer as u64),
            adapters: adapter,
            relation: pass.relation_of(self.shape.layer).map(|_| relation),
        };
        let mut segments = Segments { shape: self.shape, lengths: pass.lengths };
        let block = self.on_cpu(pass);
        match out {
            Some(out) => block.run(x, products, &mut segments, kept, passing, out),
            None => block.activations(x, products, &mut segments, kept, passing),
        }
    }

    /// Turns the gradient of the block's output in `scratch.dx` into that of its input x, and adds the
    /// parameters' gradients.
    pub(super) fn backward(
        &self,
        x: &[f32],
        pass: &Pass<'_>,
        kept: &Activations,
        scratch: &mut Scratch,
        gradients: &mut Gradients,
    ) -> Result<(), ModelError> {
        let Scratch { dx, passing, dq, dk, dv, dgate, dup, rounded, adapter, relation, normed, .. } = scratch;
        let Passing { hidden, plain } = passing;
        let seed = CounterRng::derive(pass.noise, self.shape.layer as u64);
        let products = &mut Kept { x, kept, rounded, adapter, plain, seed };
        let (tokens, shape) = (pass.tokens, self.shape.attention);
        let width = self.linear(Down).dims().1;

        let dgate = sized(dgate, tokens * width);
        self.project_backward(Down, dx, (&mut *dgate, WriteMode::Overwrite), products, gradients)?;
        self.rotate_back(Down, dgate, width);
        let dup = sized(dup, tokens * width);
        self.gate_backward(kept, dgate, dup, gradients);
        let dnorm = sized(hidden, dx.len());
        let norm = &self.norms.post_attention_layernorm;
        let of = [(Gate, &*dgate), (Up, dup)];
        self.shared_backward(&kept.middle, norm, of, dnorm, normed, products, gradients)?;
        self.norm_backward(norm, &kept.middle, dnorm, (&mut *dx, WriteMode::Accumulate), gradients);
        self.bias_backward(O, dx, gradients);

        let dout = match &self.norms.attn_sub_norm {
            Some(norm) => {
                let dnorm = sized(dq, tokens * shape.q_size());
                self.project_backward(O, dx, (&mut *dnorm, WriteMode::Overwrite), products, gradients)?;
                self.rotate_back(O, dnorm, shape.q_size());
                let dout = sized(hidden, dnorm.len());
                self.norm_backward(
                    norm,
                    &kept.attention,
                    dnorm,
                    (&mut *dout, WriteMode::Overwrite),
                    gradients,
                );
                dout
            }
            None => {
                let dout = sized(hidden, tokens * shape.q_size());
                self.project_backward(O, dx, (&mut *dout, WriteMode::Overwrite), products, gradients)?;
                self.rotate_back(O, dout, shape.q_size());
                dout
            }
        };
        let dq = sized(dq, tokens * shape.q_size());
        let (dk, dv) = (sized(dk, tokens * shape.kv_size()), sized(dv, tokens * shape.kv_size()));
        let Activations { q, k, v, attention, lse, .. } = kept;
        attention_varlen_backward(shape, pass.lengths, q, k, v, attention, lse, dout, dq, dk, dv);
        rope_in_place(pass.rope, dq, shape.heads, pass.positions, Direction::Backward);
        rope_in_place(pass.rope, dk, shape.kv_heads, pass.positions, Direction::Backward);
        if let Some([q_norm, k_norm]) = &self.norms.qk_norm {
            for (norm, before, d) in [(q_norm, &kept.plain_q, &mut *dq), (k_norm, &kept.plain_k, &mut *dk)] {
                let dnormed = sized(hidden, d.len());
                dnormed.copy_from_slice(d);
                self.norm_backward(norm, before, dnormed, (d, WriteMode::Overwrite), gradients);
            }
        }
        if let Some(of_layer) = pass.relation_of(self.shape.layer) {
            relation.backward(of_layer, v, tokens, [&mut *dq, &mut *dk, &mut *dv]);
        }
        for (projection, d) in [(Q, &*dq), (K, dk), (V, dv)] {
            self.bias_backward(projection, d, gradients);
        }
        let dnorm = sized(hidden, dx.len());
        let norm = &self.norms.input_layernorm;
        let of = [(Q, &*dq), (K, dk), (V, dv)];
        self.shared_backward(x, norm, of, dnorm, normed, products, gradients)?;
        self.norm_backward(norm, x, dnorm, (&mut *dx, WriteMode::Accumulate), gradients);
        Ok(())
    }

    /// Writes the gradient of the input that projections share, given those of their outputs: of x behind `norm`.
    fn shared_backward<const N: usize>(
        &self,
        x: &[f32],
        norm: &Vector,
        of: [(Projection, &[f32]); N],
        dshared: &mut [f32],
        [normed, dnormed]: &mut [Vec<f32>; 2],
        products: &mut Kept<'_>,
        gradients: &mut Gradients,
    ) -> Result<(), ModelError> {
        let writes = std::iter::once(WriteMode::Overwrite).chain(std::iter::repeat(WriteMode::Accumulate));
        let Some(norms) = &self.norms.projections else {
            for ((projection, d), write) in of.into_iter().zip(writes) {
                self.project_backward(projection, d, (&mut *dshared, write), products, gradients)?;
            }
            return Ok(());
        };
        let normed = sized(normed, x.len());
        rms_norm(x, &norm.weight.read(), self.shape.eps, normed);
        for ((projection, d), write) in of.into_iter().zip(writes) {
            let Some(index) = projection.sharing() else { continue };
            let dnormed = sized(dnormed, x.len());
            self.project_backward(projection, d, (&mut *dnormed, WriteMode::Overwrite), products, gradients)?;
            self.norm_backward(&norms[index], normed, dnormed, (&mut *dshared, write), gradients);
        }
        Ok(())
    }

    fn gate_backward(
        &self,
        kept: &Activations,
        dgate: &mut [f32],
        dup: &mut [f32],
        gradients: &mut Gradients,
    ) {
        let (act, width) = (self.shape.act, self.shape.intermediate_size);
        let Some(norm) = &self.norms.ffn_sub_norm else {
            return glu_norm_backward(act, &kept.gate, &kept.up, width, None, dgate, dup, None);
        };
        let weight = norm.weight.read();
        let (norm, dweight) = (Some((&weight[..], self.shape.eps)), gradients.slot(norm.index));
        glu_norm_backward(act, &kept.gate, &kept.up, width, norm, dgate, dup, dweight);
    }

    /// Turns the gradient of a rotated input into that of the input: the rotation is its own transpose.
    fn rotate_back(&self, projection: Projection, d: &mut [f32], width: usize) {
        if self.rotation.rotates(projection) {
            hadamard_in_place(d, width);
        }
    }

    fn norm_backward(
        &self,
        norm: &Vector,
        x: &[f32],
        dy: &[f32],
        dx: (&mut [f32], WriteMode),
        gradients: &mut Gradients,
    ) {
        rms_norm_backward(x, &norm.weight.read(), self.shape.eps, dy, dx, gradients.slot(norm.index));
    }

    /// Adds the rows of `dy`, in their order, to the gradient of the projection's bias, and to that of its dead zone's.
    fn bias_backward(&self, projection: Projection, dy: &[f32], gradients: &mut Gradients) {
        let add_rows = |sum: &mut [f32]| {
            for row in dy.chunks_exact(sum.len()) {
                sum.iter_mut().zip(row).for_each(|(sum, d)| *sum += d);
            }
        };
        if let Some(sum) = self.bias(projection).and_then(|bias| gradients.sum(bias.index)) {
            add_rows(sum);
        }
        let linear = self.linear(projection);
        if linear.dead_zone().is_some() {
            let weight = self.projection_indices[projection as usize];
            gradients.outputs_sum(weight, linear.dims().0).map(add_rows);
        }
    }

    /// Adds `dW = dyᵀ · x` unless the weight is frozen, and writes `dx = dy · W`; both as the forward
    /// multiplied them, the roundings counting as the identity. By integers, dy is rounded for each of the
    /// two products.
    fn project_backward(
        &self,
        projection: Projection,
        dy: &[f32],
        (dx, write): (&mut [f32], WriteMode),
        products: &mut Kept<'_>,
        gradients: &mut Gradients,
    ) -> Result<(), ModelError> {
        let linear = self.linear(projection);
        let (rows, cols) = linear.dims();
        let input = input(products.kept, projection, self.norms.projections.is_some());
        let trained = gradients.slot(self.projection_indices[projection as usize]);
        let noise = |product: u64| CounterRng::new(products.seed, product, projection as usize);
        let rounding = |product: u64| {
            let integers = input.values.is_empty();
            integers.then(|| linear.grad_precision().rounding(noise(product))).flatten()
        };
        if let (Some(transposed), Some(scales), Some(of_weight)) =
            (linear.transposed(), linear.scales(), rounding(0))
        {
            if let Some((dweight, write)) = trained {
                weight_gradient(dy, &input.rows, of_weight, dweight, write);
            }
            let of_input = |part: usize| rounding(1 + part as u64).unwrap_or(of_weight);
            input_gradient(scales, transposed, dy, of_input, (&mut *dx, write), products.rounded);
        } else {
            let dy = Matrix::f32(dy, dy.len() / rows, rows);
            if let Some((dweight, write)) = trained {
                gemm(dy.transposed(), input.matrix(cols), dweight, write);
            }
            linear.with_matrix(|weight| gemm(dy, weight, dx, write))?;
        }
        let Kept { x, kept, adapter, plain, seed, .. } = products;
        self.adapter_backward(projection, x, kept, *seed, (adapter, plain), (dy, dx), gradients);
        Ok(())
    }
}
