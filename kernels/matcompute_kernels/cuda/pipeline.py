"""Chunks of a plan over streams: one is copied while another is computed."""

from __future__ import annotations

from collections.abc import Callable

from matcompute_kernels.cuda.device import Device
from matcompute_kernels.cuda.planner import Plan

__all__ = ["run_chunks"]


def run_chunks(plan: Plan, device: Device, start: Callable[[int, int], Callable[[], None]]) -> None:
    """Go over the chunks of a plan; never more than ``plan.buffers`` are on the device.

    Parameters
    ----------
    plan
        Chunks.
    device
        Where they go.
    start
        Takes a chunk's first and last structure, sends and computes it and returns what fetches its results. Both run
        in one stream; what the fetch holds is freed after it.
    """
    waiting: list[Callable[[], None] | None] = [None] * plan.buffers

    def fetch(slot: int) -> None:
        finish = waiting[slot]
        waiting[slot] = None
        if finish is not None:
            finish()

    chunks = plan.chunks
    for number, (first, last) in enumerate(chunks):
        slot = number % plan.buffers
        with device.stream(slot):
            fetch(slot)
            waiting[slot] = start(first, last)
    for number in range(len(chunks), len(chunks) + plan.buffers):
        with device.stream(number % plan.buffers):
            fetch(number % plan.buffers)
