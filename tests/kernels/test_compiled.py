"""A kernel in the cache on disk is compiled anew when one that it calls has changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from matcompute_kernels import compiled

INNER = "from matcompute_kernels.compiled import njit\n@njit(cache=True)\ndef inner(x):\n    return x + {}\n"
OUTER = (
    "from matcompute_kernels.compiled import njit\nfrom matcompute_kernels.middle import inner\n"
    "@njit(cache=True)\ndef outer(x):\n    return 10 * inner(x)\n"
)
CALL = "from matcompute_kernels.outer import outer; print(outer(1), sum(outer.stats.cache_hits.values()))"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of that name with a kernel that calls another one, two imports away."""
    folder = tmp_path / "matcompute_kernels"
    folder.mkdir()
    (folder / "__init__.py").touch()
    shutil.copy(compiled.__file__, folder)
    (folder / "middle.py").write_text("from matcompute_kernels.inner import inner\n")
    (folder / "outer.py").write_text(OUTER)
    (folder / "inner.py").write_text(INNER.format(1))
    return folder


def test_change_of_a_kernel_that_is_called(package: Path) -> None:
    def call() -> list[int]:
        run = [sys.executable, "-c", CALL]
        done = subprocess.run(run, cwd=package.parent, capture_output=True, text=True, check=True)
        return [int(word) for word in done.stdout.split()]

    assert call() == [20, 0]
    assert call() == [20, 1]
    (package / "inner.py").write_text(INNER.format(2))
    assert call() == [30, 0]
    (package / "other.py").write_text("")  # concerns nobody
    assert call() == [30, 1]


def test_every_kernel_follows_its_imports() -> None:
    """No module takes ``njit`` from Numba, where the cache does not."""
    root = Path(compiled.__file__).parent
    for file in root.rglob("*.py"):
        if file != Path(compiled.__file__):
            assert "import njit" not in file.read_text().replace(
                "from matcompute_kernels.compiled import njit", ""
            )
    needed = compiled._imports(root / "descriptors" / "soap_rows.py")[1]
    assert root / "descriptors" / "soap_kernel.py" in needed
