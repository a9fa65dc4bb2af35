"""`matcompute-node warmup`: compiles once, the second process finds everything; imports and warm calls are quick."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import matcompute_kernels
from matcompute.errors import InputError
from matcompute.node.warmup import cache_folder, kernel_names, warm_up

PROGRAM = str(Path(sys.executable).with_name("matcompute-node"))


@pytest.fixture
def warmup(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command with an empty cache of its own."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, "warmup", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return call


@pytest.mark.slow
def test_second_run_compiles_nothing(
    warmup: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    first, second = (json.loads(warmup("rdf", "packing", "--json").stdout) for _ in range(2))
    assert [kernel["name"] for kernel in first["kernels"]] == ["rdf", "packing"]
    assert first["compiled"] > 5
    assert second["compiled"] == 0
    assert second["seconds"] < first["seconds"] / 3
    assert Path(first["cache"]) == tmp_path / "cache"
    assert list((tmp_path / "cache").rglob("*.nbi"))
    text = warmup("rdf").stdout
    assert "[ 1/1] rdf" in text
    assert "from the cache" in text
    assert f"cache: {tmp_path / 'cache'}" in text


def test_unknown_name(warmup: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = warmup("soop")
    assert done.returncode == 2
    assert "no kernel 'soop' to warm up; did you mean 'soap'?" in done.stderr
    with pytest.raises(InputError):
        warm_up(["soop"])


def test_every_compiled_kernel_is_warmed_up() -> None:
    plain = {
        "Batch",
        "KernelInputError",
        "NeighborList",
        "as_batch",
        "entry_ids",
        "feature_labels",
        "structure_problems",
    }
    assert set(kernel_names()) == set(matcompute_kernels.__all__) - plain
    assert len(kernel_names()) == len(set(kernel_names()))


def test_warm_calls_compile_nothing_more() -> None:
    """What users call with other types and options is compiled by then."""
    names = ["neighbor_list", "soap", "acsf", "steinhardt", "rdf", "mbtr"]
    warm_up(names)
    again = warm_up(names)
    assert [item.compiled for item in again] == [0] * len(names)
    assert cache_folder().is_dir()


def test_library_is_quick() -> None:
    """Import costs little beside Numba's own, 0.2 s; the first call of a warm kernel in a new process below 1 s.

    In processor time, as multiples of Numba's import: machines differ.
    """
    warm_up(["soap"])
    program = (
        "import time; a = time.process_time(); import numpy, numba; b = time.process_time();"
        "import matcompute_kernels as m; m.Batch; c = time.process_time();"
        "from ase.build import bulk; atoms = bulk('NaCl', 'rocksalt', a=5.6);"
        "d = time.process_time(); m.soap(atoms, ['Na', 'Cl'], 3.0, 2, 2);"
        "print(b - a, c - b, time.process_time() - d)"
    )
    numba, ours, call = (
        min(column)
        for column in zip(
            *(
                map(
                    float,
                    subprocess.run(
                        [sys.executable, "-c", program], capture_output=True, text=True, check=True
                    ).stdout.split(),
                )
                for _ in range(3)
            ),
            strict=True,
        )
    )
    assert ours < 0.5 * numba
    assert call < 5 * numba
