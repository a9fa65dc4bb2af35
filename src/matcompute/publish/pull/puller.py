"""`pull`: follow a node's feed and bring what it publishes into the store, checked and in order."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from matcompute.publish.canonical import sha256
from matcompute.publish.errors import StoreError
from matcompute.publish.pull.errors import Gone, Refusal, Unreachable
from matcompute.publish.pull.harvest import Harvest
from matcompute.publish.pull.merge import write_catalogue
from matcompute.publish.pull.rate import Limiter
from matcompute.publish.pull.receipts import Receiver, deliver
from matcompute.publish.pull.staging import Staging
from matcompute.publish.pull.state import Node, State
from matcompute.publish.pull.trust import Page, Standing, meet
from matcompute.publish.pull.wire import Stopped, Wire
from matcompute.publish.store import Store

__all__ = ["Destination", "Options", "Report", "follow", "pull"]

#: Called with what is counted ("changes", "versions", "bytes"), how many are done, and how many there are.
Progress = Callable[[str, int, int], None]
#: Short enough that stopping does not take long.
_LONG_POLL_S = 5
#: While following, what was refused is asked for again after this many seconds.
_AGAIN_S = 3600.0


@dataclass(frozen=True)
class Options:
    """How to pull.

    Parameters
    ----------
    token
        What the node gave us for more than public data.
    key
        Id of a key of the node that we trust, told by another way.
    tiers, datasets
        Take these only; all by default.
    jobs
        Downloads at once.
    rate
        Bytes per second at most, all downloads together.
    receiver
        Our name in receipts; None: the name of this machine.
    receipts
        Whether to send any.
    patience
        Seconds without any good answer after which the pull ends.
    from_start
        Read the whole feed again, not only what is new: after the node widened what our token may see.
    """

    token: str | None = None
    key: str | None = None
    tiers: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    jobs: int = 4
    rate: float | None = None
    receiver: str | None = None
    receipts: bool = True
    patience: float = 60.0
    from_start: bool = False


@dataclass
class Report:
    """What a pull did.

    Parameters
    ----------
    node, url, key_id
        The node: its name, address and first key.
    first
        Whether it was met for the first time: then its key was believed, unless one was given.
    changes, seq
        Events read now, and the position after them.
    stored
        (dataset id, version) that came into the store, in this order.
    blobs, received
        Blobs fetched to the end, and bytes received.
    receipts, receipts_trouble
        Receipts delivered, and why others wait.
    refusals
        All versions of the node that are refused at present.
    """

    node: str
    url: str
    key_id: str
    first: bool = False
    changes: int = 0
    seq: int = 0
    stored: list[tuple[str, int]] = field(default_factory=list)
    blobs: int = 0
    received: int = 0
    receipts: int = 0
    receipts_trouble: str | None = None
    refusals: list[Refusal] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return asdict(self)


class Destination:
    """A folder that holds a copy of what nodes publish.

    Parameters
    ----------
    folder
        Holds ``store/`` (OCFL), ``catalogue.json``, ``structures.parquet``, ``pull.sqlite`` (positions, fate of each
        version), ``keys/`` (for receipts) and ``.staging/`` (blobs on their way).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.state = State(folder / "pull.sqlite")
        self.store = Store(folder / "store")
        self.staging = Staging(folder / ".staging")

    def close(self) -> None:
        """Close the state."""
        self.state.close()

    @classmethod
    @contextlib.contextmanager
    def locked(cls, folder: Path) -> Iterator[Destination]:
        """Open the folder for one puller at a time.

        Raises
        ------
        StoreError
            If another one works on it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(
                    f"{folder}: another pull is at work", hint="wait until it is done, or stop it"
                ) from error
            destination = cls(folder)
            try:
                yield destination
            except (OSError, sqlite3.Error) as error:
                raise StoreError(
                    f"{folder}: {error}", hint="is the disk full, or not writable? What was fetched is kept"
                ) from error
            finally:
                destination.close()


def pull(
    url: str,
    folder: Path,
    options: Options | None = None,
    *,
    progress: Progress | None = None,
    on_wire: Callable[[Wire], None] | None = None,
) -> Report:
    """Bring a copy up to what a node publishes now.

    Stopped at any point, it goes on from there at the next call; doing it again changes nothing.

    Parameters
    ----------
    url
        Address of the node.
    folder
        Where the copy is; several nodes may share it.
    options
        How.
    progress
        Called with (what, done, in all); from several threads.
    on_wire
        Called with the connection before it is used; setting its ``stop`` ends the pull.

    Raises
    ------
    NodeRefused
        If the node's keys or feed are not those that we know.
    Unreachable
        If it does not answer.
    """
    options = options or Options()
    with Destination.locked(folder) as destination, _session(url, destination, options, on_wire) as session:
        session.progress = progress or session.progress
        report = session.begin()
        session.once(report)
        session.end(report)
        return report


def follow(
    url: str,
    folder: Path,
    options: Options | None = None,
    *,
    progress: Progress | None = None,
    on_wire: Callable[[Wire], None] | None = None,
    on_round: Callable[[Report], None] | None = None,
) -> None:
    """Pull, and go on pulling what the node publishes, until `Wire.stop` is set; parameters as of `pull`.

    A node that does not answer for a while is waited for. ``on_round`` is called with the report of each round that
    brought something, and of the first.
    """
    import time

    options = options or Options()
    with Destination.locked(folder) as destination, _session(url, destination, options, on_wire) as session:
        session.progress = progress or session.progress
        first, forget = True, time.monotonic() + _AGAIN_S
        while not session.wire.stop.is_set():
            if time.monotonic() > forget:
                session.harvest.refused.clear()
                forget = time.monotonic() + _AGAIN_S
            try:
                report = session.begin()
                session.once(report, wait=0 if first else _LONG_POLL_S)
                session.end(report)
            except Stopped:
                return
            except Unreachable:
                session.wire.stop.wait(5.0)
                continue
            if on_round is not None and (first or report.changes or report.stored):
                on_round(report)
            first = False


@contextlib.contextmanager
def _session(
    url: str, destination: Destination, options: Options, on_wire: Callable[[Wire], None] | None
) -> Iterator[_Session]:
    wire = Wire(url, token=options.token, jobs=options.jobs, patience=options.patience)
    try:
        if on_wire is not None:
            on_wire(wire)
        yield _Session(wire, destination, options)
    finally:
        wire.close()


class _Session:
    """One node, one copy."""

    def __init__(self, wire: Wire, destination: Destination, options: Options) -> None:
        self.wire, self.destination, self.options = wire, destination, options
        self.state = destination.state
        self.progress: Progress = lambda *_: None
        token = options.token
        self.view = "public" if token is None else sha256(f"view:{token}".encode())[:16]
        self.from_start = options.from_start
        self.receiver = Receiver(destination.folder / "keys", options.receiver or socket.gethostname())
        self.harvest = Harvest(
            wire,
            self.state,
            destination.store,
            destination.staging,
            self.receiver,
            Limiter(options.rate, wire.stop.wait),
            options.jobs,
        )

    def begin(self) -> Report:
        """Meet the node."""
        node, first = self._meet()
        return Report(
            node.name, self.wire.url, node.root, first, seq=self.state.position(node.root, self.view)
        )

    def once(self, report: Report, wait: int = 0) -> None:
        """Read the feed and fetch what is new; again if something vanished meanwhile: the feed says why."""
        root = report.key_id
        node = self.state.node(root)
        assert node is not None
        self.harvest.keyring = node.keyring
        self.harvest.meet_again = lambda: self._meet()[0].keyring
        self.harvest.progress = self.progress
        self._read_feed(root, report, wait)
        unexplained: dict[str, int] = {}
        while True:
            self._settle(root)
            wanted = self.state.wanted(root, self.options.tiers, self.options.datasets)
            gone = self.harvest.run(wanted, report)
            if not gone:
                return
            # The answer for a version was "not for you": the feed knows why, perhaps a moment later.
            self.wire.stop.wait(0.5 * max(unexplained.values(), default=0))
            news = self._read_feed(root, report, 0)
            for item, what in gone:
                name = item.dataset_id
                if name in news or not self.state.is_wanted(item):
                    continue
                unexplained[name] = unexplained.get(name, 0) + 1
                if unexplained[name] == 3:
                    self.harvest.refuse(item, "dropped", what)

    def end(self, report: Report) -> None:
        """Send receipts, write the catalogue, and tidy up."""
        root = report.key_id
        report.seq = self.state.position(root, self.view)
        report.refusals = [Refusal(root, *row) for row in self.state.refusals(root)]
        write_catalogue(self.destination.folder, self.state, self.destination.store)
        self.harvest.tidy()
        # Nodes take receipts from those whom they know; the public's wait until there is a token.
        if self.options.receipts and self.options.token is not None:
            report.receipts, report.receipts_trouble = deliver(self.state, self.wire, root)

    def _meet(self) -> tuple[Node, bool]:
        try:
            answer = self.wire.json("/node")
        except Gone as error:
            raise Unreachable(
                error.message, hint="is this the address of a node? `matcompute serve` is what answers there"
            ) from error
        return meet(self.state, self.wire.url, answer, self.options.key)

    def _read_feed(self, root: str, report: Report, wait: int) -> set[str]:
        """Note what is new; return the datasets that it concerns."""
        seq = 0 if self.from_start else self.state.position(root, self.view)
        news: set[str] = set()
        while True:
            page = Page.read(self.wire.json("/changes", after=seq, limit=1000, wait=wait), seq)
            wait = 0
            news |= {event.dataset_id for event in page.changes}
            seq = max(page.next, seq)
            report.changes += self.state.apply(
                root, self.view, (event.model_dump() for event in page.changes), seq
            )
            self.from_start = False
            self.progress("changes", seq, page.head)
            if not page.more:
                self.harvest.refused -= news
                return news
            if self.wire.stop.is_set():
                raise Stopped("stopped")

    def _settle(self, root: str) -> None:
        """Ask the node about versions of which the feed did not say whether they are to be had."""
        for dataset_id in self.state.doubtful(root):
            try:
                answer = self.wire.json(f"/datasets/{dataset_id}")
            except Gone:
                continue  # the feed will say so
            try:
                standing = Standing.model_validate(answer)
            except ValidationError as error:
                raise Unreachable(f"/datasets/{dataset_id}: {error.errors()[0]['msg']}") from error
            self.state.settle(root, dataset_id, {v.version: v.withdrawn for v in standing.versions})
