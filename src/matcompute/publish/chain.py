"""The versions of a dataset as a chain: each manifest holds the digest of the one before."""

from __future__ import annotations

from collections.abc import Sequence

from matcompute.publish.errors import ManifestError
from matcompute.publish.manifest import Manifest

__all__ = ["verify_chain"]


def verify_chain(manifests: Sequence[Manifest], *, known: str | None = None) -> None:
    """Check that manifests are versions 1, 2, 3 … of one dataset and that each one names the one before.

    Parameters
    ----------
    manifests
        In the order of their versions, from 1 on.
    known
        Digest of the newest manifest that the reader saw before; it must be in the chain, else somebody rolled the
        dataset back or rewrote it.

    Raises
    ------
    ManifestError
        If there is no manifest, a version is missing, another dataset is among them, or a digest differs; says which.
    """
    if not manifests:
        raise ManifestError("a dataset needs at least one version")
    before: Manifest | None = None
    digests: list[str] = []
    for position, manifest in enumerate(manifests, start=1):
        name = f"{manifest.dataset_id} version {manifest.version}"
        if manifest.dataset_id != manifests[0].dataset_id:
            raise ManifestError(f"{name} stands among the versions of {manifests[0].dataset_id}")
        if manifest.version != position:
            raise ManifestError(
                f"{name} stands where version {position} should: a version is missing or doubled"
            )
        if before is not None:
            said = manifest.previous.manifest_sha256 if manifest.previous else None
            if said != digests[-1]:
                raise ManifestError(
                    f"{name} follows a version {before.version} of digest {said}, the one here has {digests[-1]}",
                    hint="one of the two manifests was changed after its release: compare with the platform's copy",
                )
        digests.append(manifest.sha256)
        before = manifest
    if known is not None and known not in digests:
        raise ManifestError(
            f"{manifests[0].dataset_id}: manifest {known[:12]}…, which was seen before, is gone",
            hint="the dataset was rolled back or rewritten: do not use it before the node explains",
        )
