"""Atom-centred symmetry functions on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from matcompute_kernels.batch import as_batch
from matcompute_kernels.checks import check_batch, check_dtype, check_positive, check_species, species_index
from matcompute_kernels.cuda.device import Device, chosen_device
from matcompute_kernels.cuda.launch import launch
from matcompute_kernels.cuda.neighbors import chosen_method, device_pairs, pair_bytes, put_sites, site_bytes
from matcompute_kernels.cuda.pipeline import run_chunks
from matcompute_kernels.cuda.planner import plan_chunks
from matcompute_kernels.cuda.sources import KERNELS
from matcompute_kernels.descriptors.acsf_layout import SymmetryFunctions
from matcompute_kernels.errors import KernelInputError

__all__ = ["acsf"]

#: G4 and G5 whose sums a thread keeps in registers.
MOST_ANGULAR = 32


def acsf(
    batch: Any,
    species: Iterable[int | str],
    r_cut: float,
    g2: Any = None,
    g4: Any = None,
    g5: Any = None,
    *,
    dtype: Any = np.float64,
    backend: str = "auto",
    device: Device | None = None,
) -> np.ndarray:
    """Atom-centred symmetry functions; definitions and parameters of :func:`matcompute_kernels.acsf`, without G3.

    ``dtype`` is also the type of the arithmetic; sums are in float64. ``backend`` and ``device`` as in
    :func:`matcompute_kernels.cuda.rdf`.

    Returns
    -------
    ndarray
        f[M, F].

    Raises
    ------
    KernelInputError
        If a structure is unfit, has an element that is not in ``species``, or a parameter is wrong.
    CudaError
        If CUDA is asked for and cannot be used.
    """
    chosen = chosen_device(backend, device)
    if chosen is None:
        from matcompute_kernels.descriptors.acsf import acsf as on_cpu

        return np.asarray(on_cpu(batch, species, r_cut, g2=g2, g4=g4, g5=g5, dtype=dtype))
    check_positive(r_cut=r_cut)
    real = check_dtype(dtype)
    packed = as_batch(batch)
    numbers = check_species(species)
    functions = SymmetryFunctions.from_parameters(g2, None, g4, g5)
    if len(functions.g4) + len(functions.g5) > MOST_ANGULAR:
        raise KernelInputError(f"at most {MOST_ANGULAR} G4 and G5 at a time on a GPU")
    check_batch(packed, numbers.tolist())
    element = species_index(packed, numbers).astype(np.int32)
    columns = functions.count(len(numbers))
    tables = [functions.g2.astype(real), np.concatenate([functions.g4, functions.g5]).astype(real)]
    out = np.empty((len(packed.numbers), columns), real)
    way = chosen_method(packed, float(r_cut))
    sizes = site_bytes(packed, real, way) + pair_bytes(packed, r_cut, real)
    # The pairs once more, by element, with their cutoff function.
    sizes = sizes + pair_bytes(packed, r_cut, real) + pair_bytes(packed, r_cut, real) // 4
    sizes = sizes + packed.n_sites * (4 + 8 * len(numbers) + columns * real.itemsize)
    plan = plan_chunks(sizes, chosen.free_bytes(), fixed=sum(a.nbytes for a in tables))
    radial, angular = (chosen.put(a) for a in tables)
    constants = {
        "SPECIES": len(numbers),
        "N2": len(functions.g2),
        "N4": len(functions.g4),
        "N5": len(functions.g5),
    }

    def start(first: int, last: int) -> Callable[[], None]:
        a, b = int(packed.ptr[first]), int(packed.ptr[last])
        pairs = device_pairs(put_sites(packed[first:last], real, chosen, r_cut, way), float(r_cut), chosen)
        n_pairs = pairs.j.shape[0]
        ends = chosen.empty((b - a, len(numbers)), np.int64)
        distance, cutoff = chosen.empty(n_pairs, real), chosen.empty(n_pairs, real)
        vector = chosen.empty((n_pairs, 3), real)
        launch(
            "group_pairs",
            -(-(b - a) * chosen.warp // KERNELS["group_pairs"].threads),
            [
                *(
                    pairs.ptr,
                    pairs.j,
                    pairs.distance,
                    pairs.vector,
                    chosen.put(element[a:b]),
                    np.int32(b - a),
                ),
                *(np.float64(r_cut), ends, distance, vector, cutoff),
            ],
            real=real,
            constants={"SPECIES": len(numbers)},
            device=chosen,
        )
        values = chosen.empty((b - a, columns), real)
        launch(
            "acsf",
            b - a,
            [pairs.ptr, ends, distance, vector, cutoff, np.float64(r_cut), radial, angular, values],
            real=real,
            constants=constants,
            device=chosen,
        )

        def fetch() -> None:
            out[a:b] = chosen.get(values)

        return fetch

    run_chunks(plan, chosen, start)
    return out
