"""ASE's ABINIT calculator, made fit for batches: own scratch, wavefunctions kept between steps, causes of failures."""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.abinit import AbinitProfile, AbinitTemplate
from ase.calculators.genericfileio import GenericFileIOCalculator
from ase.io.abinit import read_abinit_out, write_abinit_in

from matcompute.dataset import Status
from matcompute.first_principles import mesh_of, starting_moments
from matcompute.node.adapters import CalculationError, Deadline, NoDeadline
from matcompute.node.calculators.psp8 import Psp8
from matcompute.node.programs import ProgramError, run_program
from matcompute.node.scratch import scratch_folder

__all__ = ["AbinitCalculator", "AbinitSettings"]

#: Hartree in which ABINIT smooths the kinetic energy near the cutoff, so that the stress is the derivative of the
#: energy at a fixed cutoff, and energies over volumes are smooth (M. Bernasconi et al., J. Phys. Chem. Solids 56,
#: 501 (1995)).
ECUTSM = 0.5
#: ``occopt`` of each smearing; cold is that of N. Marzari et al., Phys. Rev. Lett. 82, 3296 (1999).
OCCOPT = {"fixed": 1, "fermi-dirac": 3, "cold": 4, "methfessel-paxton": 6, "gaussian": 7}

_NOT_CONVERGED = re.compile(r"nstep=\s*\d+ was not enough SCF cycles to converge;\s*\n\s*(.+)")
_ERROR = re.compile(r"^--- !(?:ERROR|BUG)\n(?:.*\n)*?message: \|\n((?:[ \t]+.*\n|\s*\n)*)", re.MULTILINE)
_CHECK = re.compile(r"^ \w+: ERROR -\n((?:[ \t]+\S.*\n)+)", re.MULTILINE)
_SPHERES = re.compile(r"Diff\(up-dn\)\s*\n((?:\s+\d+(?:\s+[-+.\dE]+){5}\s*\n)+)")


@dataclass(frozen=True)
class AbinitSettings:
    """What an evaluation is made with, the protocol's values with what overrides them.

    Parameters
    ----------
    ecut
        Symbol → cutoff in eV; a structure takes the largest of its elements.
    kpoint_spacing
        In 1/Å, 2π contained.
    smearing, degauss
        A key of :data:`OCCOPT`, and the width in eV.
    tolvrs
        Square of the potential's residual at which self-consistency is reached, in Hartree².
    scf_steps
        At most so many steps of one self-consistency.
    spin
        ``auto``, ``none`` or ``collinear``.
    magmoms
        ``auto``: starting moments are those that the atoms carry, else by element; ``elements``; ``none``.
    variables
        Further input variables.
    """

    ecut: Mapping[str, float]
    kpoint_spacing: float
    smearing: str
    degauss: float
    tolvrs: float
    scf_steps: int = 60
    spin: str = "auto"
    magmoms: str = "auto"
    variables: Mapping[str, Any] = field(default_factory=dict)


#: Starting moment in μ_B of a site of which nothing is known where spin is asked for: it breaks the symmetry.
_SMALL_MOMENT = 0.5


