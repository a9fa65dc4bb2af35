"""Every CUDA kernel on this machine's GPU: checked against the CPU, then timed.

    python benchmarks/gpu/run.py             on a GPU; says why and ends where there is none
    python benchmarks/gpu/run.py --emulator  the same path on a few atoms in the emulator (its times mean nothing)
    python benchmarks/gpu/run.py --paper     operations and bytes of each kernel and the limits of A100 and H100

In float64 and in float32. Times are those of device events around whole calls, copies included, best of five.
Fractions are of the flops and the bytes that the chip could do in that time. Where nvalchemi-toolkit-ops is installed
(pip install nvalchemi-toolkit-ops torch), its neighbour lists are timed on the same structures.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.build import bulk

import matcompute_kernels as cpu
from matcompute_kernels import Batch, cuda
from matcompute_kernels.neighbors import expected_pairs

#: (Gflop/s in float64, in float32, GB/s) without tensor cores: NVIDIA's data sheets (A100 80 GB; SXM).
CHIPS = {
    "A100": (9_700.0, 19_500.0, 2_039.0),
    "H100": (34_000.0, 67_000.0, 3_350.0),
    "H200": (34_000.0, 67_000.0, 4_800.0),
    "B200": (37_000.0, 74_000.0, 8_000.0),
}
#: Flops of a multiprocessor in a cycle in float64 and float32, by compute capability (CUDA C++ Programming Guide).
PER_CYCLE = {(8, 0): (64, 128), (9, 0): (128, 256), (10, 0): (128, 256)}
USUAL_PER_CYCLE = (4, 256)
FUNCTIONS = {
    "g2": [[0.05 * k, 0.4 * k] for k in range(11)],
    "g4": [[0.01, zeta, lam] for zeta in (1, 2, 4, 8, 16, 32) for lam in (-1, 1)],
}
SOAP = {"r_cut": 5.0, "n_max": 8, "l_max": 6}
GRID = {"min": 0.1, "max": 0.6, "sigma": 0.02, "n": 100}
#: Largest difference from the CPU, in parts of the largest value (or 1).
BOUNDS = {"float64": 1e-9, "float32": 5e-5}


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
    #: Structures and cutoff, if a peer can do the same on the GPU.
    neighbors: tuple[Batch, float] | None = None


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


def large(side: int, seed: int = 1) -> Batch:
    """One perturbed structure of side³ cubic cells of rock salt."""
    atoms = bulk("MgO", "rocksalt", a=4.25, cubic=True) * side
    atoms.positions += np.random.default_rng(seed).normal(0, 0.1, (len(atoms), 3))
    return Batch.from_atoms([atoms])


def cases(cells: int, side: int, rows: int, picks: int, dtype: str = "float64") -> list[Case]:
    """Inputs of a size, and what the kernels do on them."""
    batch, crystal = structures(cells), large(side)
    word = np.dtype(dtype).itemsize
    atoms = len(batch.numbers)
    pairs, images = float(expected_pairs(batch, 5.0).sum()), candidates(batch, 5.0)
    wide_pairs = float(expected_pairs(batch, 8.0).sum())
    large_pairs = float(expected_pairs(crystal, 5.0).sum())
    x = np.random.default_rng(2).normal(size=(rows, 252)).astype(dtype)
    few = x[: max(1, rows // 8)]
    n, l = SOAP["n_max"], SOAP["l_max"]
    n_lm = (l + 1) ** 2
    soap_pairs = float(expected_pairs(batch, 5.0 + 0.5 * math.sqrt(-2 * math.log(1e-3))).sum())
    features = (l + 1) * (2 * n * (n + 1) // 2 + n * n)
    soap_flops = soap_pairs * (2 * n * n_lm + 12 * n * (l + 1) + 7 * n_lm) + atoms * features * 2 * (l + 1)
    settings = {"species": ["Mg", "O"], "average": "outer", **SOAP}
    weights = {"function": "exp", "r_cut": 8.0, "threshold": 1e-3}
    spectra = {"species": ["Mg", "O"], "geometry": "inverse_distance", "grid": GRID, "weighting": weights}
    # Bytes of a site that is sent and wrapped, and of a pair in a list.
    site, pair = 40 + 12 + 6 * word, 4 + 4 * word
    options = {"dtype": dtype}
    return [
        Case(
            "neighbors",
            atoms,
            "atoms",
            2 * 9 * images,
            pairs * (pair + 12) + atoms * site,
            lambda d: _moments(cuda.neighbor_list(batch, 5.0, **options, device=d)),
            lambda: _moments(cpu.neighbor_list(batch, 5.0)),
            (batch, 5.0),
        ),
        Case(
            f"neighbors of {len(crystal.numbers)} atoms",
            len(crystal.numbers),
            "atoms",
            # A sphere is a sixth of the bins around it.
            2 * 9 * 27 / (4 / 3 * math.pi) * large_pairs,
            large_pairs * (pair + 12) + len(crystal.numbers) * (site + 28 + 3 * word),
            lambda d: _moments(cuda.neighbor_list(crystal, 5.0, **options, device=d)),
            lambda: _moments(cpu.neighbor_list(crystal, 5.0)),
            (crystal, 5.0),
        ),
        Case(
            "rdf",
            atoms,
            "atoms",
            9 * images + 6 * pairs,
            atoms * site,
            # In float32 a distance near an edge counts on either side of it: the running sums of the counts agree.
            lambda d: _smoothed(cuda.rdf(batch, 5.0, **options, device=d)),
            lambda: _smoothed(cpu.rdf(batch, 5.0)),
        ),
        Case(
            "soap average",
            atoms,
            "atoms",
            soap_flops + 2 * 9 * candidates(batch, 6.86),
            soap_pairs * 2 * pair + atoms * site + len(batch) * features * word,
            lambda d: cuda.soap(batch, **settings, **options, device=d),
            lambda: cpu.soap(batch, **settings),
        ),
        Case(
            "acsf",
            atoms,
            "atoms",
            # An exponential or a power counts as 20 operations.
            pairs * (pairs / atoms) / 2 * (40 + 12 * 45) + pairs * 11 * 25 + 2 * 9 * images,
            pairs * 2 * pair + atoms * (site + word * 60),
            lambda d: cuda.acsf(batch, ["Mg", "O"], 5.0, **FUNCTIONS, **options, device=d),
            lambda: cpu.acsf(batch, ["Mg", "O"], 5.0, **FUNCTIONS),
        ),
        Case(
            "mbtr k2",
            atoms,
            "atoms",
            # An error function counts as 20 operations; each pair of equal atoms comes twice.
            0.75 * wide_pairs * GRID["n"] * 24 + 2 * 9 * candidates(batch, 8.0),
            wide_pairs * 2 * pair + atoms * site + len(batch) * 3 * GRID["n"] * word,
            lambda d: cuda.mbtr(batch, **spectra, **options, device=d),
            lambda: cpu.mbtr(batch, **spectra),
        ),
        Case(
            "rbf tiles",
            rows * len(few),
            "pairs",
            3.0 * rows * len(few) * 252,
            word * (rows * 252 + len(few) * 252.0 + rows * len(few)),
            lambda d: cuda.kernel_matrix(few, x, "rbf", device=d),
            lambda: cpu.kernel_matrix(few, x, "rbf"),
        ),
        Case(
            "knn",
            len(few),
            "rows",
            3.0 * rows * len(few) * 252,
            word * (rows * 252 + 2.0 * rows * len(few)),
            lambda d: cuda.knn(x, 10, queries=few, device=d)[0],
            lambda: cpu.knn(x, 10, queries=few)[0],
        ),
        Case(
            "fps",
            picks,
            "picks",
            3.0 * picks * rows * 252,
            1.0 * word * picks * rows * 252,
            lambda d: cuda.fps(x, picks, device=d),
            lambda: cpu.fps(x, picks),
        ),
    ]


def _moments(pairs: Any) -> np.ndarray:
    """Numbers of a neighbour list that do not depend on its order: pairs a site, mean and largest distance."""
    distance = pairs.distance.astype(np.float64)
    return np.array([len(pairs) / len(pairs.counts), distance.mean(), distance.max()])


def _smoothed(spectrum: np.ndarray) -> np.ndarray:
    """Each bin with its neighbours, in parts of the sum."""
    running = np.cumsum(spectrum.astype(np.float64), axis=1).mean(axis=0)
    return running / running[-1]


def paper() -> None:
    """Print the limits per item."""
    print(
        "| kernel | per | kflop | kB | A100, items/s | by | H100, items/s | by |\n|---|---|---|---|---|---|---|---|"
    )
    for case in cases(1000, 8, 20_000, 100):
        columns = []
        for flops, _, width in (CHIPS["A100"], CHIPS["H100"]):
            compute, memory = case.flops / flops / 1e9, case.bytes / width / 1e9
            columns += [f"{case.items / max(compute, memory):.1e}", "flops" if compute > memory else "bytes"]
        each = f"{case.flops / case.items / 1e3:.3g} | {case.bytes / case.items / 1e3:.3g}"
        print(f"| {case.name} | {case.unit.rstrip('s')} | {each} | {' | '.join(columns)} |")


def limits(name: str, properties: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return what a chip can do: Gflop/s in float64, in float32, GB/s.

    From the data sheets; of other chips from clocks and widths, as the driver tells them (0: it does not).
    """
    for chip, known in CHIPS.items():
        if chip in name:
            return known
    per_cycle = PER_CYCLE.get((properties.get("major"), properties.get("minor")), USUAL_PER_CYCLE)
    cycles = properties.get("multiProcessorCount", 0) * properties.get("clockRate", 0) * 1e3
    width = 2 * properties.get("memoryClockRate", 0) * 1e3 * properties.get("memoryBusWidth", 0) / 8
    return per_cycle[0] * cycles / 1e9, per_cycle[1] * cycles / 1e9, width / 1e9


