"""The limits of a machine without a scheduler, asked of this one."""

from __future__ import annotations

import os
import subprocess

from matcompute.centres.schedulers.direct import MACHINE, QUESTION, parse_limits
from matcompute.centres.schedulers.live import LIVE_MARK


def test_cores_do_not_depend_on_openmp() -> None:
    done = subprocess.run(
        ["bash", "-c", QUESTION],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    parts: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith(LIVE_MARK):
            name = line.removeprefix(LIVE_MARK)
            parts[name] = []
        else:
            parts[name].append(line)
    assert parse_limits(parts).partitions[MACHINE].cores == len(os.sched_getaffinity(0))
