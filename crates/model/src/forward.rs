//! The forward of a transformer block, written once: training keeps what it computes for the backward
//! ([`crate::Decoder::forward_backward`]), evaluation and the deployed engine use the same buffers for every
//! block.
//!
//! A block is `m = x + O(sub_norm(attention(q, k, v)))` with q, k and v of `norm(x)`, then
//! `m + Down(sub_norm(act(Gate(h)) · Up(h)))` with `h = norm(m)`. Who calls gives the products
//! ([`Projections`]) and the keys and values that queries attend to ([`Attend`]).

use tritforge_config::Projection::{Down, Gate, K, O, Q, Up, V};
use tritforge_config::{HiddenAct, ModelConfig, Projection};
use tritforge_kernels::{AttentionShape, Gate as Act};

use crate::device::{Attend, Device, Projections};

/// What a block is beside its weights.
#[derive(Debug, Clone, Copy)]
pub struct BlockShape {
    /// Which block of the model, from 0.
    pub layer: usize,
    /// Heads of queries, heads of keys and values, and their width.
    pub attention: AttentionShape,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward network.
    pub intermediate_size: usize,
    /// The activation of the gate.
    pub act: Act,
    /// What all norms add to the mean of the squares.
    pub eps: f32,
}

impl BlockShape {
    /// The shape of a model's block.
    pub fn new(config: &ModelConfig, layer: usize) -> Self {
        Self {
            layer,
            attention: AttentionShape {
                heads: config.num_attention_heads,
                kv_heads: config.num_key_value_heads,
                head_dim: config.head_dim,
            },
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            act: match config.hidden_act {
                HiddenAct::Silu => Act::Silu,
                HiddenAct::Relu2 => Act::Relu2,
                HiddenAct::Relu => Act::Relu,
                HiddenAct::Gelu => Act::Gelu,
                HiddenAct::GeluTanh => Act::GeluTanh,
            },
            eps: config.rms_norm_eps,
        }
    }
}

/// The norms of a block, by their names in a Hugging Face checkpoint.
#[derive(Debug, Clone)]
pub struct Norms<V> {
    /// Before attention.
    pub input_layernorm: V,
    /// Of every head's query and of every head's key.
    pub qk_norm: Option<[V; 2]>,
    /// Before the output projection of attention.
    pub attn_sub_norm: Option<V>,
    /// Before the feed-forward network.
    pub post_attention_layernorm: V,
    /// Before the down projection.
    pub ffn_sub_norm: Option<V>,
    /// Behind the norm that they share, before each of [`Projection::SHARING`].
    pub projections: Option<[V; 5]>,
}

impl<V> Norms<V> {
    /// The same norms, each by a part of it.
    pub fn each<'a, W>(&'a self, part: impl Fn(&'a V) -> W) -> Norms<W> {
        Norms {
            input_layernorm: part(&self.input_layernorm),
            qk_norm: self.qk_norm.as_ref().map(|[q, k]| [part(q), part(k)]),
            attn_sub_norm: self.attn_sub_norm.as_ref().map(&part),
            post_attention_layernorm: part(&self.post_attention_layernorm),
            ffn_sub_norm: self.ffn_sub_norm.as_ref().map(&part),
            projections: self.projections.as_ref().map(|norms| norms.each_ref().map(&part)),
        }
    }
}

/// A block and where it runs.
#[derive(Debug)]
pub struct BlockForward<'a, D: Device> {
    /// The device.
    pub device: &'a D,
    /// What the block is.
    pub shape: BlockShape,
    /// Its norms.
    pub norms: Norms<&'a D::Vector>,
    /// The cosines and sines of RoPE.
    pub rope: &'a D::Rope,
    /// The position of every token.
    pub positions: &'a D::Positions,
}

