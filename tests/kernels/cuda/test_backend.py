from __future__ import annotations

import logging
import os
import subprocess
import sys
from platform import machine

import pytest

from matcompute_kernels import KernelInputError
from matcompute_kernels.cuda import CudaError, backend, choose_backend, cuda_problem
from matcompute_kernels.cuda.backend import device_index

WITHOUT_CUPY = """
import sys
from platform import machine
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


WITHOUT_DRIVER = """
import logging
import numpy as np
import matcompute_kernels as kernels
from matcompute_kernels import cuda
from matcompute_kernels.cuda.device import CupyDevice
import cupy  # the real one
logging.basicConfig(level=logging.INFO, format="log: %(message)s")
rows = np.eye(3)
for call in (
    lambda: kernels.fps(rows, 2, backend="cuda"),
    lambda: cuda.neighbor_list(kernels.Batch.empty(), 5.0),
    lambda: cuda.launch("fps_pick", 1, []),
    CupyDevice,
):
    try:
        call()
    except cuda.CudaError as error:
        print(error)
assert (kernels.fps(rows, 2, backend="auto") == kernels.fps(rows, 2)).all()
"""


@pytest.mark.skipif(
    sys.platform != "linux" or machine() != "x86_64", reason="CuPy is a test dependency on Linux only"
)
def test_with_cupy_and_no_driver():
    """The CuPy of the test dependencies, on a machine without a driver: one clear line, and the CPU for auto."""
    import cupy

    try:
        if cupy.cuda.runtime.getDeviceCount():
            pytest.skip("there is a GPU")
    except cupy.cuda.runtime.CUDARuntimeError:
        pass
    done = subprocess.run([sys.executable, "-c", WITHOUT_DRIVER], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    told = f"CuPy {cupy.__version__} finds no usable NVIDIA driver (cudaError"
    assert len(lines) == 4
    assert all(told in line and "run on a machine with a GPU" in line for line in lines)
    assert lines[0].startswith("backend='cuda': ")
    assert [line for line in done.stderr.splitlines() if line.startswith("log: ")] == [
        f"log: no CUDA, the CPU is used: {cuda_problem()}"
    ]


ONLY_ASKED = """
import sys
from matcompute_kernels.cuda import choose_backend, cuda_problem
assert choose_backend("auto") == "numba"
print(cuda_problem(), "cupy" in sys.modules)
"""


def test_cupy_is_not_imported_where_no_driver_is(tmp_path):
    """It takes a second, and makes a folder in the user's home."""
    if cuda_problem() is None:
        pytest.skip("there is a GPU")
    done = subprocess.run(
        [sys.executable, "-c", ONLY_ASKED],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.stdout.endswith("run on a machine with a GPU False\n") or "not installed" in done.stdout
    assert list(tmp_path.iterdir()) == []


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
    assert [device_index(4, {"SLURM_LOCALID": str(k)}) for k in range(6)] == [0, 1, 2, 3, 0, 1]
    assert device_index(1, {"SLURM_LOCALID": "3"}) == 0
    with pytest.raises(CudaError, match="no GPU is visible"):
        device_index(0, {})
