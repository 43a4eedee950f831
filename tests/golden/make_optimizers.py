"""Write the golden files that pin Lion and Muon to independent implementations.

Versions: torch 2.15.0, numpy 2.4.6 (CPU only). To run:

    python -m venv .venv-golden
    .venv-golden/bin/pip install torch==2.15.0 numpy==2.4.6
    .venv-golden/bin/python tests/golden/make_optimizers.py

What it writes, beside itself:

    lion.json    Lion as arXiv 2302.06675, Algorithm 2, states it: written down here in numpy, f64
    muon.json    torch.optim.Muon with `match_rms_adamw`, for a wide, a tall and a square matrix

Each holds the parameters after each of five steps of given gradients. torch orthogonalizes in bf16, which would leave two
digits to compare: here it does so in f32. The two must agree to bf16's precision, or nothing is written.
"""

import json
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).resolve().parent
STEPS = 5


def write(name: str, golden: dict) -> None:
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items())
    (HERE / name).write_text("{\n" + lines + "\n}\n")
    print(f"{name}: {STEPS} steps")


def write_lion() -> None:
    settings = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.5}
    random = np.random.default_rng(41)
    theta = random.standard_normal(40).astype(np.float32)
    gradients = [(random.standard_normal(40) * 10.0**-step).astype(np.float32) for step in range(STEPS)]
    golden = settings | {"initial": theta.tolist(), "gradients": [g.tolist() for g in gradients], "parameters": []}
    theta = theta.astype(np.float64)
    m = np.zeros(40)
    for g in gradients:
        c = settings["beta1"] * m + (1 - settings["beta1"]) * g
        theta = theta - settings["lr"] * (np.sign(c) + settings["weight_decay"] * theta)
        m = settings["beta2"] * m + (1 - settings["beta2"]) * g
        golden["parameters"].append(theta.astype(np.float32).tolist())
    write("lion.json", golden)


def run_muon(settings: dict, initial: list, gradients: list) -> list:
    parameters = [nn.Parameter(p.clone()) for p in initial]
    optimizer = torch.optim.Muon(parameters, adjust_lr_fn="match_rms_adamw", nesterov=True, **settings)
    after = []
    for step in range(STEPS):
        for parameter, gradient in zip(parameters, gradients[step], strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        after.append([p.detach().clone() for p in parameters])
    return after


def write_muon() -> None:
    settings = {"lr": 0.01, "momentum": 0.95, "weight_decay": 0.1}
    generator = torch.Generator().manual_seed(42)
    shapes = [(6, 10), (10, 6), (8, 8)]
    initial = [torch.randn(shape, generator=generator) for shape in shapes]
    gradients = [[torch.randn(s, generator=generator) * 10.0**-step for s in shapes] for step in range(STEPS)]
    half = run_muon(settings, initial, gradients)
    with mock.patch.object(torch, "bfloat16", torch.float32):
        exact = run_muon(settings, initial, gradients)
    for a, b, start in zip(half[0], exact[0], initial, strict=True):
        difference = ((a - b).norm() / (b - start).norm()).item()
        assert difference < 0.03, difference
    flat = lambda tensors: [t.flatten().tolist() for t in tensors]  # noqa: E731
    golden = settings | {
        "shapes": shapes,
        "initial": flat(initial),
        "gradients": [flat(g) for g in gradients],
        "parameters": [flat(p) for p in exact],
    }
    write("muon.json", golden)


if __name__ == "__main__":
    torch.set_num_threads(1)
    write_lion()
    write_muon()
