"""Write relation.json, which pins the attention-relation loss and its gradient to PyTorch's autograd.

Versions: torch 2.15.0, numpy 2.4.6 (CPU only). To run:

    python -m venv .venv-golden
    .venv-golden/bin/pip install torch==2.15.0 numpy==2.4.6
    .venv-golden/bin/python tests/golden/make_relation.py

The loss is the algorithm of BitNet Distillation (arXiv 2510.13998): rows split into relation heads, F.normalize, products over a
temperature, softmax, F.kl_div with reduction "batchmean", the mean over heads, summed over queries, keys and values with their weights. Two
sequences of different lengths stand one after the other, so that rows are counted as the loss of a batch counts them: all alike.

    lengths, heads, temperature, alphas, weight   of the loss
    ours, theirs      [3][tokens * width]         queries, keys and values of model and teacher, row-major
    loss              without the weight
    gradients         [3][tokens * width]         of weight * loss, with respect to ours
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

LENGTHS, HEADS, TEMPERATURE, ALPHAS, WEIGHT = [5, 7], 2, 0.25, [1.0, 0.5, 2.0], 100.0
OURS, THEIRS = [12, 6, 6], [16, 8, 8]


def relation(states: Tensor) -> Tensor:
    tokens, width = states.shape
    heads = F.normalize(states.reshape(tokens, HEADS, width // HEADS).transpose(0, 1), dim=-1)
    return heads @ heads.transpose(-2, -1) / TEMPERATURE


def loss(ours: Tensor, theirs: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for a, b in zip(ours.split(LENGTHS), theirs.split(LENGTHS)):
        log_q = relation(a).log_softmax(-1).reshape(-1, len(a))
        p = relation(b).softmax(-1).reshape(-1, len(a))
        total = total + F.kl_div(log_q, p, reduction="batchmean") * len(a)
    return total / sum(LENGTHS)


generator = torch.Generator().manual_seed(11)
tokens = sum(LENGTHS)
draw = lambda width: torch.randn(tokens, width, generator=generator, dtype=torch.float32).double()
ours = [draw(width).requires_grad_() for width in OURS]
theirs = [draw(width) for width in THEIRS]
total = sum(alpha * loss(a, b) for alpha, a, b in zip(ALPHAS, ours, theirs))
gradients = torch.autograd.grad(WEIGHT * total, ours)
flat = lambda tensors: [tensor.detach().flatten().tolist() for tensor in tensors]
golden = {
    "lengths": LENGTHS,
    "heads": HEADS,
    "temperature": TEMPERATURE,
    "alphas": ALPHAS,
    "weight": WEIGHT,
    "ours": flat(ours),
    "theirs": flat(theirs),
    "loss": total.item(),
    "gradients": flat(gradients),
}
(Path(__file__).resolve().parent / "relation.json").write_text(json.dumps(golden) + "\n")