/// What a block's forward computes on the way from its input to its output; a backward needs all of it.
#[derive(Debug)]
pub struct Activations<D: Device> {
    /// The normed input of the projections q, k, v.
    pub attention_input: D::Input,
    /// Queries after RoPE, [tokens, heads · head_dim].
    pub q: D::Rows,
    /// Keys after RoPE, [tokens, kv_heads · head_dim].
    pub k: D::Rows,
    /// Values, [tokens, kv_heads · head_dim].
    pub v: D::Rows,
    /// Queries before their norm; empty where there is none.
    pub plain_q: D::Rows,
    /// Keys before their norm; empty where there is none.
    pub plain_k: D::Rows,
    /// The output of attention, [tokens, heads · head_dim].
    pub attention: D::Rows,
    /// The log-sum-exp of every head's scores, [tokens, heads], where [`Attend`] gives it.
    pub lse: D::Rows,
    /// The input of the output projection.
    pub output_input: D::Input,
    /// The residual stream between attention and feed-forward network, [tokens, hidden_size].
    pub middle: D::Rows,
    /// The normed input of gate and up projection.
    pub ffn_input: D::Input,
    /// Before the activation, [tokens, intermediate_size].
    pub gate: D::Rows,
    /// [tokens, intermediate_size].
    pub up: D::Rows,
    /// The input of the down projection.
    pub down_input: D::Input,
    /// The inputs of [`Projection::SHARING`] where each has a norm of its own; the shared ones are not made then.
    pub projection_inputs: [D::Input; 5],
}

impl<D: Device> Default for Activations<D> {
    fn default() -> Self {
        Self {
            attention_input: D::Input::default(),
            q: D::Rows::default(),
            k: D::Rows::default(),
            v: D::Rows::default(),
            plain_q: D::Rows::default(),
            plain_k: D::Rows::default(),
            attention: D::Rows::default(),
            lse: D::Rows::default(),
            output_input: D::Input::default(),
            middle: D::Rows::default(),
            ffn_input: D::Input::default(),
            gate: D::Rows::default(),
            up: D::Rows::default(),
            down_input: D::Input::default(),
            projection_inputs: std::array::from_fn(|_| D::Input::default()),
        }
    }
}

/// Buffers that no one needs after a block.
#[derive(Debug)]
pub struct Passing<D: Device> {
    /// What attention or feed-forward network add to the stream, [tokens, hidden_size].
    pub hidden: D::Rows,
    /// An input before it was rounded.
    pub plain: D::Rows,
}

impl<D: Device> Default for Passing<D> {
    fn default() -> Self {
        Self { hidden: D::Rows::default(), plain: D::Rows::default() }
    }
}

/// Where projections that share their input find it.
struct Inputs<'a, D: Device> {
    shared: &'a mut D::Input,
    own: &'a mut [D::Input; 5],
    /// The shared input before norms of the projections' own.
    normed: &'a mut D::Rows,
    plain: &'a mut D::Rows,
}

