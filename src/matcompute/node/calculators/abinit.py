"""ABINIT, first-principles density-functional theory with plane waves, run by the node program."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from matcompute.node.adapters import CalculatorAdapter, Parameters
from matcompute.node.calculators.psp8 import Psp8, psp8_files, set_sha256, shipped_folder
from matcompute.node.errors import ModelError

if TYPE_CHECKING:
    from ase.calculators.calculator import BaseCalculator

    from matcompute.node.calculators.abinit_calculator import AbinitSettings

__all__ = ["Abinit", "AbinitAdapter", "AbinitParameters"]

#: eV in a Hartree (CODATA 2018).
HARTREE = 27.211386245988
#: Distribution with the default pseudopotentials.
_PSEUDO_PACKAGE = "sparc-x-api"
#: Input variables that are the adapter's to set, or have a key of their own.
_TAKEN = """
acell chkprim ecut ecutsm getwfk irdwfk ixc kptopt natom ngkpt nsppol nstep nshiftk ntypat occopt optcell ionmov
pp_dirpath pseudos rprim shiftk spinat tolvrs toldfe toldff tolrff tolwfr tsmear typat xcart xred znucl
"""


@cache
def _data() -> dict[str, Any]:
    """Return the protocols and the table of cutoffs."""
    text = (resources.files("matcompute.node.calculators") / "abinit.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


class AbinitParameters(Parameters):
    """Parameters of the calculator ``abinit``; what is not given is the protocol's."""

    protocol: Literal["fast", "balanced", "stringent"] = Field(
        "balanced", description="How well converged, and at what cost."
    )
    ecut: float | None = Field(
        None,
        gt=0,
        description="Cutoff of the plane waves; by default the largest that the elements of a structure need.",
        json_schema_extra={"unit": "eV"},
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
    magmoms: Literal["auto", "elements", "none"] = Field(
        "auto", description="Starting moments; auto: those of an earlier stage, else by element."
    )
    scf_steps: int = Field(60, ge=1, description="At most so many steps of one self-consistency.")
    pseudopotentials: str | None = Field(
        None, description="Folder of PBE psp8 files on the compute node; by default those of sparc-x-api."
    )
    command: str = Field(
        "abinit",
        min_length=1,
        description="What starts ABINIT on the compute node; {threads} stands for the threads of a process.",
    )
    variables: dict[str, int | float | str | list[int | float]] = Field(
        default_factory=dict, description="Further input variables: {diemac: 12.0}."
    )

    @field_validator("pseudopotentials")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("/", "~", "$")):
            raise ValueError("give the whole path; it may begin with ~ or a variable of the compute node")
        return value

    @field_validator("command")
    @classmethod
    def _words(cls, value: str) -> str:
        if not shlex.split(value):
            raise ValueError("expected a program")
        return value

    @field_validator("variables")
    @classmethod
    def _free(cls, value: dict[str, Any]) -> dict[str, Any]:
        found = {key.lower(): item for key, item in value.items()}
        taken = sorted(found.keys() & set(_TAKEN.split()))
        if taken:
            raise ValueError(f"{', '.join(taken)}: set by the adapter, or by a key of its own in this file")
        return found

    @model_validator(mode="after")
    def _occupations(self) -> AbinitParameters:
        if self.smearing == "fixed" and self.degauss is not None:
            raise ValueError("degauss has no meaning with smearing: fixed")
        return self


