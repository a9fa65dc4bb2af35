from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from matcompute.publish import canonical
from matcompute.publish.errors import ManifestError
from matcompute.publish.manifest import Manifest

Make = Callable[..., Manifest]


def test_canonical_form_of_rfc_8785() -> None:
    # Keys are sorted by UTF-16 code units, numbers as ECMAScript writes them (RFC 8785, sections 3.2.2 and 3.2.3).
    value = {
        "numbers": [1e30, 4.50, 2e-3, 1e-27],
        "\u20ac": "€",
        "\r": 1,
        "1": None,
        "\U0001f600": [],
        "\ufb33": True,
    }
    raw = canonical.dump(value)
    text = '{"\\r":1,"1":null,"numbers":[1e+30,4.5,0.002,1e-27],"€":"€","😀":[],"\ufb33":true}'
    assert raw == text.encode()
    assert canonical.load(raw, "x") == value


@pytest.mark.parametrize("bad", [float("nan"), 2**60, {1: 2}])
def test_what_has_no_canonical_form(bad: Any) -> None:
    with pytest.raises(ManifestError, match="no canonical JSON form"):
        canonical.dump({"x": bad})


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"a":1,"a":2}', "twice"),
        (b'{"a": 1}', "canonical"),
        (b'{"b":1,"a":2}', "canonical"),
        (b"[" * 100000, "not JSON"),
        (b"\xff", "not JSON"),
    ],
)
def test_other_spellings_are_refused(raw: bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        canonical.load(raw, "m")


def test_round_trip(make_manifest: Make) -> None:
    manifest = make_manifest()
    raw = manifest.to_bytes()
    assert Manifest.from_bytes(raw) == manifest
    assert json.loads(raw)["schema"] == "matcompute.manifest/v1"
    assert canonical.sha256(raw) == manifest.sha256


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"grade": "secret"}, "grade"),
        ({"tier": "members"}, "tier"),
        ({"domain": ""}, "domain"),
        ({"licence": "free"}, "licence"),
        ({"version": 0}, "version"),
        ({"version": 2}, "previous"),
        ({"version": True}, "version"),
        ({"dataset_id": "x"}, "dataset_id"),
        ({"created": "yesterday"}, "created"),
        ({"surprise": 1}, "surprise"),
        ({"counts": {"entries": -1, "sites": 0, "shards": 0, "failed": 0}}, "counts.entries"),
        ({"structures_sha256": "00"}, "structures_sha256"),
    ],
)
def test_wrong_fields_are_named(make_manifest: Make, change: dict[str, Any], key: str) -> None:
    data = make_manifest().to_json() | change
    with pytest.raises(ManifestError, match=key):
        Manifest.from_bytes(canonical.dump(data))


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a//b", "a/./b", "a\\b", "C:x", "a\nb", "", "manifest.json"]
)
def test_paths_stay_inside(make_manifest: Make, path: str) -> None:
    data = make_manifest().to_json()
    data["files"][0]["path"] = path
    with pytest.raises(ManifestError):
        Manifest.from_bytes(canonical.dump(data))


def test_file_by_path(make_manifest: Make) -> None:
    assert make_manifest().file("data/a.h5").size == 1
    with pytest.raises(ManifestError, match=r"did you mean 'data/a\.h5'"):
        make_manifest().file("data/b.h5")
