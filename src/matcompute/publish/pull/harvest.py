"""Fetch versions: papers first, then what they list, several at once; each into the store when it is whole."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcompute.publish.blobs import write_whole
from matcompute.publish.canonical import sha256
from matcompute.publish.keys import Keyring
from matcompute.publish.manifest import MANIFEST, SIGNATURE, Manifest
from matcompute.publish.ocfl import object_path
from matcompute.publish.pull.errors import Code, Gone, Refused
from matcompute.publish.pull.rate import Limiter
from matcompute.publish.pull.receipts import Receiver
from matcompute.publish.pull.staging import Staging
from matcompute.publish.pull.state import State, Wanted
from matcompute.publish.pull.trust import check_release
from matcompute.publish.pull.wire import Wire
from matcompute.publish.store import Store

if TYPE_CHECKING:
    from matcompute.publish.pull.puller import Report

__all__ = ["Harvest", "object_id"]


def object_id(root: str, dataset_id: str) -> str:
    """Return the id of a dataset's object: with the node's first key, so that no node can take another's place."""
    return f"{root}/{dataset_id}"


@dataclass(eq=False)
class _Release:
    """A version on its way."""

    item: Wanted
    raw: bytes = b""
    signature: bytes = b""
    manifest: Manifest | None = None
    missing: set[str] = field(default_factory=set)
    over: bool = False


