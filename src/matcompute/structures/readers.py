"""Reading structure files frame by frame, with the line of each frame; one bad frame never hides the others."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["Frame", "Unreadable", "count_frames", "read_frames"]


@dataclass
class Frame:
    """A structure and the 1-based line where it begins."""

    atoms: Atoms
    line: int
    label: str = ""


@dataclass
class Unreadable:
    """In place of a structure that could not be read (line 0: the whole file)."""

    cause: str
    line: int
    reason: str
    label: str = ""


_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_DATA = re.compile(r"data_(\S*)", re.IGNORECASE)


def _open_text(path: Path) -> TextIO:
    opener = _OPENERS.get(path.suffix)
    if opener is None:
        return path.open(encoding="utf-8", errors="replace")
    stream: TextIO = opener(path, "rt", encoding="utf-8", errors="replace")
    return stream


def _format(name: str, given: str | None) -> str:
    if given is not None:
        return given
    suffix = Path(name).suffix
    lower = (name.removesuffix(suffix) if suffix in _OPENERS else name).lower()
    if lower.endswith((".extxyz", ".xyz")):
        return "extxyz"
    if lower.endswith((".cif", ".mcif")):
        return "cif"
    if lower.endswith((".poscar", ".vasp")) or lower.startswith(("poscar", "contcar")):
        return "vasp"
    return ""


def read_frames(path: Path, form: str | None = None, name: str | None = None) -> Iterator[Frame | Unreadable]:
    """Yield every structure of a file in its order; what cannot be read comes as :class:`Unreadable`.

    Parameters
    ----------
    path
        Any file that ASE reads, or else pymatgen; ``.gz``, ``.bz2`` and ``.xz`` too.
    form
        ASE format name; found out from the name and content if not given.
    name
        The file's own name, where ``path`` is a copy under another one.
    """
    kind = _format(Path(name or path).name, form)
    try:
        if kind == "extxyz":
            yield from _extxyz(path)
        elif kind == "cif":
            yield from _cif(path)
        else:
            with _under_its_name(path, name) as own:
                yield from _other(own, kind or None)
    except (OSError, EOFError, lzma.LZMAError) as error:
        yield Unreadable("unreadable", 0, _short(error))


def count_frames(path: Path, form: str | None = None, name: str | None = None) -> int:
    """Return how many frames :func:`read_frames` will yield; extended XYZ is only scanned, not parsed."""
    if _format(Path(name or path).name, form) == "extxyz":
        try:
            return sum(1 for _ in _xyz_texts(path))
        except (OSError, EOFError, lzma.LZMAError):
            return 1
    return sum(1 for _ in read_frames(path, form, name))


@contextmanager
def _under_its_name(path: Path, name: str | None) -> Iterator[Path]:
    """Give a copy its own name back: readers go by names such as OUTCAR, not only by content."""
    wanted = Path(name or path).name
    if wanted == path.name:
        yield path
        return
    with TemporaryDirectory(prefix="matcompute-source-") as folder:
        link = Path(folder) / wanted
        link.symlink_to(path.absolute())
        yield link


def _short(error: BaseException) -> str:
    """Return an exception as one line; readers raise all kinds, some with no text."""
    if isinstance(error, KeyError) and error.args:
        return f"'{error.args[0]}' is missing or unknown"
    text = " ".join(str(error).split())
    return (text if len(text) <= 200 else text[:197] + "…") or type(error).__name__


# ---------------------------------------------------------------------------- extended XYZ


def _xyz_texts(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line, text, error) of each frame; after an error the rest of the file cannot be cut into frames."""
    with _open_text(path) as stream:
        line = 0
        while first := stream.readline():
            line += 1
            if not first.strip():
                continue
            start = line
            try:
                count = int(first.split()[0])
                if count < 0:
                    raise ValueError
            except ValueError:
                yield (
                    start,
                    "",
                    f"expected a number of atoms, found '{first.strip()[:40]}'; the rest is not read",
                )
                return
            rows = [first]
            for _ in range(count + 1):
                row = stream.readline()
                if not row:
                    break
                rows.append(row)
            line += len(rows) - 1
            if len(rows) < count + 2:
                yield start, "", f"the file ends after {max(len(rows) - 2, 0)} of {count} atoms"
                return
            yield start, "".join(rows), ""


