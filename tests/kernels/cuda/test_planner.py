from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matcompute_kernels import KernelInputError
from matcompute_kernels.cuda import plan_chunks

sizes = st.lists(st.integers(0, 10**12), max_size=40)


@given(sizes, st.integers(0, 10**13), st.integers(0, 10**11), st.integers(1, 4), st.integers(0, 9))
def test_never_exceeds_its_budget_and_covers_all(sizes, free, fixed, buffers, most):
    arguments = {"fixed": fixed, "buffers": buffers, "most": most}
    if fixed > free or max(sizes, default=0) > free - fixed:
        with pytest.raises(KernelInputError) as caught:
            plan_chunks(np.array(sizes, np.int64), free, **arguments)
        assert caught.value.index is None or sizes[caught.value.index] == max(sizes)
        return
    plan = plan_chunks(np.array(sizes, np.int64), free, **arguments)
    covered = [k for first, last in plan.chunks for k in range(first, last)]
    assert covered == list(range(len(sizes)))
    loads = [sum(sizes[a:b]) for a, b in plan.chunks]
    windows = [fixed + sum(loads[k : k + plan.buffers]) for k in range(len(loads))]
    assert max(windows, default=fixed) == plan.peak <= plan.budget == free
    assert plan.buffers in (1, buffers)
    if most:
        assert all(b - a <= most for a, b in plan.chunks)
    # No chunk could have taken the structure after it.
    share = (free - fixed) // plan.buffers
    for (a, b), load in zip(plan.chunks, loads):
        assert b == len(sizes) or load + sizes[b] > share or b - a == most


def test_one_large_structure_takes_all_the_room():
    assert plan_chunks(np.array([10, 10, 10, 10]), 40).edges == (0, 2, 4)
    plan = plan_chunks(np.array([10, 35, 10]), 40)
    assert (plan.buffers, plan.edges, plan.peak) == (1, (0, 1, 2, 3), 35)
    with pytest.raises(KernelInputError, match="structure 1: needs 41 bytes on the device, 40 are free"):
        plan_chunks(np.array([1, 41]), 40)
    with pytest.raises(KernelInputError, match="tables alone need 50"):
        plan_chunks(np.array([1]), 40, fixed=50)
    assert plan_chunks(np.zeros(0), 40, fixed=7).peak == 7
    with pytest.raises(KernelInputError, match="sizes"):
        plan_chunks(np.array([-1]), 40)
