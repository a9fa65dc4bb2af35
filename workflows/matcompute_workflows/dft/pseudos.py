"""Families of pseudopotentials in the AiiDA profile: installed from a folder, an archive or a known set, and checked.

The families are those of aiida-pseudo, so ``aiida-pseudo list`` and every plugin see them. What is added here: the
SHA-256 of each file, a default family, and cutoffs for files that recommend none.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcompute.errors import InputError, MatcomputeError, did_you_mean

if TYPE_CHECKING:
    from aiida_pseudo.groups.family import CutoffsPseudoPotentialFamily

__all__ = ["Family", "Potential", "describe", "families", "find", "install", "known_sets", "sha256_of"]

#: Extras of a family and of a potential.
_DEFAULT, _SHA256, _ABOUT = "matcompute_default", "sha256", "matcompute"
#: Cutoffs of wavefunctions and density in Ry where neither the file nor the user gives any: safe for most elements.
_GUESS = {"NC": (80.0, 320.0), "US": (50.0, 400.0), "PAW": (50.0, 400.0)}
_STRINGENCY = "normal"


class PseudoError(MatcomputeError):
    """A family of pseudopotentials cannot be installed or used."""


@dataclass(frozen=True)
class Potential:
    """A file of a family.

    Attributes
    ----------
    element, file
        Symbol, and name of the file that was installed.
    sha256, md5
        Of its content.
    z_valence
        Electrons that it leaves.
    cutoff_wfc, cutoff_rho
        Recommended, in Ry.
    cutoff_source
        ``file``, ``given``, ``set`` or ``guessed``.
    """

    element: str
    file: str
    sha256: str
    md5: str
    z_valence: float
    cutoff_wfc: float
    cutoff_rho: float
    cutoff_source: str = ""


@dataclass(frozen=True)
class Family:
    """A family: its name, whether it is the default, and its potentials by symbol."""

    name: str
    default: bool
    source: str
    functional: str
    potentials: Mapping[str, Potential]


@cache
def known_sets() -> dict[str, Any]:
    """Return the sets that can be installed by name."""
    import yaml

    text = (resources.files("matcompute_workflows.dft") / "pseudo_sets.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def families() -> list[Family]:
    """Return the families of the loaded profile, the default one first."""
    return sorted((describe(group) for group in _groups()), key=lambda f: (not f.default, f.name))


def _groups() -> list[Any]:
    from aiida.orm import QueryBuilder
    from aiida.plugins import GroupFactory

    groups: list[Any] = QueryBuilder().append(GroupFactory("pseudo.family")).all(flat=True)
    return groups


def find(name: str | None = None) -> CutoffsPseudoPotentialFamily:
    """Return a family of the loaded profile: by name, else the default, else the only one.

    Raises
    ------
    InputError
        If there is none, or several and none of them is the default.
    """
    groups = {group.label: group for group in _groups()}
    hint = "install one: matcompute pseudo install FOLDER --name NAME"
    if name is not None:
        if name not in groups:
            raise InputError(f"no pseudopotential family '{name}'{did_you_mean(name, groups)}", hint=hint)
        return groups[name]
    chosen = [group for group in groups.values() if group.base.extras.get(_DEFAULT, False)]
    if len(chosen) == 1:
        return chosen[0]
    if len(groups) == 1:
        return next(iter(groups.values()))
    if not groups:
        raise InputError("no pseudopotential family is installed in this workspace", hint=hint)
    raise InputError(
        f"several pseudopotential families are installed: {', '.join(sorted(groups))}",
        hint="name one in the calculator's `pseudo_family`, or: matcompute pseudo install … --default",
    )


def describe(family: Any) -> Family:
    """Return what is known of a family."""
    about = dict(family.base.extras.get(_ABOUT, {}))
    sources = about.get("cutoff_sources", {})
    cutoffs = _cutoffs(family)
    found = {}
    for pseudo in sorted(family.nodes, key=lambda node: node.element):
        wfc, rho = cutoffs.get(pseudo.element, (float("nan"), float("nan")))
        found[pseudo.element] = Potential(
            pseudo.element,
            about.get("files", {}).get(pseudo.element, pseudo.filename),
            sha256_of(pseudo),
            pseudo.md5,
            float(getattr(pseudo, "z_valence", 0.0) or 0.0),
            wfc,
            rho,
            sources.get(pseudo.element, ""),
        )
    return Family(
        family.label,
        bool(family.base.extras.get(_DEFAULT, False)),
        str(about.get("source", family.description or "")),
        str(about.get("functional", "")),
        found,
    )


def _cutoffs(family: Any) -> dict[str, tuple[float, float]]:
    get = getattr(family, "get_cutoffs", None)
    if get is None or family.get_default_stringency() is None:
        return {}
    unit = family.get_cutoffs_unit()
    factor = {"Ry": 1.0, "Eh": 2.0, "eV": 1.0 / 13.605693122994}[unit]
    return {
        element: (factor * values["cutoff_wfc"], factor * values["cutoff_rho"])
        for element, values in get().items()
    }


def sha256_of(pseudo: Any) -> str:
    """Return the SHA-256 of a potential's file, noted with its node."""
    known = pseudo.base.extras.get(_SHA256, None)
    if known is None:
        known = hashlib.sha256(pseudo.get_content().encode("utf-8")).hexdigest()
        if pseudo.is_stored:
            pseudo.base.extras.set(_SHA256, known)
    return str(known)


