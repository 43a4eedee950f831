#!/usr/bin/env python3
"""Reads the event files of a run with TensorBoard's own reader and compares them with metrics.jsonl.

    tests/interop/run.sh tensorboard_events.py RUN

RUN is the directory of a run, best of one that was killed and went on: TensorBoard must then have forgotten what the
interrupted run wrote after its checkpoint, and every step must be there once.
"""

import json
import math
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# Tags of the numbers of an event of metrics.jsonl.
TAGS = {
    "train": {
        "loss/train": "loss",
        "optimizer/lr": "lr",
        "optimizer/grad_norm": "grad_norm",
        "speed/tokens_per_second": "tokens_per_second",
        "speed/mfu": "mfu",
        "memory/rss": "rss",
        "memory/peak_rss": "peak_rss",
    },
    "eval": {"loss/held_out": "loss", "loss/bits_per_byte": "bits_per_byte"},
}
HEALTH = {"ternary_zero": "zero", "ternary_positive": "positive", "ternary_scale": "scale", "ternary_distance": "distance"}


def expected(run):
    """(tag, step) -> number, and step -> sample."""
    numbers, samples = {}, {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        event = json.loads(line)
        kind, step = event["event"], event.get("step")
        for tag, key in TAGS.get(kind, {}).items():
            numbers[tag, step] = event[key]
        if kind == "eval" and event["sample"]:
            samples[step] = event["sample"]
        if kind == "health":
            for matrix in event["matrices"]:
                for tag, key in HEALTH.items():
                    numbers[f"{tag}/{matrix['name']}", step] = matrix[key]
                if matrix["flipped"] is not None and event["steps"] > 0:
                    flipped = matrix["flipped"] / event["steps"]
                    numbers[f"ternary_flipped_per_step/{matrix['name']}", step] = flipped
    return numbers, samples


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    run = Path(sys.argv[1])
    numbers, samples = expected(run)
    # 0: keep every event.
    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    reader.Reload()
    found = {}
    for tag in reader.Tags()["scalars"]:
        for event in reader.Scalars(tag):
            assert (tag, event.step) not in found, f"{tag}: step {event.step} twice"
            found[tag, event.step] = event.value
    missing, more = numbers.keys() - found.keys(), found.keys() - numbers.keys()
    assert not missing, f"{len(missing)} numbers are missing, for example {sorted(missing)[0]}"
    assert not more, f"{len(more)} numbers too many, for example {sorted(more)[0]}"
    for key, value in numbers.items():
        value = math.nan if value is None else value
        same = math.isclose(found[key], value, rel_tol=1e-6) or math.isnan(found[key]) and math.isnan(value)
        assert same, f"{key}: {found[key]} instead of {value}"
    texts = {event.step: event.tensor_proto.string_val[0].decode() for event in reader.Tensors("sample")}
    shown = {step: "".join(f"    {line}\n" for line in text.split("\n")) for step, text in samples.items()}
    assert {step: text.split() for step, text in texts.items()} == {step: text.split() for step, text in shown.items()}
    files = len(list((run / "tensorboard").iterdir()))
    print(f"{len(found)} numbers and {len(texts)} texts in {files} files: those of metrics.jsonl")


if __name__ == "__main__":
    main()
