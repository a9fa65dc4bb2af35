"""Files by name or glob, always in the same order."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from matcompute.errors import InputError, did_you_mean

__all__ = ["find_files"]


def find_files(patterns: Sequence[str], base_dir: Path) -> list[Path]:
    """Return the files that names or globs (``**`` included) stand for, each once, sorted within a pattern.

    Raises
    ------
    InputError
        If a name or a glob finds nothing; near names in the folder are given.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        full = Path(base_dir, Path(pattern).expanduser()).absolute()
        if full.is_file():
            found[full] = None
            continue
        matches = sorted(Path(name) for name in glob.glob(str(full), recursive=True))  # noqa: PTH207 (absolute patterns)
        files = [path for path in matches if path.is_file()]
        if not files:
            raise InputError(f"no file matches '{pattern}'{_near(full)}", hint=f"paths start from {base_dir}")
        found.update(dict.fromkeys(files))
    return list(found)


def _near(full: Path) -> str:
    if full.is_dir():
        return f": it is a folder; write '{full.name}/*'"
    folder = full.parent
    if "*" in full.name or not folder.is_dir():
        return "" if folder.is_dir() or "*" in str(folder) else f": there is no folder {folder.name}"
    hint = did_you_mean(full.name, [path.name for path in folder.iterdir()])
    return hint if "did you mean" in hint else ""
