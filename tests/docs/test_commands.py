"""Every command that README.md and the manual show in a ``console`` block is run, page by page, as a user would.

A page's commands run in order in an empty folder which holds, as a checkout does, the ready campaigns. A line
``# exit 1`` after a command states the exit status that the page promises.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
        lines = block.replace("\\\n", " ").splitlines()
        for line in lines:
            if line.startswith("$ "):
                found.append((line[2:], 0))
            elif match := re.match(r"# exit (\d+)", line):
                found[-1] = (found[-1][0], int(match.group(1)))
    return found


def _page(page: Path) -> object:
    """A page may say on its first line which program it needs: ``<!-- needs pw.x -->``."""
    needs = re.match(r"<!-- needs (\S+) -->", page.read_text(encoding="utf-8"))
    marks = []
    if needs is not None:
        absent = shutil.which(needs.group(1)) is None
        marks = [pytest.mark.apt, pytest.mark.skipif(absent, reason=f"no {needs.group(1)} on this machine")]
    return pytest.param(page, marks=marks, id=page.relative_to(ROOT).as_posix())


@pytest.mark.slow
@pytest.mark.parametrize("page", [_page(p) for p in PAGES if commands(p)])
def test_commands_of(page: Path, tmp_path: Path) -> None:
    (tmp_path / "workflows").symlink_to(ROOT / "workflows")
    (tmp_path / "cluster_configs").symlink_to(ROOT / "cluster_configs")
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "COLUMNS": "100",
        # CuPy makes this folder when it is imported, which dask does for pint; only tests have it installed.
        "CUPY_CACHE_DIR": str(tmp_path / "cupy"),
    }
    for name in (
        "MATCOMPUTE_WORKSPACE",
        "AIIDA_PATH",
        "MPLCONFIGDIR",
        "NUMBA_CACHE_DIR",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
    ):
        environment.pop(name, None)  # as in a user's shell
    try:
        for command, status in commands(page):
            result = subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=300,
                check=False,
            )
            assert result.returncode == status, f"$ {command}\n{result.stdout}"
    finally:
        for marker in tmp_path.rglob("matcompute.toml"):
            subprocess.run(
                ["matcompute", "--workspace", str(marker.parent), "workspace", "stop"],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
    assert list(home.iterdir()) == [], "a command wrote into the user's home"


def test_readme_shows_commands() -> None:
    assert len(commands(ROOT / "README.md")) >= 8
