"""The kernels on a real GPU (marked ``gpu``, skipped without one), and the benchmark script's path in the emulator."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

import matcompute_kernels as cpu
from matcompute_kernels import Batch, cuda
from matcompute_kernels.cuda.sources import KERNELS

from .structures import near, quiet_cutoff, same_pairs, solid

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "gpu" / "run.py"
needs_gpu = pytest.mark.skipif(cuda.cuda_problem() is not None, reason=f"no GPU: {cuda.cuda_problem()}")


def script(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def benchmark():
    """The script as a module."""
    spec = spec_from_file_location("gpu_benchmark", SCRIPT)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def test_benchmark_in_the_emulator(emulator, benchmark, monkeypatch, capsys):
    """Its whole path but the device: every kernel is checked and told of."""
    made = emulator()
    monkeypatch.setattr("matcompute_kernels.cuda.emulator.Emulator", lambda: made)
    monkeypatch.setattr("sys.argv", ["run.py", "--emulator"])
    benchmark.main()
    lines = capsys.readouterr().out.splitlines()
    ratios = json.loads(lines[-1])["ratios"]
    assert len(lines) == 11 == len(ratios) + 2
    assert all("limits of this chip unknown" in line for line in lines[1:-1])
    # Every kernel that cuda/sources.py has was launched.
    assert set(made.launched) == set(KERNELS) - {"count_near", "soap_species"}


def test_a_wrong_result_ends_the_benchmark(emulator, benchmark, monkeypatch):
    monkeypatch.setattr(cuda, "neighbor_list", lambda *a, **o: cpu.neighbor_list(a[0], 4.9))
    monkeypatch.setattr("sys.argv", ["run.py", "--emulator"])
    with pytest.raises(SystemExit, match="neighbors: differs from the CPU by"):
        benchmark.main()


def test_fractions_of_the_limits(benchmark):
    case = benchmark.Case("a", 1, "atoms", 97e9, 2039e6, None, None)
    a100 = benchmark.limits("NVIDIA A100-SXM4-80GB", {})
    assert benchmark.fractions(case, 0.1, "float64", a100) == "10.0% of flops, 1.0% of bytes"
    assert benchmark.fractions(case, 0.1, "float32", a100) == "5.0% of flops, 1.0% of bytes"
    # A chip that is not in the table: 82 multiprocessors at 1.7 GHz, 384 bits at 9.75 GHz, as a driver tells them.
    told = {"major": 8, "minor": 6, "multiProcessorCount": 82, "clockRate": 1_700_000}
    told |= {"memoryClockRate": 9_751_000, "memoryBusWidth": 384}
    double, single, width = benchmark.limits("NVIDIA GeForce RTX 3090", told)
    assert (round(double), round(single), round(width)) == (558, 35686, 936)
    assert (
        benchmark.fractions(case, 1.0, "float64", benchmark.limits("?", {})) == "limits of this chip unknown"
    )


def test_the_peer_where_it_is_installed(benchmark):
    """nvalchemi-toolkit-ops also runs on a CPU: the call is right where it is there, and None where not."""
    batch = benchmark.structures(3)
    call = benchmark.peer_neighbors(batch, 5.0, "float64", "cpu")
    if find_spec("nvalchemiops") is None:
        assert call is None
    else:
        assert call()[0].shape == (2, len(cpu.neighbor_list(batch, 5.0)))


def test_limits_on_paper():
    rows = script("--paper").splitlines()
    assert len(rows) == 11
    assert all(row.count("|") == 9 for row in rows)


@pytest.mark.skipif(cuda.cuda_problem() is None, reason="there is a GPU")
def test_benchmark_says_why_it_does_nothing():
    assert script().startswith("skipped: ")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_on_silicon(mixed, dtype):
    bound = 1e-10 if dtype == "f8" else 2e-5
    species = sorted(set(mixed.numbers.tolist()))
    large = Batch.from_atoms([solid(np.random.default_rng(1), 3000, 2, True)])
    for batch, r_cut in ((mixed, quiet_cutoff(mixed, 5.0)), (large, quiet_cutoff(large, 3.0))):
        got = cuda.neighbor_list(batch, r_cut, dtype=dtype)
        same_pairs(got, cpu.neighbor_list(batch, r_cut), max(bound, 1e-10))
    for average in ("off", "outer", "inner"):
        options = {"average": average, "sparse": True}
        got = cuda.soap(mixed, species, 3.0, 3, 2, dtype=dtype, **options)
        expected = cpu.soap(mixed, species, 3.0, 3, 2, **options)
        assert (got.block == expected.block).all()
        near(got.values, expected.values, bound)
    functions = {"g2": [[0.4, 2.0]], "g4": [[0.05, 2.5, 0.5]], "g5": [[0.01, 2, 1]]}
    got = cuda.acsf(mixed, species, 3.0, **functions, dtype=dtype)
    near(got, cpu.acsf(mixed, species, 3.0, **functions), bound)
    grid, weights = {"min": 1, "max": 4, "sigma": 0.1, "n": 200}, {"function": "inverse_square", "r_cut": 4.0}
    got = cuda.mbtr(mixed, species, "distance", grid, weights, dtype=dtype)
    near(got, cpu.mbtr(mixed, species, "distance", grid, weights), bound)
    x = np.random.default_rng(0).normal(size=(500, 70)).astype(dtype)
    assert (cuda.fps(x, 50) == cpu.fps(x, 50)).all()
    assert (cuda.knn(x, 7)[1] == cpu.knn(x, 7)[1]).all()
    assert np.abs(cuda.kernel_matrix(x, kernel="rbf") - cpu.kernel_matrix(x, kernel="rbf")).max() < bound
    if dtype == "f8":
        for batch in (mixed, large):
            near(cuda.rdf(batch, 4.0), cpu.rdf(batch, 4.0), bound)


@pytest.mark.gpu
@needs_gpu
def test_benchmark_on_silicon():
    assert script().startswith("device: ")
