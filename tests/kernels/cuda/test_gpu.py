"""The kernels on a real GPU (marked ``gpu``, skipped without one), and the benchmark script's path in the emulator."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import matcompute_kernels as cpu
from matcompute_kernels import cuda

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "gpu" / "run.py"
needs_gpu = pytest.mark.skipif(cuda.cuda_problem() is not None, reason=f"no GPU: {cuda.cuda_problem()}")


def script(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_benchmark_in_the_emulator(emulator):
    emulator()  # skips without g++
    lines = script("--emulator").splitlines()
    assert len(lines) == 9
    assert set(json.loads(lines[-1])["ratios"]) == {
        "neighbors",
        "rdf",
        "soap average",
        "acsf",
        "rbf tiles",
        "knn",
        "fps",
    }


def test_limits_on_paper():
    rows = script("--paper").splitlines()
    assert len(rows) == 9
    assert all(row.count("|") == 9 for row in rows)


@pytest.mark.skipif(cuda.cuda_problem() is None, reason="there is a GPU")
def test_benchmark_says_why_it_does_nothing():
    assert script().startswith("skipped: ")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("dtype", "bound"), [("f8", 1e-10), ("f4", 2e-5)])
def test_on_silicon(mixed, dtype, bound):
    species = sorted(set(mixed.numbers.tolist()))
    got, expected = cuda.neighbor_list(mixed, 5.0, dtype=dtype), cpu.neighbor_list(mixed, 5.0)
    assert np.abs(np.sort(got.distance) - np.sort(expected.distance)).max() < max(bound, 1e-10)
    a, b = cuda.soap(mixed, species, 3.0, 3, 2, dtype=dtype), cpu.soap(mixed, species, 3.0, 3, 2)
    assert np.abs(a - b).max() < bound * np.abs(b).max()
    x = np.random.default_rng(0).normal(size=(500, 70)).astype(dtype)
    assert (cuda.fps(x, 50) == cpu.fps(x, 50)).all()
    assert (cuda.knn(x, 7)[1] == cpu.knn(x, 7)[1]).all()
    assert np.abs(cuda.kernel_matrix(x, kernel="rbf") - cpu.kernel_matrix(x, kernel="rbf")).max() < bound
    if dtype == "f8":
        assert np.abs(cuda.rdf(mixed, 5.0) - cpu.rdf(mixed, 5.0)).max() < bound


@pytest.mark.gpu
@needs_gpu
def test_benchmark_on_silicon():
    assert script().startswith("device: ")
