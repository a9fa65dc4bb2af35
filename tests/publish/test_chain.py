from __future__ import annotations

from collections.abc import Callable

import pytest

from matcompute.publish.chain import verify_chain
from matcompute.publish.errors import ManifestError
from matcompute.publish.manifest import Manifest

Make = Callable[..., Manifest]


def test_chain(make_manifest: Make) -> None:
    one = make_manifest()
    two = make_manifest(2, one)
    three = make_manifest(3, two)
    verify_chain([one, two, three], known=two.sha256)
    with pytest.raises(ManifestError, match="missing or doubled"):
        verify_chain([one, three])
    with pytest.raises(ManifestError, match="missing or doubled"):
        verify_chain([two, three])
    with pytest.raises(ManifestError, match="which was seen before, is gone"):
        verify_chain([one], known=two.sha256)
    with pytest.raises(ManifestError, match="of digest"):
        verify_chain([make_manifest(title="rewritten"), two, three])
    other = make_manifest(2, one, dataset_id="22222222-2222-4222-8222-222222222222")
    with pytest.raises(ManifestError, match="stands among"):
        verify_chain([one, other])
    with pytest.raises(ManifestError, match="at least one"):
        verify_chain([])
