//! Some blocks of a decoder without its embedding and head: what is trained where a model is taken a few blocks
//! at a time, with a loss of the hidden states that leave them.

use std::ops::Range;

use tritforge_config::{ModelConfig, WeightQuant};
use tritforge_kernels::RopeTable;

use crate::backward::{forward_blocks, run_blocks_with_loss};
use crate::block::{Block, quantize_blocks};
use crate::decoder::{loaded, rope_table};
use crate::parameter::{DecayGroup, Parameter};
use crate::{Gradients, ModelError, Workspace};

/// Consecutive blocks of a decoder.
#[derive(Debug)]
pub struct BlockStack {
    config: ModelConfig,
    blocks: Vec<Block>,
    rope: RopeTable,
    parameters: Vec<Parameter>,
}

impl BlockStack {
    /// The blocks `layers` of a model, whose parameters `load` gives by name and shape, row-major.
    ///
    /// # Errors
    /// If the configuration is impossible or has no such blocks, or `load` fails or gives a wrong number of values.
    pub fn load(
        config: &ModelConfig,
        layers: Range<usize>,
        mut load: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, ModelError>,
    ) -> Result<Self, ModelError> {
        config.validate()?;
        if layers.is_empty() || layers.end > config.num_hidden_layers {
            return Err(ModelError::Input {
                what: "blocks",
                found: format!("{layers:?}"),
                expected: format!("at least one, below the model's {}", config.num_hidden_layers),
            });
        }
        let mut parameters = Vec::new();
        let mut tensor = |name: &str, shape: &[usize]| {
            let tensor = loaded(name, shape, load(name, shape)?)?;
            let group = if shape.len() == 2 { DecayGroup::Decay } else { DecayGroup::NoDecay };
            parameters.push(Parameter {
                name: name.to_string(),
                tensor: tensor.clone(),
                group,
                frozen: false,
            });
            Ok((tensor, parameters.len() - 1))
        };
        let blocks = layers.map(|layer| Block::new(config, layer, |_| false, &mut tensor));
        let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
        let mut stack = Self { config: config.clone(), blocks, rope: rope_table(config), parameters };
        quantize_blocks(&mut stack.blocks)?;
        Ok(stack)
    }

    /// Norms, matrices and biases of all blocks, always in the same order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// How much of the quantization training is to see, from 0 to 1, as in [`crate::Decoder::set_blend`], and quantizes
    /// the weights anew; to be called after every change of a parameter, before the next pass.
    ///
    /// # Errors
    /// If the number is out of its range, or is less than 1 where nothing is quantized by absmean.
    pub fn requantize(&mut self, blend: f32) -> Result<(), ModelError> {
        let fault = |found: String, expected: &str| {
            let expected = expected.to_string();
            Err(ModelError::Input { what: "the part of the quantization that is seen", found, expected })
        };
        if !(0.0..=1.0).contains(&blend) {
            return fault(blend.to_string(), "from 0 to 1");
        }
        if blend < 1.0 && self.config.weights != WeightQuant::Absmean {
            return fault(format!("weights {:?}", self.config.weights), "latent weights");
        }
        for block in &mut self.blocks {
            block.input_blend = blend;
            block.projections.iter_mut().for_each(|linear| linear.set_blend(blend));
        }
        quantize_blocks(&mut self.blocks)
    }

    /// The hidden states after the first `blocks` of the blocks, for those before them: x [tokens, hidden_size] of
    /// `sequences` equally long sequences, one after the other.
    ///
    /// # Errors
    /// If the states do not divide into the sequences, or the weights changed without [`Self::requantize`].
    pub fn forward<'w>(
        &self,
        workspace: &'w mut Workspace,
        x: &[f32],
        sequences: usize,
        blocks: usize,
    ) -> Result<&'w [f32], ModelError> {
        let blocks = self.blocks.get(..blocks).unwrap_or(&self.blocks);
        self.begin(workspace, x, sequences, blocks.len())?;
        forward_blocks(blocks, &self.rope, None, workspace)?;
        Ok(workspace.output(blocks.len()))
    }

    /// Adds the gradients of a loss of the hidden states after all blocks to `gradients`, and returns the loss. `loss`
    /// is given the states, [tokens, hidden_size], and writes its derivative by each.
    ///
    /// # Errors
    /// As [`Self::forward`], and if the gradients are another stack's.
    pub fn forward_backward(
        &self,
        workspace: &mut Workspace,
        x: &[f32],
        sequences: usize,
        loss: impl FnOnce(&[f32], &mut [f32]) -> f64,
        gradients: &mut Gradients,
    ) -> Result<f64, ModelError> {
        if !gradients.fit(self.parameters.iter().map(|p| p.tensor.len())) {
            return Err(ModelError::Input {
                what: "gradients",
                found: "those of other blocks".to_string(),
                expected: "those of these".to_string(),
            });
        }
        self.begin(workspace, x, sequences, self.blocks.len())?;
        run_blocks_with_loss(&self.blocks, &self.rope, workspace, gradients, loss)
    }

    /// Makes the workspace ready for a pass through `blocks` blocks.
    fn begin(
        &self,
        workspace: &mut Workspace,
        x: &[f32],
        sequences: usize,
        blocks: usize,
    ) -> Result<(), ModelError> {
        let width = self.config.hidden_size;
        let length = x.len() / width / sequences.max(1);
        let longest = self.config.max_position_embeddings;
        if sequences == 0 || length == 0 || length * sequences * width != x.len() || length > longest {
            return Err(ModelError::Input {
                what: "hidden states",
                found: format!("{} numbers in {sequences} sequences", x.len()),
                expected: format!("{width} a token, sequences of equal length of at most {longest} tokens"),
            });
        }
        workspace.begin(vec![length; sequences], blocks).extend_from_slice(x);
        Ok(())
    }
}
