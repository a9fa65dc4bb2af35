"""Rates of the dataset format: write 10⁶ entries, read columns and random structures; against ASE's own formats.

Run ``python benchmarks/dataset_io.py [--entries N] [--peers N]``. Prints one JSON line. Ratios are the peer's time for
one entry divided by ours, so larger is better.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from _machine import machine
from matcompute.dataset import Dataset, DatasetWriter, Metadata, validate_dataset
from matcompute_kernels import Batch

BLOCK = 20_000


def block(n: int, seed: int) -> tuple[Batch, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return n relaxed-looking structures of 4 to 18 sites (11 on average), up to four species, and their results."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(4, 19, size=n)
    ptr = np.concatenate([[0], np.cumsum(sizes)])
    m = int(ptr[-1])
    lengths = rng.uniform(3.5, 9, size=(n, 3))
    cell = np.zeros((n, 3, 3))
    cell[:, [0, 1, 2], [0, 1, 2]] = lengths
    fractions = rng.integers(0, 24, size=(m, 3)) / 24 + rng.normal(scale=0.01, size=(m, 3))
    species = rng.integers(1, 90, size=(n, 4))
    owner = np.repeat(np.arange(n), sizes)
    numbers = species[owner, rng.integers(0, 4, size=m)]
    positions = fractions * lengths[owner]
    energy = rng.normal(-5, 1, size=n)
    results = {
        "energy": energy * sizes,
        "energy_per_atom": energy,
        "volume_per_atom": lengths.prod(axis=1) / sizes,
        "max_force": rng.exponential(0.01, size=n),
        "stress": rng.normal(size=(n, 6)),
        "n_steps": rng.integers(1, 200, size=n),
    }
    site_results = {"forces": rng.normal(scale=0.01, size=(m, 3))}
    return Batch(numbers.astype("u1"), positions, cell, np.ones((n, 3), bool), ptr), results, site_results


def write(path: Path, n: int, **options: int) -> float:
    """Write n entries; return the seconds that took, without making the numbers."""
    spent = 0.0
    start = time.perf_counter()
    with DatasetWriter(path, Metadata(title="benchmark"), **options) as writer:
        for first in range(0, n, BLOCK):
            made = time.perf_counter()
            batch, results, site_results = block(min(BLOCK, n - first), first)
            uuid = np.random.default_rng(first).integers(0, 255, size=16, dtype="u1")
            count = len(batch)
            entry = {
                "source_line": np.arange(first, first + count),
                "node_uuid": np.tile(uuid, (count, 1)),
                "process_uuid": np.tile(uuid, (count, 1)),
            }
            spent += time.perf_counter() - made
            writer.append(batch, results=results, site_results=site_results, entry=entry)
    return time.perf_counter() - start - spent


def timed(call: Callable[[], object], repeat: int = 3) -> float:
    """Return the best wall time of a call."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def read(path: Path) -> dict[str, float]:
    """Return read times in seconds (structures in milliseconds)."""
    figures = {"open_s": timed(lambda: Dataset(path).close())}
    with Dataset(path) as ds:
        for name in ("energy", "stress", "forces"):
            figures[f"column_{name}_s"] = timed(lambda name=name: ds.column(name))
        figures["column_id_s"] = timed(lambda: h5py.File(path)["entries/id"][:])
        figures["all_structures_packed_s"] = timed(ds.batch, 1)
        rows = np.random.default_rng(0).integers(0, len(ds), size=300)
        times = []
        processor = time.process_time()
        for row in rows.tolist():
            start = time.perf_counter()
            ds.atoms(row)
            times.append(1e3 * (time.perf_counter() - start))
        figures["random_structure_cpu_ms"] = 1e3 * (time.process_time() - processor) / rows.shape[0]
        figures["random_structure_median_ms"] = float(np.median(times))
        figures["random_structure_p99_ms"] = float(np.percentile(times, 99))
    return figures


