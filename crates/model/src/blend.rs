//! Quantization that sets in gradually: `x + λ(Q(x) − x)` of weights and inputs, for models that were trained
//! without.
//!
//! A full-precision model whose weights are ternary from one step to the next forgets most of what it knew;
//! with a part λ that grows from 0 to 1 it is led there ("Fine-tuning LLMs to 1.58bit", Hugging Face, 2024).
//! Gradients pass as through the whole quantizer. Only [`Decoder::forward_backward`] knows λ: evaluation is
//! always that of the model that will be deployed.

use tritforge_config::WeightQuant;

use crate::{Decoder, ModelError};

impl Decoder {
    /// How much of the quantization of each block's projections training is to see, from 0 to 1, one number a
    /// block; 1 is all of it, by integers. A ternary embedding goes with the first block, a head with the last, and what
    /// is both with the last. To be followed by [`Decoder::requantize`].
    ///
    /// # Errors
    /// If there are not as many numbers as blocks, one is out of its range, the weights are not quantized by
    /// absmean, or the base has an adapter.
    pub fn set_blend(&mut self, blend: &[f32]) -> Result<(), ModelError> {
        let fault = |found: String, expected: String| {
            Err(ModelError::Input { what: "the part of the quantization that is seen", found, expected })
        };
        let blocks = self.blocks.len();
        if blend.len() != blocks {
            return fault(format!("{} numbers", blend.len()), format!("{blocks}, one a block"));
        }
        if let Some(bad) = blend.iter().find(|part| !(0.0..=1.0).contains(*part)) {
            return fault(bad.to_string(), "from 0 to 1".to_string());
        }
        if self.config().weights != WeightQuant::Absmean || self.lora.is_some() {
            return fault(
                format!("weights {:?}, adapter {}", self.config().weights, self.lora.is_some()),
                "latent weights quantized by absmean, all of them trained".to_string(),
            );
        }
        for (block, part) in self.blocks.iter_mut().zip(blend) {
            for linear in &mut block.projections {
                if linear.blend() != *part {
                    linear.set_blend(*part);
                }
            }
        }
        let tied = self.config().tie_word_embeddings;
        let (Some(first), Some(last)) = (blend.first(), blend.last()) else { return Ok(()) };
        let parts = [if tied { last } else { first }, last];
        for (table, part) in self.tables_mut().into_iter().zip(parts) {
            if let Some(table) = table.filter(|table| table.blend() != *part) {
                table.set_blend(*part);
            }
        }
        Ok(())
    }
}
