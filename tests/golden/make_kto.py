"""Write kto.json, which pins Kahneman-Tversky optimization to TRL: its formula, and a step of a small model with an adapter.

Versions: trl 0.19.1, transformers 4.55.4, peft 0.17.1, torch 2.8.0, safetensors 0.8.0 (CPU only). To run:

    python -m venv .venv-golden
    .venv-golden/bin/pip install torch==2.8.0 trl==0.19.1 transformers==4.55.4 peft==0.17.1 safetensors==0.8.0
    .venv-golden/bin/python tests/golden/make_kto.py

`KTOTrainer.kto_loss` and `KTOTrainer.get_batch_logps` are called as they stand; those of TRL 1.16.0 have the same formulas, but no
functions of their own.

    formula     cases with the keys of [kto]: log-probabilities of answers by policy and reference, labels, those of answers to other
                prompts; the reference point `kl`, each loss, and the gradient of the sum of all losses by each entry of `policy`; in f64
    model       llama_tiny is the reference, with the adapter of lora_llama it is the policy, in f32: ids, lengths of prompts and labels of a
                batch, whose mismatched answers are those of the row before (`_get_kl_dataset`); the point, the mean loss, and its gradient by
                each tensor of the adapter, named as in adapter_model.safetensors
"""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM
from trl import KTOTrainer
from trl.trainer.kto_trainer import _get_kl_dataset

HERE = Path(__file__).resolve().parent
FORMULA = {
    "policy": [-10.0, -40.0, -3.0, -0.5, -33.25, -21.5],
    "reference": [-11.0, -20.0, -20.0, -0.6, -34.0, -21.0],
    "labels": [True, False, True, False, False, True],
    "policy_kl": [-20.0, -31.0, -15.5, -9.0, -40.0, -12.0],
    "reference_kl": [-22.0, -30.0, -18.0, -9.5, -41.0, -12.5],
}
KEYS = [
    {"beta": 0.1, "loss": "kto", "desirable_weight": 1.0, "undesirable_weight": 1.0},
    {"beta": 0.5, "loss": "kto", "desirable_weight": 1.25, "undesirable_weight": 0.75},
    {"beta": 0.3, "loss": "apo_zero_unpaired", "desirable_weight": 1.0, "undesirable_weight": 1.5},
    # The mean of the others is below 0 here, and the point is not.
    {"beta": 0.1, "loss": "kto", "desirable_weight": 1.0, "undesirable_weight": 1.0, "swapped": True},
]
PROMPTS = [[3, 17, 40], [5, 99, 12, 7], [80, 81], [3, 17, 41, 150, 9], [121, 6, 33], [70, 2, 64, 18]]
ANSWERS = [[9, 44, 10], [101, 55, 8, 3, 19], [7, 7, 120, 2], [30, 31], [155, 4, 66, 90, 12, 1], [27, 140, 5]]
LABELS = [True, False, False, True, True, False]
BETA, DESIRABLE, UNDESIRABLE = 0.4, 1.25, 0.75


def trainer(keys: dict) -> SimpleNamespace:
    gather = SimpleNamespace(gather_for_metrics=lambda x: x, device="cpu")
    weights = {key: keys[key] for key in ("beta", "desirable_weight", "undesirable_weight")}
    return SimpleNamespace(calculate_KL=keys["loss"] == "kto", loss_type=keys["loss"], accelerator=gather, **weights)


def losses(keys: dict, policy, reference, policy_kl, reference_kl, labels: list[bool]):
    """Each loss in the order of the answers, and the reference point."""
    good = torch.tensor(labels)
    split = [policy[good], policy[~good], policy_kl, reference[good], reference[~good], reference_kl]
    each, _, _, kl = KTOTrainer.kto_loss(trainer(keys), *split)
    ordered = torch.zeros_like(policy)
    ordered[good], ordered[~good] = each[: int(good.sum())], each[int(good.sum()) :]
    return ordered, kl


