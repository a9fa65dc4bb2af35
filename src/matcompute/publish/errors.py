"""What publishing may refuse, and why."""

from __future__ import annotations

from matcompute.errors import InputError, MatcomputeError

__all__ = [
    "GateError",
    "KeyFileError",
    "ManifestError",
    "PublishError",
    "SignatureError",
    "StoreError",
]


class PublishError(MatcomputeError):
    """A release cannot be made, changed or read."""


class KeyFileError(InputError, PublishError):
    """A signing key or a keyring is missing, damaged or not to be trusted."""


class ManifestError(PublishError):
    """A manifest is malformed, or does not follow the one before it."""


class SignatureError(PublishError):
    """A signature does not belong to these bytes, this key or this time."""


class StoreError(PublishError):
    """The store refuses a write, or what it holds is damaged."""


class GateError(PublishError):
    """A quality gate blocks the release."""
