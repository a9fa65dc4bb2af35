"""Receipts: what the receiver tells the node of each version, signed with a key of its own."""

from __future__ import annotations

from pathlib import Path

from matcompute.publish import keys
from matcompute.publish.pull.errors import Gone, PullError
from matcompute.publish.pull.state import Letter, State
from matcompute.publish.pull.wire import Stopped, Wire
from matcompute.publish.receipt import sign_receipt

__all__ = ["Receiver", "deliver"]


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
        receipt = sign_receipt(
            self.key,
            dataset_id=dataset_id,
            version=version,
            manifest_sha256=manifest_sha256,
            verdict="accept" if code is None else "reject",
            reason="" if code is None else f"{code}: {reason}"[:4000],
            receiver=self.name,
        )
        return Letter(f"{dataset_id}/{version}/{manifest_sha256}/{code or 'accept'}", receipt.to_bytes())


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
        if status in (401, 403):
            return (
                sent,
                f"the node takes no receipts from us (status {status}): it wants a token with that scope",
            )
        if status >= 400 and status not in (404, 409, 410):
            return sent, f"the node refuses a receipt (status {status})"
        # 404 and 409: it concerns what the node does not show (any more); nobody will ever take it.
        state.sent(number)
        sent += status < 400
    return sent, None
