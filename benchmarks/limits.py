"""How near the kernels come to what the machine can do: two threads against one, and the flop or byte limit.

No peers. ``… two threads``: seconds by the clock with one thread over those with two, the best of several tries
(other programs use the machine too). ``… of dgemm``, ``… of copying``: the kernel's rate over that of a program which
would do nothing but its multiply-adds at dgemm's speed, or nothing but move its bytes at the speed of copying 128 MB
(``… of reading``: of reading 256 MB); by CPU time of one thread, medians of turns. What stays in a cache can be
faster, and so can farthest-point sampling: it reads all rows once for a group of picks, not at each.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

for _name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(_name, None)
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numba  # noqa: E402
import numpy as np  # noqa: E402

import matcompute_kernels as kernels  # noqa: E402
from _interleaved import REFERENCE, cpu_seconds, small200  # noqa: E402
from _machine import machine  # noqa: E402

SOAP = {"r_cut": 5.0, "n_max": 8, "l_max": 6, "sigma": 0.5}
K2 = (
    {"function": "inverse_distance"},
    {"min": 0, "max": 1, "n": 100, "sigma": 0.02},
    {"function": "exp", "r_cut": 8, "threshold": 1e-3},
)


def two_threads(call: Callable[[int], Any], tries: int = 21) -> float:
    """Seconds of one thread over those of two; the call takes the number of threads."""
    best = {1: np.inf, 2: np.inf}
    call(1), call(2)
    for _ in range(tries):
        for threads in best:
            numba.set_num_threads(threads)
            begin = time.perf_counter()
            call(threads)
            best[threads] = min(best[threads], time.perf_counter() - begin)
    numba.set_num_threads(1)
    return best[1] / best[2]


def against(limit: Callable[[], Any], call: Callable[[], Any], share: float, rounds: int = 5) -> float:
    """CPU seconds of the limit's program over the kernel's, times ``share``: the kernel's work over the program's."""
    call(), limit()
    turns = [(cpu_seconds(limit), cpu_seconds(call)) for _ in range(rounds)]
    return statistics.median(share * a / b for a, b in turns)


def main() -> None:
    """Measure and print the line."""
    items = small200()
    whole = kernels.Batch.from_atoms(items)
    species = sorted(set(whole.numbers.tolist()))
    n_sites = len(whole.numbers)
    setting = json.loads((REFERENCE / "meta.json").read_text())["dscribe_acsf"]
    rng = np.random.default_rng(0)
    features, many = rng.normal(size=(6000, 252)), rng.normal(size=(60_000, 252))
    few = whole[:40]
    ratios: dict[str, float] = {}

    def tell(case: str, ratio: float) -> None:
        ratios[case] = round(ratio, 3)
        print(f"{case:34s} {ratio:6.2f}", flush=True)

    cases: dict[str, Callable[[int], Any]] = {
        "soap outer average": lambda t: kernels.soap(whole, species, average="outer", threads=t, **SOAP),
        "soap block-sparse": lambda t: kernels.soap(whole, species, sparse=True, threads=t, **SOAP),
        "acsf": lambda t: kernels.acsf(whole, species, 5.0, g2=setting["g2"], g4=setting["g4"], threads=t),
        "mbtr k2": lambda t: kernels.mbtr(whole, species, *K2, threads=t),
        "local_mbtr k2": lambda t: kernels.local_mbtr(few, species, *K2, threads=t),
        "valle_oganov": lambda t: kernels.valle_oganov(whole, species, threads=t),
        "rdf": lambda t: kernels.rdf(few, 20.0, threads=t),
        "prdf": lambda t: kernels.prdf(few, species, 20.0, threads=t),
        "adf": lambda t: kernels.adf(whole, 5.0, threads=t),
        "steinhardt": lambda t: kernels.steinhardt(whole, 4.0, threads=t),
        "xrd": lambda t: kernels.xrd(whole),
        "orbital_field_matrix": lambda t: kernels.orbital_field_matrix(few),
        "duplicates": lambda t: kernels.duplicate_groups(whole),
    }
    for name, call in cases.items():
        tell(f"{name}, two threads", two_threads(call))

    square = rng.random((1024, 1024))
    room = np.empty(1 << 25)

    def dgemm() -> None:
        square @ square

    def copy() -> None:
        room[: 1 << 24] = room[1 << 24 :]

    def read() -> None:
        room @ room

    # Copying 128 MB reads and writes as many bytes as reading 256 MB reads.
    dgemm_flops, moved_bytes = 2.0 * 1024**3, room.nbytes
    room[:] = 0.0
    # SOAP: 49·8 multiply-adds of the expansion and 7·8·7 of the radial functions for each neighbour, and products of
    # the channels of a structure (with themselves: half) for each site.
    neighbors = len(kernels.neighbor_list(whole, 5.0 + 0.5 * np.sqrt(-2 * np.log(1e-3))))
    channels = np.array([len(set(a.numbers.tolist())) * 8 for a in items])
    products = 49 * float((whole.n_sites * channels * (channels + 1) / 2).sum())
    flops = 2 * (neighbors * (49 * 8 + 7 * 8 * 7) + products)
    print(f"SOAP: {flops / n_sites / 1e3:.0f} kflop a site")
    tell(
        "soap outer average, of dgemm",
        against(dgemm, lambda: cases["soap outer average"](1), flops / dgemm_flops),
    )
    tell(
        "soap block-sparse, of dgemm",
        against(dgemm, lambda: cases["soap block-sparse"](1), flops / dgemm_flops),
    )
    flops = 2.0 * 252 * len(features) ** 2
    tell("knn, of dgemm", against(dgemm, lambda: kernels.knn(features, 10), flops / dgemm_flops))
    n_pairs = len(kernels.neighbor_list(whole, 5.0))
    for name, call, moved in (
        ("neighbors (48 bytes a pair)", lambda: kernels.neighbor_list(whole, 5.0), 48 * n_pairs),
        ("coulomb_matrix", lambda: kernels.coulomb_matrix(whole, 48, "none"), 8 * 48**2 * len(whole)),
    ):
        tell(f"{name}, of copying", against(copy, call, moved / moved_bytes))
    share = 20 * many.nbytes / moved_bytes
    tell("fps (rows × picks), of reading", against(read, lambda: kernels.fps(many, 20), share))
    line = {
        "benchmark": "limits",
        "ratios": ratios,
        "peers": {},
        "machine": machine(numba=numba.__version__, numpy=np.__version__),
    }
    print(json.dumps(line, ensure_ascii=False))


if __name__ == "__main__":
    main()
