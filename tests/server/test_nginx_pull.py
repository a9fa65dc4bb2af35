"""`matcompute pull` through nginx, which sends the files itself: resumed in the middle of one, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from matcompute.publish.pull import Options, pull
from matcompute.publish.store import Store

from .conftest import IDS
from .test_nginx import NGINX, Front
from .test_nginx import front as front
from .test_nginx import once as once

pytestmark = [
    pytest.mark.apt,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)"),
]


def test_pull_through_nginx(front: Front, tmp_path: Path) -> None:
    copy, digest = tmp_path / "copy", front.digest[IDS[0]]
    store = Path(front.node.publication.store.root)
    content = (store / front.location[IDS[0]]).read_bytes()
    (copy / ".staging").mkdir(parents=True)
    (copy / ".staging" / f"{digest}.part").write_bytes(content[: len(content) // 2])
    counted: list[tuple[Any, ...]] = []
    report = pull(front.url, copy, Options(), progress=lambda *step: counted.append(step))
    assert report.stored == [(IDS[0], 1)]
    assert report.refusals == []
    sizes = {file.sha256: file.size for file in front.node.publication.manifests(IDS[0])[0].files}
    assert report.received == sum(sizes.values()) - len(content) // 2  # half a file was here
    assert Store(copy / "store").fixity() == []
