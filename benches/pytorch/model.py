"""The BitNet b1.58 decoder that Tritforge trains, in plain PyTorch: the peer of the training benchmarks.

Written for clarity with the operations a PyTorch user would choose: F.rms_norm, scaled_dot_product_attention,
F.cross_entropy, straight-through estimators by `x + (q - x).detach()`. Parameters have the names of the Hugging Face
`bitnet` layout, which a Tritforge checkpoint's `model.safetensors` uses too: `load` reads one.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

MIN_SCALE = 1e-5


@dataclass(frozen=True)
class Config:
    """The keys of a checkpoint's config.json that shape the model."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    hidden_act: str = "relu2"
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_attention_heads


def quantize_activations(x: Tensor) -> Tensor:
    """int8 with one absmax scale a row, de-quantized; the gradient passes straight through."""
    scale = 127 / x.abs().amax(dim=-1, keepdim=True).clamp(min=MIN_SCALE)
    quantized = (x * scale).round().clamp(-128, 127) / scale
    return x + (quantized - x).detach()


def ternary(weight: Tensor) -> Tensor:
    """−γ, 0 or γ, where γ is the mean size of the weights."""
    scale = 1 / weight.abs().mean().clamp(min=MIN_SCALE)
    return (weight * scale).round().clamp(-1, 1) / scale


class BitLinear(nn.Linear):
    """A linear layer with ternary weights and int8 activations, trained through a straight-through estimator."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight + (ternary(self.weight) - self.weight).detach()
        return F.linear(quantize_activations(x), weight)


class LoraLinear(nn.Module):
    """A frozen ternary weight and a trained branch of rank r on the unquantized input, scaled by α/r = 2."""

    def __init__(self, inputs: int, outputs: int, rank: int):
        super().__init__()
        self.register_buffer("weight", ternary(torch.randn(outputs, inputs) * 0.02))
        self.lora_a = nn.Parameter(torch.randn(rank, inputs) / rank)
        self.lora_b = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(quantize_activations(x), self.weight) + 2 * F.linear(F.linear(x, self.lora_a), self.lora_b)


class RmsNorm(nn.Module):
    """RMSNorm with a learned weight."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE of x [batch, heads, length, head_dim] in NeoX halves."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Causal attention with grouped key/value heads and a norm before the output projection."""

    def __init__(self, config: Config, linear):
        super().__init__()
        width, kv_width = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.config = config
        self.q_proj = linear(width, width)
        self.k_proj = linear(width, kv_width)
        self.v_proj = linear(width, kv_width)
        self.o_proj = linear(width, width)
        self.attn_sub_norm = RmsNorm(width, config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, width = x.shape
        heads = lambda projected: projected.view(batch, length, -1, self.config.head_dim).transpose(1, 2)
        q, k = rotate(heads(self.q_proj(x)), cos, sin), rotate(heads(self.k_proj(x)), cos, sin)
        # Repeated: on a CPU `enable_gqa` leaves the fused kernel.
        groups = self.config.num_attention_heads // self.config.num_key_value_heads
        k, v = k.repeat_interleave(groups, dim=1), heads(self.v_proj(x)).repeat_interleave(groups, dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(self.attn_sub_norm(mixed.transpose(1, 2).reshape(batch, length, width)))


class FeedForward(nn.Module):
    """Gated feed-forward network with a norm before the last projection."""

    def __init__(self, config: Config, linear):
        super().__init__()
        self.gate_proj = linear(config.hidden_size, config.intermediate_size)
        self.up_proj = linear(config.hidden_size, config.intermediate_size)
        self.down_proj = linear(config.intermediate_size, config.hidden_size)
        self.ffn_sub_norm = RmsNorm(config.intermediate_size, config.rms_norm_eps)
        self.relu2 = config.hidden_act == "relu2"

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        gate = F.relu(gate).square() if self.relu2 else F.silu(gate)
        return self.down_proj(self.ffn_sub_norm(gate * self.up_proj(x)))


class Layer(nn.Module):
    """Attention and feed-forward network, each behind its norm and added to the stream."""

    def __init__(self, config: Config, linear):
        super().__init__()
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, linear)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = FeedForward(config, linear)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embedding, layers, norm, and the embedding again as the head. `length` is the context; `lora_rank` freezes all but
    LoRA branches on the seven projections."""

    def __init__(self, config: Config, length: int, lora_rank: int | None = None):
        super().__init__()
        linear = BitLinear if lora_rank is None else lambda i, o: LoraLinear(i, o, lora_rank)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, linear) for _ in range(config.num_hidden_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        if lora_rank is not None:
            for name, parameter in self.named_parameters():
                parameter.requires_grad = "lora_" in name
        frequencies = config.rope_theta ** (-torch.arange(0, config.head_dim, 2) / config.head_dim)
        angles = torch.outer(torch.arange(length), frequencies).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [batch, length, vocab_size] of ids [batch, length]."""
        length = ids.shape[1]
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, self.cos[:length], self.sin[:length])
        return F.linear(self.norm(x), self.embed_tokens.weight)

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of the targets, in nats."""
        return F.cross_entropy(self(ids).flatten(0, 1), targets.flatten())


def load(checkpoint: Path, length: int) -> Decoder:
    """The model of a Tritforge checkpoint: config.json and model.safetensors. Raises ValueError for what this file cannot
    express."""
    keys = json.loads((checkpoint / "config.json").read_text())
    if not keys.get("tie_word_embeddings") or not keys.get("use_sub_norm", True):
        raise ValueError(f"{checkpoint}: only models with tied embeddings and sub-norms can be compared")
    keys["rope_theta"] = keys.get("rope_parameters", {}).get("rope_theta", keys.get("rope_theta", 10_000.0))
    config = Config(**{field.name: keys[field.name] for field in fields(Config) if field.name in keys})
    model = Decoder(config, length)
    tensors = load_file(checkpoint / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): tensor.float() for name, tensor in tensors.items()})
    return model
