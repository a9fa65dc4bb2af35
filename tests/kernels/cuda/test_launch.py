from __future__ import annotations

import numpy as np
import pytest

from matcompute_kernels.cuda import CudaError, launch
from matcompute_kernels.cuda.sources import KERNELS, render


def test_wrong_calls_are_refused(emulator):
    device = emulator()
    fine = {"constants": {"FILL": 0}, "device": device}
    for kernel, grid, arguments, options, text in [
        ("find_nothing", 1, [], fine, "no CUDA kernel 'find_nothing'; there are"),
        ("find_pairs", 1, [], {"device": device}, "takes the constants FILL; given: none"),
        ("find_pairs", 1, [], {"device": device, "constants": {"FILL": 0.5}}, "must be an integer"),
        ("find_pairs", 1, [], {**fine, "real": np.float16}, "float32 or float64"),
        ("find_pairs", 1, [], {**fine, "block": (7, 3)}, "runs with 128 threads a block"),
        ("find_pairs", (1, 70000), [], fine, "a grid of"),
        ("find_pairs", -1, [], fine, "a grid of"),
        ("find_pairs", 1, [device.zeros(3, "f8"), 3.0], fine, "argument 1 must be"),
    ]:
        with pytest.raises(CudaError, match=text):
            launch(kernel, grid, arguments, **options)
    launch("find_pairs", 0, [], **fine)  # nothing to do


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_texts(name):
    kernel = KERNELS[name]
    assert kernel.threads % 64 == 0
    text = render(name, "float64", 64, kernel.constants)
    assert text.startswith("#define real double\n#define MC_WARP 64\n")
    assert f"    {name}(" in text
    assert "curand" not in text
