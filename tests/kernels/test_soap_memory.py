"""What SOAP of many species takes: averages of 10⁵ atoms of 12 species stay under 1 GB, and are the same numbers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from ase.build import bulk

from matcompute_kernels import Batch, soap
from matcompute_kernels.pages import lazy_zeros

SPECIES = [13, 22, 24, 25, 26, 27, 28, 29, 30, 40, 41, 42]
SCRIPT = """
import re
from pathlib import Path
import numpy as np
from matcompute_kernels import Batch, soap
rng = np.random.default_rng(0)
species = np.array({species}, dtype="u1")
n, size = 5000, 20
numbers = np.concatenate([rng.choice(rng.choice(species, 3, replace=False), size) for _ in range(n)])
cell = np.tile(np.eye(3) * 6.2, (n, 1, 1))
batch = Batch(numbers, rng.random((n * size, 3)) * 6.2, cell, np.ones((n, 3), bool), np.arange(n + 1) * size)
rows = soap(batch, species, 5.0, 8, 6, 0.5, average="{average}", dtype="{dtype}")
# Not ru_maxrss: a new program inherits the peak of the one that started it, and pytest may have had more.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1e6
print(rows.shape[1], float(np.abs(rows[-1]).max()) > 0, peak)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("average", "dtype"), [("inner", "float64"), ("outer", "float32")])
def test_averages_of_many_species_take_less_than_a_gigabyte(average: str, dtype: str) -> None:
    script = SCRIPT.format(species=SPECIES, average=average, dtype=dtype)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    features, written, peak = done.stdout.split()
    assert (features, written) == ("32592", "True")
    assert float(peak) < 1.0


@pytest.mark.parametrize("average", ["inner", "outer"])
@pytest.mark.parametrize("threads", [1, 2])
def test_float32_averages_are_the_rounded_ones(average: str, threads: int) -> None:
    atoms = [bulk(a, "fcc", a=3.9, cubic=True).repeat(k) for a, k in [("Al", 1), ("Cu", 3), ("Ni", 2)]]
    for k, one in enumerate(atoms):
        one.rattle(0.1, seed=k)
        one.numbers[::3] = 22
    batch = Batch.from_atoms(atoms * 30)
    options = {"average": average, "threads": threads}
    exact = soap(batch, [13, 22, 28, 29], 5.0, 4, 3, 0.5, **options)
    single = soap(batch, [13, 22, 28, 29], 5.0, 4, 3, 0.5, dtype="float32", **options)
    assert single.dtype == np.float32
    assert np.array_equal(single, exact.astype("f4"))


def test_lazy_zeros() -> None:
    shape = (1 << 13, 1 << 12)
    for fill in (0.01, 0.9):
        array = lazy_zeros(shape, np.dtype("f8"), lambda fill=fill: fill)
        assert array.shape == shape
        assert not array[::512, ::512].any()
        array[5, 7] = 1.0
        assert array[4:7, 6:9].sum() == 1.0
