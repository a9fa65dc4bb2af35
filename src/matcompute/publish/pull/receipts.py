"""Receipts: what the receiver tells the node of each version, signed with a key of its own."""

from __future__ import annotations

import base64
from pathlib import Path

from matcompute.publish import keys
from matcompute.publish.canonical import dump
from matcompute.publish.pull.errors import Gone, PullError
from matcompute.publish.pull.state import Letter, State
from matcompute.publish.pull.wire import Stopped, Wire

__all__ = ["Receiver", "deliver"]

SCHEMA = "matcompute.receipt/v1"
_CONTEXT = b"matcompute.receipt/v1\n"


class Receiver:
    """Who writes the receipts.

    Parameters
    ----------
    folder
        Folder of its key; made at the first use.
    name
        What it calls itself.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.key = keys.load(folder) if (folder / keys.KEYRING).exists() else keys.generate(folder)
        self.name = name

    def letter(
        self, dataset_id: str, version: int, manifest_sha256: str, code: str | None, reason: str = ""
    ) -> Letter:
        """Return a signed receipt: accept, or reject with a code and a reason."""
        said = {
            "schema": SCHEMA,
            "dataset_id": dataset_id,
            "version": version,
            "manifest_sha256": manifest_sha256,
            "verdict": "accept" if code is None else "reject",
            "reason": "" if code is None else f"{code}: {reason}",
            "receiver": self.name,
            "at": keys.utc_now(),
        }
        signature = {
            "key_id": self.key.key_id,
            "algorithm": keys.ALGORITHM,
            "public_key": self.key.public.public_key,
            "signature": base64.b64encode(self.key.sign(_CONTEXT + dump(said))).decode(),
        }
        subject = f"{dataset_id}/{version}/{manifest_sha256}/{code or 'accept'}"
        return Letter(subject, dump({**said, **signature}))


def deliver(state: State, wire: Wire, root: str) -> tuple[int, str | None]:
    """Send the receipts that the node does not have.

    Returns
    -------
    sent : int
    trouble : str or None
        Why the rest is kept for the next time.
    """
    sent = 0
    for number, body in state.unsent(root):
        try:
            status = wire.post("/receipts", body)
        except Stopped:
            raise
        except (PullError, Gone) as error:
            return sent, error.message
        if status in (200, 201, 204, 409):
            state.sent(number)
            sent += 1
        elif status in (401, 403, 404, 405):
            return (
                sent,
                f"the node takes no receipts from us (status {status}); it needs a token with that scope",
            )
        else:
            return sent, f"the node refuses a receipt (status {status})"
    return sent, None
