//! Watching a forward pass: what `verify` compares between training and deployment.

use crate::QuantizedRows;

/// One quantized product of a forward pass.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The block, from 0.
    pub layer: usize,
    /// Which of its projections, by its Hugging Face name, e.g. `self_attn.q_proj`.
    pub projection: &'static str,
    /// The int8 input and its scales, [tokens, in].
    pub input: &'a QuantizedRows,
    /// The exact int32 sums, [tokens, out].
    pub sums: &'a [i32],
}

/// The name of a ternary head in [`Step::projection`]; [`Step::layer`] is then the number of blocks.
pub const LM_HEAD: &str = "lm_head";

/// Called for every quantized product, in the order of the forward pass.
pub type Observer<'a> = dyn FnMut(Step<'_>) + 'a;
