"""Run tasks with lm-evaluation-harness and with tritforge, on the same model and samples, and compare every answer.

    cargo build --release
    tests/interop/run.sh tasks_lm_eval.py

A small Llama with random weights and a tokenizer trained here is evaluated by the harness as it stands (its own task files, with the
data replaced by samples made here) and, imported with `tritforge import`, by `tritforge eval`: without examples and with
three. The table shows the largest difference of a log-likelihood and of a metric; the exit code is 1 if one is above
1e-3, a generated text differs, or a metric is missing.

Versions: requirements-tasks_lm_eval.txt (CPU only).
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import lm_eval  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BOUND = 1e-3
SAMPLES = 24
SHOTS = 3
NEW_TOKENS = 24
WORDS = (ROOT / "LICENSE-APACHE").read_text().split()

# Our name, the harness's task file, our metrics by the harness's names.
CASES = {
    "arc_easy": ("arc/arc_easy.yaml", ["acc", "acc_norm"]),
    "boolq": ("super_glue/boolq/default.yaml", ["acc"]),
    "hellaswag": ("hellaswag/hellaswag.yaml", ["acc", "acc_norm"]),
    "openbookqa": ("openbookqa/openbookqa.yaml", ["acc", "acc_norm"]),
    "piqa": ("piqa/piqa.yaml", ["acc", "acc_norm"]),
    "social_iqa": ("siqa/siqa.yaml", ["acc"]),
    "winogrande": ("winogrande/default.yaml", ["acc"]),
    "gsm8k": ("gsm8k/gsm8k.yaml", ["exact_match"]),
}


def phrase(rng: random.Random, most: int) -> str:
    """Some words, at times one with letters of several bytes."""
    words = [rng.choice([*WORDS, "größer", "naïve", "日本"]) for _ in range(rng.randint(1, most))]
    return " ".join(words)


def sample(task: str, rng: random.Random) -> dict:
    """A sample in the form of the hub's data set."""
    question, choices = phrase(rng, 12), [phrase(rng, 8) for _ in range(4)]
    labels = ["A", "B", "C", "D"] if rng.random() < 0.5 else ["1", "2", "3", "4"]
    labelled = {"choices": {"text": choices, "label": labels}, "answerKey": rng.choice(labels)}
    match task:
        case "arc_easy":
            return {"question": question, **labelled}
        case "openbookqa":
            return {"question_stem": question, **labelled}
        case "boolq":
            return {"passage": phrase(rng, 30), "question": question, "label": rng.randrange(2)}
        case "hellaswag":
            endings = [f"{a} [step] {b}" for a, b in zip(choices, reversed(choices))]
            return {"activity_label": phrase(rng, 2), "ctx_a": f"{question} [title] Then", "ctx_b": phrase(rng, 4),
                    "endings": endings, "label": str(rng.randrange(4))}
        case "piqa":
            return {"goal": question, "sol1": choices[0], "sol2": choices[1], "label": rng.randrange(2)}
        case "social_iqa":
            return {"context": question, "question": phrase(rng, 5), "answerA": choices[0], "answerB": choices[1],
                    "answerC": choices[2], "label": str(rng.randint(1, 3))}
        case "winogrande":
            return {"sentence": f"{question} _ {phrase(rng, 8)}", "option1": choices[0], "option2": choices[1],
                    "answer": str(rng.randint(1, 2))}
        case _:
            return {"question": question, "answer": f"{phrase(rng, 8)}\n#### {rng.randint(0, 9)}"}


def make_model(directory: Path) -> None:
    """A Llama of random weights whose tokenizer puts BOS before every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet,
                                  show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(directory)
    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=600, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
                         initializer_range=0.2, tie_word_embeddings=False, bos_token_id=0, eos_token_id=1)
    LlamaForCausalLM(config).save_pretrained(directory)


def harness_tasks(directory: Path) -> None:
    """The harness's task files with our samples as their data."""
    tasks = Path(lm_eval.__file__).parent / "tasks"
    for name, (file, _) in CASES.items():
        splits = {split: str(directory / name / f"{split}.jsonl") for split in ("train", "validation", "test")}
        own = {"include": str(tasks / file), "task": f"own_{name}", "tag": None, "dataset_path": "json",
               "dataset_name": None, "dataset_kwargs": {"data_files": splits}}
        if name == "gsm8k":
            own["generation_kwargs"] = {"until": ["Question:", "</s>", "<|im_end|>"], "do_sample": False,
                                        "max_gen_toks": NEW_TOKENS}
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(own))


