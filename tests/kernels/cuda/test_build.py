"""Cubins for A100, H100 and B200 without a GPU; skipped where the wheels of NVRTC and ptxas are not installed."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from matcompute_kernels.cuda import CudaError
from matcompute_kernels.cuda import build as module
from matcompute_kernels.cuda.build import TARGETS, build, occupancy, tools
from matcompute_kernels.cuda.sources import KERNELS

#: Of each kernel in float64 and float32: registers of a thread at most, shared bytes of a block, and the smallest
#: theoretical occupancy of the three chips.
BUDGETS = {
    "wrap_sites": ((40, 0, 1.0), (40, 0, 1.0)),
    "find_pairs": ((128, 512, 0.25), (96, 512, 0.31)),
    "bin_sites": ((40, 0, 0.75), (40, 0, 0.75)),
    "place_sites": ((32, 0, 1.0), (32, 0, 1.0)),
    "sort_bins": ((40, 0, 0.75), (40, 0, 0.75)),
    "find_near": ((104, 0, 0.25), (80, 0, 0.37)),
    "count_pairs": ((96, 800, 0.31), (72, 800, 0.43)),
    "count_near": ((80, 800, 0.37), (72, 800, 0.43)),
    "tile": ((64, 8704, 0.5), (64, 4352, 0.5)),
    "lowest": ((168, 72, 0.18), (168, 72, 0.18)),
    "fps_update": ((80, 64, 0.37), (80, 64, 0.37)),
    "fps_pick": ((40, 128, 0.75), (40, 128, 0.75)),
    "soap": ((120, 19312, 0.25), (96, 9680, 0.31)),
    "soap_mean": ((72, 6272, 0.43), (64, 3136, 0.5)),
    "soap_species": ((40, 0, 0.75), (40, 0, 0.75)),
    "pair_spectra": ((56, 3088, 0.5), (56, 3088, 0.5)),
    "group_pairs": ((56, 0, 0.5), (56, 0, 0.5)),
    "acsf": ((104, 672, 0.25), (96, 528, 0.31)),
}
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "gpu.md"
needs_wheels = pytest.mark.skipif(
    tools() is None, reason="nvidia-cuda-nvrtc-cu12 and nvidia-cuda-nvcc-cu12 are not installed"
)


@cache
def built(kernel: str, real: str, target: str) -> module.Built:
    return build(kernel, real, target)


@needs_wheels
@pytest.mark.parametrize("kernel", sorted(KERNELS))
@pytest.mark.parametrize("real", ["float64", "float32"])
def test_budgets(kernel, real):
    registers, shared, least = BUDGETS[kernel][real == "float32"]
    for target in TARGETS:
        made = built(kernel, real, target)
        assert made.spills == 0
        assert made.stack == 0
        assert 0 < made.registers <= registers
        assert made.shared == shared
        assert made.occupancy >= least
        assert made.cubin > 500


@needs_wheels
def test_the_table_of_the_manual():
    """docs/reference/gpu.md says of H100 what ptxas says."""
    rows = dict(re.findall(r"^\| `(\w+)`[^|]* \| (\d[^\n]*) \|$", PAGE.read_text(), re.MULTILINE))
    assert set(rows) == set(KERNELS)
    for kernel, told in rows.items():
        double, single = (built(kernel, real, "90") for real in ("float64", "float32"))
        shared = (
            f"{double.shared:,}"
            if double.shared == single.shared
            else f"{double.shared:,} / {single.shared:,}"
        )
        parts = (
            f"{double.registers} / {single.registers}",
            str(double.spills + single.spills),
            shared,
            f"{double.occupancy:.0%} / {single.occupancy:.0%}".replace("%", " %"),
        )
        assert told == " | ".join(parts), kernel


@needs_wheels
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
