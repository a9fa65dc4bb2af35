"""One run, ours and the peer in turns: what the benchmarks of the kernels share.

A benchmark calls :func:`use_peers` first (it starts itself again in .venv-peers, where the peers are), then
:func:`compare` once per case, then :func:`report`. Times are CPU seconds of this process, one thread.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from _machine import machine

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT.parent / "shared" / "reference" / "kernels"
_THREADS = (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


def use_peers() -> None:
    """Go on in .venv-peers with one thread and our kernels on the path."""
    if os.environ.get("MATCOMPUTE_BENCHMARK") == "1":
        return
    python = ROOT / ".venv-peers" / "bin" / "python"
    if not python.exists():
        sys.exit(f"error: {python} is missing; run `make bench`, which makes it from benchmarks/peers.txt")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    environment |= dict.fromkeys(_THREADS, "1") | {
        "MATCOMPUTE_BENCHMARK": "1",
        "PYTHONPATH": str(ROOT / "kernels"),
        "PYTHONWARNINGS": "ignore",
        "TQDM_DISABLE": "1",
    }
    os.execve(python, [str(python), *sys.argv], environment)


def small200(step: int = 1) -> list[Any]:
    """The 200 crystals as ASE Atoms (or every ``step``-th of them)."""
    from ase.io import read

    return read(REFERENCE / "small200.extxyz", f"::{step}")


def big4096() -> list[Any]:
    """One crystal of 4,096 atoms, in a list."""
    from ase.io import read

    return [read(REFERENCE / "big4096.extxyz")]


def cpu_seconds(function: Callable[[], Any], at_least: float = 0.05) -> float:
    """CPU seconds of one call; short calls are repeated until they take ``at_least`` seconds."""
    calls, begin = 0, time.process_time()
    while True:
        function()
        calls += 1
        spent = time.process_time() - begin
        if spent >= at_least:
            return spent / calls


def compare(
    case: str,
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    items: int,
    unit: str,
    rounds: int = 5,
) -> dict[str, Any]:
    """Run both in turns; print and return the median ratio (peer's time over ours) and the rates per second."""
    ours()  # compiles, or loads what is compiled
    times = [(cpu_seconds(peer), cpu_seconds(ours)) for _ in range(rounds)]
    ratio = statistics.median(p / o for p, o in times)
    result = {
        "ratio": round(ratio, 2),
        "ours": round(items / statistics.median(o for _, o in times), 1),
        "peer": round(items / statistics.median(p for p, _ in times), 1),
        "unit": f"{unit}/s",
    }
    print(
        f"{case:40s} ours {result['ours']:>12,.1f}  peer {result['peer']:>12,.1f} {unit}/s   × {ratio:.1f}",
        flush=True,
    )
    return result


def report(benchmark: str, results: dict[str, dict[str, Any]], peers: list[str]) -> None:
    """Print the line that tools read."""
    line = {
        "benchmark": benchmark,
        "ratios": {case: result["ratio"] for case, result in results.items()},
        "rates": results,
        "peers": {name: version(name) for name in peers},
        "machine": machine(numba=version("numba")),
    }
    print(json.dumps(line, ensure_ascii=False))
