"""Parameters of the calculator ``vasp``, and what they come to as INCAR tags."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from matcompute.errors import did_you_mean
from matcompute_workflows.dft.protocols import hubbard_u, protocol
from matcompute_workflows.dft.qe_parameters import pools

if TYPE_CHECKING:
    from matcompute_workflows.dft.adapter import Prepared

__all__ = ["VaspParameters", "incar", "magmom", "parallel", "resolved", "u_mapping"]

#: Names of GGA for tags, by functional.
_GGA = {"PBE": "PE", "PBEsol": "PS"}
_ISMEAR = {"gaussian": 0, "methfessel-paxton": 1, "fermi-dirac": -1}
#: Tags that the task, or keys of their own, decide.
_TAKEN = {
    *("encut", "ediff", "ediffg", "nsw", "ibrion", "isif", "pstress", "ismear", "sigma", "ispin", "magmom"),
    *("nelm", "gga", "kspacing", "kgamma", "ldau", "ldauu", "ldauj", "ldaul", "ldautype", "system", "lorbit"),
}


class VaspParameters(BaseModel):
    """Parameters of the calculator ``vasp``; what is not given is the protocol's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: Literal["fast", "balanced", "stringent"] = Field(
        "balanced", description="How well converged, and at what cost."
    )
    potential_family: str | None = Field(
        None,
        description="Family of POTCAR files (aiida-vasp potcar listfamilies); by default the profile's only one.",
    )
    potentials: dict[str, str] = Field(
        default_factory=dict,
        description="Symbol → name of its POTCAR where it is not the plugin's choice: {Fe: Fe, Li: Li}.",
    )
    functional: Literal["PBE", "PBEsol"] = Field("PBE", description="Exchange and correlation.")
    cutoff_wfc: float | None = Field(
        None, gt=0, description="Cutoff of the wavefunctions (ENCUT).", json_schema_extra={"unit": "eV"}
    )
    kpoint_spacing: float | None = Field(
        None,
        gt=0,
        description="Largest distance of neighbouring k-points, 2π contained.",
        json_schema_extra={"unit": "1/angstrom"},
    )
    smearing: Literal["gaussian", "methfessel-paxton", "fermi-dirac"] | None = Field(
        None, description="Kind of smearing (ISMEAR)."
    )
    degauss: float | None = Field(
        None, gt=0, description="Its width (SIGMA).", json_schema_extra={"unit": "eV"}
    )
    spin: Literal["auto", "none", "collinear"] = Field(
        "auto", description="auto: collinear where there is a moment to start from."
    )
    magmoms: Literal["auto", "elements"] = Field(
        "auto", description="Starting moments; auto: those of an earlier stage, else by element."
    )
    hubbard: Literal["auto", "none"] | dict[str, float] = Field(
        "none",
        description="DFT+U: none, auto (the Materials Project's table, in oxides and fluorides), or symbol → U in eV.",
    )
    scf_steps: int = Field(100, ge=1, description="At most so many steps of one self-consistency (NELM).")
    incar: dict[str, Any] = Field(default_factory=dict, description="Further tags of INCAR: {ALGO: All}.")
    remote: Literal["clean", "keep"] = Field(
        "clean", description="What becomes of a structure's folders at the centre when it has ended well."
    )

    @field_validator("incar")
    @classmethod
    def _free(cls, value: dict[str, Any]) -> dict[str, Any]:
        tags = {key.lower(): item for key, item in value.items()}
        taken = sorted(set(tags) & _TAKEN)
        if taken:
            raise ValueError(
                f"{', '.join(tag.upper() for tag in taken)}: has a key of its own in this file, or is the task's to set"
            )
        known = _known_tags() if tags else frozenset()
        for tag in tags:
            if known and tag not in known:
                raise ValueError(
                    f"INCAR has no tag '{tag.upper()}'{did_you_mean(tag.upper(), map(str.upper, known))}"
                )
        return tags


@cache
def _known_tags() -> frozenset[str]:
    """Return the tags that the plugin knows, in lower case; none without the plugin."""
    try:
        text = (resources.files("aiida_vasp.assistant") / "parameters.yml").read_text(encoding="utf-8")
    except ModuleNotFoundError:
        return frozenset()
    return frozenset(str(tag).lower() for tag in yaml.safe_load(text))