def fractions(case: Case, seconds: float, dtype: str, chip: tuple[float, float, float]) -> str:
    """Return which part of the chip's flops and bytes a time is."""
    flops, width = chip[0 if dtype == "float64" else 1], chip[2]
    if not flops or not width:
        return "limits of this chip unknown"
    compute, memory = case.flops / flops / 1e9 / seconds, case.bytes / width / 1e9 / seconds
    return f"{compute:.1%} of flops, {memory:.1%} of bytes"


def peer_neighbors(batch: Batch, r_cut: float, dtype: str, device: str) -> Callable[[], Any] | None:
    """Return a call of nvalchemi-toolkit-ops that finds the same pairs; None where it is not installed."""
    try:
        import torch
        from nvalchemiops.torch.neighbors import neighbor_list
    except ImportError:
        return None
    owner = np.repeat(np.arange(len(batch)), batch.n_sites)
    options = {
        "cell": torch.tensor(batch.cell.astype(dtype), device=device),
        "pbc": torch.tensor(batch.pbc, device=device),
        "batch_idx": torch.tensor(owner, dtype=torch.int32, device=device),
        "return_neighbor_list": True,
    }
    positions = batch.positions.astype(dtype)

    def call() -> Any:
        # As ours: from the host and back.
        pairs, _, shifts = neighbor_list(torch.tensor(positions, device=device), r_cut, **options)
        return pairs.cpu(), shifts.cpu()

    return call


