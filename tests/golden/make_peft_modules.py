"""Write the golden file that pins which modules an adapter of peft is on, with which rank and scaling.

Versions: CPython 3.11.7 (its `re`); the definitions are those of peft 0.21.2 (check_target_module_exists, get_pattern_key, and the choice
of rank and alpha when a LoRA layer is made), written here in other words. To run:

    python tests/golden/make_peft_modules.py

It writes peft_modules.json beside itself: cases, each with keys of an `adapter_config.json` and the modules that they choose in a model of
12 blocks, as [layer, projection, rank, scaling].
"""

import json
import math
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
LAYERS = 12
PROJECTIONS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
PROJECTIONS += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


def named(names, key):
    """Whether a list or an expression means a module."""
    if isinstance(names, str):
        return re.fullmatch(names, key) is not None
    return any(key == name or key.endswith("." + name) for name in names)


def chosen(config, key):
    if config.get("exclude_modules") and named(config["exclude_modules"], key):
        return False
    targets = config["target_modules"]
    if isinstance(targets, str):
        return targets.lower() == "all-linear" or named(targets, key)
    if key in targets or not named(targets, key):
        return key in targets
    layers = config.get("layers_to_transform")
    if layers is None or layers == []:
        return True
    patterns = config.get("layers_pattern") or [r"[^.]*"]
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        found = re.match(rf".*?\.{pattern}\.(\d+)\.", key)
        if found:
            return int(found.group(1)) in ([layers] if isinstance(layers, int) else layers)
    return False


def value(patterns, key, default):
    for pattern, found in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", key):
            return found
    return default


def modules(config):
    found = []
    for layer in range(LAYERS):
        for projection in PROJECTIONS:
            key = f"model.layers.{layer}.{projection}"
            if chosen(config, key):
                rank = value(config.get("rank_pattern") or {}, key, config["r"])
                alpha = value(config.get("alpha_pattern") or {}, key, config["lora_alpha"])
                scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
                found.append([layer, projection.split(".")[1], rank, scaling])
    return found


UNSLOTH = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?(?:q_proj|k_proj|down_proj).*?)"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|k_proj|down_proj)))"
)
CASES = [
    {"target_modules": ["q_proj", "v_proj"]},
    {"target_modules": ["self_attn.q_proj", "mlp.down_proj"], "use_rslora": True},
    {"target_modules": ["1.self_attn.q_proj"]},
    {"target_modules": ["model.layers.3.mlp.up_proj", "layers.11.self_attn.o_proj"]},
    {"target_modules": "all-linear"},
    {"target_modules": "All-Linear", "exclude_modules": ["k_proj", "layers.2.mlp.up_proj"]},
    {"target_modules": r".*\.(q|v)_proj"},
    {"target_modules": r"model\.layers\.(?:[02468])\.mlp\.(?!up).*_proj"},
    {"target_modules": r"(?i).*\.SELF_ATTN\.[QK]_proj"},
    {"target_modules": r".*\.(\d)\1?\.mlp\.gate_proj"},
    {"target_modules": UNSLOTH},
    {"target_modules": ["q_proj", "k_proj"], "exclude_modules": r".*\.[1-9]\d*\..*"},
    {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": 3},
    {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [0, 10, 11]},
    {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    {"target_modules": ["q_proj"], "layers_to_transform": [1, 2], "layers_pattern": ["blocks", "layers"]},
    {"target_modules": ["q_proj"], "layers_to_transform": []},
    {"target_modules": ["k_proj", "model.layers.5.self_attn.q_proj"], "layers_to_transform": [0]},
    {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 3}, "alpha_pattern": {"v_proj": 5}},
    {"target_modules": ["q_proj"], "rank_pattern": {"1.self_attn.q_proj": 3}},
    {"target_modules": ["q_proj"], "rank_pattern": {r"layers.1\d?.self_attn.q_proj": 3, "q_proj": 7}},
    {"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 7, r"layers.1\d?.self_attn.q_proj": 3}},
    {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"_proj": 3, "(q|k)_proj": 5, ".*": 9}},
    {"target_modules": ["q_proj", "v_proj"], "alpha_pattern": {r"^model\.layers\.0\.self_attn\.q_proj": 64}},
    {"target_modules": ["q_proj", "v_proj"], "alpha_pattern": {"proj": 64, "q.proj": 2.5}, "use_rslora": True},
    {"target_modules": ["q_proj"], "alpha_pattern": {r"layers\.(\d)\3\.self_attn\.q_proj": 1}},
    {"target_modules": ["o_proj"], "rank_pattern": {"o_proj": 4}, "alpha_pattern": {"o_proj": 6}, "use_rslora": True},
]


def main():
    cases = []
    for keys in CASES:
        config = {"r": 8, "lora_alpha": 16, **keys}
        cases.append({"config": config, "modules": modules(config)})
    text = json.dumps({"layers": LAYERS, "cases": cases})
    (HERE / "peft_modules.json").write_text(text.replace('{"config"', '\n{"config"') + "\n")
    print(len(cases), "cases,", sum(len(case["modules"]) for case in cases), "modules")


if __name__ == "__main__":
    main()
