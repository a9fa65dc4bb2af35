"""Build and release of a large dataset: times, peak of memory, how long the progress bar stands still.

Run ``python benchmarks/publish_build.py [--entries N]``. Prints one JSON line. Build and release run in a process of
their own each, so the peak is theirs alone; a tenth of the entries is built first: the ratio of the peaks above the
empty process says whether memory grows with the release.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from _machine import machine
from dataset_io import block
from matcompute.dataset import (
    DatasetWriter,
    Metadata,
    Method,
    ProcessRecord,
    Provenance,
    Quality,
    Source,
    uuid_array,
)

BLOCK = 20_000
UUIDS = [f"00000000-0000-4000-8000-{k:012d}" for k in range(4)]


def write(path: Path, n: int) -> None:
    """Write n entries that a release accepts: with a method, a source and the process of every value."""
    metadata = Metadata(
        title="benchmark",
        description="random structures",
        domain="frontier-materials",
        license="CC0-1.0",
        dataset_id=UUIDS[0],
        campaign_uuid=UUIDS[1],
    )
    ingest = ProcessRecord(UUIDS[2], "ingest", inputs=(("source", UUIDS[1]),), outputs=(("shard", UUIDS[3]),))
    with DatasetWriter(path, metadata, overwrite=True) as writer:
        source = writer.add_source(Source("random.extxyz", "0" * 64, UUIDS[1]))
        method = writer.add_method(Method("emt"))
        blocks = range(0, n, BLOCK)
        writer.set_provenance(Provenance((ingest, *(_process(k, method) for k in range(1, len(blocks) + 1)))))
        for process, first in enumerate(blocks, start=1):
            batch, results, site_results = block(min(BLOCK, n - first), first)
            count = len(batch)
            writer.append(
                batch,
                results=results,
                site_results=site_results,
                process={name: np.full(count, process) for name in (*results, *site_results)},
                entry={
                    "source_index": np.full(count, source),
                    "source_line": np.arange(first, first + count) + 1,
                    "method_index": np.full(count, method),
                    "node_uuid": np.repeat(uuid_array([UUIDS[3]]), count, axis=0),
                    "quality": np.full(count, Quality.CONVERGED.value),
                },
            )


def _process(number: int, method: int) -> ProcessRecord:
    return ProcessRecord(
        f"00000000-0000-4000-9000-{number:012d}",
        "relax",
        "matcompute.batch",
        inputs=(("structures", UUIDS[3]),),
        outputs=(("results", f"00000000-0000-4000-a000-{number:012d}"),),
        code="matcompute-node",
        code_version="0.1.0",
        computer="local",
        method_index=method,
    )


class Stages:
    """Time of each stage, and the longest time without a word from it."""

    def __init__(self) -> None:
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.silence = 0.0
        self.now = time.perf_counter()

    def __call__(self, text: str, done: int, total: int) -> None:
        now = time.perf_counter()
        self.silence = max(self.silence, now - self.now)
        self.first.setdefault(text, self.now)
        self.now = self.last[text] = now

    def figures(self) -> dict[str, float]:
        return {f"{name}_s": self.last[name] - self.first[name] for name in self.first} | {
            "longest_silence_s": max(self.silence, time.perf_counter() - self.now)
        }


def peak_mb() -> float:
    """Peak of this process's memory; ``ru_maxrss`` would count the parent that it was forked from as well."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3


def child(what: str, shard: Path, folder: Path) -> None:
    """Build or release, and print the figures."""
    from matcompute.publish.build import build
    from matcompute.publish.release import Publication
    from matcompute.publish.terms import terms_of

    before = peak_mb()
    stages, start = Stages(), time.perf_counter()
    if what == "build":
        build([shard], terms_of([shard], "node"), folder / "out", progress=stages)
    else:
        publication = Publication(folder / "node")
        publication.release(folder / "out", progress=stages)
    figures = stages.figures() | {"total_s": time.perf_counter() - start}
    figures |= {
        "start_mb": before,
        "peak_mb": peak_mb(),
        "cpu_s": time.process_time(),
    }
    print(json.dumps({k: round(v, 3) for k, v in figures.items()}))


def run(what: str, shard: Path, folder: Path) -> dict[str, float]:
    """Run `child` in a process of its own."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, __file__, "--child", what, str(shard), str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--child", nargs=3)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], Path(arguments.child[1]), Path(arguments.child[2]))
        return
    from matcompute.publish.keys import generate

    description = machine(load=round(os.getloadavg()[0], 2))
    figures: dict[str, object] = {"entries": arguments.entries}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shard = folder / "entries.h5"
        write(shard, arguments.entries // 10)
        small = run("build", shard, folder / "small")
        write(shard, arguments.entries)
        figures["bytes"] = shard.stat().st_size
        figures["build"] = built = run("build", shard, folder / "big")
        figures["build_of_a_tenth"] = small
        generate(folder / "big" / "node" / "keys")
        figures["release"] = run("release", shard, folder / "big")
    # As in the other benchmarks larger is better: 1 means that ten times the entries take no more memory.
    flat = (small["peak_mb"] - small["start_mb"]) / (built["peak_mb"] - built["start_mb"])
    rate = {"ours": round(arguments.entries / built["total_s"]), "unit": "entries/s"}
    print(
        json.dumps(
            {
                "benchmark": "publish_build",
                "ratios": {"flat memory": round(flat, 3)},
                "rates": {"flat memory": rate},
                "peers": {},
                "figures": figures,
                "machine": description,
            }
        )
    )


if __name__ == "__main__":
    main()
