"""Every barrier of every kernel is needed, and the emulator notices when one is missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

import matcompute_kernels.cuda as cuda
from matcompute_kernels.cuda.emulator import EmulatorError
from matcompute_kernels.cuda.sources import KERNELS, render

BARRIER = "__syncthreads();"
FOLDER = Path(cuda.__file__).parent


def _barriers() -> list[tuple[str, str, int]]:
    """(kernel, file, number of the barrier in the file) for each barrier that the kernel's text has."""
    found = []
    for name, kernel in KERNELS.items():
        if not re.search(r"__shared__", "".join((FOLDER / f).read_text() for f in kernel.files)):
            continue
        for file in ("common.cuh", *kernel.files):
            text = (FOLDER / file).read_text()
            if file == "common.cuh" and "mc_block_best(" not in "".join(
                (FOLDER / f).read_text() for f in kernel.files
            ):
                continue
            found += [(name, file, k) for k in range(text.count(BARRIER))]
    return found


def _grid(side: int) -> np.ndarray:
    return np.stack(np.meshgrid(*[np.arange(float(side))] * 3), -1).reshape(-1, 3)


def _atoms() -> Atoms:
    rng = np.random.default_rng(1)
    positions = _grid(4)[:40] * 2.5
    return Atoms("NaCl" * 20, positions=positions + rng.normal(0, 0.2, (40, 3)), cell=[10.0] * 3, pbc=True)


def _solid() -> Atoms:
    """A structure that is large enough for bins."""
    atoms = Atoms("Na" * 343, positions=_grid(7) * 2.5, cell=[17.5] * 3, pbc=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def _features() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(200, 40))


CASES: dict[str, Callable[[Any], Any]] = {
    "find_pairs": lambda device: cuda.neighbor_list(_atoms(), 4.0, device=device).j,
    "count_pairs": lambda device: cuda.rdf(_atoms(), 4.0, device=device),
    "count_near": lambda device: cuda.rdf(_solid(), 2.9, device=device),
    "tile": lambda device: cuda.kernel_matrix(_features(), device=device),
    "lowest": lambda device: cuda.knn(_features(), 3, device=device)[1],
    "fps_update": lambda device: cuda.fps(_features(), 3, device=device),
    "acsf": lambda device: cuda.acsf(
        _atoms()[:9], ["Na", "Cl"], 4.0, [[1, 0]], [[0.01, 1, 1]], device=device
    ),
    "soap": lambda device: cuda.soap(
        [Atoms("Na", cell=[20] * 3, pbc=True), _atoms()[:9]],
        ["Na", "Cl"],
        4.0,
        2,
        1,
        average="outer",
        device=device,
    ),
    "pair_spectra": lambda device: cuda.mbtr(
        _atoms(),
        ["Na", "Cl"],
        "distance",
        {"min": 1, "max": 4, "sigma": 0.1, "n": 20},
        {"function": "inverse_square", "r_cut": 4.0},
        device=device,
    ),
    "soap_mean": lambda device: cuda.soap(
        _atoms()[:20], ["Na", "Cl"], 3.0, 2, 1, average="inner", device=device
    ),
    "fps_pick": lambda device: cuda.fps(_features(), 3, device=device),
}


def test_every_kernel_with_a_barrier_is_here():
    assert {name for name, _, _ in _barriers()} == set(CASES)


@pytest.mark.parametrize(("kernel", "file", "number"), _barriers())
def test_a_missing_barrier_is_found(emulator, kernel, file, number):
    place = f'#line 1 "{file}"\n'
    removed = []

    def remove(text: str) -> str:
        if f"    {kernel}(" not in text:
            return text
        start = text.index(place)
        end = text.find("#line 1 ", start + 1)
        end = len(text) if end < 0 else end
        parts = text[start:end].split(BARRIER)
        removed.append(parts)
        return (
            text[:start]
            + BARRIER.join(parts[: number + 1])
            + BARRIER.join(["", *parts[number + 1 :]])[len(BARRIER) :]
            + text[end:]
        )

    case = CASES[kernel]
    with pytest.raises(EmulatorError, match="race in shared memory|bounds"):
        case(emulator("shuffled", edit=remove))
    assert removed


def test_the_texts_are_whole():
    for name, kernel in KERNELS.items():
        text = render(name, "float64", 32, kernel.constants)
        assert text.count("{") == text.count("}")
