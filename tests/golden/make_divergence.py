"""Write divergence.json, which pins the divergences of distillation to those of TRL.

Versions: trl 0.19.1, transformers 4.55.4, torch 2.8.0 (CPU only). To run:

    python -m venv .venv-golden
    .venv-golden/bin/pip install torch==2.8.0 trl==0.19.1 transformers==4.55.4
    .venv-golden/bin/python tests/golden/make_divergence.py

`GKDTrainer.generalized_jsd_loss` (generalized knowledge distillation, arXiv 2306.13649) is called in f64 on one position's logits.

    model, teacher     logits of a position
    cases              beta, temperature, and the divergence with its gradient by the model's logits
"""

import json
from pathlib import Path

import torch
from trl import GKDTrainer

MODEL = [1.25, -0.5, 3.0, 0.0, -2.75, 0.625, 2.0]
TEACHER = [0.5, 1.5, 2.25, -1.0, -4.0, 0.25, 3.5]
CASES = [(0.0, 1.0), (0.1, 1.0), (0.5, 1.0), (0.5, 2.0), (0.9, 0.75), (1.0, 1.0), (1.0, 3.0)]

cases = []
for beta, temperature in CASES:
    model = torch.tensor([[MODEL]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[TEACHER]], dtype=torch.float64)
    loss = GKDTrainer.generalized_jsd_loss(model, teacher, beta=beta, temperature=temperature, reduction="sum")
    loss.backward()
    by = model.grad.flatten().tolist()
    cases.append({"beta": beta, "temperature": temperature, "divergence": loss.item(), "by": by})
out = Path(__file__).with_name("divergence.json")
out.write_text(json.dumps({"model": MODEL, "teacher": TEACHER, "cases": cases}, indent=1) + "\n")
