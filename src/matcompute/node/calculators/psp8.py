"""Norm-conserving pseudopotentials in the format psp8: which elements a folder has, and the digests of the files.

The format is described at https://docs.abinit.org/developers/psp8_info/. Only the first three lines are read here:
title; ``zatom zion pspd``; ``pspcod pspxc …``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import util
from pathlib import Path

from matcompute.node.adapters import file_sha256
from matcompute.node.errors import ModelError

__all__ = ["Psp8", "psp8_files", "set_sha256", "shipped_folder"]

#: ``pspcod`` of the format.
_FORMAT = 8
#: ``pspxc`` of PBE: ABINIT's own number, and that of libxc (exchange 101, correlation 130).
_PBE = {11, -101130}


@dataclass(frozen=True)
class Psp8:
    """One file.

    Parameters
    ----------
    symbol
        Element.
    path
        The file.
    valence
        Number of electrons that are not in the core.
    """

    symbol: str
    path: Path
    valence: float

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return _sha256(self.path)


@cache
def _sha256(path: Path) -> str:
    return file_sha256(path)


def shipped_folder() -> Path | None:
    """Return the folder of the PBE set that is in the wheel of ``sparc-x-api``, or None if that is not installed.

    The SPMS set: M. F. Shojaei, J. E. Pask, A. J. Medford, P. Suryanarayana, Comput. Phys. Commun. 283, 108594 (2023).
    """
    spec = util.find_spec("sparc")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "psp"
    return folder if any(folder.glob("*.psp8")) else None


@cache
def psp8_files(folder: Path) -> Mapping[str, Psp8]:
    """Return symbol → file of every PBE pseudopotential in a folder.

    Raises
    ------
    ModelError
        If the folder cannot be read, a file is no psp8 file, or two files are for one element.
    """
    found: dict[str, Psp8] = {}
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".psp8")
    except OSError as error:
        raise ModelError(
            f"folder of pseudopotentials {folder} cannot be read: {error.strerror}",
            hint="name a folder of psp8 files in 'pseudopotentials'",
        ) from error
    for path in paths:
        one = _read(path)
        if one is None:
            continue
        if one.symbol in found:
            raise ModelError(
                f"{folder} has two files for {one.symbol}: {found[one.symbol].path.name} and {path.name}",
                hint="keep one of them",
            )
        found[one.symbol] = one
    return found


def _read(path: Path) -> Psp8 | None:
    """Return what a file is for; None for another functional."""
    from matcompute_kernels.elements import SYMBOLS

    try:
        with path.open(encoding="utf-8", errors="replace") as handle:
            lines = [next(handle).split() for _ in range(3)]
        atomic, valence = float(lines[1][0]), float(lines[1][1])
        kind, functional = int(lines[2][0]), int(lines[2][1])
        symbol = SYMBOLS[round(atomic)]
        if kind != _FORMAT:
            raise ValueError(f"pspcod is {kind}")
    except (StopIteration, ValueError, IndexError) as error:
        raise ModelError(
            f"{path} is no psp8 file: {error or 'it ends too soon'}",
            hint="keep psp8 files only in this folder",
        ) from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    return Psp8(symbol, path, valence) if functional in _PBE else None


def set_sha256(files: Mapping[str, Psp8], symbols: Iterable[str]) -> str:
    """Return one SHA-256 for the files of some elements: of the lines ``symbol sha256``, sorted; empty for none."""
    lines = [f"{symbol} {files[symbol].sha256}\n" for symbol in sorted(symbols)]
    return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else ""