class _Template(AbinitTemplate):
    """Writes the input with ASE's writer and reads the main output with ASE's reader."""

    def __init__(self, settings: AbinitSettings, files: Mapping[str, Psp8]) -> None:
        super().__init__()
        self.implemented_properties = frozenset(
            {"energy", "free_energy", "forces", "stress", "magmom", "magmoms"}
        )
        self.settings = settings
        self.files = files
        #: Mesh of the first cell of a structure, kept for all its steps: energies stay comparable.
        self.mesh: tuple[int, int, int] | None = None

    def write_input(
        self, profile: Any, directory: Any, atoms: Atoms, parameters: Mapping[str, Any], properties: Any
    ) -> None:
        directory = Path(directory)
        species = sorted(set(atoms.numbers.tolist()))
        names = [f"{symbol}.psp8" for symbol in _symbols(species)]
        for symbol, name in zip(_symbols(species), names, strict=True):
            # Short names: ABINIT cuts long paths.
            if not (directory / name).is_symlink():
                (directory / name).symlink_to(self.files[symbol].path.absolute())
        magnetic = self._with_moments(atoms)
        # The same lattice with right-handed vectors, which ABINIT insists on.
        if np.linalg.det(magnetic.cell.array) < 0:
            magnetic.set_cell(-magnetic.cell.array)
        with (directory / self.inputname).open("w", encoding="ascii") as handle:
            write_abinit_in(handle, magnetic, {**self.variables(magnetic), **parameters}, species, names)

    def variables(self, atoms: Atoms) -> dict[str, Any]:
        """Return the input variables for atoms that carry their starting moments."""
        settings = self.settings
        symbols = atoms.get_chemical_symbols()
        if self.mesh is None:
            self.mesh = mesh_of(atoms.cell.array, settings.kpoint_spacing, atoms.pbc.tolist())
        moments = np.abs(atoms.get_initial_magnetic_moments())
        found: dict[str, Any] = {
            "ixc": 11,
            "ecut": max(settings.ecut[symbol] for symbol in symbols),
            "ecutsm": ECUTSM,
            "occopt": OCCOPT[settings.smearing],
            "tolvrs": settings.tolvrs,
            "nstep": settings.scf_steps,
            "kptopt": 1,
            # Centred on Γ: a shifted mesh would break the symmetry of face-centred and hexagonal lattices.
            "ngkpt": list(self.mesh),
            "nshiftk": 1,
            "shiftk": [0, 0, 0],
            # Meshes and grids that have not all symmetries of the crystal are no error: densities are symmetrised.
            "chksymbreak": 0,
            "chksymtnons": 0,
            "prtden": 0,
            "prteig": 0,
            "prtebands": 0,
        }
        if settings.smearing != "fixed":
            # Room for electrons above the Fermi level; ABINIT's own number is too small for wide smearing.
            pairs = sum(self.files[symbol].valence for symbol in symbols) / 2
            found |= {
                "tsmear": settings.degauss,
                "nband": int(np.ceil(pairs + moments.sum() / 2) + max(3, np.ceil(0.15 * pairs))),
            }
        if moments.any():
            found["prtdensph"] = 1
        return found | dict(settings.variables)

    def _with_moments(self, atoms: Atoms) -> Atoms:
        settings = self.settings
        moments = None
        if settings.spin != "none":
            known = atoms.arrays.get("initial_magmoms") if settings.magmoms == "auto" else None
            if settings.magmoms != "none":
                moments = starting_moments(atoms.get_chemical_symbols(), known)
            if moments is None and settings.spin == "collinear":
                moments = np.full(len(atoms), _SMALL_MOMENT)
        found = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        if moments is not None:
            found.set_initial_magnetic_moments(moments)
        return found

    def read_results(self, directory: Any) -> dict[str, Any]:
        path = Path(directory) / "abinit.abo"
        with path.open(encoding="utf-8", errors="replace") as handle:
            found = read_abinit_out(handle)
        results = {name: found[name] for name in ("energy", "free_energy", "forces", "stress")}
        table = _SPHERES.findall(path.read_text(encoding="utf-8", errors="replace"))
        n = len(results["forces"])
        moments = (
            np.array([float(line.split()[5]) for line in table[-1].splitlines()]) if table else np.zeros(n)
        )
        return results | {"magmoms": moments, "magmom": float(moments.sum())}


