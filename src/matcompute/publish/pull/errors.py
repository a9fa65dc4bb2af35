"""Why a node, or a version of a dataset, is not taken."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from matcompute.publish.errors import PublishError

__all__ = ["Code", "Gone", "NodeRefused", "PullError", "Refusal", "Refused", "Unreachable"]

#: What can be wrong with a version. digest: content that is not what its digest says. dropped: a shard or a file is
#: missing. rollback: another manifest stood here before. replayed: manifest or signature of another version.
#: wrong-key: a key that is not the node's. signature: any other fault of a signature. manifest: malformed.
Code = Literal["digest", "dropped", "rollback", "replayed", "wrong-key", "signature", "manifest"]


class PullError(PublishError):
    """A pull cannot go on."""


class Unreachable(PullError):
    """The node does not answer, or answers nonsense."""


class NodeRefused(PullError):
    """The node itself is not to be trusted: its keys, or its feed, are not those that we know."""


class Gone(PullError):
    """The node does not show this to us (any more)."""


class Refused(PullError):
    """A version is not taken.

    Parameters
    ----------
    code
        One of `Code`, for programs.
    message
        For people.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code: Code = code


@dataclass(frozen=True)
class Refusal:
    """A version that was not taken, and why."""

    node: str
    dataset_id: str
    version: int
    code: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return asdict(self)
