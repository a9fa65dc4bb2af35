"""One launch for every kernel, on a GPU or in the emulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from matcompute_kernels.cuda.device import Device, default_device
from matcompute_kernels.cuda.errors import CudaError
from matcompute_kernels.cuda.sources import KERNELS, render

__all__ = ["launch"]

#: Blocks along x that every device takes.
_MOST_BLOCKS = 2**31 - 1


def launch(
    kernel: str,
    grid: int | Sequence[int],
    arguments: Sequence[Any],
    *,
    block: Sequence[int] | None = None,
    real: Any = np.float64,
    constants: Mapping[str, int] | None = None,
    device: Device | None = None,
) -> None:
    """Launch a kernel in the current stream.

    Parameters
    ----------
    kernel
        Name: one of :data:`matcompute_kernels.cuda.sources.KERNELS`.
    grid
        Blocks, along x or along up to three axes. 0 blocks: nothing is done.
    arguments
        Device arrays (of the device's own kind, or any with ``__cuda_array_interface__``) and NumPy scalars, in the
        order of the kernel's parameters. Python numbers are refused: their width would be a guess.
    block
        Threads along x, y, z; None: the kernel's own number along x. Their product must be that number.
    real
        float64 or float32.
    constants
        Values of the kernel's constants.
    device
        A device or the emulator; None: this process's GPU.

    Raises
    ------
    CudaError
        If CUDA cannot be used, or grid, block, arguments or constants are wrong.
    """
    device = default_device() if device is None else device
    text = render(kernel, np.dtype(real).name, device.warp, constants or {})
    threads = KERNELS[kernel].threads
    shape = (threads,) if block is None else tuple(int(n) for n in block)
    blocks = (int(grid),) if isinstance(grid, int | np.integer) else tuple(int(n) for n in grid)
    if not 1 <= len(shape) <= 3 or min(shape) < 1 or int(np.prod(shape)) != threads:
        raise CudaError(f"kernel {kernel} runs with {threads} threads a block, not {shape}")
    limits = (_MOST_BLOCKS, 65535, 65535)
    if not 1 <= len(blocks) <= 3 or any(not 0 <= n <= most for n, most in zip(blocks, limits)):
        raise CudaError(f"kernel {kernel}: a grid of {blocks} blocks is not possible")
    for number, argument in enumerate(arguments):
        if isinstance(argument, bool | int | float) and not isinstance(argument, np.generic):
            raise CudaError(f"kernel {kernel}: argument {number} must be an array or a NumPy scalar")
    if 0 in blocks:
        return
    device.run(
        text, kernel, (*blocks, *(1,) * (3 - len(blocks))), (*shape, *(1,) * (3 - len(shape))), arguments
    )