class Harvest:
    """What fetches the wanted versions of one node.

    Parameters
    ----------
    wire, state, store, staging, receiver, limiter
        The node, what is known, where things go, who signs receipts, the limit of bandwidth.
    jobs
        Downloads at once.
    """

    def __init__(
        self,
        wire: Wire,
        state: State,
        store: Store,
        staging: Staging,
        receiver: Receiver,
        limiter: Limiter,
        jobs: int,
    ) -> None:
        self.wire, self.state, self.store, self.staging = wire, state, store, staging
        self.receiver, self.limiter, self.jobs = receiver, limiter, jobs
        self.keyring: Keyring | None = None
        self.meet_again: Callable[[], Keyring] | None = None
        self.progress: Callable[[str, int, int], None] = lambda *_: None
        #: Datasets of which a version was refused in this session: not asked for again until they change.
        self.refused: set[str] = set()
        self._count = threading.Lock()
        self._bytes = [0, 0]

    # -- the loop ---------------------------------------------------------------------------------------------

    def run(self, wanted: Iterable[Wanted], report: Report) -> list[tuple[Wanted, str]]:
        """Fetch versions; return those that the node does not show, with what it did not show."""
        queues: dict[str, deque[Wanted]] = {}
        for item in wanted:
            if item.dataset_id not in self.refused:
                queues.setdefault(item.dataset_id, deque()).append(item)
        self._report, self._queues, self._ready = report, queues, deque(queues)
        self._gone: list[tuple[Wanted, str]] = []
        self._waiting: dict[str, list[_Release]] = {}
        self._futures: dict[Future[Any], tuple[_Release | None, str]] = {}
        self._active, self._done, self._total = 0, 0, sum(map(len, queues.values()))
        self._bytes = [0, 0]
        with ThreadPoolExecutor(self.jobs, thread_name_prefix="pull") as self._pool:
            try:
                self._loop()
            except BaseException:
                # Threads end at their next block; what they have stays in the staging folder.
                self.wire.cancel.set()
                self._pool.shutdown(wait=True, cancel_futures=True)
                self.wire.cancel.clear()
                raise
        return self._gone

    def _loop(self) -> None:
        while self._ready or self._futures:
            # Few versions at a time: the staging folder stays small.
            while self._ready and self._active < 2 * self.jobs:
                self._start(self._ready.popleft())
            if not self._futures:
                continue
            done, _ = wait(self._futures, return_when=FIRST_COMPLETED)
            for future in done:
                release, digest = self._futures.pop(future)
                if release is not None:
                    self._papers(release, future)
                else:
                    self._blob(digest, future)

    def _start(self, dataset_id: str) -> None:
        """Begin with the next version of a dataset."""
        queue = self._queues[dataset_id]
        while queue:
            item = queue.popleft()
            if item.manifest_sha256 is not None and self._note_if_stored(item, item.manifest_sha256):
                self._finished(item)
                continue
            self._active += 1
            release = _Release(item)
            self._futures[self._pool.submit(self._fetch_papers, item)] = (release, "")
            return

    def _next(self, release: _Release, *, go_on: bool) -> None:
        """A version is through: its dataset's next one may begin."""
        release.over = True
        self._active -= 1
        if go_on:
            self._ready.append(release.item.dataset_id)

    def _finished(self, item: Wanted) -> None:
        self._done += 1
        self._report.stored.append((item.dataset_id, item.version))
        self.progress("versions", self._done, self._total)

    # -- papers -----------------------------------------------------------------------------------------------

    def _fetch_papers(self, item: Wanted) -> tuple[bytes, bytes]:
        path = f"/datasets/{item.dataset_id}/versions/{item.version}/manifest"
        return self.wire.raw(path), self.wire.raw(f"{path}.sig")

    def _papers(self, release: _Release, future: Future[Any]) -> None:
        item = release.item
        try:
            release.raw, release.signature = future.result()
            release.manifest = manifest = self._check(release)
        except Gone as error:
            if item.manifest_sha256 is None:
                # The feed never named it; later versions stand without it.
                self.state.absent(item)
                self._next(release, go_on=True)
                return
            self._gone.append((item, error.message))
            self._next(release, go_on=False)
            return
        except Refused as error:
            self.refuse(item, error.code, error.message, sha256(release.raw) if release.raw else "")
            self._next(release, go_on=False)
            return
        digest = sha256(release.raw)
        if item.manifest_sha256 is None:
            self.state.learn(item, digest)
        if manifest.previous is not None:
            before = Wanted(item.root, item.dataset_id, item.version - 1, None)
            if self.state.digests(item.root, item.dataset_id).get(before.version, "") is None:
                self.state.learn(before, manifest.previous.manifest_sha256)
        if self._note_if_stored(item, digest, manifest):
            self._finished(item)
            self._next(release, go_on=True)
            return
        self._want_blobs(release, manifest)

    def _check(self, release: _Release) -> Manifest:
        assert self.keyring is not None
        item = release.item
        digests = self.state.digests(item.root, item.dataset_id)
        try:
            return check_release(release.raw, release.signature, item, self.keyring, digests)
        except Refused as error:
            if error.code != "wrong-key" or self.meet_again is None:
                raise
        # The node may have rotated its key since we met it.
        self.keyring = self.meet_again()
        return check_release(release.raw, release.signature, item, self.keyring, digests)

    # -- blobs ------------------------------------------------------------------------------------------------

    def _want_blobs(self, release: _Release, manifest: Manifest) -> None:
        sizes = {file.sha256: file.size for file in manifest.files}
        release.missing = {digest for digest in sizes if self._stored_at(digest) is None}
        self._add_bytes(0, sum(sizes[digest] for digest in release.missing))
        for file in manifest.files:
            digest = file.sha256
            if digest not in release.missing or release in self._waiting.get(digest, ()):
                continue
            if digest in self._waiting:
                self._waiting[digest].append(release)
                continue
            self._waiting[digest] = [release]
            future = self._pool.submit(
                self.staging.fetch,
                self.wire,
                digest,
                file.size,
                self.limiter,
                lambda n: self._add_bytes(n, 0),
            )
            self._futures[future] = (None, digest)
        if not release.missing:
            self._commit(release, manifest)

    def _blob(self, digest: str, future: Future[Any]) -> None:
        releases = self._waiting.pop(digest)
        try:
            _, received = future.result()
        except (Gone, Refused) as error:
            for release in releases:
                self._without(release, digest, error)
            return
        self._report.received += received
        self._report.blobs += received > 0
        for release in releases:
            release.missing.discard(digest)
            if not release.missing and not release.over:
                assert release.manifest is not None
                self._commit(release, release.manifest)

    def _without(self, release: _Release, digest: str, error: Gone | Refused) -> None:
        if release.over:
            return
        assert release.manifest is not None
        names = [file.path for file in release.manifest.files if file.sha256 == digest]
        if isinstance(error, Refused):
            self.refuse(release.item, error.code, f"{', '.join(names)}: {error.message}", sha256(release.raw))
        else:
            self._gone.append((release.item, f"{', '.join(names)}: the node lists it and does not give it"))
        self._next(release, go_on=False)

    def _add_bytes(self, done: int, total: int) -> None:
        with self._count:
            self._bytes[0] += done
            self._bytes[1] += total
            self.progress("bytes", self._bytes[0], self._bytes[1])

    def _stored_at(self, digest: str) -> Path | None:
        found = self.state.where(digest)
        if found is None:
            return None
        path = Path(self.store.root) / object_path(found[0]) / found[1]
        return path if path.is_file() else None

    # -- the store --------------------------------------------------------------------------------------------

    def _commit(self, release: _Release, manifest: Manifest) -> None:
        item, name = release.item, object_id(release.item.root, release.item.dataset_id)
        if not self.state.is_wanted(item):
            self._next(release, go_on=False)
            return
        files: dict[str, Path] = {}
        digests = {file.path: file.sha256 for file in manifest.files}
        for path, raw in ((MANIFEST, release.raw), (SIGNATURE, release.signature)):
            digests[path] = sha256(raw)
            files[path] = self.staging.path(digests[path])
            write_whole(files[path], raw, self.staging.part(digests[path]))
        for file in manifest.files:
            files[file.path] = self._stored_at(file.sha256) or self.staging.path(file.sha256)
        head = self.store.inventory(name).head if self.store.has(name) else 0
        # Nothing of our own in it: whoever pulls the same versions gets the same bytes.
        self.store.commit(
            name, files, version=head + 1, digests=digests, user=manifest.node, created=manifest.created
        )
        self._note_if_stored(item, sha256(release.raw), manifest)
        for digest in digests.values():
            if digest not in self._waiting:
                self.staging.drop(digest)
        self._finished(item)
        self._next(release, go_on=True)

    def _note_if_stored(self, item: Wanted, digest: str, manifest: Manifest | None = None) -> bool:
        """Note a version that the store has (a kill may have come between the store and the note)."""
        name = object_id(item.root, item.dataset_id)
        if not self.store.has(name):
            return False
        inventory = self.store.inventory(name)
        digests = [version.state.get(MANIFEST) for version in inventory.versions]
        if digest not in digests:
            return False
        number = digests.index(digest) + 1
        if manifest is None:
            self.store.mend(name)
            manifest = Manifest.from_bytes(self.store.read(name, number, MANIFEST))
        self.state.stored(
            item,
            [(d, name, inventory.content[d]) for d in set(inventory.version(number).state.values())],
            self.receiver.letter(item.dataset_id, item.version, digest, None),
            manifest_sha256=digest,
            title=manifest.title,
            structures_sha256=manifest.structures_sha256,
            entries=manifest.counts.entries,
            ocfl=number,
        )
        return True

    def refuse(self, item: Wanted, code: Code, reason: str, digest: str = "") -> None:
        """Note that a version is not taken, and tell the node in a receipt."""
        self.refused.add(item.dataset_id)
        digest = item.manifest_sha256 or digest or "0" * 64
        letter = self.receiver.letter(item.dataset_id, item.version, digest, code, reason)
        self.state.refuse(item, code, reason, letter)

    def tidy(self) -> None:
        """Remove blobs that are in the store already, or that nobody wants."""
        idle = self.state.idle()
        for digest in self.staging.names():
            if idle or self._stored_at(digest) is not None:
                self.staging.drop(digest)
