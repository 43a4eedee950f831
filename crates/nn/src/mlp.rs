//! The gated feed-forward network (GLU variants, arXiv 2002.05202) with ternary projections.

use candle_core::{Result, Tensor};
use candle_nn::{Module, VarBuilder};
use tritforge_config::{HiddenAct, ModelConfig};
use tritforge_kernels::Gate;

use crate::{BitLinear, BitLinearConfig, NnError, RmsNorm, ops};

/// `down_proj(ffn_sub_norm(act(gate_proj(x)) · up_proj(x)))`, act SiLU or ReLU².
#[derive(Debug, Clone)]
pub struct Mlp {
    gate_proj: BitLinear,
    up_proj: BitLinear,
    down_proj: BitLinear,
    sub_norm: Option<RmsNorm>,
    gate: Gate,
}

impl Mlp {
    /// The network of a model's blocks, under the names of Hugging Face's `mlp`.
    ///
    /// # Errors
    /// As [`BitLinear::new`].
    pub fn new(config: &ModelConfig, vb: VarBuilder<'_>) -> std::result::Result<Self, NnError> {
        let (d, width) = (config.hidden_size, config.intermediate_size);
        let linear = BitLinearConfig::of_model(config);
        let sub_norm = match config.use_sub_norm {
            true => Some(RmsNorm::new(width, config.rms_norm_eps, vb.pp("ffn_sub_norm"))?),
            false => None,
        };
        Ok(Self {
            gate_proj: BitLinear::new(d, width, linear, vb.pp("gate_proj"))?,
            up_proj: BitLinear::new(d, width, linear, vb.pp("up_proj"))?,
            down_proj: BitLinear::new(width, d, linear, vb.pp("down_proj"))?,
            sub_norm,
            gate: match config.hidden_act {
                HiddenAct::Silu => Gate::Silu,
                HiddenAct::Relu2 => Gate::Relu2,
                HiddenAct::Relu => Gate::Relu,
                HiddenAct::Gelu => Gate::Gelu,
                HiddenAct::GeluTanh => Gate::GeluTanh,
            },
        })
    }

    /// The projections with their names.
    pub fn projections(&self) -> [(&'static str, &BitLinear); 3] {
        [("gate_proj", &self.gate_proj), ("up_proj", &self.up_proj), ("down_proj", &self.down_proj)]
    }
}

impl Module for Mlp {
    /// x [.., hidden_size] to the same shape.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let h = ops::glu(self.gate, &self.gate_proj.forward(x)?, &self.up_proj.forward(x)?)?;
        let h = match &self.sub_norm {
            Some(norm) => norm.forward(&h)?,
            None => h,
        };
        self.down_proj.forward(&h)
    }
}
