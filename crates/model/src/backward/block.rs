//! One block, forward and backward, by hand: the arithmetic of [`crate::block`], with what is kept and what
//! is computed again chosen for it.

use candle_core::Result;
use tritforge_config::Projection;
use tritforge_kernels::{
    CounterRng, Direction, GradientRows, Matrix, RopeTable, WriteMode, attention_varlen,
    attention_varlen_backward, gemm, glu, glu_norm_backward, glu_norm_quantize, gradient_matmul,
    quantize_gradient_rows, quantize_rows_into, rms_norm, rms_norm_backward, rms_norm_quantize,
    rope_in_place, ternary_matmul_many, weight_gradient,
};

use super::add;
use super::relation::Relation;
use super::workspace::{Activations, AdapterBuffers, Input, Scratch, sized};
use crate::Gradients;
use crate::block::{Block, Vector};
use crate::ops::values;

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
struct Products<'a> {
    /// The block's input and its activations.
    x: &'a [f32],
    kept: &'a Activations,
    /// Gradients rounded to integers.
    codes: &'a mut GradientRows,
    adapter: &'a mut AdapterBuffers,
    /// Of the random numbers of this block in this pass.
    seed: u64,
}

use Projection::{Down, Gate, K, O, Q, Up, V};

impl Block {
    /// Everything of the forward but the last projection: fills the activations from the block's input x
    /// [tokens, hidden_size].
    pub(super) fn forward_to_activations(
        &self,
        x: &[f32],
        pass: &Pass<'_>,
        kept: &mut Activations,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let shape = self.attention;
        let Scratch { hidden, adapter, relation, .. } = scratch;
        let seed = CounterRng::derive(pass.noise, self.layer as u64);
        self.norm_input(x, Some(&self.input_layernorm), &mut kept.attention_input)?;
        let Activations { attention_input, q, k, v, .. } = kept;
        self.project([Q, K, V], attention_input, pass, [q, k, v])?;
        if self.has_adapter_on(&[Q, K, V]) {
            self.plain_input(Q, x, kept, &mut adapter.plain)?;
            self.adapter_forward(Q, seed, adapter, &mut kept.q)?;
            self.adapter_forward(K, seed, adapter, &mut kept.k)?;
            self.adapter_forward(V, seed, adapter, &mut kept.v)?;
        }
        if pass.relation_of(self.layer).is_some() {
            relation.keep(&kept.q, &kept.k);
        }
        let Activations { q, k, plain_q, plain_k, .. } = kept;
        if let Some([q_norm, k_norm]) = &self.qk_norm {
            for (norm, plain, normed) in [(q_norm, plain_q, q), (k_norm, plain_k, k)] {
                std::mem::swap(plain, normed);
                rms_norm(plain, &values(&norm.weight)?, self.eps, sized(normed, plain.len()));
            }
        }
        rope_in_place(pass.rope, &mut kept.q, shape.heads, pass.positions, Direction::Forward);
        rope_in_place(pass.rope, &mut kept.k, shape.kv_heads, pass.positions, Direction::Forward);
        let out = sized(&mut kept.attention, pass.tokens * shape.q_size());
        let lse = sized(&mut kept.lse, pass.tokens * shape.heads);
        attention_varlen(shape, pass.lengths, &kept.q, &kept.k, &kept.v, out, lse);
        self.norm_input(&kept.attention, self.attn_sub_norm.as_ref(), &mut kept.output_input)?;
        self.project([O], &kept.output_input, pass, [&mut *hidden])?;
        if self.has_adapter_on(&[O]) {
            self.plain_input(O, x, kept, &mut adapter.plain)?;
            self.adapter_forward(O, seed, adapter, hidden)?;
        }
        sized(&mut kept.middle, x.len());
        add(x, hidden, &mut kept.middle);

        self.norm_input(&kept.middle, Some(&self.post_attention_layernorm), &mut kept.ffn_input)?;
        let Activations { ffn_input, gate, up, .. } = kept;
        self.project([Gate, Up], ffn_input, pass, [gate, up])?;
        if self.has_adapter_on(&[Gate, Up]) {
            self.plain_input(Gate, x, kept, &mut adapter.plain)?;
            self.adapter_forward(Gate, seed, adapter, &mut kept.gate)?;
            self.adapter_forward(Up, seed, adapter, &mut kept.up)?;
        }
        self.gate_input(kept)
    }

