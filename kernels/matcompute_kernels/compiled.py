"""Numba's ``njit`` with a cache on disk that follows every file that a kernel is made of.

Numba keeps a compiled kernel as long as the file that defines it is the same. The compiled code holds the code of the
kernels that it calls, though: after an upgrade that changes only those, the old ones would go on running, with tables
of the new version. Here a kernel is compiled anew when its file or any file of this package that its file imports,
directly or through others, has changed.
"""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numba

__all__ = ["njit"]

_ROOT = Path(__file__).parent
_IMPORT = re.compile(rf"^from {_ROOT.name}\.([\w.]+) import", re.MULTILINE)


def njit(*functions: Any, **options: Any) -> Any:
    """``numba.njit``, to be used in the same way."""
    if not functions:
        return lambda function: njit(function, **options)
    dispatcher = numba.njit(*functions, **options)
    if options.get("cache") and hasattr(dispatcher, "_cache"):  # not under NUMBA_DISABLE_JIT
        file = dispatcher._cache._cache_file
        file._source_stamp = file._source_stamp, _digest(Path(dispatcher.py_func.__code__.co_filename))
    return dispatcher


@cache
def _digest(path: Path) -> str:
    """Digest of the files of this package that a file needs."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        more = _imports(waiting.pop())[1] - found
        found |= more
        waiting += more
    return sha256(b"".join(_imports(file)[0] for file in sorted(found))).hexdigest()


@cache
def _imports(path: Path) -> tuple[bytes, frozenset[Path]]:
    """Digest of a file, and the files of this package that it imports at its top."""
    try:
        text = path.read_text()
    except OSError:  # in an archive: its name has a version
        return b"", frozenset()
    names = (name.replace(".", "/") for name in _IMPORT.findall(text))
    files = (_ROOT / f"{name}{end}" for name in names for end in (".py", "/__init__.py"))
    return sha256(text.encode()).digest(), frozenset(file for file in files if file.is_file())