class AbinitAdapter(CalculatorAdapter):
    """X. Gonze et al., Comput. Phys. Commun. 248, 107042 (2020), through ASE's calculator."""

    name = "abinit"
    package = "abinit"
    species = frozenset(_data()["elements"])
    Parameters = AbinitParameters
    extra_site_properties = frozenset({"magmom"})
    starts_from_magmoms = True

    # -- what is there ----------------------------------------------------------------------------------------

    @property
    def version(self) -> str:
        return self.version_for({})

    def version_for(self, parameters: Mapping[str, Any]) -> str:
        command = AbinitParameters(**parameters).command
        found, problem = _ask(command)
        if found is None:
            raise metadata.PackageNotFoundError(problem)
        return found

    def available(self) -> bool:
        return self.missing() is None

    def missing(self, parameters: Mapping[str, Any] | None = None) -> tuple[str, str] | None:
        own = AbinitParameters(**(parameters or {}))
        version, problem = _ask(own.command)
        if version is None:
            return (
                f"calculator 'abinit': {problem}",
                "install ABINIT on the compute node (Debian: package abinit), load its module in the centre's profile, "
                "or name it in 'command'",
            )
        if _folder(own) is None:
            return (
                f"calculator 'abinit': no pseudopotentials, since '{_PSEUDO_PACKAGE}' is not installed here",
                f"pip install {_PSEUDO_PACKAGE} on the compute node, or name a folder in 'pseudopotentials'",
            )
        try:
            self._files(own)
        except ModelError as error:
            return error.message, error.hint or "mend the folder"
        return None

    def species_for(self, parameters: Mapping[str, Any]) -> frozenset[str]:
        from matcompute_kernels.elements import SYMBOLS

        own = AbinitParameters(**parameters)
        folder = _folder(own)
        if folder is not None and folder.is_dir():
            return frozenset(self._files(own))
        # A folder of the compute node, seen from elsewhere: nothing can be said of it.
        return self.species if own.pseudopotentials is None else frozenset(SYMBOLS[1:])

    def _files(self, own: AbinitParameters) -> Mapping[str, Psp8]:
        folder = _folder(own)
        return {} if folder is None else psp8_files(folder)

    # -- what is computed with --------------------------------------------------------------------------------

    def fork_safe(self, parameters: Mapping[str, Any]) -> bool:
        return True

    def load(self, parameters: Mapping[str, Any], model_path: Path | None, threads: int) -> BaseCalculator:
        from matcompute.node.calculators.abinit_calculator import AbinitCalculator

        if model_path is not None:
            raise ModelError(
                "calculator 'abinit' has no model file", hint="name its files by 'pseudopotentials'"
            )
        own = AbinitParameters(**parameters)
        files = self._files(own)
        return AbinitCalculator(self.settings(parameters), files, _command(own.command, threads))

    def settings(self, parameters: Mapping[str, Any]) -> AbinitSettings:
        """Return the protocol's values with the parameters that override them."""
        from matcompute.node.calculators.abinit_calculator import AbinitSettings

        own = AbinitParameters(**parameters)
        values = _protocol(own)
        files = self._files(own)
        return AbinitSettings(
            ecut={symbol: self._cutoff(own, files[symbol])[0] for symbol in files},
            spin=own.spin,
            magmoms=own.magmoms,
            scf_steps=own.scf_steps,
            variables=own.variables,
            **values,
        )

    def _cutoff(self, own: AbinitParameters, file: Psp8) -> tuple[float, str]:
        """Return the cutoff for an element in eV, and where it comes from."""
        if own.ecut is not None:
            return own.ecut, "given"
        protocols = list(_data()["protocols"])
        known = _data()["elements"].get(file.symbol)
        # The table is for these very files; others may need more.
        measured = known is not None and known["sha256"] == file.sha256
        row = known["ecut"] if measured else _data()["other_ecut"]
        return row[protocols.index(own.protocol)] * HARTREE, known["from"] if measured else "default"

    def evaluation_cost(self, n_sites: Any) -> Any:
        return 20.0 + 10.0 * n_sites

    # -- what is recorded -------------------------------------------------------------------------------------

    def potential_sha256(self, parameters: Mapping[str, Any], species: Iterable[str]) -> str:
        return set_sha256(self._files(AbinitParameters(**parameters)), species)

    def method(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {"model": "PBE, norm-conserving psp8", "functional": "PBE"}

    def method_for(self, parameters: Mapping[str, Any], species: Iterable[str]) -> dict[str, Any]:
        own = AbinitParameters(**parameters)
        files = self._files(own)
        potentials = {}
        for symbol in species:
            ecut, origin = self._cutoff(own, files[symbol])
            potentials[symbol] = {
                "file": files[symbol].path.name,
                "sha256": files[symbol].sha256,
                "ecut_eV": round(ecut, 6),
                "ecut_from": origin,
            }
        cutoffs = {item["ecut_eV"] for item in potentials.values()}
        found = self.method(parameters) | _protocol(own) | {"pseudopotentials": potentials}
        # Structures take the largest cutoff of their elements: one number only where it is the same for all.
        return found | ({"cutoff": cutoffs.pop()} if len(cutoffs) == 1 else {})


def _protocol(own: AbinitParameters) -> dict[str, Any]:
    """Return the values of a protocol with what the parameters override."""
    values = dict(_data()["protocols"][own.protocol])
    del values["title"]
    given = {name: getattr(own, name) for name in ("kpoint_spacing", "smearing", "degauss")}
    return values | {name: value for name, value in given.items() if value is not None}


def _folder(own: AbinitParameters) -> Path | None:
    if own.pseudopotentials is None:
        return shipped_folder()
    return Path(os.path.expandvars(own.pseudopotentials)).expanduser()


def _command(command: str, threads: int) -> str:
    return command.replace("{threads}", str(threads))


@cache
def _ask(command: str) -> tuple[str | None, str]:
    """Return the version that ABINIT tells, or None and what is wrong."""
    from matcompute.node.programs import program_environment

    argv = shlex.split(_command(command, 1))
    if shutil.which(argv[0]) is None:
        return None, f"the program '{argv[0]}' is not found here"
    try:
        done = subprocess.run(
            [*argv, "--version"],
            env=program_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"'{command} --version' fails: {error}"
    match = re.search(r"^\s*(\d+\.\d+\S*)\s*$", done.stdout, re.MULTILINE)
    if done.returncode or match is None:
        said = " ".join((done.stderr or done.stdout).split())[:200]
        return None, f"'{command} --version' tells no version (exit status {done.returncode}): {said}"
    return match[1], ""


#: The entry point ``abinit``.
Abinit = AbinitAdapter()