def resolved(parameters: VaspParameters) -> dict[str, Any]:
    """Return the protocol's values with the parameters that override them."""
    given = {name: getattr(parameters, name) for name in ("kpoint_spacing", "smearing", "degauss")}
    return protocol("vasp", parameters.protocol, {**given, "cutoff": parameters.cutoff_wfc})


def incar(
    parameters: VaspParameters,
    prepared: Prepared,
    *,
    f_states: bool = False,
    ranks: int = 0,
    n_kpoints: int = 1,
) -> dict[str, Any]:
    """Return the tags of INCAR that do not depend on the task, in lower case as the plugin wants them.

    Parameters
    ----------
    parameters
        Of the calculator.
    prepared
        The structure and its moments.
    f_states
        Whether a potential has f electrons in its valence.
    ranks, n_kpoints
        MPI ranks of a job, and k-points that symmetry leaves: they decide KPAR and NCORE.
    """
    values = resolved(parameters)
    n = len(prepared.node.sites)
    tags: dict[str, Any] = {
        "prec": values["prec"],
        "encut": values["cutoff"],
        # For the whole cell; the protocol's is for each atom.
        "ediff": float(f"{values['energy_threshold'] * n:.3g}"),
        "algo": values["algo"],
        "nelm": parameters.scf_steps,
        "ismear": _ISMEAR[values["smearing"]],
        "sigma": values["degauss"],
        "gga": _GGA[parameters.functional],
        # Gradients inside the spheres: what DFT+U and 3d elements need, and costs little.
        "lasph": True,
        "lreal": False,
        # WAVECAR is what an interrupted calculation goes on from.
        "lwave": True,
        "lcharg": False,
    }
    moments = magmom(parameters, prepared)
    if moments is not None:
        tags |= {"ispin": 2, "magmom": moments}
        if not f_states:
            # The moments of the sites are written, and with them projections on s, p and d. parsevasp (3.4) cannot
            # read a file with other numbers of projections: not those of LORBIT = 10, and not those with f.
            tags["lorbit"] = 11
    tags |= parallel(ranks, n_kpoints)
    return {**tags, **parameters.incar}


def magmom(parameters: VaspParameters, prepared: Prepared) -> list[float] | None:
    """Return the starting moment of each site in μ_B; None: not spin-polarised.

    Sites, not kinds: VASP's output knows only elements, so the kinds are lost after the first relaxation.
    """
    if parameters.spin == "none" or (prepared.moments is None and parameters.spin == "auto"):
        return None
    given = prepared.moments or {}
    # A site that starts without any moment would stay without: it gets a little one.
    return [round(float(given.get(site.kind_name, 0.0)) or 0.1, 3) for site in prepared.node.sites]


def u_mapping(parameters: VaspParameters, prepared: Prepared) -> dict[str, Any] | None:
    """Return the plugin's ``ldau_mapping`` by kind and by symbol; None without DFT+U."""
    if parameters.hubbard == "none":
        return None
    symbols = {kind.symbol for kind in prepared.node.kinds}
    given = None if parameters.hubbard == "auto" else parameters.hubbard
    table: Mapping[str, tuple[str, float]] = hubbard_u(symbols, given)
    names = {**{symbol: symbol for symbol in symbols}, **{k.name: k.symbol for k in prepared.node.kinds}}
    mapping = {name: [table[s][0][-1], table[s][1]] for name, s in names.items() if s in table}
    if not mapping:
        return None
    return {"mapping": mapping, "utype": 2, "felec": any(orbital == "f" for orbital, _ in mapping.values())}


def parallel(ranks: int, n_kpoints: int) -> dict[str, int]:
    """Return KPAR and NCORE: groups of k-points first, then the bands of a group over about the root of its ranks."""
    if ranks < 2:
        return {}
    kpar = pools(ranks, n_kpoints)
    each = ranks // kpar
    return {"kpar": kpar, "ncore": max(n for n in range(1, each + 1) if each % n == 0 and n * n <= each)}