def peers(folder: Path, n: int) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return ratios and times per entry for the same n entries, from and to ASE Atoms for all of them."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.db import connect
    from ase.io import iread
    from ase.io import write as ase_write

    batch, results, site_results = block(n, 7)
    images = []
    for k, atoms in enumerate(batch.iter_atoms()):
        sites = slice(batch.ptr[k], batch.ptr[k + 1])
        atoms.calc = SinglePointCalculator(
            atoms, energy=results["energy"][k], forces=site_results["forces"][sites]
        )
        images.append(atoms)

    def ours_write() -> None:
        with DatasetWriter(folder / "ours.h5", overwrite=True) as writer:
            forces = np.concatenate([a.calc.results["forces"] for a in images])
            energy = [a.calc.results["energy"] for a in images]
            writer.append(
                Batch.from_atoms(images), results={"energy": energy}, site_results={"forces": forces}
            )

    def ours_read() -> None:
        with Dataset(folder / "ours.h5") as ds:
            list(ds.iter_atoms())
            ds.column("energy"), ds.column("forces")

    def extxyz_write() -> None:
        ase_write(folder / "peer.extxyz", images)

    def database_write() -> None:
        (folder / "peer.db").unlink(missing_ok=True)
        with connect(folder / "peer.db") as database:
            for atoms in images:
                database.write(atoms)

    calls = {
        "ours": (ours_write, ours_read),
        "ase extxyz": (extxyz_write, lambda: list(iread(folder / "peer.extxyz"))),
        "ase db (sqlite)": (
            database_write,
            lambda: [r.toatoms() for r in connect(folder / "peer.db").select()],
        ),
    }
    ours_write()  # compiled kernels
    times: dict[str, dict[str, float]] = {}
    for name, (put, get) in calls.items():
        times[name] = {"write_us": 1e6 * timed(put, 2) / n, "read_us": 1e6 * timed(get, 2) / n}
    files = {"ours": "ours.h5", "ase extxyz": "peer.extxyz", "ase db (sqlite)": "peer.db"}
    for name, file in files.items():
        times[name]["bytes"] = (folder / file).stat().st_size / n
    ratios = {}
    for name in ("ase extxyz", "ase db (sqlite)"):
        for key in ("write_us", "read_us", "bytes"):
            ratios[f"{key.split('_')[0]} vs {name}"] = round(times[name][key] / times["ours"][key], 2)
    return ratios, times


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--peers", type=int, default=5_000)
    arguments = parser.parse_args()
    description = machine(
        h5py=h5py.__version__, hdf5=h5py.version.hdf5_version, load=round(os.getloadavg()[0], 2)
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "warm.h5", 100)
        path = folder / "big.h5"
        processor = time.process_time()
        figures: dict[str, object] = {
            "entries": arguments.entries,
            "write_s": write(path, arguments.entries),
            # With the making of the numbers; tells a busy machine from a slow writer.
            "write_cpu_s": time.process_time() - processor,
            "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        }
        with Dataset(path) as ds:
            figures["sites"] = ds.n_sites
        figures["bytes_per_entry"] = path.stat().st_size / arguments.entries
        figures |= read(path)
        start = time.perf_counter()
        if validate_dataset(path):
            raise SystemExit("the file that was written is not valid")
        figures["validate_s"] = time.perf_counter() - start
        levels = {}
        for level in (1, 2, 4, 6):
            seconds = write(folder / "level.h5", 40_000, overwrite=True, gzip_level=level)
            levels[str(level)] = {
                "write_s": round(seconds, 3),
                "bytes": (folder / "level.h5").stat().st_size / 40_000,
            }
        ratios, times = peers(folder, arguments.peers)
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
    print(
        json.dumps(
            {
                "benchmark": "dataset_io",
                "ratios": ratios,
                "peers": {k: {n: round(x, 2) for n, x in v.items()} for k, v in times.items()},
                "figures": rounded,
                "gzip_levels_40000_entries": levels,
                "machine": description,
            }
        )
    )


if __name__ == "__main__":
    main()