def tritforge(*arguments: object) -> str:
    """Run the binary and stop at its first complaint."""
    binary = os.environ.get("TRITFORGE", str(ROOT / "target" / "release" / "tritforge"))
    result = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"tritforge {' '.join(map(str, arguments))}: {result.stderr}")
    return result.stdout


def compare(name: str, theirs: dict, ours: dict, answers: list[dict]) -> tuple[float, float]:
    """The largest difference of a log-likelihood (1 for a text that differs) and of a metric."""
    metrics = CASES[name][1]
    filters = ["strict-match", "flexible-extract"] if name == "gsm8k" else ["none"]
    worst = 0.0
    for metric in metrics:
        for filter_ in filters:
            for kind in (metric, f"{metric}_stderr"):
                own = ours[kind if filter_ == "none" else f"{kind},{filter_}"]
                worst = max(worst, abs(theirs["results"][f"own_{name}"][f"{kind},{filter_}"] - own))
    samples = [s for s in theirs["samples"][f"own_{name}"] if s["filter"] == filters[0]]
    samples.sort(key=lambda s: s["doc_id"])
    if len(samples) != len(answers):
        raise SystemExit(f"{name}: {len(samples)} samples by the harness, {len(answers)} by tritforge")
    answer_gap = 0.0
    for sample_, answer in zip(samples, answers):
        context = sample_["arguments"][0][0]
        if context != answer["context"]:
            raise SystemExit(f"{name}: the contexts differ:\n{context!r}\n{answer['context']!r}")
        if name == "gsm8k":
            answer_gap = max(answer_gap, float(sample_["resps"][0][0] != answer["text"]))
            continue
        for (response,), own in zip(sample_["resps"], answer["log_likelihoods"], strict=True):
            answer_gap = max(answer_gap, abs(float(response[0]) - own))
    return answer_gap, worst


def main() -> int:
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        make_model(directory / "hf")
        tritforge("import", directory / "hf", "-o", directory / "model")
        rng = random.Random(7)
        for name in CASES:
            (directory / name).mkdir()
            for split in ("train", "validation", "test"):
                lines = [json.dumps(sample(name, rng)) + "\n" for _ in range(SAMPLES)]
                (directory / name / f"{split}.jsonl").write_text("".join(lines))
            # The split that the harness evaluates.
            task = yaml.load((Path(lm_eval.__file__).parent / "tasks" / CASES[name][0]).read_text(), AnyTag)
            if not task.get("test_split"):
                (directory / name / "test.jsonl").write_text((directory / name / "validation.jsonl").read_text())
        harness_tasks(directory)
        model = HFLM(pretrained=str(directory / "hf"), device="cpu", dtype="float32", batch_size=1)
        manager = TaskManager(include_path=str(directory))
        print(f"{'task':<12} shots  log-likelihood  metric")
        for shots in (0, SHOTS):
            theirs = lm_eval.simple_evaluate(model=model, tasks=[f"own_{name}" for name in CASES], num_fewshot=shots,
                                             task_manager=manager, log_samples=True, bootstrap_iters=1000)
            log = directory / "answers.jsonl"
            printed = tritforge("eval", directory / "model", "--tasks", ",".join(CASES), "--data", directory, "--json",
                                "--num-fewshot", shots, "--max-tokens", NEW_TOKENS, "--samples", log)
            ours = json.loads(printed)["results"]
            answers = [json.loads(line) for line in log.read_text().splitlines()]
            for name in CASES:
                own = [answer for answer in answers if answer["task"] == name]
                answer_gap, metric_gap = compare(name, theirs, ours[name], own)
                failed |= not (answer_gap < BOUND and metric_gap < BOUND)
                print(f"{name:<12} {shots:>5}  {answer_gap:>14.2e}  {metric_gap:.2e}")
    return int(failed)


class AnyTag(yaml.SafeLoader):
    """Reads a task file without looking up its functions."""


AnyTag.add_constructor("!function", lambda loader, node: None)

if __name__ == "__main__":
    sys.exit(main())
