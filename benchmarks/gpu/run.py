"""Every CUDA kernel on this machine's GPU: checked against the CPU, then timed.

    python benchmarks/gpu/run.py             on a GPU; says why and ends where there is none
    python benchmarks/gpu/run.py --emulator  the same path on a few atoms in the emulator (its times mean nothing)
    python benchmarks/gpu/run.py --paper     operations and bytes of each kernel and the limits of A100 and H100

Times are those of device events around whole calls, copies included, best of five.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.build import bulk

import matcompute_kernels as cpu
from matcompute_kernels import Batch, cuda
from matcompute_kernels.neighbors import expected_pairs

#: (Gflop/s in float64, in float32, GB/s) without tensor cores: NVIDIA's data sheets of A100 80 GB SXM and H100 SXM.
CHIPS = {"A100": (9_700.0, 19_500.0, 2_039.0), "H100": (34_000.0, 67_000.0, 3_350.0)}
FUNCTIONS = {
    "g2": [[0.05 * k, 0.4 * k] for k in range(11)],
    "g4": [[0.01, zeta, lam] for zeta in (1, 2, 4, 8, 16, 32) for lam in (-1, 1)],
}
SOAP = {"r_cut": 5.0, "n_max": 8, "l_max": 6}


@dataclass(frozen=True)
class Case:
    """A kernel on an input, with its operations and the bytes it must move at least."""

    name: str
    items: int
    unit: str
    flops: float
    bytes: float
    on_device: Callable[[Any], Any]
    on_cpu: Callable[[], Any]


def structures(cells: int, seed: int = 1) -> Batch:
    """Perturbed rock salt, eight atoms a cell."""
    rng = np.random.default_rng(seed)
    atoms = bulk("MgO", "rocksalt", a=4.25, cubic=True)
    items = []
    for _ in range(cells):
        one = atoms.copy()
        one.positions += rng.normal(0, 0.1, (8, 3))
        items.append(one)
    return Batch.from_atoms(items)


def candidates(batch: Batch, r_cut: float) -> float:
    """Images that the brute-force search looks at."""
    dual = np.linalg.pinv(batch.cell).transpose(0, 2, 1)
    images = np.prod(2.0 * np.ceil(r_cut * np.linalg.norm(dual, axis=2)) + 1.0, axis=1)
    return float((batch.n_sites**2 * images).sum())


def cases(cells: int, rows: int, picks: int) -> list[Case]:
    """Inputs of a size, and what the kernels do on them in float64."""
    batch = structures(cells)
    atoms = len(batch.numbers)
    pairs, images = float(expected_pairs(batch, 5.0).sum()), candidates(batch, 5.0)
    x = np.random.default_rng(2).normal(size=(rows, 252))
    few = x[: max(1, rows // 8)]
    n, l = SOAP["n_max"], SOAP["l_max"]
    n_lm = (l + 1) ** 2
    soap_pairs = float(expected_pairs(batch, 5.0 + 0.5 * math.sqrt(-2 * math.log(1e-3))).sum())
    features = (l + 1) * (2 * n * (n + 1) // 2 + n * n)
    soap_flops = soap_pairs * (2 * n * n_lm + 12 * n * (l + 1) + 7 * n_lm) + atoms * features * 2 * (l + 1)
    settings = {"species": ["Mg", "O"], "average": "outer", **SOAP}
    return [
        Case(
            "neighbors",
            atoms,
            "atoms",
            2 * 9 * images,
            pairs * 48 + atoms * 100,
            lambda d: cuda.neighbor_list(batch, 5.0, device=d).distance.sum(),
            lambda: cpu.neighbor_list(batch, 5.0).distance.sum(),
        ),
        Case(
            "rdf",
            atoms,
            "atoms",
            9 * images + 6 * pairs,
            atoms * 100.0,
            lambda d: cuda.rdf(batch, 5.0, device=d),
            lambda: cpu.rdf(batch, 5.0),
        ),
        Case(
            "soap average",
            atoms,
            "atoms",
            soap_flops + 2 * 9 * candidates(batch, 6.86),
            soap_pairs * 2 * 48 + atoms * 100 + len(batch) * features * 8,
            lambda d: cuda.soap(batch, **settings, device=d),
            lambda: cpu.soap(batch, **settings),
        ),
        Case(
            "acsf",
            atoms,
            "atoms",
            # An exponential or a power counts as 20 operations.
            pairs * (pairs / atoms) / 2 * (40 + 12 * 45) + pairs * 11 * 25 + 2 * 9 * images,
            pairs * 2 * 48 + atoms * (100 + 8 * 60),
            lambda d: cuda.acsf(batch, ["Mg", "O"], 5.0, **FUNCTIONS, device=d),
            lambda: cpu.acsf(batch, ["Mg", "O"], 5.0, **FUNCTIONS),
        ),
        Case(
            "rbf tiles",
            rows * len(few),
            "pairs",
            3.0 * rows * len(few) * 252,
            8.0 * (rows * 252 + len(few) * 252 + rows * len(few)),
            lambda d: cuda.kernel_matrix(few, x, "rbf", device=d),
            lambda: cpu.kernel_matrix(few, x, "rbf"),
        ),
        Case(
            "knn",
            len(few),
            "rows",
            3.0 * rows * len(few) * 252,
            8.0 * (rows * 252 + 2 * rows * len(few)),
            lambda d: cuda.knn(x, 10, queries=few, device=d)[0],
            lambda: cpu.knn(x, 10, queries=few)[0],
        ),
        Case(
            "fps",
            picks,
            "picks",
            3.0 * picks * rows * 252,
            8.0 * picks * rows * 252,
            lambda d: cuda.fps(x, picks, device=d),
            lambda: cpu.fps(x, picks),
        ),
    ]


def paper() -> None:
    """Print the limits per item."""
    print(
        "| kernel | per | kflop | kB | A100, items/s | by | H100, items/s | by |\n|---|---|---|---|---|---|---|---|"
    )
    for case in cases(1000, 20_000, 100):
        columns = []
        for flops, _, width in CHIPS.values():
            compute, memory = case.flops / flops / 1e9, case.bytes / width / 1e9
            columns += [f"{case.items / max(compute, memory):.1e}", "flops" if compute > memory else "bytes"]
        each = f"{case.flops / case.items / 1e3:.3g} | {case.bytes / case.items / 1e3:.3g}"
        print(f"| {case.name} | {case.unit.rstrip('s')} | {each} | {' | '.join(columns)} |")


def timed(call: Callable[[], Any], on_gpu: bool, repeats: int) -> float:
    """Best time in seconds."""
    best = math.inf
    for _ in range(repeats):
        if on_gpu:
            import cupy

            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            begin.record()
            call()
            cupy.cuda.get_current_stream().synchronize()
            end.record()
            end.synchronize()
            best = min(best, cupy.cuda.get_elapsed_time(begin, end) / 1e3)
        else:
            start = time.perf_counter()
            call()
            best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--emulator", action="store_true", help="a few atoms in the emulator")
    parser.add_argument("--paper", action="store_true", help="operations, bytes and limits only")
    options = parser.parse_args()
    if options.paper:
        paper()
        return
    device: Any
    if options.emulator:
        from matcompute_kernels.cuda.emulator import Emulator

        device, name, sizes, repeats = Emulator(), "emulator", (1, 40, 4), 1
    else:
        problem = cuda.cuda_problem()
        if problem is not None:
            print(f"skipped: {problem}")
            return
        from matcompute_kernels.cuda.device import default_device

        device, sizes, repeats = default_device(), (5000, 20_000, 200), 5
        name = device.name
    print(f"device: {name}")
    ratios = {}
    for case in cases(*sizes):
        expected, got = case.on_cpu(), case.on_device(device)
        error = float(np.max(np.abs(np.asarray(got, float) - expected)) / max(1.0, np.max(np.abs(expected))))
        if not error < 1e-9:
            raise SystemExit(f"{case.name}: differs from the CPU by {error:.1e}")
        seconds = timed(lambda case=case: case.on_device(device), not options.emulator, repeats)
        host = timed(case.on_cpu, False, repeats)
        limits = ""
        for chip, (flops, _, width) in CHIPS.items():
            if chip in name:
                compute, memory = case.flops / flops / 1e9, case.bytes / width / 1e9
                limits = f", {compute / seconds:.1%} of flops, {memory / seconds:.1%} of bytes"
        ratios[case.name] = host / seconds
        print(
            f"{case.name}: error {error:.0e}, {case.items / seconds:.3g} {case.unit}/s{limits}, "
            f"{host / seconds:.2g} × one CPU thread"
        )
    print(json.dumps({"benchmark": "gpu", "ratios": ratios, "peers": {}, "machine": {"device": name}}))


if __name__ == "__main__":
    main()
