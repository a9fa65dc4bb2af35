"""POTCAR families of the loaded profile, by aiida-vasp's own mechanism.

The files are licensed: they stay in the profile as ``PotcarFileData``, which no calculation is linked to. Calculations
take ``PotcarData``, which holds titles and checksums only, so exported provenance contains no potential.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from matcompute.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from aiida_vasp.data.potcar import PotcarGroup

    from matcompute_workflows.dft.vasp_parameters import VaspParameters

__all__ = ["Potcar", "chosen_names", "find", "potentials", "select"]

_HOW = (
    "upload your licensed files in the workspace's profile: "
    "aiida-vasp potcar uploadfamily --path FOLDER --name NAME --description TEXT"
)


@dataclass(frozen=True)
class Potcar:
    """A potential of a family.

    Attributes
    ----------
    name, title
        Of the folder (``Fe_pv``), and the line TITEL.
    sha512
        Of its content with white space normalised, as the plugin counts it.
    enmax
        Cutoff that it needs in eV.
    """

    name: str
    title: str
    sha512: str
    enmax: float


def find(name: str | None = None) -> PotcarGroup:
    """Return a family of the loaded profile: by name, else the only one.

    Raises
    ------
    InputError
        If there is none, or several and no name.
    """
    from aiida.orm import QueryBuilder
    from aiida_vasp.data.potcar import PotcarGroup

    groups = {group.label: group for group in QueryBuilder().append(PotcarGroup).all(flat=True)}
    if name is not None:
        if name not in groups:
            there = f"there are: {', '.join(sorted(groups))}" if groups else _HOW
            raise InputError(f"no family of POTCAR files '{name}'{did_you_mean(name, groups)}", hint=there)
        return groups[name]
    if not groups:
        raise InputError("there is no family of POTCAR files in this workspace", hint=_HOW)
    if len(groups) > 1:
        raise InputError(
            f"there are several families of POTCAR files: {', '.join(sorted(groups))}",
            hint="name one: calculator {vasp: {potential_family: …}}",
        )
    return next(iter(groups.values()))


@cache
def _plugin_names() -> Mapping[str, str]:
    """Return the plugin's choice of a potential for each symbol."""
    from importlib import resources

    import yaml

    text = (resources.files("aiida_vasp.protocols") / "vasp.yaml").read_text(encoding="utf-8")
    found: dict[str, str] = yaml.safe_load(text)["default_potential_mapping"]
    return found


def chosen_names(parameters: VaspParameters) -> dict[str, str]:
    """Return symbol → name of its POTCAR: the plugin's choice where the parameters have none."""
    return {**_plugin_names(), **parameters.potentials}


def potentials(parameters: VaspParameters) -> dict[str, Potcar]:
    """Return symbol → potential, of those symbols whose POTCAR is in the family with its file.

    Raises
    ------
    InputError
        If there is no such family, or a potential is not one of PBE.
    """
    group = find(parameters.potential_family)
    return dict(_read(group.uuid, group.count(), tuple(sorted(chosen_names(parameters).items()))))


def select(parameters: VaspParameters, symbols: Sequence[str]) -> dict[str, Potcar]:
    """Return symbol → potential for a structure.

    Raises
    ------
    InputError
        If the family has none of an element, or one needs a higher cutoff than the stage has.
    """
    from matcompute_workflows.dft.vasp_parameters import resolved

    found, names = potentials(parameters), chosen_names(parameters)
    missing = sorted(symbol for symbol in symbols if symbol not in found)
    if missing:
        wanted = ", ".join(f"{symbol} ({names.get(symbol, symbol)})" for symbol in missing)
        raise InputError(
            f"the family '{find(parameters.potential_family).label}' has no POTCAR of {wanted}",
            hint="choose another one in `potentials`, upload it, or leave these elements out",
        )
    mine = {symbol: found[symbol] for symbol in symbols}
    cutoff = float(resolved(parameters)["cutoff"])
    symbol, hardest = max(mine.items(), key=lambda item: item[1].enmax)
    if hardest.enmax > cutoff:
        raise InputError(
            f"{hardest.name} needs a cutoff of {hardest.enmax:g} eV, and this stage has {cutoff:g} eV",
            hint=f"give the whole stage `cutoff_wfc: {5 * -(-hardest.enmax // 5):g} eV`, or {symbol} a softer POTCAR "
            "in `potentials`",
        )
    return mine


@lru_cache(maxsize=8)
def _read(_uuid: str, _count: int, names: tuple[tuple[str, str], ...]) -> tuple[tuple[str, Potcar], ...]:
    from aiida.orm import load_group

    by_name: dict[str, Any] = {}
    for node in load_group(_uuid).nodes:
        by_name.setdefault(node.full_name, node)
    found = []
    for symbol, name in names:
        node = by_name.get(name)
        if node is None or node.element != symbol:
            continue
        text = _content(node)
        if text is None:
            continue
        if not str(node.title).startswith("PAW_PBE"):
            raise InputError(
                f"the POTCAR {name} is '{node.title}', which was not made for PBE",
                hint="use a family of PAW_PBE potentials",
            )
        match = re.search(r"ENMAX\s*=\s*([0-9.]+)", text)
        enmax = 0.0 if match is None else float(match.group(1))
        found.append((symbol, Potcar(name, str(node.title), str(node.sha512), enmax)))
    return tuple(found)


def _content(node: Any) -> str | None:
    """Return the head of a potential; None where only its checksum was imported, so that nothing can be computed."""
    from aiida.common.exceptions import NotExistent

    try:
        content: bytes = node.find_file_node().get_content()
    except NotExistent:
        return None
    return content[:20_000].decode("utf-8", "replace")
