"""Release, withdraw and regrade: the publication of a node, which is a folder with its keys, store and events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matcompute.dataset import GRADES, TIERS
from matcompute.errors import InputError, MatcomputeError, did_you_mean
from matcompute.publish.build import shards_of
from matcompute.publish.canonical import sha256_file
from matcompute.publish.chain import verify_chain
from matcompute.publish.errors import ManifestError, PublishError, StoreError
from matcompute.publish.events import Event, Events
from matcompute.publish.gates import Limits, check
from matcompute.publish.keys import Keyring, SigningKey, load
from matcompute.publish.manifest import MANIFEST, SIGNATURE, Manifest
from matcompute.publish.signing import Signature, sign, verify
from matcompute.publish.store import Store
from matcompute.publish.terms import Terms, terms_of
from matcompute.times import utc_now

__all__ = ["Problem", "Publication"]


@dataclass(frozen=True)
class Problem:
    """What `Publication.verify` found."""

    dataset_id: str
    version: int | None
    message: str


class Publication:
    """What a node published, and the means to publish more.

    Parameters
    ----------
    folder
        Holds ``keys/`` (private), ``events.sqlite`` and, unless it is elsewhere, ``store/``.
    store
        Another place of the store: a folder, or a URL that fsspec knows.
    """

    def __init__(self, folder: Path, store: str | Path | None = None) -> None:
        self.folder = folder
        self.keys = folder / "keys"
        self.store = Store(store if store is not None else folder / "store", lock=folder / ".store.lock")
        self.events = Events(folder / "events.sqlite")

    # -- reading ----------------------------------------------------------------------------------------------

    def manifests(self, dataset_id: str) -> list[Manifest]:
        """Return the manifests of all versions in the store, checked against the chain; empty for a new dataset."""
        if not self.store.has(dataset_id):
            return []
        found = [
            Manifest.from_bytes(self.store.read(dataset_id, version, MANIFEST), f"version {version}")
            for version in self.store.versions(dataset_id)
        ]
        verify_chain(found)
        return found

    def latest(self, dataset_id: str) -> Manifest | None:
        """Return the manifest of the newest version; None for a new dataset."""
        return next(iter(reversed(self.manifests(dataset_id))), None)

    def verify(
        self, dataset_id: str | None = None, progress: Callable[[int, int], None] | None = None
    ) -> list[Problem]:
        """Check all that was released: digests of all content, chain, signatures, and that events and store agree.

        Parameters
        ----------
        dataset_id
            Only this dataset.
        progress
            Called with (files read, files in all).

        Returns
        -------
        list of Problem
            Empty if all is well.
        """
        damage = self.store.fixity(dataset_id, progress)
        found = [Problem(d.object_id, None, f"{d.path}: {d.reason}") for d in damage]
        keyring = Keyring.read(self.keys)
        released = {s.dataset_id: s for s in self.events.all()}
        ids = [dataset_id] if dataset_id is not None else sorted({*self.store.objects(), *released})
        for name in ids:
            try:
                manifests = self.manifests(name)
            except MatcomputeError as error:
                found.append(Problem(name, None, error.message))
                continue
            for manifest in manifests:
                found += [Problem(name, manifest.version, text) for text in self._version(manifest, keyring)]
            there = {m.version for m in manifests}
            noted = set(released[name].versions) if name in released else set()
            found += [
                Problem(name, v, "stands in the events, not in the store") for v in sorted(noted - there)
            ]
            found += [
                Problem(name, v, "stands in the store, not in the events: release its folder again")
                for v in sorted(there - noted)
            ]
        return found

    def _version(self, manifest: Manifest, keyring: Keyring) -> Iterator[str]:
        raw = manifest.to_bytes()
        try:
            signature = self.store.read(manifest.dataset_id, manifest.version, SIGNATURE)
            verify(raw, Signature.from_bytes(signature), keyring)
        except MatcomputeError as error:
            yield error.message
        state = dict(self.store.versions(manifest.dataset_id)[manifest.version].state)
        listed = {file.path: file.sha256 for file in manifest.files}
        for path in sorted(listed.keys() | state.keys() - {MANIFEST, SIGNATURE}):
            if listed.get(path) != state.get(path):
                yield f"{path}: store and manifest differ"

    # -- writing ----------------------------------------------------------------------------------------------

    def release(
        self,
        folder: Path,
        *,
        key: SigningKey | None = None,
        limits: Limits | None = None,
        reason: str = "",
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Event:
        """Put a folder that `build` made through the gates, sign it, store it and note the event.

        A release that was interrupted is completed by calling this again; one that is complete stays as it is.

        Parameters
        ----------
        folder
            Folder of the release.
        key
            The node's current key by default.
        limits
            Of the gates.
        reason
            What is new in this version.
        progress
            Called with (what is done, steps or bytes done, in all).

        Raises
        ------
        GateError
            If a gate blocks it.
        ManifestError
            If the folder is not what its manifest says, or does not follow the newest version.
        """
        show = progress or (lambda *_: None)
        manifest = read_folder(folder, lambda done, total: show("reading", done, total))
        known = self.manifests(manifest.dataset_id)
        if manifest.sha256 in {m.sha256 for m in known}:
            self.store.mend(manifest.dataset_id)
            return self.events.published(manifest, reason)
        verify_chain([*known, manifest])
        shards = shards_of(folder, manifest)
        check(
            shards,
            self.terms(folder, manifest),
            self.events,
            version=manifest.version,
            previous=known[-1] if known else None,
            limits=limits,
            progress=lambda done, total: show("checking", done, total),
        ).require()
        signed = sign(manifest.to_bytes(), key or load(self.keys))
        signature_file = folder / SIGNATURE
        signature_file.write_bytes(signed.to_bytes())
        names = [file.path for file in manifest.files]
        self.store.commit(
            manifest.dataset_id,
            {path: folder / path for path in [*names, MANIFEST, SIGNATURE]},
            version=manifest.version,
            digests={file.path: file.sha256 for file in manifest.files} | {MANIFEST: manifest.sha256},
            message=reason,
            user=manifest.node,
            progress=lambda done, total: show("storing", done, total),
        )
        return self.events.published(manifest, reason)

    def terms(self, folder: Path, manifest: Manifest) -> Terms:
        """Return the terms of a built release, for the gates."""
        terms = terms_of(
            shards_of(folder, manifest),
            manifest.node,
            dataset_id=manifest.dataset_id,
            title=manifest.title,
            description="",  # not in the manifest, and shards may differ in it
            domain=manifest.domain,
            grade=manifest.grade,
            tier=manifest.tier,
            licence=manifest.licence,
        )
        return replace(
            terms,
            keywords=manifest.keywords,
            identifiers=manifest.identifiers,
            rights=manifest.rights,
        )

    def withdraw(self, dataset_id: str, reason: str, *, version: int | None = None) -> Event:
        """Withdraw a version, or the whole dataset; the content stays in the store, a tombstone in the feed."""
        _need(reason)
        return self.events.withdraw(dataset_id, version, reason)

    def regrade(
        self, dataset_id: str, reason: str, *, grade: str | None = None, tier: str | None = None
    ) -> Event:
        """Give a dataset another grade or tier, for all its versions and at once.

        Raises
        ------
        InputError
            If one is not in its vocabulary, the reason is missing, or data above the lowest grade or under embargo
            would be public.
        """
        _need(reason)
        for name, value, vocabulary in (("grade", grade, GRADES), ("tier", tier, TIERS)):
            if value is not None and value not in vocabulary:
                raise InputError(
                    f"{name} '{value}' is not in the vocabulary{did_you_mean(value, vocabulary)}"
                )
        standing = self.events.standing(dataset_id)
        if (grade or standing.grade) != GRADES[0] and (tier or standing.tier) == "public":
            raise InputError(
                f"data of grade '{grade or standing.grade}' cannot be public",
                hint=f"give a member tier as well: --tier {TIERS[-1]}",
            )
        # The rights that the newest version states hold for all, as its grade and tier do.
        newest = self.latest(dataset_id) if tier == "public" else None
        if newest is not None and newest.rights.embargoed(utc_now()):
            raise InputError(
                f"{dataset_id} is under embargo until {newest.rights.embargo}: it cannot be public",
                hint="wait; or, if the holder lifts it, release a version with an earlier --embargo",
            )
        return self.events.regrade(dataset_id, reason, grade=grade, tier=tier)

    def describe(self) -> list[dict[str, Any]]:
        """Return what holds now of every dataset, JSON-able."""
        return [
            {
                "dataset_id": s.dataset_id,
                "title": s.title,
                "versions": list(s.versions),
                "withdrawn": sorted(s.withdrawn),
                "grade": s.grade,
                "tier": s.tier,
                "seq": s.seq,
            }
            for s in self.events.all()
        ]


def read_folder(folder: Path, progress: Callable[[int, int], None] | None = None) -> Manifest:
    """Return the manifest of a built release whose files are all there and unchanged, and no other.

    Parameters
    ----------
    folder
        The folder.
    progress
        Called with (bytes read, bytes in all).

    Raises
    ------
    ManifestError
        If a file is missing, changed or not listed; it is named.
    PublishError
        If there is no manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise PublishError(f"{folder} has no {MANIFEST}", hint="make it with `matcompute publish build`")
    manifest = Manifest.from_bytes(path.read_bytes(), str(path))
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    listed = {file.path for file in manifest.files}
    for name in sorted(listed - there):
        raise ManifestError(f"{folder}: {name} is missing")
    for name in sorted(there - listed - {MANIFEST, SIGNATURE}):
        raise ManifestError(f"{folder}: {name} is not in the manifest", hint="build the release again")
    done, total = 0, sum(file.size for file in manifest.files)
    for file in manifest.files:
        if (folder / file.path).is_symlink():
            raise StoreError(f"{folder}: {file.path} is a link")
        if sha256_file(folder / file.path) != file.sha256:
            raise ManifestError(
                f"{folder}: {file.path} was changed after the build", hint="build the release again"
            )
        done += file.size
        if progress is not None:
            progress(done, total)
    return manifest


def _need(reason: str) -> None:
    if not reason.strip():
        raise InputError("a reason is needed", hint="the platform and its users see it: --reason '…'")