    /// The block's output from its activations.
    pub(super) fn output(
        &self,
        pass: &Pass<'_>,
        kept: &Activations,
        scratch: &mut Scratch,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let Scratch { hidden, adapter, .. } = scratch;
        self.project([Down], &kept.down_input, pass, [&mut *hidden])?;
        if self.has_adapter_on(&[Down]) {
            // Its input is made of the activations alone.
            self.plain_input(Down, &[], kept, &mut adapter.plain)?;
            self.adapter_forward(Down, CounterRng::derive(pass.noise, self.layer as u64), adapter, hidden)?;
        }
        sized(out, kept.middle.len());
        add(&kept.middle, hidden, out);
        Ok(())
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
    ) -> Result<()> {
        let Scratch { dx, hidden, dq, dk, dv, dgate, dup, codes, adapter, relation, .. } = scratch;
        let seed = CounterRng::derive(pass.noise, self.layer as u64);
        let products = &mut Products { x, kept, codes, adapter, seed };
        let (tokens, shape) = (pass.tokens, self.attention);
        let width = self.linear(Down).dims().1;

        let dgate = sized(dgate, tokens * width);
        self.project_backward(Down, dx, (&mut *dgate, WriteMode::Overwrite), products, gradients)?;
        let dup = sized(dup, tokens * width);
        self.gate_backward(kept, dgate, dup, gradients)?;
        let dnorm = sized(hidden, dx.len());
        self.project_backward(Gate, dgate, (&mut *dnorm, WriteMode::Overwrite), products, gradients)?;
        self.project_backward(Up, dup, (&mut *dnorm, WriteMode::Accumulate), products, gradients)?;
        let norm = &self.post_attention_layernorm;
        self.norm_backward(norm, &kept.middle, dnorm, (&mut *dx, WriteMode::Accumulate), gradients)?;
        self.bias_backward(O, dx, gradients);

        let dout = match &self.attn_sub_norm {
            Some(norm) => {
                let dnorm = sized(dq, tokens * shape.q_size());
                self.project_backward(O, dx, (&mut *dnorm, WriteMode::Overwrite), products, gradients)?;
                let dout = sized(hidden, dnorm.len());
                self.norm_backward(
                    norm,
                    &kept.attention,
                    dnorm,
                    (&mut *dout, WriteMode::Overwrite),
                    gradients,
                )?;
                dout
            }
            None => {
                let dout = sized(hidden, tokens * shape.q_size());
                self.project_backward(O, dx, (&mut *dout, WriteMode::Overwrite), products, gradients)?;
                dout
            }
        };
        let dq = sized(dq, tokens * shape.q_size());
        let (dk, dv) = (sized(dk, tokens * shape.kv_size()), sized(dv, tokens * shape.kv_size()));
        let Activations { q, k, v, attention, lse, .. } = kept;
        attention_varlen_backward(shape, pass.lengths, q, k, v, attention, lse, dout, dq, dk, dv);
        rope_in_place(pass.rope, dq, shape.heads, pass.positions, Direction::Backward);
        rope_in_place(pass.rope, dk, shape.kv_heads, pass.positions, Direction::Backward);
        if let Some([q_norm, k_norm]) = &self.qk_norm {
            for (norm, plain, d) in [(q_norm, &kept.plain_q, &mut *dq), (k_norm, &kept.plain_k, &mut *dk)] {
                let dnormed = sized(hidden, d.len());
                dnormed.copy_from_slice(d);
                self.norm_backward(norm, plain, dnormed, (d, WriteMode::Overwrite), gradients)?;
            }
        }
        if let Some(of_layer) = pass.relation_of(self.layer) {
            relation.backward(of_layer, v, tokens, [&mut *dq, &mut *dk, &mut *dv]);
        }
        for (projection, d) in [(Q, &*dq), (K, dk), (V, dv)] {
            self.bias_backward(projection, d, gradients);
        }
        let dnorm = sized(hidden, dx.len());
        self.project_backward(Q, dq, (&mut *dnorm, WriteMode::Overwrite), products, gradients)?;
        self.project_backward(K, dk, (&mut *dnorm, WriteMode::Accumulate), products, gradients)?;
        self.project_backward(V, dv, (&mut *dnorm, WriteMode::Accumulate), products, gradients)?;
        self.norm_backward(&self.input_layernorm, x, dnorm, (&mut *dx, WriteMode::Accumulate), gradients)
    }

