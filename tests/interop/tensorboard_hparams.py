#!/usr/bin/env python3
"""Asks the HParams plugin of a TensorBoard server on loopback about a run or a report, and compares what it answers.

    tests/interop/run.sh tensorboard_hparams.py RUN
    tests/interop/run.sh tensorboard_hparams.py REPORT

RUN is the directory of a run, best of one that was killed and went on: there must be one session whose hyperparameters
are the keys of the recipe that metrics.jsonl has, and whose status is how the run ended. REPORT is that of an ablation, a
sweep or `tritforge compare --out`: there must be a group for each arm of report.csv with a session for each run of
runs.csv, with the metrics that stand there.
"""

import csv
import json
import math
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

# Keys that are no hyperparameters.
LEFT_OUT = {"version", "run.out"}
STATUSES = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]


def ask(port, what, body):
    url = f"http://127.0.0.1:{port}/data/plugin/hparams/{what}"
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def serve(logdir):
    """A TensorBoard server that has read everything, and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", logdir, "--host", "127.0.0.1"]
    server = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.DEVNULL)
    for _ in range(60):
        time.sleep(1)
        try:
            if ask(port, "experiment", {}).get("hparamInfos"):
                return server, port
        except (urllib.error.URLError, ConnectionError):
            pass
        assert server.poll() is None, "the server ended"
    server.terminate()
    sys.exit(f"{logdir}: no hyperparameters were found in a minute")


def answers(logdir):
    server, port = serve(str(logdir))
    try:
        time.sleep(2)
        experiment = ask(port, "experiment", {})
        body = {"startIndex": 0, "sliceSize": 10000, "allowedStatuses": STATUSES, "aggregationType": "AGGREGATION_AVG"}
        return experiment, ask(port, "session_groups", body)["sessionGroups"]
    finally:
        server.terminate()
        server.wait()


def metrics(session):
    return {metric["name"]["tag"]: metric["value"] for metric in session["metricValues"]}


def near(found, expected, what):
    assert math.isclose(float(found), float(expected), rel_tol=1e-6), f"{what}: {found} instead of {expected}"


def flat(table, prefix=""):
    for key, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        elif prefix + key not in LEFT_OUT and not prefix.startswith("log."):
            yield prefix + key, value


def check_run(run):
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    started = [event for event in events if event["event"] == "run"][-1]
    ended = [event for event in events if event["event"] == "end"]
    expected = dict(flat(tomllib.loads(started["recipe"])))
    experiment, groups = answers(run / "tensorboard")
    assert len(groups) == 1 and len(groups[0]["sessions"]) == 1, f"{len(groups)} groups"
    found = groups[0]["hparams"]
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    assert {info["name"] for info in experiment["hparamInfos"]} == expected.keys()
    for key, value in expected.items():
        if isinstance(value, list):
            assert isinstance(found[key], str), key
        elif isinstance(value, (bool, str)):
            assert found[key] == value, f"{key}: {found[key]!r} instead of {value!r}"
        else:
            near(found[key], value, key)
    session = groups[0]["sessions"][0]
    status = {"finished": "STATUS_SUCCESS", "failed": "STATUS_FAILURE"}.get(ended[-1]["ending"] if ended else "")
    assert session.get("status", "STATUS_UNKNOWN") == (status or "STATUS_UNKNOWN"), session.get("status")
    last = {}
    for event in events:
        if event["event"] == "eval":
            last["loss/held_out"], last["loss/bits_per_byte"] = event["loss"], event["bits_per_byte"]
        if event["event"] == "train":
            last["loss/train"] = event["loss"]
    values = metrics(session)
    assert values.keys() == last.keys(), values.keys() ^ last.keys()
    for tag, value in last.items():
        near(values[tag], value, tag)
    print(f"{run}: {len(found)} hyperparameters, {session.get('status', 'no status')}, {len(values)} metrics")


def check_report(report):
    runs = list(csv.DictReader((report / "runs.csv").open()))
    arms = [row["arm"] for row in csv.DictReader((report / "report.csv").open())]
    experiment, groups = answers(report / "tensorboard")
    found = {group["name"]: group for group in groups}
    assert found.keys() == {row["arm"] for row in runs} <= set(arms), found.keys()
    assert "arm" in {info["name"] for info in experiment["hparamInfos"]}
    compared = 0
    for row in runs:
        group = found[row["arm"]]
        sessions = [s for s in group["sessions"] if s["name"].endswith(f"/seed-{row['seed']}")]
        assert len(sessions) == 1 and group["hparams"]["arm"] == row["arm"], row
        status = "STATUS_SUCCESS" if row["outcome"] == "finished" else "STATUS_FAILURE"
        assert sessions[0]["status"] == status, f"{row['arm']}, seed {row['seed']}: {sessions[0]['status']}"
        values = metrics(sessions[0])
        names = {"loss/bits_per_byte": "bits_per_byte", "loss/held_out": "held_out_loss"}
        names |= {f"cost/{key}": key for key in ["seconds", "parameters", "peak_memory", "file_bytes"]}
        for tag, key in names.items():
            if row[key] and (row["outcome"] == "finished" or tag.startswith("cost")):
                near(values[tag], row[key], f"{row['arm']}, seed {row['seed']}: {tag}")
                compared += 1
    print(f"{report}: {len(groups)} groups, {len(runs)} sessions, {compared} numbers: those of runs.csv")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    directory = Path(sys.argv[1])
    if (directory / "metrics.jsonl").exists():
        check_run(directory)
    else:
        check_report(directory)


if __name__ == "__main__":
    main()
