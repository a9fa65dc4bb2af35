"""A large file described end to end: 2×10⁵ structures, SOAP averaged per structure, two threads, into HDF5.

Is the rate flat from start to end? The chunks' times are kept and the rate of the last tenth is divided by that of the
first. No peer does this; see ``soap.py`` for the kernels. Prints one JSON line; ``ratios.flat`` is that quotient.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

for _name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(_name, None)

import numpy as np  # noqa: E402

from _machine import machine  # noqa: E402
from matcompute.dataset import DatasetWriter, Metadata  # noqa: E402
from matcompute.node.describe import describe_dataset  # noqa: E402
from matcompute_kernels import Batch  # noqa: E402

PARAMETERS = {"r_cut": 5.0, "n_max": 6, "l_max": 4, "sigma": 0.5}
SPECIES = np.array([8, 13, 22, 28], dtype="u1")


def block(n: int, seed: int) -> Batch:
    """Return n crystals of 4 to 18 sites of two of the species, about 12 Å³ a site."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(4, 19, size=n)
    ptr = np.concatenate([[0], np.cumsum(sizes)])
    owner = np.repeat(np.arange(n), sizes)
    pairs = np.stack([rng.permutation(SPECIES)[:2] for _ in range(n)])
    numbers = pairs[owner, rng.integers(0, 2, size=ptr[-1])]
    cell = np.zeros((n, 3, 3))
    cell[:, [0, 1, 2], [0, 1, 2]] = np.cbrt(12.0 * sizes)[:, None] * rng.uniform(0.9, 1.1, size=(n, 3))
    positions = rng.random((ptr[-1], 3)) * cell[owner][:, [0, 1, 2], [0, 1, 2]]
    return Batch(numbers, positions, cell, np.ones((n, 3), bool), ptr)


def main() -> None:
    """Write the file, describe it, print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="Where to work (default: a temporary folder).")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="describe-rate-", dir=options.folder) as name:
        path = Path(name) / "structures.h5"
        with DatasetWriter(path, Metadata(title="benchmark")) as writer:
            for first in range(0, options.count, 10_000):
                writer.append(block(min(10_000, options.count - first), first))
        times: list[tuple[int, float]] = []
        begun, processor = time.perf_counter(), time.process_time()
        found = describe_dataset(
            path,
            "soap",
            PARAMETERS,
            driver="threads",
            progress=lambda done, _all: times.append((done, time.perf_counter())),
            threads=cores,
        )
        wall, processor = time.perf_counter() - begun, time.process_time() - processor
        size = path.stat().st_size
    done, at = np.array([d for d, _ in times]), np.array([t for _, t in times])
    tenth = len(times) // 10
    first = (done[tenth] - done[1]) / (at[tenth] - at[1])  # the first chunk compiles
    last = (done[-1] - done[-1 - tenth]) / (at[-1] - at[-1 - tenth])
    result = {
        "benchmark": "describe_rate",
        "ratios": {"flat": round(float(last / first), 3)},
        "peers": {},
        "structures": options.count,
        "features": None if found is None else found.get("n_features"),
        "wall_s": round(wall, 1),
        "cpu_s": round(processor, 1),
        "structures_per_s": round(options.count / wall, 1),
        "file_gb": round(size / 1e9, 2),
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "machine": machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
