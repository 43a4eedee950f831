//! The exact pass: whatever the model multiplies, it multiplies in the order of the deployed engine, so that
//! its logits are those of the exported file, bit for bit. All of the quantization is seen, nothing is dropped,
//! and nothing is kept for a backward.

use tritforge_config::{LoraMode, Projection};
use tritforge_kernels::{
    DenseMatrix, Observer, QuantizedRows, Step, rms_norm, ternary_matmul_i32, ternary_matmul_many,
};

use crate::backward::Segments;
use crate::block::Block;
use crate::decoder::AttentionStates;
use crate::device::{Cpu, Input, InputForm, Projections, sized};
use crate::forward::{Activations, BlockForward, Passing};
use crate::segments::{positions, segment_lengths};
use crate::{Decoder, ModelError};

/// Who looks on during a pass.
#[derive(Default)]
pub(crate) struct Observers<'a, 'o> {
    /// Sees every product of integers.
    pub(crate) products: Option<&'a mut Observer<'o>>,
    /// Takes the queries, keys and values of a layer, counted from 0.
    pub(crate) states: Option<(usize, &'a mut AttentionStates)>,
}

/// The products of one block.
struct Products<'p, 'a, 'o> {
    block: &'p Block,
    tokens: usize,
    observers: &'p mut Observers<'a, 'o>,
}

impl Decoder {
    /// The final norm's output for every token, [tokens, hidden_size]: what the head multiplies.
    ///
    /// # Errors
    /// If the ids do not divide into `sequences`, a sequence is longer than the context, segments do not
    /// ascend, or an id is unknown.
    pub(crate) fn hidden(
        &self,
        ids: &[u32],
        sequences: usize,
        segments: &[usize],
        mut observers: Observers<'_, '_>,
    ) -> Result<Vec<f32>, ModelError> {
        self.sequence_length(ids, sequences)?;
        let mut lengths = Vec::new();
        segment_lengths(ids.len(), sequences, segments, &mut lengths)?;
        let positions: Vec<u32> = positions(&lengths).collect();
        let (mut x, mut out) = (Vec::new(), Vec::new());
        let (mut kept, mut passing) = (Activations::<Cpu>::default(), Passing::default());
        self.embed(ids, true, &mut x)?;
        for block in &self.blocks {
            let norms = block.norms.each(|norm| &norm.weight);
            let (rope, positions) = (&self.rope, &positions[..]);
            let forward = BlockForward { device: &Cpu, shape: block.shape, norms, rope, positions };
            let mut segments = Segments { shape: block.shape, lengths: &lengths };
            let products = &mut Products { block, tokens: ids.len(), observers: &mut observers };
            forward.run(&x, products, &mut segments, &mut kept, &mut passing, &mut out)?;
            std::mem::swap(&mut x, &mut out);
        }
        rms_norm(&x, &self.norm.read(), self.config().rms_norm_eps, sized(&mut out, x.len()));
        Ok(out)
    }
}

impl Projections<Cpu> for Products<'_, '_, '_> {
    type Error = ModelError;

    fn form(&self, projections: &[Projection]) -> InputForm {
        self.block.input_form(projections, 1.0)
    }

    fn project<const N: usize>(
        &mut self,
        projections: [Projection; N],
        input: &Input,
        plain: &Vec<f32>,
        results: [&mut Vec<f32>; N],
    ) -> Result<(), ModelError> {
        let linears = projections.map(|projection| self.block.linear(projection));
        let (mut weights, mut outputs) = (Vec::with_capacity(N), Vec::with_capacity(N));
        for (linear, y) in linears.iter().zip(results) {
            weights.extend(linear.quantized().map(|weights| &**weights));
            outputs.push(sized(y, self.tokens * linear.dims().0));
        }
        if weights.len() == N {
            if let Some(observer) = self.observers.products.as_deref_mut() {
                let (layer, input) = (self.block.shape.layer, &input.rows);
                for (projection, weights) in projections.iter().zip(&weights) {
                    let mut sums = vec![0i32; self.tokens * weights.rows()];
                    ternary_matmul_i32(input, weights, &mut sums);
                    observer(Step { layer, projection: projection.hf_name(), input, sums: &sums });
                }
            }
            ternary_matmul_many(&input.rows, &weights, &mut outputs);
        } else {
            let dequantized;
            let x = match self.block.activations.is_integer() {
                true => {
                    dequantized = values(&input.rows);
                    &dequantized
                }
                false => &input.values,
            };
            for (linear, y) in linears.iter().zip(&mut outputs) {
                let (rows, cols) = linear.dims();
                linear.with_values(|weight| DenseMatrix::from_f32(weight, rows, cols).matmul(x, y))?;
            }
        }
        let plain = input.plain(plain, self.form(&projections));
        for ((linear, projection), y) in linears.iter().zip(projections).zip(outputs) {
            match linear.adapter() {
                Some(adapter) if adapter.mode == LoraMode::Adapter => adapter.add_exactly(plain, y),
                _ => {}
            }
            self.block.add_bias(projection, 1.0, y);
        }
        Ok(())
    }

    fn states(&mut self, states: [&Vec<f32>; 3]) {
        if let Some((layer, kept)) = &mut self.observers.states
            && *layer == self.block.shape.layer
        {
            **kept = states.map(Vec::clone);
        }
    }
}

/// The numbers that codes stand for.
fn values(rows: &QuantizedRows) -> Vec<f32> {
    let rows = rows.codes.chunks_exact(rows.cols).zip(&rows.scales);
    rows.flat_map(|(codes, scale)| codes.iter().map(move |code| f32::from(*code) * scale)).collect()
}
