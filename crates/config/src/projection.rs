//! The seven projections of a block, and the names that files give them.

/// One of a block's seven linear layers: what BitNet makes ternary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Projection {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// The attention's output.
    O,
    /// The feed-forward network's gate.
    Gate,
    /// The feed-forward network's input.
    Up,
    /// The feed-forward network's output.
    Down,
}

impl Projection {
    /// All seven, in the order in which a block computes them.
    pub const ALL: [Projection; 7] = [
        Projection::Q,
        Projection::K,
        Projection::V,
        Projection::O,
        Projection::Gate,
        Projection::Up,
        Projection::Down,
    ];

    /// Those that share their input with others: with [`crate::ModelConfig::projection_norms`] each has a norm of its own before it.
    pub const SHARING: [Projection; 5] =
        [Projection::Q, Projection::K, Projection::V, Projection::Gate, Projection::Up];

    /// Its place in [`Self::SHARING`].
    pub fn sharing(self) -> Option<usize> {
        Self::SHARING.iter().position(|projection| *projection == self)
    }

    /// The name inside a Hugging Face block, e.g. `self_attn.q_proj`.
    pub fn hf_name(self) -> &'static str {
        match self {
            Projection::Q => "self_attn.q_proj",
            Projection::K => "self_attn.k_proj",
            Projection::V => "self_attn.v_proj",
            Projection::O => "self_attn.o_proj",
            Projection::Gate => "mlp.gate_proj",
            Projection::Up => "mlp.up_proj",
            Projection::Down => "mlp.down_proj",
        }
    }

    /// The module's own name, e.g. `q_proj`.
    pub fn module(self) -> &'static str {
        let name = self.hf_name();
        name.rsplit_once('.').map_or(name, |(_, module)| module)
    }

    /// The name inside a GGUF block, e.g. `attn_q`.
    pub fn gguf_name(self) -> &'static str {
        match self {
            Projection::Q => "attn_q",
            Projection::K => "attn_k",
            Projection::V => "attn_v",
            Projection::O => "attn_output",
            Projection::Gate => "ffn_gate",
            Projection::Up => "ffn_up",
            Projection::Down => "ffn_down",
        }
    }

    /// The weight's name in a Hugging Face checkpoint, e.g. `model.layers.0.self_attn.q_proj.weight`.
    pub fn hf_weight(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}.weight", self.hf_name())
    }

    /// The bias's name in a Hugging Face checkpoint, e.g. `model.layers.0.self_attn.q_proj.bias`.
    pub fn hf_bias(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}.bias", self.hf_name())
    }

    /// The name of a learned scale beside the weight in a checkpoint, e.g.
    /// `model.layers.0.self_attn.q_proj.weight_clip_val`, as ParetoQ has it.
    pub fn hf_clip_val(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}.weight_clip_val", self.hf_name())
    }

    /// The bias's name in a GGUF file, e.g. `blk.0.attn_q.bias`.
    pub fn gguf_bias(self, layer: usize) -> String {
        format!("blk.{layer}.{}.bias", self.gguf_name())
    }

    /// The name of its norm's weight in a checkpoint, e.g. `model.layers.0.self_attn.q_proj.norm.weight`.
    pub fn hf_norm(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}.norm.weight", self.hf_name())
    }

    /// The name of its norm's weight in a GGUF file, e.g. `blk.0.attn_q.norm.weight`.
    pub fn gguf_norm(self, layer: usize) -> String {
        format!("blk.{layer}.{}.norm.weight", self.gguf_name())
    }

    /// The weight's name in a GGUF file, e.g. `blk.0.attn_q.weight`.
    pub fn gguf_weight(self, layer: usize) -> String {
        format!("blk.{layer}.{}.weight", self.gguf_name())
    }
}

impl crate::ModelConfig {
    /// Shape of a projection's weight: [output features, input features].
    pub fn projection_shape(&self, projection: Projection) -> [usize; 2] {
        let (d, f) = (self.hidden_size, self.intermediate_size);
        match projection {
            Projection::Q => [self.q_size(), d],
            Projection::K | Projection::V => [self.kv_size(), d],
            Projection::O => [d, self.q_size()],
            Projection::Gate | Projection::Up => [f, d],
            Projection::Down => [d, f],
        }
    }
}
