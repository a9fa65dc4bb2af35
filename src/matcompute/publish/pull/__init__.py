"""The pull client: a platform's copy of what nodes publish, incremental, resumable, and trusted only where proven."""

from matcompute.publish.pull.errors import NodeRefused, PullError, Refusal, Refused, Unreachable
from matcompute.publish.pull.puller import Options, Report, follow, pull

__all__ = [
    "NodeRefused",
    "Options",
    "PullError",
    "Refusal",
    "Refused",
    "Report",
    "Unreachable",
    "follow",
    "pull",
]
