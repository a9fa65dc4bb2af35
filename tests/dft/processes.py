"""Processes that have ended, made by hand: what plugins leave, without running anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from aiida.common.links import LinkType
from aiida.orm import CalcJobNode, Data, ProcessNode, WorkChainNode

Outputs = Mapping[str, Data] | Callable[[list[Any]], Mapping[str, Data]]


def finished(
    label: str,
    outputs: Outputs | None = None,
    *,
    status: int = 0,
    message: str = "",
    inputs: Mapping[str, Data] | None = None,
    calls: Sequence[tuple[str, Callable[..., Any]]] = (),
    computer: Any = None,
    caller: tuple[ProcessNode, str] | None = None,
    **options: Any,
) -> Any:
    """Store a process that has ended: a job if it has a computer, else a work chain.

    Parameters
    ----------
    label
        Name of its class.
    outputs
        By link label (``__`` in it is a nested namespace), or what makes them from the processes that were called.
    inputs
        By link label.
    calls
        Link label and :func:`call` of each process that it has called.
    caller
        Process that has called this one, and the link's label.
    options
        Of a job.
    """
    node = WorkChainNode() if computer is None else CalcJobNode(computer=computer)
    node.set_process_label(label)
    if computer is not None:
        node.set_options({"resources": {"num_machines": 1}, **options})
    work = computer is None
    for name, value in (inputs or {}).items():
        value.store()
        node.base.links.add_incoming(value, LinkType.INPUT_WORK if work else LinkType.INPUT_CALC, name)
    if caller is not None:
        node.base.links.add_incoming(caller[0], LinkType.CALL_WORK if work else LinkType.CALL_CALC, caller[1])
    node.store()
    children = [make(caller=(node, name)) for name, make in calls]
    for name, value in (outputs(children) if callable(outputs) else outputs or {}).items():
        if work:
            value.store()
        value.base.links.add_incoming(node, LinkType.RETURN if work else LinkType.CREATE, name)
        value.store()
    node.set_process_state("finished")
    node.set_exit_status(status)
    node.set_exit_message(message)
    return node


def call(*args: Any, **keywords: Any) -> Callable[..., Any]:
    """Return what makes a process that another one has called; arguments as of :func:`finished`."""
    return partial(finished, *args, **keywords)