def install(
    source: str | Path,
    *,
    name: str | None = None,
    cutoffs: Mapping[str, Sequence[float]] | None = None,
    default: bool = False,
    functional: str = "",
) -> Family:
    """Install a family in the loaded profile.

    Parameters
    ----------
    source
        A folder of UPF files (one an element), an archive of such a folder, or a known set.
    name
        Label of the family; the set's or the folder's name by default.
    cutoffs
        Symbol → cutoffs of wavefunctions and density in Ry, in place of what the files recommend.
    default
        Use it where a campaign names no family.
    functional
        For the record, such as ``PBE``.

    Raises
    ------
    PseudoError
        If a file is no UPF file, two are of one element, a known set's file is missing or is another one, or there is
        a family of that name with other files.
    """
    text = str(source)
    known = known_sets()
    if text in known and not Path(text).exists():
        chosen = known[text]
        files = _files_of_set(text, chosen)
        given = {element: item["cutoffs"] for element, item in chosen["files"].items()}
        label, functional, origin = name or text, functional or chosen["functional"], chosen["title"]
        return _install(label, files, {**given, **(cutoffs or {})}, "set", default, functional, origin)
    path = Path(source)
    if not path.exists():
        raise PseudoError(
            f"no such folder, archive or known set: {text}{did_you_mean(text, known)}",
            hint=f"known sets: {', '.join(known)}; published families (SSSP, PseudoDojo): aiida-pseudo install",
        )
    with _unpacked(path) as folder:
        files = _files_in(folder)
        label = name or path.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".zip").removesuffix(
            ".tgz"
        )
        return _install(label, files, cutoffs or {}, "given", default, functional, path.name)


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield path
        return
    import shutil

    with tempfile.TemporaryDirectory(prefix="matcompute-pseudo-") as folder:
        try:
            # Names that leave the folder, links and devices are refused.
            kind = {"filter": "data"} if ".zip" not in path.suffixes else {}
            shutil.unpack_archive(str(path), folder, **kind)  # type: ignore[arg-type]
        except (shutil.ReadError, OSError, ValueError) as error:
            raise PseudoError(f"{path} is neither a folder nor an archive: {error}") from error
        yield Path(folder)


def _files_in(folder: Path) -> dict[str, Path]:
    from aiida_pseudo.data.pseudo import UpfData

    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() == ".upf"):
        try:
            element = UpfData(path).element
        except (ValueError, OSError) as error:
            raise PseudoError(f"{path} is no UPF file: {error}", hint="take it out of the folder") from error
        if element in found:
            raise PseudoError(
                f"two potentials of {element}: {found[element].name} and {path.name}",
                hint="leave one of them in the folder: a family has one potential an element",
            )
        found[element] = path
    if not found:
        raise PseudoError(f"no file *.upf in {folder}")
    return found


def _files_of_set(name: str, chosen: Mapping[str, Any]) -> dict[str, Path]:
    folders = [Path(folder) for folder in chosen["folders"]]
    found = {}
    for element, item in chosen["files"].items():
        path = next((f / item["file"] for f in folders if (f / item["file"]).is_file()), None)
        if path is None:
            raise PseudoError(
                f"set '{name}': {item['file']} is not in {', '.join(map(str, folders))}", hint=chosen["how"]
            )
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != item["sha256"]:
            raise PseudoError(
                f"set '{name}': {path} is another file than the set names (SHA-256 {digest[:12]}…, expected "
                f"{item['sha256'][:12]}…)",
                hint="copy the files that you want into a folder and install that",
            )
        found[element] = path
    return found


