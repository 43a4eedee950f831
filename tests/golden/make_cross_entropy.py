"""Write cross_entropy.json, which pins the options of the cross-entropy to PyTorch, transformers and TRL.

Versions: trl 0.24.0, transformers 4.55.4, torch 2.8.0 (CPU only). To run:

    python -m venv .venv-golden
    .venv-golden/bin/pip install torch==2.8.0 trl==0.24.0 transformers==4.55.4
    .venv-golden/bin/python tests/golden/make_cross_entropy.py

Label smoothing is `torch.nn.functional.cross_entropy`'s, which must agree with transformers' `LabelSmoother`; DFT is TRL's `dft_loss`; the z-loss
is PaLM's formula by autograd. All in f64.

    logits, targets     three rows of 37 logits, and the target of each
    cross_entropy       the mean cross-entropy of the targets
    cases               the options, the mean loss, and its gradient by the logits
"""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.nn.functional import cross_entropy
from transformers.trainer_pt_utils import LabelSmoother
from trl.trainer.sft_trainer import dft_loss

CASES = [
    {"label_smoothing": 0.0, "z_loss": 0.0, "dft": False},
    {"label_smoothing": 0.1, "z_loss": 0.0, "dft": False},
    {"label_smoothing": 0.5, "z_loss": 0.0, "dft": False},
    {"label_smoothing": 0.0, "z_loss": 0.01, "dft": False},
    {"label_smoothing": 0.1, "z_loss": 0.01, "dft": False},
    {"label_smoothing": 0.0, "z_loss": 0.0, "dft": True},
    {"label_smoothing": 0.0, "z_loss": 0.01, "dft": True},
]


def main() -> None:
    torch.manual_seed(1)
    # Numbers that f32 holds, the last row far from normalized.
    logits = (torch.randn(3, 37) * torch.tensor([[1.0], [3.0], [3.0]]) + torch.tensor([[0.0], [-2.0], [9.0]])).float()
    # A likely target, an unlikely one, and one in between.
    targets = torch.tensor([int(logits[0].argmax()), int(logits[1].argmin()), 36])
    cases = []
    for case in CASES:
        z = logits.double().requires_grad_()
        smoothing = case["label_smoothing"]
        if case["dft"]:
            # TRL shifts the labels by one token.
            labels = torch.cat([torch.tensor([-100]), targets])[None]
            padded = torch.cat([z, z[:1].detach()])[None]
            loss = dft_loss(SimpleNamespace(logits=padded), labels)
        else:
            loss = cross_entropy(z, targets, label_smoothing=smoothing)
            other = LabelSmoother(epsilon=smoothing)({"logits": z}, targets)
            assert abs(loss.item() - other.item()) < 1e-6
        loss = loss + case["z_loss"] * torch.logsumexp(z, dim=-1).pow(2).mean()
        loss.backward()
        cases.append({**case, "loss": loss.item(), "gradients": z.grad.tolist()})
    golden = {
        "logits": logits.double().tolist(),
        "targets": targets.tolist(),
        "cross_entropy": cross_entropy(logits.double(), targets).item(),
        "cases": cases,
    }
    out = Path(__file__).with_name("cross_entropy.json")
    out.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
