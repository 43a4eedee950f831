#!/usr/bin/env python3
"""The steps and measurements of device.sh, in a folder, as Markdown."""
import json
import pathlib
import statistics
import sys

folder = pathlib.Path(sys.argv[1])


def read(name):
    """A measurement, if it was made."""
    try:
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


print("| step | result | seconds | last line |\n|---|---|---:|---|")
steps = [line.split("\t") for line in (folder / "steps").read_text(encoding="utf-8").splitlines()]
for name, result, seconds, last in steps:
    print(f"| {name} | {result} | {seconds} | {last.replace('|', '/') if result != 'ok' or not last.startswith('}') else ''} |")
copy = read("bandwidth")
if copy:
    print(f"\n{copy['gpu']}, {copy['driver']}: copies at {copy['fastest']:.0f} GB/s (median {copy['median']:.0f})")
print("\n| model | test | tokens/s | GB/s of weights and cache | of copies | TOP/s of ternary products |\n|---|---|---:|---:|---:|---:|")
for name, *_ in steps:
    report = read(name) if name.split("-")[0] in ("decode", "prefill", "deep") else None
    for model in report["models"] if report else []:
        for row in model["rows"]:
            rate = statistics.median(row["tokens_per_second"])
            operations = f"{2 * model['macs_a_token'] * rate * 1e-12:.2f}"
            moved = share = ""
            if row["decodes"]:
                # The weights are read once for all sequences, keys and values for each.
                bytes_a_step = model["bytes_a_token"] + row["batch"] * row["kv_bytes"]
                gigabytes = bytes_a_step * rate / row["batch"] * 1e-9
                moved = f"{gigabytes:.1f}"
                share = f"{gigabytes / copy['fastest']:.0%}" if copy else ""
            print(f"| {model['model']} | {row['test']} | {rate:.1f} | {moved} | {share} | {operations} |")