    /// The input of projections: normed, where there is a norm, and quantized, where activations are, as far
    /// as training sees it.
    fn norm_input(&self, x: &[f32], norm: Option<&Vector>, input: &mut Input) -> Result<()> {
        let part = self.input_blend();
        if part == Some(1.0) {
            input.values.clear();
            match norm {
                Some(norm) => rms_norm_quantize(x, &values(&norm.weight)?, self.eps, &mut input.rows),
                None => quantize_rows_into(x, self.attention.q_size(), &mut input.rows),
            }
            return Ok(());
        }
        let out = sized(&mut input.values, x.len());
        match norm {
            Some(norm) => rms_norm(x, &values(&norm.weight)?, self.eps, out),
            None => out.copy_from_slice(x),
        }
        let width = norm.map_or(Ok(self.attention.q_size()), |norm| norm.weight.dims1())?;
        blend_rows(part, width, input);
        Ok(())
    }

    /// `act(gate) · up`, then as [`Self::norm_input`].
    fn gate_input(&self, kept: &mut Activations) -> Result<()> {
        let width = self.linear(Down).dims().1;
        let norm = self.ffn_sub_norm.as_ref().map(|norm| values(&norm.weight)).transpose()?;
        let Activations { gate, up, down_input, .. } = kept;
        let part = self.input_blend();
        if part == Some(1.0) {
            down_input.values.clear();
            let norm = norm.as_ref().map(|weight| (&weight[..], self.eps));
            glu_norm_quantize(self.gate, gate, up, width, norm, &mut down_input.rows);
            return Ok(());
        }
        let out = sized(&mut down_input.values, gate.len());
        glu(self.gate, gate, up, out);
        if let Some(weight) = norm {
            let product = out.to_vec();
            rms_norm(&product, &weight, self.eps, out);
        }
        blend_rows(part, width, down_input);
        Ok(())
    }

    /// How much of the quantization of its inputs training sees; none where they are not quantized.
    fn input_blend(&self) -> Option<f32> {
        self.int8.then(|| self.linear(Q).blend())
    }

    fn gate_backward(
        &self,
        kept: &Activations,
        dgate: &mut [f32],
        dup: &mut [f32],
        gradients: &mut Gradients,
    ) -> Result<()> {
        let width = self.linear(Down).dims().1;
        let Some(norm) = &self.ffn_sub_norm else {
            glu_norm_backward(self.gate, &kept.gate, &kept.up, width, None, dgate, dup, None);
            return Ok(());
        };
        let weight = values(&norm.weight)?;
        let (norm, dweight) = (Some((&weight[..], self.eps)), gradients.slot(norm.index));
        glu_norm_backward(self.gate, &kept.gate, &kept.up, width, norm, dgate, dup, dweight);
        Ok(())
    }

    fn norm_backward(
        &self,
        norm: &Vector,
        x: &[f32],
        dy: &[f32],
        dx: (&mut [f32], WriteMode),
        gradients: &mut Gradients,
    ) -> Result<()> {
        rms_norm_backward(x, &values(&norm.weight)?, self.eps, dy, dx, gradients.slot(norm.index));
        Ok(())
    }

