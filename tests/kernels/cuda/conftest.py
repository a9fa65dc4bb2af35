"""Emulators that share one folder of compiled kernels, and random batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import read

from matcompute_kernels import Batch
from matcompute_kernels.cuda.emulator import ORDERS, Emulator, compiler

REFERENCE = Path(__file__).parents[4] / "shared" / "reference" / "kernels"

HERE = Path(__file__).parent

#: Thread orders and warp sizes that every kernel runs under.
WAYS = [(order, warp) for order in ORDERS for warp in (32, 64)]
#: Every order and both warps: enough for float32, which differs in rounding only, and for what takes long.
FEW_WAYS = [("forward", 64), ("reversed", 32), ("shuffled", 64)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, ways in (("way", WAYS), ("few_ways", FEW_WAYS)):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, ways, ids=[f"{order}-{warp}" for order, warp in ways])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out ways of float32; without g++ a skip is a failure in CI (tests that may lack reference data aside)."""
    for item in list(items):
        names = getattr(item, "fixturenames", ())
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if not item.path.is_relative_to(HERE):
            continue
        if parameters.get("dtype") == "f4" and parameters.get("way", FEW_WAYS[0]) not in FEW_WAYS:
            items.remove(item)
        elif "emulator" in names and "structures5" not in names:
            item.add_marker(pytest.mark.apt)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Emulator]:
    """Make an emulator by (order, warp)."""
    if compiler() is None:
        pytest.skip("the emulator needs g++")
    folder = tmp_path_factory.mktemp("emulator")

    def make(order: str = "forward", warp: int = 32, **options: Any) -> Emulator:
        return Emulator(order, warp, folder=folder, **options)

    return make


@pytest.fixture(scope="session")
def mixed() -> Batch:
    """1 to 70 atoms, 1 to 8 species, skewed cells shorter than the cutoff, open directions, an atom on its own."""
    rng = np.random.default_rng(12)
    items = [Atoms("He", cell=[20, 20, 20], pbc=True)]
    for n, species, pbc in [(1, 1, True), (2, 2, (1, 1, 0)), (7, 8, True), (33, 4, (0, 1, 0)), (70, 3, True)]:
        side = (18.0 * n) ** (1 / 3)
        cell = side * (np.eye(3) + rng.uniform(-0.25, 0.25, (3, 3)))
        numbers = rng.choice([1, 3, 8, 11, 13, 17, 26, 29], species, replace=False)[
            rng.integers(species, size=n)
        ]
        atoms = Atoms(numbers, scaled_positions=_spread(rng, n, cell), cell=cell, pbc=pbc)
        atoms.positions += rng.normal(0, 6, (1, 3))  # also outside the cell
        items.append(atoms)
    return Batch.from_atoms(items)


def _spread(rng: np.random.Generator, n: int, cell: np.ndarray) -> np.ndarray:
    """Random places, no two closer than 1 Å."""
    places: list[np.ndarray] = []
    while len(places) < n:
        new = rng.random(3)
        delta = np.array([p - new for p in places]).reshape(-1, 3)
        if not len(places) or np.linalg.norm((delta - np.round(delta)) @ cell, axis=1).min() > 1.0:
            places.append(new)
    return np.array(places)


@pytest.fixture(scope="session")
def structures5() -> Batch:
    """The five structures that the peers' outputs describe; none where the reference data is not beside the clone."""
    if not REFERENCE.is_dir():
        return Batch.empty()
    return Batch.from_atoms(read(REFERENCE / "structures5.extxyz", ":"))
