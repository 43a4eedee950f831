"""Write the golden file that pins the statistics of ablations to scipy and statsmodels.

Versions: scipy 1.17.1, statsmodels 0.15.0, numpy 2.4.6. To run:

    python -m venv .venv-golden
    .venv-golden/bin/pip install scipy==1.17.1 statsmodels==0.15.0 numpy==2.4.6
    .venv-golden/bin/python tests/golden/make_statistics.py

What it writes, beside itself:

    statistics.json    values of Student's t distribution; means, intervals, paired and Welch tests, exact sign-flip tests,
                       smallest effects and Holm's correction of made-up runs

With `--check RUNS.csv REPORT.csv BASELINE METRIC` it writes nothing: it recomputes the report of an experiment whose arms
are paired from the values of its runs, and fails if a number differs by more than 1e-9.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

HERE = Path(__file__).resolve().parent


def summary(values):
    n = len(values)
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    low, high = stats.t.interval(0.95, n - 1, loc=mean, scale=stats.sem(values))
    return {"n": n, "mean": mean, "sd": sd, "half_width": float(high - low) / 2}


def paired(arm, base):
    d = np.array(arm) - np.array(base)
    n = len(d)
    test = stats.ttest_rel(arm, base)
    flips = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided")
    low, high = test.confidence_interval(0.95)
    reach = stats.t.ppf(0.975, n - 1) + stats.t.ppf(0.8, n - 1)
    return {
        "mean": float(d.mean()), "sd": float(d.std(ddof=1)), "half_width": float(high - low) / 2,
        "t": float(test.statistic), "df": float(test.df), "p": float(test.pvalue), "sign_flip_p": float(flips.pvalue),
        "wins": int((d < 0).sum()), "smallest_shown": float(reach * d.std(ddof=1) / np.sqrt(n)),
    }


def unpaired(arm, base):
    test = stats.ttest_ind(arm, base, equal_var=False)
    low, high = test.confidence_interval(0.95)
    error = float(np.mean(arm) - np.mean(base)) / float(test.statistic)
    reach = stats.t.ppf(0.975, test.df) + stats.t.ppf(0.8, test.df)
    return {
        "mean": float(np.mean(arm) - np.mean(base)), "half_width": float(high - low) / 2, "t": float(test.statistic),
        "df": float(test.df), "p": float(test.pvalue), "smallest_shown": float(reach * abs(error)),
    }


def golden():
    rng = np.random.default_rng(2026)
    cdf = [[t, df, float(stats.t.cdf(t, df))] for df in (1, 2, 3.7, 4, 9, 30, 250.5) for t in (-40, -3.2, -0.5, 0, 0.01, 1, 2.8, 12)]
    quantile = [[p, df, float(stats.t.ppf(p, df))] for df in (1, 2, 3.7, 4, 9, 30, 250.5) for p in (0.001, 0.025, 0.4, 0.5, 0.8, 0.975, 0.9999)]
    cases = []
    for n in (2, 3, 4, 5, 6, 8, 12):
        base = 2.0 + 0.02 * rng.standard_normal(n)
        for effect, spread in ((0.03, 0.002), (0.0, 0.02), (-0.08, 0.026), (1e-4, 1e-5)):
            arm = base + effect + spread * rng.standard_normal(n)
            arm, base_ = arm.tolist(), base.tolist()
            cases.append({
                "arm": arm, "base": base_, "summary": summary(arm), "paired": paired(arm, base_),
                "unpaired": unpaired(arm, base_[: max(2, n - 1)]) | {"base": base_[: max(2, n - 1)]},
            })
    holm = []
    for n in (1, 2, 3, 7):
        p = rng.uniform(0, 0.2, n).tolist()
        holm.append({"p": p, "adjusted": multipletests(p, method="holm")[1].tolist()})
    golden = {"cdf": cdf, "quantile": quantile, "cases": cases, "holm": holm}
    (HERE / "statistics.json").write_text(json.dumps(golden, indent=1) + "\n")


def check(runs, report, baseline, metric):
    values = {}
    with open(runs, newline="") as file:
        for row in csv.DictReader(file):
            if row[metric]:
                values.setdefault(row["arm"], {})[int(row["seed"])] = float(row[metric])
    with open(report, newline="") as file:
        rows = {row["arm"]: row for row in csv.DictReader(file)}
    found = {arm: paired([own[s] for s in own if s in values[baseline]], [values[baseline][s] for s in own if s in values[baseline]])
             for arm, own in values.items() if arm != baseline}
    adjusted = dict(zip(found, multipletests([found[arm]["p"] for arm in found], method="holm")[1]))
    worst = 0.0
    for arm, row in rows.items():
        expected = summary(list(values[arm].values()))
        if arm != baseline:
            d = found[arm]
            expected |= {"difference": d["mean"], "difference_sd": d["sd"], "difference_half_width": d["half_width"],
                         "t": d["t"], "df": d["df"], "p": d["p"], "sign_flip_p": d["sign_flip_p"], "wins": d["wins"],
                         "smallest_shown": d["smallest_shown"], "holm_p": float(adjusted[arm])}
        for key, value in expected.items():
            error = abs(float(row[key]) - value) / max(1.0, abs(value))
            worst = max(worst, error)
            assert error < 1e-9, (arm, key, row[key], value)
    print(f"{len(rows)} arms: the report is scipy's; largest relative difference {worst:.1e}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        check(*sys.argv[2:])
    else:
        golden()