impl<D: Device> BlockForward<'_, D> {
    /// The block's output for its input x [tokens, hidden_size].
    ///
    /// # Errors
    /// If a product fails.
    pub fn run<P: Projections<D>>(
        &self,
        x: &D::Rows,
        projections: &mut P,
        attention: &mut impl Attend<D>,
        kept: &mut Activations<D>,
        passing: &mut Passing<D>,
        out: &mut D::Rows,
    ) -> Result<(), P::Error> {
        self.activations(x, projections, attention, kept, passing)?;
        self.output(projections, kept, passing, out)
    }

    /// Everything but the last projection: fills the activations from the block's input x
    /// [tokens, hidden_size]. What a backward that kept only x computes again.
    ///
    /// # Errors
    /// If a product fails.
    pub fn activations<P: Projections<D>>(
        &self,
        x: &D::Rows,
        projections: &mut P,
        attention: &mut impl Attend<D>,
        kept: &mut Activations<D>,
        Passing { hidden, plain }: &mut Passing<D>,
    ) -> Result<(), P::Error> {
        let Self { device, shape, norms, rope, positions } = self;
        let BlockShape { layer, attention: heads, intermediate_size, act, eps, .. } = *shape;
        let with_eps = |weight| (weight, eps);

        let Activations { attention_input, projection_inputs, q, k, v, .. } = kept;
        let inputs = Inputs { shared: attention_input, own: projection_inputs, normed: hidden, plain };
        let outputs = [&mut *q, &mut *k, &mut *v];
        self.shared(x, norms.input_layernorm, [Q, K, V], projections, inputs, outputs)?;
        projections.states([q, k, v]);
        if let Some([q_norm, k_norm]) = norms.qk_norm {
            std::mem::swap(&mut kept.plain_q, &mut kept.q);
            device.rms_norm(&kept.plain_q, with_eps(q_norm), &mut kept.q);
            std::mem::swap(&mut kept.plain_k, &mut kept.k);
            device.rms_norm(&kept.plain_k, with_eps(k_norm), &mut kept.k);
        }
        device.rope(rope, &mut kept.q, heads.heads, positions);
        device.rope(rope, &mut kept.k, heads.kv_heads, positions);
        attention.attend(layer, [&kept.q, &kept.k, &kept.v], &mut kept.attention, &mut kept.lse);
        let norm = norms.attn_sub_norm.map(with_eps);
        let form = projections.form(&[O]);
        device.input(&kept.attention, heads.q_size(), norm, form, &mut kept.output_input, plain);
        projections.project([O], &kept.output_input, plain, [&mut *hidden])?;
        device.add(x, hidden, &mut kept.middle);

        let Activations { middle, ffn_input, projection_inputs, gate, up, .. } = kept;
        let inputs = Inputs { shared: ffn_input, own: projection_inputs, normed: hidden, plain };
        let outputs = [&mut *gate, &mut *up];
        self.shared(middle, norms.post_attention_layernorm, [Gate, Up], projections, inputs, outputs)?;
        let norm = norms.ffn_sub_norm.map(with_eps);
        let form = projections.form(&[Down]);
        device.gated_input(act, (gate, up), intermediate_size, norm, form, &mut kept.down_input, plain);
        Ok(())
    }

    /// The outputs of projections that share their input, which is x behind a norm, and behind one of each projection's own where
    /// there are such.
    fn shared<P: Projections<D>, const N: usize>(
        &self,
        x: &D::Rows,
        norm: &D::Vector,
        of: [Projection; N],
        projections: &mut P,
        Inputs { shared, own, normed, plain }: Inputs<'_, D>,
        outputs: [&mut D::Rows; N],
    ) -> Result<(), P::Error> {
        let (device, BlockShape { hidden_size, eps, .. }) = (self.device, self.shape);
        let Some(norms) = self.norms.projections else {
            device.input(x, hidden_size, Some((norm, eps)), projections.form(&of), shared, plain);
            return projections.project(of, shared, plain, outputs);
        };
        device.rms_norm(x, (norm, eps), normed);
        for (projection, output) in of.into_iter().zip(outputs) {
            let Some(index) = projection.sharing() else { continue };
            let (form, input) = (projections.form(&[projection]), &mut own[index]);
            device.input(normed, hidden_size, Some((norms[index], eps)), form, input, plain);
            projections.project([projection], input, plain, [output])?;
        }
        Ok(())
    }

    /// The block's output from its activations. It must follow [`Self::activations`] with the same buffers.
    ///
    /// # Errors
    /// If the product fails.
    pub fn output<P: Projections<D>>(
        &self,
        projections: &mut P,
        kept: &Activations<D>,
        Passing { hidden, plain }: &mut Passing<D>,
        out: &mut D::Rows,
    ) -> Result<(), P::Error> {
        projections.project([Down], &kept.down_input, plain, [&mut *hidden])?;
        self.device.add(&kept.middle, hidden, out);
        Ok(())
    }
}
