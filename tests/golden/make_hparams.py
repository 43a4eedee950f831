"""Write the golden file that pins the summaries of TensorBoard's HParams plugin to TensorBoard's own classes.

Versions: tensorboard 2.21.0, numpy 2.4.6. To run:

    python -m venv .venv-golden
    .venv-golden/bin/pip install tensorboard==2.21.0 numpy==2.4.6
    .venv-golden/bin/python tests/golden/make_hparams.py

What it writes, beside itself:

    hparams.json    whole events, as hexadecimal digits, with an experiment, the beginnings of runs and their ends
"""

import json
from pathlib import Path

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

HERE = Path(__file__).resolve().parent

# What the Rust test makes events of; seconds since 1970.
TIME = 1_700_000_000.25
RUNS = [
    {"optim.lr": 0.001, "model.use_sub_norm": True, "optim.kind": "adamw", "optim.warmup_steps": 0, "mixed": 3},
    {"optim.lr": 0.004, "model.use_sub_norm": False, "optim.kind": "", "optim.warmup_steps": 40, "mixed": "γ"},
]
METRICS = [
    ("loss/bits_per_byte", "held-out bits/byte", api_pb2.DATASET_VALIDATION),
    ("loss/train", "training loss", api_pb2.DATASET_TRAINING),
    ("cost/seconds", "seconds", api_pb2.DATASET_UNKNOWN),
]


def text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def hparam_info(name, values):
    info = api_pb2.HParamInfo(name=name)
    if all(isinstance(value, bool) for value in values):
        info.type = api_pb2.DATA_TYPE_BOOL
    elif all(isinstance(value, (int, float)) for value in values):
        info.type = api_pb2.DATA_TYPE_FLOAT64
    else:
        info.type, values = api_pb2.DATA_TYPE_STRING, [text(value) for value in values]
    if len(values) < 2:
        return info
    if info.type == api_pb2.DATA_TYPE_FLOAT64:
        info.domain_interval.min_value, info.domain_interval.max_value = min(values), max(values)
    else:
        info.domain_discrete.extend(dict.fromkeys(values))
    return info


def experiment(runs):
    names = sorted(set().union(*runs))
    infos = [hparam_info(name, [run[name] for run in runs]) for name in names]
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=name, dataset_type=dataset)
        for tag, name, dataset in METRICS
    ]
    found = api_pb2.Experiment(
        description="Which?", time_created_secs=TIME, hparam_infos=infos, metric_infos=metrics
    )
    return metadata.EXPERIMENT_TAG, plugin_data_pb2.HParamsPluginData(experiment=found)


def start(run, model, group):
    info = plugin_data_pb2.SessionStartInfo(model_uri=model, group_name=group, start_time_secs=TIME)
    for name, value in run.items():
        kind = {bool: "bool_value", str: "string_value"}.get(type(value), "number_value")
        setattr(info.hparams[name], kind, value)
    return metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=info)


def end(status):
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=TIME)
    return metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=info)


def event(tag, data):
    # As metadata.create_summary_metadata and summary._summary do, with maps in the order of their keys.
    data.version = metadata.PLUGIN_DATA_VERSION
    plugin = summary_pb2.SummaryMetadata.PluginData(
        plugin_name=metadata.PLUGIN_NAME, content=data.SerializeToString(deterministic=True)
    )
    summary = summary_pb2.Summary()
    summary.value.add(
        tag=tag, metadata=summary_pb2.SummaryMetadata(plugin_data=plugin), tensor=metadata.NULL_TENSOR
    )
    return event_pb2.Event(wall_time=TIME, step=7, summary=summary).SerializeToString(deterministic=True).hex()


def main():
    cases = {
        "experiment of one": event(*experiment(RUNS[:1])),
        "experiment of two": event(*experiment(RUNS)),
        "start": event(*start(RUNS[0], "runs/a", "")),
        "start in a group": event(*start(RUNS[1], "", "arm")),
        "success": event(*end(api_pb2.STATUS_SUCCESS)),
        "failure": event(*end(api_pb2.STATUS_FAILURE)),
    }
    (HERE / "hparams.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