def formula() -> list[dict]:
    cases = []
    for keys in KEYS:
        swapped = keys.pop("swapped", False)
        given = {name: torch.tensor(FORMULA[name], dtype=torch.float64) for name in FORMULA if name != "labels"}
        if swapped:
            given["policy_kl"], given["reference_kl"] = given["reference_kl"], given["policy_kl"]
        policy = given.pop("policy").requires_grad_()
        each, kl = losses(keys, policy, labels=FORMULA["labels"], **given)
        each.sum().backward()
        inputs = FORMULA | {name: values.tolist() for name, values in given.items()}
        cases.append({"keys": keys, **inputs, "kl": float(kl), "losses": each.tolist(), "by": policy.grad.tolist()})
    return cases


def base() -> LlamaForCausalLM:
    """llama_tiny, whose config.json is that of transformers 5."""
    values = json.loads((HERE / "llama_tiny" / "config.json").read_text())
    rope = values.pop("rope_parameters")
    theta = rope.pop("rope_theta")
    config = LlamaConfig(**values, rope_theta=theta, rope_scaling=rope, attn_implementation="eager")
    model = LlamaForCausalLM(config).eval()
    model.load_state_dict(load_file(HERE / "llama_tiny" / "model.safetensors"))
    goldens = load_file(HERE / "llama_tiny" / "goldens.safetensors")
    logits = model(input_ids=goldens["input_ids"]).logits
    assert float((logits - goldens["plain.logits"]).detach().abs().max()) < 1e-5
    return model


def log_probs(model: torch.nn.Module, prompts: list, answers: list) -> torch.Tensor:
    length = max(len(p) + len(a) for p, a in zip(prompts, answers))
    ids = torch.tensor([p + a + [0] * (length - len(p) - len(a)) for p, a in zip(prompts, answers)])
    labels = torch.full_like(ids, -100)
    for row, (p, a) in enumerate(zip(prompts, answers)):
        labels[row, len(p) : len(p) + len(a)] = ids[row, len(p) : len(p) + len(a)]
    return KTOTrainer.get_batch_logps(model(input_ids=ids).logits, labels)


def model() -> dict:
    given = json.loads((HERE / "lora_llama" / "adapter_config.json").read_text())
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=given["r"],
        lora_alpha=given["lora_alpha"],
        use_rslora=given["use_rslora"],
        target_modules=given["target_modules"],
    )
    policy = get_peft_model(base(), config).eval()
    stored = load_file(HERE / "lora_llama" / "adapter_model.safetensors")
    assert not set_peft_model_state_dict(policy, stored).unexpected_keys
    batch = {"prompt_input_ids": PROMPTS, "prompt_attention_mask": PROMPTS, "answer_input_ids": ANSWERS, "answer_attention_mask": ANSWERS}
    others = _get_kl_dataset(dict(batch))["answer_input_ids"]
    keys = {"beta": BETA, "loss": "kto", "desirable_weight": DESIRABLE, "undesirable_weight": UNDESIRABLE}
    with torch.no_grad(), policy.disable_adapter():
        reference, reference_kl = log_probs(policy, PROMPTS, ANSWERS), log_probs(policy, PROMPTS, others)
    with torch.no_grad():
        policy_kl = log_probs(policy, PROMPTS, others)
    each, kl = losses(keys, log_probs(policy, PROMPTS, ANSWERS), reference, policy_kl, reference_kl, LABELS)
    assert float(kl) > 0
    each.mean().backward()
    trained = {n.replace(".default", ""): p for n, p in policy.named_parameters() if p.requires_grad}
    assert trained.keys() == stored.keys()
    return {
        "keys": keys,
        "ids": [p + a for p, a in zip(PROMPTS, ANSWERS)],
        "prompts": [len(p) for p in PROMPTS],
        "labels": LABELS,
        "kl": float(kl),
        "loss": float(each.detach().mean()),
        "gradients": {name: p.grad.flatten().tolist() for name, p in sorted(trained.items())},
    }


(HERE / "kto.json").write_text(json.dumps({"formula": formula(), "model": model()}) + "\n")
