"""Run one command and say what it took: the one place where the comparisons measure memory and a busy machine.

    python benches/measure.py COMMAND…

Prints one JSON object:

    stdout              what the command wrote
    wall_seconds        from start to exit
    peak_rss_mb         the command's largest resident set, in MB of 10⁶ bytes (`ru_maxrss`; file pages count)
    foreign_cpu         share of all cores that other processes or the hypervisor took meanwhile, 0 to 1 (0 where there is
                        no /proc/stat)

The exit code is the command's; its standard error is passed on.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

PROC_STAT = Path("/proc/stat")


def busy_seconds() -> float | None:
    """CPU seconds that were not idle since boot, over all cores, time stolen by the hypervisor included."""
    if not PROC_STAT.exists():
        return None
    fields = [int(field) for field in PROC_STAT.read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _io, irq, soft_irq, stolen = fields
    return (user + nice + system + irq + soft_irq + stolen) / os.sysconf("SC_CLK_TCK")


def measure(command: list[str]) -> tuple[int, dict]:
    """The command's exit code, and what the module's text lists."""
    busy = busy_seconds()
    begin = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stdout = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - begin
    foreign = 0.0
    if busy is not None:
        others = busy_seconds() - busy - usage.ru_utime - usage.ru_stime
        foreign = min(1.0, max(0.0, others / (wall * os.cpu_count())))
    unit = 1 if sys.platform == "darwin" else 1024
    report = {
        "stdout": stdout,
        "wall_seconds": wall,
        "peak_rss_mb": usage.ru_maxrss * unit / 1e6,
        "foreign_cpu": foreign,
    }
    return child.returncode, report


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: measure.py COMMAND…")
    code, result = measure(sys.argv[1:])
    print(json.dumps(result))
    sys.exit(code)
