#!/usr/bin/env python3
"""Reads the Parquet tables of a report with pyarrow and compares them with the CSV tables beside them.

    tests/interop/run.sh report_tables.py REPORT

REPORT is the directory of the report of an ablation or a sweep, or of `tritforge compare --out`. Columns, rows and values
must be the same: numbers to the bit, an empty cell of CSV a null.
"""

import csv
import struct
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TYPES = {
    "report": {
        "text": {"arm", "settings", "verdict", "pairing"},
        "whole": {"n", "diverged", "failed", "wins"},
        "nulls": {"difference", "verdict"},
    },
    "runs": {
        "text": {"arm", "outcome", "directory"},
        "whole": {"seed", "parameters", "steps", "tokens", "peak_memory", "file_bytes"},
        "nulls": set(),
    },
}


def bits(x):
    return struct.pack("<d", x)


def check(report, name):
    table = pq.read_table(report / f"{name}.parquet")
    with (report / f"{name}.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    assert table.column_names == header, f"{table.column_names} instead of {header}"
    assert table.num_rows == len(rows) > 0, f"{table.num_rows} rows instead of {len(rows)}"
    values = nulls = 0
    for place, column in enumerate(header):
        kind = "text" if column in TYPES[name]["text"] else "whole" if column in TYPES[name]["whole"] else "real"
        expected = {"text": pa.string(), "whole": pa.uint64(), "real": pa.float64()}[kind]
        found = table.schema.field(column)
        assert found.type == expected and found.nullable, f"{name}.{column}: {found} instead of {expected}"
        for row, value in zip(rows, table.column(column).to_pylist()):
            cell = row[place]
            where = f"{name}.{column} of {row[0]}: {value!r} instead of {cell!r}"
            if cell == "":
                assert value is None, where
                nulls += 1
            elif kind == "text":
                assert value == cell, where
            elif kind == "whole":
                assert value == int(cell), where
            else:
                assert bits(value) == bits(float(cell)), where
            values += cell != ""
    for column in TYPES[name]["nulls"]:
        assert table.column(column).null_count > 0, f"{name}.{column}: no null, not even of the baseline"
    print(f"{report}/{name}.parquet: {len(rows)} rows, {values} values and {nulls} nulls: those of {name}.csv")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for name in TYPES:
        check(Path(sys.argv[1]), name)


if __name__ == "__main__":
    main()