    /// Adds the rows of `dy` to the bias's gradient, in their order.
    fn bias_backward(&self, projection: Projection, dy: &[f32], gradients: &mut Gradients) {
        let Some(sum) = self.bias(projection).and_then(|bias| gradients.sum(bias.index)) else { return };
        for row in dy.chunks_exact(sum.len()) {
            sum.iter_mut().zip(row).for_each(|(sum, d)| *sum += d);
        }
    }

    /// `y = x · Wᵀ + b` of projections that share their input, by integers where both sides are quantized.
    fn project<const N: usize>(
        &self,
        projections: [Projection; N],
        input: &Input,
        pass: &Pass<'_>,
        results: [&mut Vec<f32>; N],
    ) -> Result<()> {
        let linears = projections.map(|projection| self.linear(projection));
        let mut weights = Vec::with_capacity(N);
        let mut outputs = Vec::with_capacity(N);
        for (linear, y) in linears.iter().zip(results) {
            weights.extend(linear.integers().map(|weights| &**weights));
            outputs.push(sized(y, pass.tokens * linear.dims().0));
        }
        if weights.len() == N {
            ternary_matmul_many(&input.rows, &weights, &mut outputs);
        } else {
            for (linear, y) in linears.iter().zip(&mut outputs) {
                let x = input.matrix(linear.dims().1);
                linear.with_matrix(|weight| gemm(x, weight.transposed(), y, WriteMode::Overwrite))?;
            }
        }
        for (projection, y) in projections.into_iter().zip(outputs) {
            let Some(bias) = self.bias(projection) else { continue };
            let bias = values(&bias.weight)?;
            for row in y.chunks_exact_mut(bias.len()) {
                row.iter_mut().zip(&*bias).for_each(|(y, b)| *y += b);
            }
        }
        Ok(())
    }

    /// Adds `dW = dyᵀ · x` unless the weight is frozen, and writes `dx = dy · W`; both as the forward
    /// multiplied them, the roundings counting as the identity. By integers, dy is rounded for each of the
    /// two products.
    fn project_backward(
        &self,
        projection: Projection,
        dy: &[f32],
        (dx, write): (&mut [f32], WriteMode),
        products: &mut Products<'_>,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let linear = self.linear(projection);
        let (rows, cols) = linear.dims();
        let input = products.kept.input(projection);
        let trained = gradients.slot(self.projection_indices[projection as usize]);
        let noise = |product: u64| CounterRng::new(products.seed, product, projection as usize);
        let rounding = |product: u64| linear.grad_precision().rounding(noise(product));
        if let (Some(transposed), Some(of_weight), Some(of_input)) =
            (linear.transposed(), rounding(0), rounding(1))
        {
            if let Some((dweight, write)) = trained {
                weight_gradient(dy, &input.rows, of_weight, dweight, write);
            }
            quantize_gradient_rows(dy, rows, of_input, products.codes);
            gradient_matmul(products.codes, transposed, dx, write);
        } else {
            let dy = Matrix::f32(dy, dy.len() / rows, rows);
            if let Some((dweight, write)) = trained {
                gemm(dy.transposed(), input.matrix(cols), dweight, write);
            }
            linear.with_matrix(|weight| gemm(dy, weight, dx, write))?;
        }
        let Products { x, kept, adapter, seed, .. } = products;
        self.adapter_backward(projection, x, kept, *seed, adapter, (dy, dx), gradients)
    }
}

/// `x + λ(Q(x) − x)` of an input's values, in rows of `width`, for a part λ below 1.
fn blend_rows(part: Option<f32>, width: usize, input: &mut Input) {
    let Some(part) = part else { return };
    let Input { rows, values } = input;
    quantize_rows_into(values, width, rows);
    let codes = rows.codes.chunks_exact(width).zip(&rows.scales);
    for (row, (codes, scale)) in values.chunks_exact_mut(width).zip(codes) {
        for (x, code) in row.iter_mut().zip(codes) {
            *x += part * (f32::from(*code) * scale - *x);
        }
    }
}
