"""Speed of the mobile client, as medians: ``python -m testbed.bench.mobile_speed``."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from shared.program import run_program
from testbed.processes.temporary import temporary_folder

RUNS = 7
DECISIONS = """
import statistics, sys, tempfile
from mobile_client.local.runtime import LocalRuntime
from mobile_client.settings import MobileSettings
from testbed.texts import sample_sentences
runtime = LocalRuntime(MobileSettings())
texts = sample_sentences()
policy = runtime.make_policy(sys.argv[1])
rows = [
    runtime.route(runtime.prepare(text, None), policy, 5000) for _ in range(20) for text in texts
]
print(statistics.median(row.decision_ms for row in rows))
"""
ANSWER = """
import sys
from mobile_client import MobileClient
mobile = MobileClient(policy="mobile", state_dir=sys.argv[1])
mobile.classify("a gripping, funny film")
"""
ANSWERS = """
import sys, time
from mobile_client import MobileClient
from testbed.texts import sample_sentences
texts = sample_sentences()

def rate(answer_all):
    started, used = time.perf_counter(), time.process_time()
    for _ in range(10):
        answer_all()
    count = 10 * len(texts)
    return count / (time.perf_counter() - started), count / (time.process_time() - used)

with MobileClient(policy="mobile", state_dir=sys.argv[1]) as mobile:
    mobile.classify_many(texts)
    print(*rate(lambda: [mobile.classify(text) for text in texts]))
    print(*rate(lambda: mobile.classify_many(texts)))
"""


def mobile_start() -> tuple[float, float]:
    """Start a mobile in a new process; return seconds to its first answer, and peak MB."""
    with temporary_folder("bench") as folder:
        started = time.perf_counter()
        child = subprocess.Popen([sys.executable, "-c", ANSWER, str(folder)])
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError("the mobile did not answer; its error is printed above")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def _decision_ms(policy: str) -> float:
    return float(subprocess.check_output([sys.executable, "-c", DECISIONS, policy]))


def _answers() -> list[float]:
    """Return answers per second and per CPU second: of one text a call, and of 60 a call."""
    with temporary_folder("bench") as folder:
        printed = subprocess.check_output([sys.executable, "-c", ANSWERS, str(folder)])
    return [float(number) for number in printed.split()]


def main() -> None:
    """Print the median, minimum and maximum of each figure."""
    starts = [mobile_start() for _ in range(RUNS)]
    seconds, megabytes = zip(*starts, strict=True)
    fixed, cascade = (
        [_decision_ms(name) for _ in range(RUNS)] for name in ("dimee-fixed", "cascade-routing")
    )
    one, one_cpu, many, many_cpu = zip(*(_answers() for _ in range(RUNS)), strict=True)
    for name, unit, values in (
        ("start to first answer", "s", seconds),
        ("peak resident memory", "MB", megabytes),
        ("decision (tokenise, embed, route) of dimee-fixed, p50 of 1,200", "ms", fixed),
        ("decision of cascade-routing, p50 of 1,200", "ms", cascade),
        ("answers of its own layers, one text a call", "per s", one),
        ("answers of its own layers, one text a call", "per CPU s", one_cpu),
        ("answers of its own layers, 60 texts a call", "per s", many),
        ("answers of its own layers, 60 texts a call", "per CPU s", many_cpu),
    ):
        median = statistics.median(values)
        print(f"{name}: {median:.3f} {unit} (min {min(values):.3f}, max {max(values):.3f})")


if __name__ == "__main__":
    run_program(main)
    print(f"medians of {RUNS} runs, {os.cpu_count()} cores, {Path(sys.executable)}")
