"""Write preferences.json, which pins the losses of pairs of answers to those of TRL.

Versions: trl 0.19.1, transformers 4.55.4, torch 2.8.0 (CPU only). To run:

    python -m venv .venv-golden
    .venv-golden/bin/pip install torch==2.8.0 trl==0.19.1 transformers==4.55.4
    .venv-golden/bin/python tests/golden/make_preferences.py

TRL's own functions (`DPOTrainer.dpo_loss`, `ORPOTrainer.odds_ratio_loss`, `CPOTrainer.cpo_loss`) are called in f64 with log-probabilities
of whole answers, or of their means over the answers' tokens where TRL's trainers divide by the number of tokens first.

    pairs       policy, reference: ln p of the chosen and the rejected answer; tokens: their lengths
    cases       section, its keys, and for each pair the loss and its gradient by both entries of policy
"""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from trl import CPOTrainer, DPOTrainer, ORPOTrainer

PAIRS = [
    {"policy": [-10.0, -12.0], "reference": [-11.0, -11.5], "tokens": [4, 6]},
    {"policy": [-40.0, -3.0], "reference": [-20.0, -22.0], "tokens": [9, 2]},
    {"policy": [-3.0, -40.0], "reference": [-20.0, -20.0], "tokens": [5, 31]},
    {"policy": [-0.5, -0.7], "reference": [-0.6, -0.6], "tokens": [1, 1]},
    {"policy": [-33.25, -35.5], "reference": [-34.0, -33.0], "tokens": [17, 12]},
]
CASES = [
    ("dpo", {"beta": 0.1, "loss": "sigmoid", "label_smoothing": 0.0}),
    ("dpo", {"beta": 0.5, "loss": "sigmoid", "label_smoothing": 0.2}),
    ("dpo", {"beta": 5.0, "loss": "sigmoid_norm", "label_smoothing": 0.0}),
    ("dpo", {"beta": 0.5, "loss": "robust", "label_smoothing": 0.2}),
    ("dpo", {"beta": 0.3, "loss": "hinge", "label_smoothing": 0.0}),
    ("dpo", {"beta": 0.1, "loss": "ipo", "label_smoothing": 0.0}),
    ("orpo", {"beta": 0.1}),
    ("orpo", {"beta": 1.0}),
    ("simpo", {"beta": 2.0, "gamma": 1.0}),
    ("simpo", {"beta": 0.5, "gamma": 0.0}),
]


def loss(section: str, keys: dict, policy: torch.Tensor, reference: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    beta = keys["beta"]
    if section == "dpo":
        trainer = SimpleNamespace(
            beta=beta,
            loss_type=keys["loss"].removesuffix("_norm"),
            label_smoothing=keys["label_smoothing"],
            f_divergence_type="reverse_kl",
            f_divergence_params=None,
            reference_free=False,
            use_weighting=False,
            accelerator=SimpleNamespace(device="cpu"),
        )
        # "sigmoid_norm" is only in TRL from 1.0 on: "sigmoid" of these means.
        if keys["loss"] in ("ipo", "sigmoid_norm"):
            policy, reference = policy / tokens, reference / tokens
        return DPOTrainer.dpo_loss(trainer, policy[:1], policy[1:], reference[:1], reference[1:])[0]
    means = policy / tokens
    if section == "orpo":
        # TRL gives what is subtracted from the cross-entropy of the chosen answer.
        trainer = SimpleNamespace(beta=beta, accelerator=SimpleNamespace(device="cpu"))
        return -means[:1] - ORPOTrainer.odds_ratio_loss(trainer, means[:1], means[1:])[0]
    trainer = SimpleNamespace(
        beta=beta, simpo_gamma=keys["gamma"], loss_type="simpo", label_smoothing=0.0, accelerator=SimpleNamespace(device="cpu")
    )
    return CPOTrainer.cpo_loss(trainer, means[:1], means[1:])[0]


def main() -> None:
    cases = []
    for section, keys in CASES:
        results = []
        for pair in PAIRS:
            policy = torch.tensor(pair["policy"], dtype=torch.float64, requires_grad=True)
            value = loss(section, keys, policy, torch.tensor(pair["reference"], dtype=torch.float64), torch.tensor(pair["tokens"]))
            value.sum().backward()
            results.append({"loss": value.item(), "by": policy.grad.tolist()})
        cases.append({"section": section, "keys": keys, "results": results})
    out = Path(__file__).with_name("preferences.json")
    out.write_text(json.dumps({"pairs": PAIRS, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
