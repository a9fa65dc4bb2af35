"""Cubins for A100, H100 and B200 without a GPU; skipped where the wheels of NVRTC and ptxas are not installed."""

from __future__ import annotations

import pytest

from matcompute_kernels.cuda import CudaError
from matcompute_kernels.cuda import build as module
from matcompute_kernels.cuda.build import TARGETS, build, occupancy, tools
from matcompute_kernels.cuda.sources import KERNELS

#: Registers of a thread at most.
REGISTERS = {"lowest": 168}
USUAL = 128


@pytest.mark.skipif(
    tools() is None, reason="nvidia-cuda-nvrtc-cu12 and nvidia-cuda-nvcc-cu12 are not installed"
)
@pytest.mark.parametrize("kernel", sorted(KERNELS))
@pytest.mark.parametrize("real", ["float32", "float64"])
def test_budgets(kernel, real):
    for target in TARGETS:
        built = build(kernel, real, target)
        assert built.spills == 0
        assert built.stack == 0
        assert 0 < built.registers <= REGISTERS.get(kernel, USUAL)
        assert built.shared <= 48 * 1024
        assert built.occupancy >= 0.15
        assert built.cubin > 500


@pytest.mark.skipif(
    tools() is None, reason="nvidia-cuda-nvrtc-cu12 and nvidia-cuda-nvcc-cu12 are not installed"
)
def test_a_fault_is_told(monkeypatch):
    monkeypatch.setattr(module, "render", lambda *_: 'extern "C" __global__ void f() { y = 1; }')
    with pytest.raises(CudaError, match=r'identifier "y" is undefined'):
        build("tile", "float64", "90")


def test_without_the_wheels(monkeypatch):
    monkeypatch.setattr(module, "tools", lambda: None)
    with pytest.raises(CudaError, match="needs the wheels nvidia-cuda-nvrtc-cu12"):
        build("tile", "float64", "90")


def test_occupancy():
    assert occupancy(32, 0, 128, TARGETS["80"]) == 1.0
    assert occupancy(128, 0, 128, TARGETS["80"]) == 0.25
    assert occupancy(32, 40 * 1024, 128, TARGETS["80"]) == 4 * 4 / 64
    assert occupancy(255, 0, 1024, TARGETS["90"]) == 0.0
