#!/usr/bin/env python3
"""Trains a small run that is logged to an MLflow server on loopback, twice with a stop between, and compares what the server
then has with metrics.jsonl.

    tests/interop/run.sh mlflow_run.py BINARY

BINARY is `target/release/tritforge`. Also: a run whose server is not there must train to the same losses, and an ablation
whose recipe has [log] must have a run for each of its own, with names that say arm and seed.
"""

import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import mlflow
from mlflow.tracking import MlflowClient

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPE = """
[run]
name = "tiny"
seed = 3
[model]
hidden_size = 128
intermediate_size = 128
num_hidden_layers = 2
num_attention_heads = 2
[tokenizer]
kind = "bpe"
vocab_size = 320
[data]
train = ["text.txt"]
held_out = 0.1
split = "contiguous"
seq_len = 32
[optim]
lr = 2e-3
warmup_steps = 4
[train]
steps = 12
batch_size = 2
eval_every = 6
log_every = 1
[sample]
tokens = 0
"""
EXPERIMENT = """
question = "Which rate?"
base = "recipe.toml"
seeds = [1, 2]
[grid]
"optim.lr" = [1e-3, 2e-3]
"""
# What stands in metrics.jsonl under other names.
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


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def serve(work):
    port = free_port()
    store = ["--backend-store-uri", f"sqlite:///{work}/mlflow.db", "--default-artifact-root", f"{work}/artifacts"]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    log = open(f"{work}/server.log", "w")
    server = subprocess.Popen([*command, *store], stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    for _ in range(180):
        time.sleep(1)
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5)
            return server, url
        except OSError:
            assert server.poll() is None, Path(f"{work}/server.log").read_text()
    sys.exit("the server did not start in three minutes")


def train(binary, work, *more):
    done = subprocess.run([binary, "train", "recipe.toml", "--quiet", *more], cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def events(work, name):
    return [json.loads(line) for line in (work / f"runs/{name}/metrics.jsonl").read_text().splitlines()]


def losses(work, name):
    return [(e["step"], e["loss"]) for e in events(work, name) if e["event"] in ("train", "eval")]


def check_run(client, work):
    runs = client.search_runs([client.get_experiment_by_name("from a test").experiment_id])
    assert len(runs) == 1, runs
    run = runs[0]
    assert (run.info.status, run.info.run_name) == ("FINISHED", "tiny"), run.info
    assert run.data.tags["team"] == "kernels"
    assert run.info.end_time >= run.info.start_time > 1_600_000_000_000
    params = run.data.params
    assert (params["optim.lr"], params["run.seed"], params["data.train"]) == ("0.002", "3", '["text.txt"]'), params
    numbers = 0
    for kind, tags in TAGS.items():
        for tag, key in tags.items():
            expected = [(e["step"], e[key]) for e in events(work, "tiny") if e["event"] == kind]
            found = sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, tag))
            assert [step for step, _ in found] == [step for step, _ in expected], f"{tag}: {found}"
            for (_, value), (step, wanted) in zip(found, expected):
                assert math.isclose(value, wanted, rel_tol=1e-12), f"{tag}, step {step}: {value} instead of {wanted}"
            numbers += len(found)
    zeros = client.get_metric_history(run.info.run_id, "ternary_zero/model.layers.1.mlp.down_proj")
    # Before the first step, and with every evaluation.
    assert [m.step for m in zeros] == [0, 6, 12, 18], zeros
    return len(params), numbers


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    binary = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        (work / "text.txt").write_text((REPOSITORY / "LICENSE-APACHE").read_text())
        (work / "recipe.toml").write_text(RECIPE)
        server, url = serve(work)
        try:
            own = [f'log.mlflow="{url}"', 'log.mlflow_experiment="from a test"']
            sets = [argument for key in own for argument in ("--set", key)]
            said = train(binary, work, *sets, "--tag", "team=kernels")
            assert "mlflow" not in said, said
            # Goes on: the same run there.
            said = train(binary, work, *sets, "--resume", "--set", "train.steps=18", "--tag", "team=kernels")
            # The length of a run is a parameter that it began with, and keeps there.
            assert "train.steps" in said, said
            client = MlflowClient(url)
            params, numbers = check_run(client, work)
            # Without its server: the same losses, and one warning.
            away = ["--set", f'log.mlflow="http://127.0.0.1:{free_port()}"', "--set", "run.name=away"]
            said = train(binary, work, *away, "--set", "train.steps=12")
            assert "does not answer" in said and "did not reach" in said, said
            assert losses(work, "away") == losses(work, "tiny")[: len(losses(work, "away"))]
            # An ablation.
            (work / "recipe.toml").write_text(RECIPE + f'[log]\nmlflow = "{url}"\nmlflow_experiment = "ablation"\n')
            (work / "e.toml").write_text(EXPERIMENT)
            subprocess.run([binary, "ablate", "e.toml"], cwd=work, check=True, capture_output=True)
            found = client.search_runs([client.get_experiment_by_name("ablation").experiment_id])
            names = sorted(run.info.run_name for run in found)
            arms = ["lr=0.001", "lr=0.002"]
            assert names == [f"{arm}, seed {seed}" for arm in arms for seed in (1, 2)], names
            assert all(run.info.status == "FINISHED" and run.data.tags["tritforge.arm"] in arms for run in found)
            version = mlflow.__version__
            print(f"MLflow {version}: {params} parameters, {numbers} numbers, {len(names)} runs of an ablation")
        finally:
            os.killpg(server.pid, 15)
            server.wait()


if __name__ == "__main__":
    main()
