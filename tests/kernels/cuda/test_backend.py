from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from matcompute_kernels import KernelInputError
from matcompute_kernels.cuda import CudaError, backend, choose_backend, cuda_problem
from matcompute_kernels.cuda.backend import device_index, local_rank

WITHOUT_CUPY = """
import sys
sys.modules["cupy"] = None  # as if it were not installed
import matcompute_kernels, matcompute_kernels.cuda as cuda
assert cuda.choose_backend("auto") == "numba"
assert cuda.choose_backend("numba") == "numba"
try:
    cuda.neighbor_list(matcompute_kernels.Batch.empty(), 5.0)
except cuda.CudaError as error:
    print(error)
try:
    cuda.choose_backend("cuda")
except cuda.CudaError as error:
    print(error)
"""


def test_without_cupy():
    done = subprocess.run([sys.executable, "-c", WITHOUT_CUPY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("CuPy is not installed (pip install cupy-cuda12x")
    assert second.startswith("backend='cuda': CuPy is not installed")
    assert second.endswith("backend='auto' falls back to the CPU")


def test_import_loads_neither_cupy_nor_kernels():
    code = "import sys, matcompute_kernels.cuda; print('cupy' in sys.modules, 'numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_with_cupy_and_no_driver():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        count = 0
    if count:
        pytest.skip("there is a GPU")
    assert "driver" in str(cuda_problem()) or "no GPU is visible" in str(cuda_problem())
    with pytest.raises(CudaError, match="backend='cuda': "):
        choose_backend("cuda")


def test_auto_says_once_why(monkeypatch, caplog):
    monkeypatch.setattr(backend, "cuda_problem", lambda: "the card is on fire")
    backend._say_once.cache_clear()
    with caplog.at_level(logging.INFO, "matcompute_kernels.cuda"):
        assert choose_backend("auto") == choose_backend("auto") == "numba"
    assert [r.getMessage() for r in caplog.records] == ["no CUDA, the CPU is used: the card is on fire"]
    with pytest.raises(CudaError, match="the card is on fire"):
        choose_backend("cuda")
    monkeypatch.setattr(backend, "cuda_problem", lambda: None)
    assert choose_backend("auto") == choose_backend("cuda") == "cuda"
    with pytest.raises(KernelInputError, match="backend must be one of numba, cuda, auto"):
        choose_backend("opencl")


def test_one_device_a_rank():
    assert local_rank({}) == 0
    assert local_rank({"SLURM_LOCALID": "3"}) == 3
    assert local_rank({"OMPI_COMM_WORLD_LOCAL_RANK": "1", "SLURM_LOCALID": "0"}) == 1
    assert local_rank({"MPI_LOCALRANKID": "x", "SLURM_LOCALID": "2"}) == 2
    assert [device_index(4, {"SLURM_LOCALID": str(k)}) for k in range(6)] == [0, 1, 2, 3, 0, 1]
    assert device_index(1, {"SLURM_LOCALID": "3"}) == 0
    with pytest.raises(CudaError, match="no GPU is visible"):
        device_index(0, {})
