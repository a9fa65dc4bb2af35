"""The CUDA C++ sources and the texts that are compiled of them.

The emulator, NVRTC and the build table compile the same text: definitions of the sizes, ``common.cuh``, the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from matcompute_kernels.cuda.errors import CudaError

__all__ = ["KERNELS", "Kernel", "render"]

#: What ``real`` may be.
TYPES = {"float32": "float", "float64": "double"}


@dataclass(frozen=True)
class Kernel:
    """A kernel: the files it is in and the sizes that are constants of its text.

    Attributes
    ----------
    files
        Names in this folder, in their order.
    threads
        Threads of a block: ``MC_BLOCK``. A multiple of 64, so that both warp sizes divide it.
    constants
        Names of the constants that a launch must give, each with the value that the build table uses.
    """

    files: tuple[str, ...]
    threads: int
    constants: Mapping[str, int] = field(default_factory=dict)


KERNELS: dict[str, Kernel] = {
    "wrap_sites": Kernel(("wrap.cu",), 128),
    "find_pairs": Kernel(("images.cuh", "neighbors.cu"), 128, {"FILL": 2}),
    "bin_sites": Kernel(("bin_sites.cu",), 128),
    "place_sites": Kernel(("place_sites.cu",), 128),
    "sort_bins": Kernel(("sort_bins.cu",), 128),
    "find_near": Kernel(("cells.cuh", "near.cu"), 128, {"FILL": 2}),
    "count_pairs": Kernel(("images.cuh", "histogram.cuh", "rdf.cu"), 128, {"BINS": 200}),
    "count_near": Kernel(("cells.cuh", "histogram.cuh", "rdf_near.cu"), 128, {"BINS": 200}),
    "tile": Kernel(("tile.cu",), 256, {"KIND": 3}),
    "lowest": Kernel(("lowest.cu",), 128, {"K": 16}),
    "fps_update": Kernel(("fps_update.cu",), 128),
    "fps_pick": Kernel(("fps_pick.cu",), 256),
    "soap": Kernel(
        ("soap.cuh", "soap.cu"),
        128,
        {"N_MAX": 8, "L_MAX": 6, "SPECIES": 4, "WHAT": 1, "SPARSE": 0, "TERMS": 8},
    ),
    "soap_mean": Kernel(
        ("soap.cuh", "soap_mean.cu"), 128, {"N_MAX": 8, "L_MAX": 6, "SPECIES": 4, "INNER": 1}
    ),
    "soap_species": Kernel(("soap_species.cu",), 128),
    "pair_spectra": Kernel(("mbtr.cu",), 128, {"GEOMETRY": 1, "WEIGHT": 1}),
    "group_pairs": Kernel(("group_pairs.cu",), 128, {"SPECIES": 2}),
    "acsf": Kernel(("acsf.cu",), 128, {"SPECIES": 2, "N2": 11, "N4": 12, "N5": 0}),
}


@cache
def _text(file: str) -> str:
    return (files("matcompute_kernels.cuda") / file).read_text(encoding="utf-8")


def render(name: str, real: str, warp: int, constants: Mapping[str, int]) -> str:
    """Return the text to compile for a kernel.

    Parameters
    ----------
    name
        One of :data:`KERNELS`.
    real
        ``"float32"`` or ``"float64"``.
    warp
        Threads of a warp: 32 or 64.
    constants
        Values of the kernel's constants.

    Raises
    ------
    CudaError
        If there is no such kernel, or a constant is missing, unknown or no integer.
    """
    if name not in KERNELS:
        raise CudaError(f"no CUDA kernel {name!r}; there are {', '.join(sorted(KERNELS))}")
    if real not in TYPES or warp not in (32, 64):
        raise CudaError(
            f"kernel {name}: real must be float32 or float64 and warp 32 or 64, not {real}, {warp}"
        )
    kernel = KERNELS[name]
    if set(constants) != set(kernel.constants):
        wanted = ", ".join(kernel.constants) or "none"
        raise CudaError(
            f"kernel {name} takes the constants {wanted}; given: {', '.join(constants) or 'none'}"
        )
    lines = [f"#define real {TYPES[real]}", f"#define MC_WARP {warp}", f"#define MC_BLOCK {kernel.threads}"]
    for key, value in constants.items():
        if int(value) != value:
            raise CudaError(f"kernel {name}: constant {key} must be an integer, not {value!r}")
        lines.append(f"#define {key} {int(value)}")
    parts = ["\n".join(lines)]
    parts += [f'#line 1 "{file}"\n{_text(file)}' for file in ("common.cuh", *kernel.files)]
    return "\n".join(parts)
