"""Who made a release, from its DataCite document."""

from __future__ import annotations

import json
from functools import lru_cache

from matcompute.errors import MatcomputeError
from matcompute.publish.manifest import Manifest
from matcompute.publish.store import Store

__all__ = ["authors_of"]


def authors_of(store: Store, manifest: Manifest) -> tuple[list[str], str, str]:
    """Return authors, DOI and CSTR of a release; empty where its document does not say."""
    try:
        return _read(store, manifest.dataset_id, manifest.version)
    except (MatcomputeError, ValueError, KeyError, TypeError, AttributeError):
        return [], "", ""


@lru_cache(maxsize=256)  # a version never changes; what could not be read is tried again
def _read(store: Store, dataset_id: str, version: int) -> tuple[list[str], str, str]:
    raw = json.loads(store.read(dataset_id, version, "datacite.json"))
    found = raw.get("data", {}).get("attributes", raw)
    names = [str(c["name"]) for c in found.get("creators", []) if c.get("name")]
    others = found.get("alternateIdentifiers", [])
    cstr = next(
        (str(o["alternateIdentifier"]) for o in others if o.get("alternateIdentifierType") == "CSTR"), ""
    )
    return names, str(found.get("doi") or ""), cstr
