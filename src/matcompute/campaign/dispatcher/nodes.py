"""Finding and making AiiDA nodes so that every step can be repeated: a node's label says which step made it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from matcompute.errors import MatcomputeError

if TYPE_CHECKING:
    from aiida.orm import Node, ProcessNode

__all__ = ["MissingNodeError", "call_once", "find_process", "load", "process_states", "tag"]

LOGGER = logging.getLogger(__name__)
#: Key of the extras of every node that a dispatcher makes.
EXTRA = "matcompute"
_ENDED = ("finished", "excepted", "killed")


class MissingNodeError(MatcomputeError):
    """A node of which the state tables know is not in the AiiDA profile."""


def call_once(
    label: str,
    function: Callable[..., Any],
    inputs: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
    *,
    extras: Mapping[str, Any] | None = None,
) -> dict[str, Node]:
    """Call a calcfunction, or return the outputs of the call of that label that has ended well.

    A call that was cut short by the death of its process is closed as killed and made again.

    Parameters
    ----------
    label
        Unique name of the step.
    function
        The calcfunction.
    inputs
        Its inputs, or a function that makes them (called only if they are needed).
    extras
        Stored with the process node.

    Returns
    -------
    dict
        Output label → node.
    """
    from aiida.orm import CalcFunctionNode, QueryBuilder

    query = QueryBuilder().append(CalcFunctionNode, filters={"label": label})
    for node in query.all(flat=True):
        if node.is_finished_ok:
            return _outputs(node)
        if not node.is_terminated:
            _close(node)
    given = inputs() if callable(inputs) else inputs
    _, node = function.run_get_node(**given, metadata={"label": label})  # type: ignore[attr-defined]
    if extras:
        tag(node, extras)
    if not node.is_finished_ok:
        raise MatcomputeError(f"{label}: {node.exit_message or node.exception or 'failed'}")
    return _outputs(node)


def _outputs(node: ProcessNode) -> dict[str, Node]:
    return {link.link_label: link.node for link in node.base.links.get_outgoing().all()}


def _close(node: ProcessNode) -> None:
    from plumpy.process_states import ProcessState

    LOGGER.warning("closing '%s' (%s): its process has died", node.label, node.pk)
    node.set_process_state(ProcessState.KILLED)
    node.set_process_status("its process has died")
    node.seal()


def find_process(label: str) -> ProcessNode | None:
    """Return the work chain of that label, the newest if there are several."""
    from aiida.orm import QueryBuilder, WorkChainNode

    query = QueryBuilder().append(WorkChainNode, filters={"label": label})
    query.order_by({WorkChainNode: {"id": "desc"}})
    return query.first(flat=True)


def tag(node: Node, extras: Mapping[str, Any]) -> None:
    """Store what a node belongs to in its extras."""
    node.base.extras.set(EXTRA, dict(extras))


def load(uuid: str) -> Any:
    """Return the node of a UUID.

    Raises
    ------
    MissingNodeError
        If it is not there.
    """
    from aiida.common.exceptions import NotExistent
    from aiida.orm import load_node

    try:
        return load_node(uuid=uuid)
    except NotExistent as error:
        raise MissingNodeError(
            f"node {uuid} is not in the AiiDA profile of this workspace",
            hint="was it deleted with verdi? then run the campaign anew under another name (--name)",
        ) from error


def process_states(uuids: Iterable[str]) -> dict[str, tuple[str, bool]]:
    """Return UUID → (process state, has it ended), from one query that loads no node."""
    from aiida.orm import ProcessNode, QueryBuilder

    wanted = list(uuids)
    found: dict[str, tuple[str, bool]] = {}
    for start in range(0, len(wanted), 500):
        query = QueryBuilder().append(
            ProcessNode,
            filters={"uuid": {"in": wanted[start : start + 500]}},
            project=["uuid", "attributes.process_state", "attributes.sealed"],
        )
        for uuid, state, sealed in query.all():
            # Outputs are attached before the state changes; the seal comes last.
            found[uuid] = (str(state), state in _ENDED and bool(sealed))
    return found