def _install(
    label: str,
    files: Mapping[str, Path],
    cutoffs: Mapping[str, Sequence[float]],
    source: str,
    default: bool,
    functional: str,
    origin: str,
) -> Family:
    from aiida_pseudo.data.pseudo import UpfData
    from aiida_pseudo.groups.family import CutoffsPseudoPotentialFamily

    unknown = sorted(set(cutoffs) - set(files))
    if source == "given" and unknown:
        raise PseudoError(f"cutoffs are given for {', '.join(unknown)}, of which there is no potential")
    existing = {group.label: group for group in _groups()}.get(label)
    values, sources = {}, {}
    for element, path in files.items():
        values[element], sources[element] = _choose_cutoffs(element, path, cutoffs, source)
    if existing is None:
        with tempfile.TemporaryDirectory(prefix="matcompute-pseudo-") as name:
            folder = Path(name)
            for element, path in files.items():
                (folder / f"{element}.upf").write_bytes(path.read_bytes())
            family = CutoffsPseudoPotentialFamily.create_from_folder(folder, label, pseudo_type=UpfData)
    else:
        family = existing
        before = {node.element: sha256_of(node) for node in family.nodes}
        now = {element: _digest(path) for element, path in files.items()}
        if before != now:
            changed = sorted(e for e in set(before) | set(now) if before.get(e) != now.get(e))
            raise PseudoError(
                f"there is a family '{label}' with other potentials ({', '.join(changed)})",
                hint="give this one another --name: what was computed keeps pointing to what it used",
            )
    family.set_cutoffs(
        {e: {"cutoff_wfc": wfc, "cutoff_rho": rho} for e, (wfc, rho) in values.items()},
        _STRINGENCY,
        unit="Ry",
    )
    family.base.extras.set(
        _ABOUT,
        {
            "source": origin,
            "functional": functional,
            "files": {element: path.name for element, path in files.items()},
            "cutoff_sources": sources,
        },
    )
    if default:
        for group in _groups():
            if group.base.extras.get(_DEFAULT, False):
                group.base.extras.set(_DEFAULT, False)
        family.base.extras.set(_DEFAULT, True)
    return describe(family)


def _digest(path: Path) -> str:
    # As sha256_of: of the text that AiiDA keeps.
    return hashlib.sha256(path.read_bytes().decode("utf-8").encode("utf-8")).hexdigest()


_HEAD = 200_000
_PATTERNS = {
    "wfc": (r'wfc_cutoff\s*=\s*"?\s*([0-9.eE+-]+)', r"cutoff for wavefunctions:\s*([0-9.]+)\s*Ry"),
    "rho": (r'rho_cutoff\s*=\s*"?\s*([0-9.eE+-]+)', r"cutoff for charge density:\s*([0-9.]+)\s*Ry"),
}


def _choose_cutoffs(
    element: str, path: Path, given: Mapping[str, Sequence[float]], source: str
) -> tuple[tuple[float, float], str]:
    if element in given:
        wfc, rho = (float(value) for value in given[element])
        if not 0 < wfc <= rho:
            raise PseudoError(
                f"cutoffs of {element}: expected 0 < wavefunctions ≤ density in Ry, found {wfc:g} and {rho:g}"
            )
        return (wfc, rho), source
    text = path.read_text(encoding="utf-8", errors="replace")[:_HEAD]
    wfc, rho = (_first(text, _PATTERNS[key]) for key in ("wfc", "rho"))
    kind = _kind(text)
    if wfc > 0:
        least = 4.0 if kind == "NC" else 8.0
        return (wfc, max(rho, least * wfc)), "file"
    return _GUESS[kind], "guessed"


def _first(text: str, patterns: Sequence[str]) -> float:
    for pattern in patterns:
        for match in re.finditer(pattern, text, re.IGNORECASE):
            value = float(match.group(1))
            if value > 0:
                return value
    return 0.0


def _kind(text: str) -> str:
    if re.search(r'is_paw\s*=\s*"(true|\.?T)', text, re.IGNORECASE):
        return "PAW"
    if re.search(r'is_ultrasoft\s*=\s*"(true|\.?T)|^\s*US\s+Ultrasoft', text, re.IGNORECASE | re.MULTILINE):
        return "US"
    return "NC"
