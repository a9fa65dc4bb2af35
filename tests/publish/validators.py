"""The validators of others: where they are, and how they are called.

They live in an environment of their own (``validators.txt``), ``.venv-validators`` in the checkout, or in the folder of
programs that MATCOMPUTE_VALIDATORS names. Tests skip what is not installed.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def folder() -> Path:
    """Return the folder of their programs; that of this Python if there is no other."""
    if given := os.environ.get("MATCOMPUTE_VALIDATORS"):
        return Path(given)
    own = _HERE.parents[1] / ".venv-validators" / "bin"
    return own if own.is_dir() else Path(sys.executable).parent


def run(program: str, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run one of their programs; ``python`` is that of their environment."""
    return subprocess.run(
        [str(folder() / program), *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300
    )


def need_program(name: str) -> None:
    if not (folder() / name).exists():
        pytest.skip(f"{name} is not installed (make .venv-validators/.installed)")


def need_module(name: str, cwd: Path) -> None:
    if run("python", "-c", f"import {name}", cwd=cwd).returncode:
        pytest.skip(f"{name} is not installed (make .venv-validators/.installed)")


@functools.cache
def _rocrate_cache() -> str:
    if given := os.environ.get("MATCOMPUTE_ROCRATE_CACHE"):
        return given
    path = Path(tempfile.mkdtemp(prefix="matcompute-tests-")) / "contexts"
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
