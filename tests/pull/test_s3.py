"""A node whose store is on S3: served, pulled with kills between, and a single entry read from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import IDS, load
from .test_kill import Ground, pull_with_kills, undisturbed

s3 = load("s3_server", Path(__file__).parents[1] / "publish" / "s3.py")
A, B = IDS[:2]
pytestmark = [pytest.mark.kill, pytest.mark.slow]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with s3.server() as server:
        sizes = ((A, 30), (B, 60), (A, 40))
        found = Ground(tmp_path_factory.mktemp("s3"), sizes, f"{server.bucket()}/node/store")
        yield found
        found.close()


@pytest.fixture(scope="module")
def reference(ground: Ground) -> dict[str, Any]:
    return undisturbed(ground)


def test_pulled_with_kills(ground: Ground, reference: dict[str, Any]) -> None:
    assert reference["stored"] == [(A, 1), (A, 2), (B, 1)]
    pull_with_kills(1, ground, reference)


def test_the_exit_of_one_bucket_is_the_arrival_in_another(
    ground: Ground, reference: dict[str, Any], tmp_path: Path
) -> None:
    from matcompute.publish.release import Publication
    from matcompute.server.duties.arriving import import_node
    from matcompute.server.duties.errors import DutyError
    from matcompute.server.duties.leaving import content_of, export_node
    from matcompute.server.node import Node

    assert reference
    old = Publication(ground.folder / "publication", ground.store)
    said = export_node(Node(old), tmp_path / "exit")
    place = f"{ground.store}-of-another"
    assert import_node(tmp_path / "exit", tmp_path / "new", store=place) == said
    new = Publication(tmp_path / "new", place)
    assert content_of(new) == content_of(old)
    assert not (tmp_path / "new" / "store").exists()
    with pytest.raises(DutyError, match="is not empty"):
        import_node(tmp_path / "exit", tmp_path / "third", store=place)
    assert new.verify() == []


def test_entries_and_ranges_are_read_from_it(
    ground: Ground, reference: dict[str, Any], tmp_path: Path
) -> None:
    from matcompute.dataset import Dataset
    from matcompute.publish.release import Publication

    publication = Publication(ground.folder / "publication", ground.store)
    file = publication.manifests(B)[0].file("data/entries.h5")
    url = f"http://127.0.0.1:{ground.port}"
    blob = f"{url}/blobs/sha256/{file.sha256}"
    whole = httpx.get(blob, timeout=60).content
    part = httpx.get(blob, headers={"Range": "bytes=1000-1999"}, timeout=60)
    assert (part.status_code, part.content) == (206, whole[1000:2000])
    (tmp_path / "b.h5").write_bytes(whole)
    with Dataset(tmp_path / "b.h5") as dataset:
        entry = dataset[5]
    base = f"{url}/en/datasets/{B}/versions/1"
    page = httpx.get(f"{base}/entries/{entry.id}", timeout=60)
    assert page.status_code == 200
    assert entry.structure_hash in page.text
    assert httpx.get(f"{base}/entries/{IDS[8]}", timeout=60).status_code == 404
    assert httpx.get(f"{url}/healthz", timeout=60).json()["status"] == "ok"