def timed(call: Callable[[], Any], on_gpu: bool, repeats: int) -> float:
    """Best time in seconds."""
    best = math.inf
    for _ in range(repeats):
        if on_gpu:
            import cupy

            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            begin.record()
            call()
            cupy.cuda.Device().synchronize()
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
    kinds = ["float64", "float32"]
    if options.emulator:
        from matcompute_kernels.cuda.emulator import Emulator

        device, name, sizes, repeats, chip = Emulator(), "emulator", (1, 3, 40, 4), 1, (0.0, 0.0, 0.0)
        kinds = ["float64"]
    else:
        problem = cuda.cuda_problem()
        if problem is not None:
            print(f"skipped: {problem}")
            return
        import cupy

        from matcompute_kernels.cuda.device import default_device

        device, sizes, repeats = default_device(), (5000, 16, 20_000, 200), 5
        name = device.name
        chip = limits(name, cupy.cuda.runtime.getDeviceProperties(device.index))
    print(f"device: {name}")
    ratios, peers = {}, {}
    for dtype in kinds:
        for case in cases(*sizes, dtype):
            label = case.name if dtype == "float64" else f"{case.name}, {dtype}"
            expected, got = case.on_cpu(), case.on_device(device)
            error = float(
                np.max(np.abs(np.asarray(got, float) - expected)) / max(1.0, np.max(np.abs(expected)))
            )
            if not error < BOUNDS[dtype]:
                raise SystemExit(f"{label}: differs from the CPU by {error:.1e}")
            seconds = timed(lambda case=case: case.on_device(device), not options.emulator, repeats)
            host = timed(case.on_cpu, False, repeats)
            ratios[label] = host / seconds
            told = [
                f"{label}: error {error:.0e}",
                f"{case.items / seconds:.3g} {case.unit}/s",
                fractions(case, seconds, dtype, chip),
                f"{host / seconds:.2g} × one CPU thread",
            ]
            if case.neighbors is not None and not options.emulator:
                call = peer_neighbors(*case.neighbors, dtype, f"cuda:{device.index}")
                if call is None:
                    told.append("nvalchemi-toolkit-ops is not installed")
                else:
                    peers[label] = timed(call, True, repeats) / seconds
                    told.append(f"{peers[label]:.2g} × nvalchemi-toolkit-ops")
            print(", ".join(told))
    print(json.dumps({"benchmark": "gpu", "ratios": ratios, "peers": peers, "machine": {"device": name}}))


if __name__ == "__main__":
    main()