def _extxyz(path: Path) -> Iterator[Frame | Unreadable]:
    from ase.io.extxyz import read_xyz

    for line, text, problem in _xyz_texts(path):
        if problem:
            yield Unreadable("unreadable", line, problem)
            continue
        if int(text.split(maxsplit=1)[0]) == 0:
            yield Unreadable("no_atoms", line, "it has no atoms")
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                atoms = next(read_xyz(io.StringIO(text), index=0))
        except KeyError as error:  # ASE looks the symbol up in a table
            yield Unreadable("unknown_species", line, f"'{error.args[0]}' is not a chemical symbol")
        except Exception as error:
            yield Unreadable("unreadable", line, _short(error))
        else:
            yield Frame(atoms, line, _label(atoms))


def _label(atoms: Atoms) -> str:
    for key in ("id", "name", "label", "material_id"):
        if key in atoms.info:
            return str(atoms.info[key])
    return ""


# ---------------------------------------------------------------------------- CIF


def _cif_texts(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line, name, text) of each data block that holds a structure."""
    start, name = 0, ""
    rows: list[str] = []
    in_text = False
    with _open_text(path) as stream:
        for number, row in enumerate(stream, start=1):
            if row.startswith(";"):  # a text field may hold anything, `data_` too
                in_text = not in_text
            match = None if in_text else _DATA.match(row)
            if match is not None:
                if start:
                    yield start, name, "".join(rows)
                start, name, rows = number, match.group(1), []
            rows.append(row)
    if start:
        yield start, name, "".join(rows)
    elif "".join(rows).strip():
        yield 1, "", "".join(rows)


def _cif(path: Path) -> Iterator[Frame | Unreadable]:
    blocks = 0
    for line, name, text in _cif_texts(path):
        lower = text.lower()
        if "_atom_site" not in lower and "_cell_length" not in lower:
            continue  # publication data beside the structures
        blocks += 1
        yield _cif_block(line, name, text)
    if not blocks:
        yield Unreadable("unreadable", 0, "no data block with a structure")


def _cif_block(line: int, name: str, text: str) -> Frame | Unreadable:
    from ase.io.cif import read_cif

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            atoms = next(iter(read_cif(io.StringIO(text), index=slice(0, 1))))
    except Exception as first:
        try:
            atoms = _pymatgen_cif(text)
        except Exception as second:
            return Unreadable("unreadable", line, f"{_short(first)} (pymatgen: {_short(second)})", name)
        if atoms is None:
            return Unreadable("disordered", line, "sites are shared by species or partly empty", name)
        return Frame(atoms, line, name)
    occupancy = atoms.info.get("occupancy") or {}
    for sites in occupancy.values():
        if len(sites) > 1 or any(abs(value - 1) > 1e-3 for value in sites.values()):
            found = ", ".join(f"{symbol} {value:g}" for symbol, value in sites.items())
            return Unreadable(
                "disordered", line, f"a site holds {found}; an ordered structure is needed", name
            )
    return Frame(atoms, line, name)


def _pymatgen_cif(text: str) -> Atoms | None:
    """Read what ASE refuses; None for a disordered structure."""
    from pymatgen.io.cif import CifParser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = CifParser.from_str(text).parse_structures(primitive=False)[0]
    return structure.to_ase_atoms() if structure.is_ordered else None


# ---------------------------------------------------------------------------- everything else


def _other(path: Path, form: str | None) -> Iterator[Frame | Unreadable]:
    """Read by ASE, else by pymatgen; the first frame begins on line 1, of later ones only the number is known."""
    import ase.io

    number = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for atoms in ase.io.iread(path, index=":", format=form):
                number += 1
                yield Frame(atoms, 1, _label(atoms) or (f"frame {number}" if number > 1 else ""))
    except Exception as first:
        if number:
            yield Unreadable("unreadable", 1, f"after frame {number}: {_short(first)}", f"frame {number + 1}")
            return
        try:
            yield _pymatgen_file(path)
        except Exception as second:
            what = f"neither ASE nor pymatgen reads it: {_short(first)}; {_short(second)}"
            yield Unreadable("unreadable", 0, what)


def _pymatgen_file(path: Path) -> Frame | Unreadable:
    from pymatgen.core import Structure

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = Structure.from_file(path)
    if not structure.is_ordered:
        return Unreadable("disordered", 1, "sites are shared by species or partly empty")
    return Frame(structure.to_ase_atoms(), 1)