class AbinitCalculator(GenericFileIOCalculator):
    """ABINIT for all evaluations of one structure at a time.

    Parameters
    ----------
    settings
        What an evaluation is made with.
    files
        Symbol → pseudopotential.
    command
        What starts ABINIT, as in a shell.
    """

    def __init__(self, settings: AbinitSettings, files: Mapping[str, Psp8], command: str) -> None:
        self.template: _Template = _Template(settings, files)
        super().__init__(template=self.template, profile=AbinitProfile(command), directory=".")
        self._folder: Path | None = None
        self._deadline: Deadline = NoDeadline()
        #: Whether the wavefunctions of the last evaluation are in the folder.
        self._restart = False

    @contextlib.contextmanager
    def session(self, deadline: Deadline) -> Iterator[None]:
        """Keep scratch folder, mesh and wavefunctions over all evaluations of one structure.

        Parameters
        ----------
        deadline
            Asked while ABINIT runs; when it raises, ABINIT is ended.
        """
        with scratch_folder("abinit") as folder:
            self._folder, self._deadline = folder, deadline
            self._restart, self.template.mesh = False, None
            try:
                yield
            finally:
                self._folder, self._deadline = None, NoDeadline()
                self.atoms, self.results = None, {}

    def calculate(self, atoms: Atoms, properties: Any, system_changes: Any) -> None:
        """Evaluate energy (eV), forces (eV/Å), stress (eV/Å^3) and moments in spheres (μ_B).

        Raises
        ------
        CalculationError
            If ABINIT does not reach self-consistency (``not_converged``), stops or is killed (``crashed``), or cannot
            take such a structure (``invalid_input``), each time with the reason.
        """
        if self._folder is None:
            with self.session(NoDeadline()):
                self.calculate(atoms, properties, system_changes)
                results = self.results
            self.atoms, self.results = atoms.copy(), results
            return
        if atoms.cell.rank < 3:
            raise CalculationError(
                Status.INVALID_INPUT,
                "ABINIT needs a cell of three vectors, with vacuum where nothing is periodic",
            )
        electrons = sum(self.template.files[symbol].valence for symbol in atoms.get_chemical_symbols())
        if self.template.settings.smearing == "fixed" and electrons % 2:
            raise CalculationError(
                Status.INVALID_INPUT, f"smearing: fixed needs pairs of electrons, this cell has {electrons:g}"
            )
        self.directory = self._folder
        self.results = self._evaluate(atoms)

    def _evaluate(self, atoms: Atoms) -> dict[str, Any]:
        """Run ABINIT, and once more where another start may help."""
        reused = self._restart
        try:
            self._run(atoms, {})
        except CalculationError as error:
            if error.status == Status.NOT_CONVERGED:
                # From where it came to, with less of the new density in each step.
                more = {"nstep": 2 * self.template.settings.scf_steps, "diemix": 0.3, "diemixmag": 0.3}
            elif isinstance(error.__cause__, ProgramError) and (reused or error.__cause__.signal is not None):
                more = {}
            else:
                raise
            self._run(atoms, more)
        return self.template.read_results(self.directory)

    def _run(self, atoms: Atoms, more: Mapping[str, Any]) -> None:
        folder = Path(self.directory)
        start = dict(more)
        if self._restart:
            # Names of what is read and written: ABINIT's defaults for an input abinit.in.
            (folder / "abinito_WFK").replace(folder / "abiniti_WFK")
            start["irdwfk"] = 1
        self._restart = False
        (folder / "abinit.abo").unlink(missing_ok=True)
        self.template.write_input(self.profile, folder, atoms, start, None)
        argv = [*shlex.split(self.profile.command), self.template.inputname]
        try:
            run_program(argv, folder, folder / self.template.outputname, self._deadline)
        except ProgramError as error:
            raise CalculationError(
                Status.CRASHED, _reason(error, folder / self.template.outputname)
            ) from error
        self._restart = (folder / "abinito_WFK").is_file()
        output = (folder / "abinit.abo").read_text(encoding="utf-8", errors="replace")
        missed = _NOT_CONVERGED.search(output)
        if missed is not None:
            steps = start.get("nstep", self.template.settings.scf_steps)
            raise CalculationError(
                Status.NOT_CONVERGED,
                f"self-consistency is not reached in {steps} steps: {' '.join(missed[1].split())}",
            )


def _symbols(numbers: list[int]) -> list[str]:
    return Atoms(numbers=numbers).get_chemical_symbols()


def _reason(error: ProgramError, log: Path) -> str:
    """Return why ABINIT ended: by what signal, or what it says itself."""
    if error.signal is not None:
        more = " (out of memory?)" if error.signal == signal.SIGKILL else ""
        return f"abinit was killed by {error.signal.name}{more}"
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    told = _CHECK.findall(text) or _ERROR.findall(text)[-1:] or text.strip().splitlines()[-1:]
    said = " ".join(" ".join(told).split())
    return f"abinit ended with status {error.status}: {said[:400] or 'it said nothing'}"
