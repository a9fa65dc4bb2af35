"""Parameters of the calculator ``qe``, and what they come to for a structure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from matcompute_workflows.dft.protocols import hubbard_u, protocol

if TYPE_CHECKING:
    from matcompute_workflows.dft.adapter import Prepared

__all__ = ["RY", "QeParameters", "pools", "pw_overrides", "resolved"]

#: eV in a Rydberg (CODATA 2018).
RY = 13.605693122994
#: Å in a Bohr radius.
BOHR = 0.529177210903
_OVERRIDDEN = ("kpoint_spacing", "smearing", "degauss")
#: Set by the plugin, or by keys of their own here.
_TAKEN = {
    ("CONTROL", key) for key in ("calculation", "prefix", "outdir", "pseudo_dir", "forc_conv_thr", "nstep")
} | {
    ("SYSTEM", key) for key in ("ibrav", "nat", "ntyp", "ecutwfc", "ecutrho", "nspin", "smearing", "degauss")
}


class QeParameters(BaseModel):
    """Parameters of the calculator ``qe``; what is not given is the protocol's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: Literal["fast", "balanced", "stringent"] = Field(
        "balanced", description="How well converged, and at what cost."
    )
    pseudo_family: str | None = Field(
        None, description="Family of pseudopotentials; by default the workspace's (matcompute pseudo list)."
    )
    cutoff_wfc: float | None = Field(
        None, gt=0, description="Cutoff of the wavefunctions.", json_schema_extra={"unit": "eV"}
    )
    cutoff_rho: float | None = Field(
        None, gt=0, description="Cutoff of the density.", json_schema_extra={"unit": "eV"}
    )
    kpoint_spacing: float | None = Field(
        None,
        gt=0,
        description="Largest distance of neighbouring k-points, 2π contained.",
        json_schema_extra={"unit": "1/angstrom"},
    )
    smearing: Literal["cold", "gaussian", "methfessel-paxton", "fermi-dirac", "fixed"] | None = Field(
        None, description="Kind of smearing; fixed: none, for insulators."
    )
    degauss: float | None = Field(None, gt=0, description="Its width.", json_schema_extra={"unit": "eV"})
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
    scf_steps: int = Field(80, ge=1, description="At most so many steps of one self-consistency.")
    namelists: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Further keywords of pw.x, by namelist: {ELECTRONS: {mixing_beta: 0.3}}.",
    )
    remote: Literal["clean", "keep"] = Field(
        "clean", description="What becomes of a structure's folders at the centre when it has ended well."
    )
    stash: tuple[str, ...] = Field(
        (),
        description="Files of each job that are copied to the centre's storage.stash_dir, such as out/aiida.save.",
    )
    bands: bool = Field(
        True,
        description="Keep the eigenvalues of every calculation in the AiiDA profile (EOS points never do).",
    )

    @field_validator("namelists")
    @classmethod
    def _free(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        known = {"CONTROL", "SYSTEM", "ELECTRONS", "IONS", "CELL"}
        result: dict[str, dict[str, Any]] = {}
        for name, keywords in value.items():
            if name.upper() not in known:
                raise ValueError(f"unknown namelist '{name}'; pw.x has {', '.join(sorted(known))}")
            for key in keywords:
                if (name.upper(), key.lower()) in _TAKEN:
                    raise ValueError(
                        f"{name}.{key} has a key of its own in this file, or is the plugin's to set"
                    )
            result[name.upper()] = {key.lower(): item for key, item in keywords.items()}
        return result


def resolved(parameters: QeParameters) -> dict[str, Any]:
    """Return the protocol's values with the parameters that override them."""
    given = {name: getattr(parameters, name) for name in _OVERRIDDEN}
    return protocol("qe", parameters.protocol, given)


def pools(ranks: int, n_kpoints: int) -> int:
    """Return into how many pools ranks are put: as many as divide them and leave no pool without k-points."""
    return max(n for n in range(1, max(ranks, 1) + 1) if ranks % n == 0 and n <= max(n_kpoints, 1))


def pw_overrides(
    parameters: QeParameters,
    calculation: str,
    prepared: Prepared,
    cutoffs: tuple[float, float],
    *,
    fmax: float | None = None,
    steps: int | None = None,
    pressure: float = 0.0,
    hubbard_card: bool = True,
) -> dict[str, Any]:
    """Return the overrides of ``PwBaseWorkChain``'s protocol for a calculation.

    Parameters
    ----------
    parameters
        Of the calculator.
    calculation
        ``scf``, ``relax``, ``vc-relax``.
    prepared
        The structure.
    cutoffs
        Of wavefunctions and density in eV.
    fmax, steps, pressure
        Of a relaxation: eV/Å, number, GPa.
    hubbard_card
        Whether DFT+U stands in a card of its own (QE ≥ 7.1), which the structure then carries.
    """
    values = resolved(parameters)
    n = len(prepared.node.sites)
    system: dict[str, Any] = {"ecutwfc": cutoffs[0] / RY, "ecutrho": cutoffs[1] / RY}
    if values["smearing"] == "fixed":
        system |= {"occupations": "fixed"}
    else:
        system |= {
            "occupations": "smearing",
            "smearing": values["smearing"],
            "degauss": values["degauss"] / RY,
        }
    species = {kind.symbol for kind in prepared.node.kinds}
    u = u_values(parameters, species)
    if u and not hubbard_card:
        by_kind = {kind.name: u[kind.symbol][1] for kind in prepared.node.kinds if kind.symbol in u}
        system |= {"lda_plus_u": True, "hubbard_u": by_kind}
    control: dict[str, Any] = {"calculation": calculation, "tprnfor": True, "tstress": True}
    blocks: dict[str, dict[str, Any]] = {
        "CONTROL": control,
        "SYSTEM": system,
        "ELECTRONS": {
            # Ry for the whole cell; the protocol's is in eV an atom.
            "conv_thr": values["energy_threshold"] * n / RY,
            "electron_maxstep": parameters.scf_steps,
        },
    }
    if calculation in ("relax", "vc-relax"):
        force = values["fmax"] if fmax is None else fmax
        control |= {
            "forc_conv_thr": force * BOHR / RY,
            # BFGS stops where both fall below: the force decides.
            "etot_conv_thr": 1e-4 * n,
        }
        if steps is not None:
            control["nstep"] = steps
    if calculation == "vc-relax":
        # kbar.
        blocks["CELL"] = {"press": 10 * pressure, "press_conv_thr": 10 * values["stress_threshold"]}
    for name, keywords in parameters.namelists.items():
        blocks[name] = {**blocks.get(name, {}), **keywords}
    return {"kpoints_distance": values["kpoint_spacing"], "pw": {"parameters": blocks}}


def u_values(parameters: QeParameters, species: set[str]) -> Mapping[str, tuple[str, float]]:
    """Return symbol → (orbital, U in eV) for a compound."""
    if parameters.hubbard == "none":
        return {}
    return hubbard_u(species, None if parameters.hubbard == "auto" else parameters.hubbard)
