"""Routing decision for 10⁵ tasks × 8 centres (16 partitions), against the same decision taken task by task.

The peer is what one would write first: a Python loop that asks every centre, for every task, whether it fits and what
it would cost. Both must choose the same. CPU time, ours after one call that compiles (or reads from Numba's cache).
Prints one JSON line; ``ratios.routing`` is the peer's time / ours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace

import numpy as np

from _machine import machine
from matcompute.centres.routing import SPREAD, CentreState, Demand, Group, PartitionState, route
from matcompute.dataset.metadata import GRADES


def problem(n: int, centres: int, seed: int = 5) -> tuple[Demand, list[CentreState]]:
    """Return random tasks of six stages and centres of two partitions each."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(centres):
        nodes, cores = int(rng.integers(2, 200)), int(rng.choice([24, 48, 64, 128]))
        cpu = PartitionState(
            "cpu", nodes, cores, 4.0 * cores, 0, 8, 86400.0, "core_h", float(rng.uniform(0.01, 0.1))
        )
        gpu = replace(cpu, name="gpu", nodes=8, gpus=4, charge="gpu_h", per_hour=1.5)
        made.append(
            CentreState(
                f"centre-{number}",
                (cpu, replace(gpu, wait_s=float(rng.exponential(600)))),
                str(rng.choice(GRADES)),
                window=500,
                in_flight_core_s=float(rng.exponential(1e6)),
                quota_left_core_s=float(rng.uniform(1e5, 1e9)),
                factors={f"w{k}": float(rng.uniform(0.5, 2)) for k in range(6)},
            )
        )
    kinds = ["fastest", "cheapest", "balanced"]
    groups = [Group(f"w{k}", str(rng.choice(GRADES)), strategy=kinds[k % 3]) for k in range(6)]  # type: ignore[arg-type]
    demand = Demand.of(
        groups,
        rng.integers(0, len(groups), n),
        rng.exponential(2000.0, n),
        cores=rng.choice([1, 4, 16, 64], n),
        gpus=rng.choice([0, 0, 0, 1], n),
        memory_gb=rng.choice([0.0, 64.0, 300.0], n),
        walltime_s=rng.choice([3600.0, 36000.0], n),
    )
    return demand, made


def one_by_one(demand: Demand, centres: list[CentreState]) -> np.ndarray:
    """Return the column of each task, chosen by plain loops."""
    columns = [(centre, part) for centre in centres for part in centre.partitions]
    typical = max(1.0, float(np.median(demand.cores)))

    def capacity(centre: CentreState, part: PartitionState) -> float:
        return max(1.0, min(float(part.nodes * part.cores), centre.window * typical))

    load = [
        part.wait_s + centre.in_flight_core_s / sum(capacity(centre, p) for p in centre.partitions)
        for centre, part in columns
    ]
    quota = {centre.id: centre.quota_left_core_s for centre in centres}
    chosen = np.full(len(demand), -1)
    for i in range(len(demand)):
        group = demand.groups[int(demand.group[i])]
        cores, gpus = int(demand.cores[i]), int(demand.gpus[i])
        options = []
        for k, (centre, part) in enumerate(columns):
            work = float(demand.core_s[i]) * centre.factors.get(group.workload, 1.0)
            nodes = max(1, -(-cores // part.cores))
            if GRADES.index(group.grade) > GRADES.index(centre.clearance):
                continue
            if nodes > part.max_nodes or demand.memory_gb[i] > part.memory_gb * nodes:
                continue
            if gpus > part.gpus * nodes or demand.walltime_s[i] > part.max_wall_s:
                continue
            if work > quota[centre.id]:
                continue
            price = {
                "core_h": part.per_hour,
                "node_h": part.per_hour * nodes / cores,
                "gpu_h": part.per_hour * gpus / cores,
            }[part.charge]
            end = max(load[k] + work / capacity(centre, part), part.wait_s + work / cores) + SPREAD * load[k]
            options.append((k, end, work / 3600 * price, work, centre, part))
        if not options:
            continue
        if group.strategy == "fastest":
            best = min(options, key=lambda option: option[1])
        elif group.strategy == "cheapest":
            best = min(options, key=lambda option: (option[2], option[1]))
        else:
            least = min(option[2] for option in options)
            mean = sum(option[2] for option in options) / len(options) or 1.0
            best = min(options, key=lambda option: option[1] * (1 + (option[2] - least) / mean))
        k, _, _, work, centre, part = best
        chosen[i] = k
        quota[centre.id] -= work
        load[k] += work / capacity(centre, part)
    return chosen


def main() -> None:
    """Time both and print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--centres", type=int, default=8)
    options = parser.parse_args()
    demand, centres = problem(options.tasks, options.centres)
    begun = time.process_time()
    route(demand, centres)
    first = time.process_time() - begun
    ours, peer = [], []
    for _ in range(5):
        begun = time.process_time()
        decision = route(demand, centres)
        ours.append(time.process_time() - begun)
        begun = time.process_time()
        expected = one_by_one(demand, centres)
        peer.append(time.process_time() - begun)
    assert np.array_equal(decision.column, expected), "the two decisions differ"
    print(
        json.dumps(
            {
                "benchmark": "routing",
                "ratios": {"routing": round(statistics.median(peer) / statistics.median(ours), 2)},
                "peers": {"python loop": {"cpu_s": [round(t, 3) for t in peer]}},
                "ours": {"cpu_s": [round(t, 3) for t in ours], "first_call_cpu_s": round(first, 3)},
                "tasks": options.tasks,
                "centres": options.centres,
                "partitions": len(decision.columns),
                "placed": int((decision.column >= 0).sum()),
                "machine": machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
