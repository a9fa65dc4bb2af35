"""The emulator finds what it is there to find."""

from __future__ import annotations

import re

import numpy as np
import pytest

from matcompute_kernels.cuda.emulator import EmulatorError

HEAD = 'extern "C" __global__ void '
REVERSE = (
    HEAD
    + """reverse(double *x) {
    __shared__ double s[64];
    const int t = (int)threadIdx.x;
    s[t] = x[64 * blockIdx.x + t];
    __syncthreads();
    x[64 * blockIdx.x + t] = s[63 - t];
}"""
)


def run(device, text, *arguments, grid=1, block=64):
    name = re.search(r"void (\w+)\(", text).group(1)
    device.run(text, name, (grid, 1, 1), (block, 1, 1), arguments)


def test_barrier(emulator, way):
    device = emulator(*way)
    x = device.put(np.arange(192.0))
    run(device, REVERSE, x, grid=3)
    assert (device.get(x).reshape(3, 64) == np.arange(192.0).reshape(3, 64)[:, ::-1]).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (REVERSE.replace("__syncthreads();", ""), "race in shared memory"),
        (
            HEAD + "f(double *x) {\n    if (threadIdx.x < 40) __syncthreads();\n    x[threadIdx.x] = 1;\n}",
            r"barrier in line \d+ that not all threads reach \(40 of 64 wait, 24 have ended\)",
        ),
        (
            HEAD + "f(double *x) { if (threadIdx.x < 40) __syncthreads(); else {\n __syncthreads(); } x[0] = 1; }",
            "barrier in line",
        ),
        (HEAD + "f(double *x) { x[threadIdx.x + 1] = 0; }", "thread 63: write of 8 bytes out of bounds"),
        (HEAD + "f(double *x) { if (threadIdx.x == 5) x[0] = x[-1]; }", "thread 5: read of 8 bytes out of"),
        (
            HEAD + "f(double *x) { __shared__ double s[4][8]; s[threadIdx.x / 8][threadIdx.x % 8 + 1] = 0; }",
            r"index \d out of an array's bounds",
        ),
        (
            HEAD + "f(double *x) { __shared__ double s[64]; double *p = s; p[threadIdx.x + 100] = 0; x[0] = s[0]; }",
            "out of bounds",
        ),
        (HEAD + "f(double *x) { double y[3]; y[threadIdx.x] = x[0]; x[1] = y[threadIdx.x - 1]; }", r"index \d+ out"),
        (
            HEAD + "f(double *x) { __shared__ double s; if (threadIdx.x == 9) s = 1; if (threadIdx.x == 2) *x = s; }",
            "race in shared memory",
        ),
        ("int broken", "does not compile"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("order", ["forward", "reversed", "shuffled"])
def test_faults(emulator, text, message, order):
    if text == "int broken":
        text = HEAD + "f(double *x) { y[0] = 1; }"
    device = emulator(order)
    x = device.zeros(64, np.float64)
    with pytest.raises(EmulatorError, match=message):
        run(device, text, x)


def test_a_late_reader_of_shared_memory_is_a_race(emulator):
    text = (
        HEAD
        + """f(double *x) {
        __shared__ double s[1];
        for (int k = 0; k < 3; k++) {
            if (threadIdx.x == 0) s[0] = k;
            __syncthreads();
            x[threadIdx.x] += s[0];
        }
    }"""
    )
    device = emulator("shuffled")
    with pytest.raises(EmulatorError, match="race in shared memory: (overwrites|reads)"):
        run(device, text, device.zeros(64, np.float64))
    fixed = text.replace("+= s[0];", "+= s[0]; __syncthreads();")
    x = device.zeros(64, np.float64)
    run(device, fixed, x)
    assert (device.get(x) == 3).all()


def test_warp_exchanges(emulator, way):
    order, warp = way
    device = emulator(order, warp)
    call = "__shfl_down(v, d, 64)" if warp == 64 else "__shfl_down_sync(0xffffffffu, v, d)"
    text = (
        HEAD
        + f"sum(double *x) {{ double v = x[threadIdx.x]; for (int d = {warp // 2}; d; d /= 2) v += {call};"
    )
    text += f" if (threadIdx.x % {warp} == 0) x[threadIdx.x] = v; }}"
    x = device.put(np.arange(128.0))
    run(device, text, x, block=128)
    expected = np.arange(128.0).reshape(-1, warp).sum(axis=1)
    assert (device.get(x)[::warp] == expected).all()
    half = text.replace(
        "double v = x[threadIdx.x];", "double v = x[threadIdx.x]; if (threadIdx.x > 9) return;"
    )
    with pytest.raises(EmulatorError, match="warp exchange that 10 of"):
        run(device, half, x, block=128)


def test_votes(emulator, way):
    order, warp = way
    vote = "__ballot(v > 2)" if warp == 64 else "__ballot_sync(0xffffffffu, v > 2)"
    text = HEAD + f"votes(double *x) {{ double v = x[threadIdx.x]; x[threadIdx.x] = __popcll({vote}); }}"
    device = emulator(order, warp)
    x = device.put(np.arange(128.0) % 5)
    run(device, text, x, block=128)
    expected = np.repeat((np.arange(128) % 5 > 2).reshape(-1, warp).sum(axis=1), warp)
    assert (device.get(x) == expected).all()


def test_undefined_memory_is_nan(emulator):
    device = emulator()
    assert np.isnan(device.empty(5, np.float64)).all()
    x = device.zeros(1, np.float64)
    run(device, HEAD + "f(double *x) { __shared__ double s[2]; x[0] = s[1]; }", x, block=1)
    assert np.isnan(device.get(x)).all()


def test_arguments(emulator):
    device = emulator()
    text = HEAD + "f(double *x, int n, float a) { x[0] = n * a; }"
    x = device.zeros(4, np.float64)
    run(device, text, x, np.int32(3), np.float32(0.5), block=1)
    assert device.get(x)[0] == 1.5
    with pytest.raises(EmulatorError, match="argument 0 is not contiguous"):
        run(device, text, x[::2], np.int32(3), np.float32(0.5))
    with pytest.raises(EmulatorError, match="argument 1 is no array"):
        run(device, text, x, np.arange(3), np.float32(0.5))
