"""The validators of others: where they are, and how they are called.

They live in an environment of their own (``validators.txt``), ``.venv-validators`` in the checkout, or in the folder of
programs that MATCOMPUTE_VALIDATORS names. Where there is no such environment the tests skip; what is missing in one
that is there is a failure.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_OWN = _HERE.parents[1] / ".venv-validators" / "bin"


def folder() -> Path:
    """Return the folder of their programs; that of this Python if there is no other."""
    if given := os.environ.get("MATCOMPUTE_VALIDATORS"):
        return Path(given)
    return _OWN if _OWN.is_dir() else Path(sys.executable).parent


def run(program: str, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run one of their programs; ``python`` is that of their environment."""
    return subprocess.run(
        [str(folder() / program), *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300
    )


def _missing(name: str) -> None:
    said = f"{name} is not installed (make .venv-validators/.installed)"
    if folder() == _OWN:
        pytest.fail(said)
    pytest.skip(said)


def need_program(name: str) -> None:
    """Skip or fail if they have no such program."""
    if not (folder() / name).exists():
        _missing(name)


def need_module(name: str, cwd: Path) -> None:
    """Skip or fail if their Python has no such module."""
    if run("python", "-c", f"import {name}", cwd=cwd).returncode:
        _missing(name)


@functools.cache
def _rocrate_cache() -> str:
    if given := os.environ.get("MATCOMPUTE_ROCRATE_CACHE"):
        return given
    scratch = tempfile.mkdtemp(prefix="matcompute-tests-")
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    path = Path(scratch) / "contexts"
    done = run("python", _HERE / "fill_rocrate_cache.py", path, cwd=_HERE)
    assert done.returncode == 0, done.stderr
    return str(path)


def rocrate(crate: Path, profile: str) -> tuple[bool, str]:
    """Validate a crate with every requirement of a profile, without a network; return the verdict and the report."""
    need_program("rocrate-validator")
    need_module("rocrate", crate)
    words = [
        "-y",
        "--disable-color",
        "validate",
        "-p",
        profile,
        "--no-paging",
        "-v",
        "-f",
        "text",
        "--offline",
    ]
    done = run("rocrate-validator", *words, "--cache-path", _rocrate_cache(), crate, cwd=crate.parent)
    return done.returncode == 0, done.stdout + done.stderr
