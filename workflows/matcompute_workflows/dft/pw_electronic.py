"""``PwElectronicWorkChain``: band structure along the standard path, and density of states on a dense mesh."""

from __future__ import annotations

from typing import Any

import numpy as np
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ToContext, WorkChain, calcfunction, if_, while_
from aiida.orm import BandsData, Data, Dict, StructureData, XyData
from aiida_quantumespresso.calculations.dos import DosCalculation
from aiida_quantumespresso.workflows.pw.bands import PwBandsWorkChain
from aiida_quantumespresso.workflows.pw.base import PwBaseWorkChain

from matcompute_workflows.dft.levels import Edges, LevelsError, band_edges

__all__ = ["PwElectronicWorkChain", "bands_needed", "electronic_structure"]

#: How often the mesh is computed at most, each time with more bands.
_MESHES = 3


class PwElectronicWorkChain(WorkChain):
    """Bands and density of states of a structure.

    The plugin's ``PwBandsWorkChain`` makes the density and the bands along the path of SeeK-path. From that density
    follow the eigenvalues of a denser mesh, with as many bands as the window of the density of states needs, and
    the density of states itself by tetrahedra.
    """

    @classmethod
    def define(cls, spec: Any) -> None:
        """Define inputs, outline, outputs and exit codes."""
        super().define(spec)
        optional = {"required": False, "populate_defaults": False}
        spec.expose_inputs(PwBandsWorkChain, namespace="bands", exclude=("clean_workdir", "structure"))
        spec.expose_inputs(
            PwBaseWorkChain,
            namespace="mesh",
            exclude=("clean_workdir", "pw.structure", "pw.parent_folder"),
            namespace_options={**optional, "help": "The denser mesh; without it no density of states."},
        )
        spec.expose_inputs(
            DosCalculation,
            namespace="dos",
            exclude=("parent_folder", "parameters"),
            namespace_options={**optional, "help": "Of dos.x."},
        )
        spec.input("structure", valid_type=StructureData, help="The structure.")
        spec.input("settings", valid_type=Dict, help="dos, window, points of the task bands.")
        step: Any = cls
        spec.outline(
            step.run_bands,
            step.inspect_bands,
            if_(step.should_run_dos)(
                while_(step.should_run_mesh)(step.run_mesh, step.inspect_mesh),
                step.run_dos,
                step.inspect_dos,
            ),
            step.results,
        )
        spec.output(
            "electronic", valid_type=Dict, required=False, help="status, message, values, code_version."
        )
        spec.output("band_structure", valid_type=BandsData, required=False, help="Along the path.")
        spec.output("primitive_structure", valid_type=StructureData, required=False, help="The path's cell.")
        spec.output("mesh_bands", valid_type=BandsData, required=False, help="On the mesh.")
        spec.output("density_of_states", valid_type=XyData, required=False, help="As dos.x gives it.")
        spec.exit_code(400, "ERROR_BANDS", message="The bands along the path could not be computed.")
        spec.exit_code(401, "ERROR_MESH", message="The eigenvalues of the mesh could not be computed.")
        spec.exit_code(402, "ERROR_DOS", message="dos.x could not compute the density of states.")
        spec.exit_code(410, "ERROR_TOO_FEW_BANDS", message="{detail}")

    # ------------------------------------------------------------------ bands
    def run_bands(self) -> ToContext:
        """Submit the plugin's chain."""
        inputs = AttributeDict(self.exposed_inputs(PwBandsWorkChain, namespace="bands"))
        inputs.structure = self.inputs.structure
        inputs.metadata.call_link_label = "bands"
        return ToContext(bands=self.submit(PwBandsWorkChain, **inputs))

    def inspect_bands(self) -> ExitCode | None:
        """Take over density and path, and see how many bands the mesh needs."""
        node = self.ctx.bands
        if not node.is_finished_ok:
            self.report(f"PwBandsWorkChain<{node.pk}>: {node.exit_message}")
            found: ExitCode = self.exit_codes.ERROR_BANDS
            return found
        self.ctx.structure = node.outputs.primitive_structure
        scf = node.base.links.get_outgoing(link_label_filter="scf").one().node
        self.ctx.density = scf.outputs.remote_folder
        self.ctx.meshes = 0
        self.ctx.mesh = None
        self.ctx.bands_wanted = 0
        self.out("band_structure", node.outputs.band_structure)
        self.out("primitive_structure", self.ctx.structure)
        return self._look(node.outputs.band_structure, node.outputs.scf_parameters)

    # ------------------------------------------------------------------ density of states
    def should_run_dos(self) -> bool:
        """Whether a density of states is wanted."""
        return bool(self.inputs.settings.get_dict()["dos"])

    def should_run_mesh(self) -> bool:
        """Whether there are no eigenvalues of the mesh yet, or they end below the window's upper end."""
        return self.ctx.mesh is None or self.ctx.bands_wanted > self.ctx.bands_computed

    def run_mesh(self) -> ToContext:
        """Submit a calculation that keeps the density."""
        inputs = AttributeDict(self.exposed_inputs(PwBaseWorkChain, namespace="mesh"))
        parameters = inputs.pw.parameters.get_dict()
        parameters["SYSTEM"]["nbnd"] = self.ctx.bands_wanted
        inputs.pw.parameters = Dict(parameters)
        inputs.pw.structure = self.ctx.structure
        inputs.pw.parent_folder = self.ctx.density
        self.ctx.meshes += 1
        inputs.metadata.call_link_label = f"mesh_{self.ctx.meshes}"
        return ToContext(mesh=self.submit(PwBaseWorkChain, **inputs))

    def inspect_mesh(self) -> ExitCode | None:
        """See whether the bands reach to the upper end of the window."""
        node = self.ctx.mesh
        if not node.is_finished_ok:
            self.report(f"PwBaseWorkChain<{node.pk}> of the mesh: {node.exit_message}")
            found: ExitCode = self.exit_codes.ERROR_MESH
            return found
        failed = self._look(node.outputs.output_band, node.outputs.output_parameters)
        if failed is not None:
            return failed
        if self.should_run_mesh() and self.ctx.meshes >= _MESHES:
            top = self.inputs.settings.get_dict()["window"][1]
            text = (
                f"{self.ctx.bands_computed} bands do not reach to the upper end of the window, {top:g} eV above the "
                f"Fermi level; give a narrower `window`"
            )
            found = self.exit_codes.ERROR_TOO_FEW_BANDS
            return found.format(detail=text)
        return None

    def run_dos(self) -> ToContext:
        """Submit dos.x for exactly the window's energies."""
        start, step = _grid(self.ctx.fermi, self.inputs.settings.get_dict())
        points = int(self.inputs.settings.get_dict()["points"])
        inputs = AttributeDict(self.exposed_inputs(DosCalculation, namespace="dos"))
        # Half a step more: which energy is the last one must not depend on rounding.
        stop = start + (points - 0.5) * step
        inputs.parameters = Dict({"DOS": {"emin": start, "emax": stop, "deltae": step}})
        inputs.parent_folder = self.ctx.mesh.outputs.remote_folder
        inputs.metadata.call_link_label = "dos"
        return ToContext(dos=self.submit(DosCalculation, **inputs))

    def inspect_dos(self) -> ExitCode | None:
        """See whether dos.x has done it."""
        node = self.ctx.dos
        if not node.is_finished_ok:
            self.report(f"DosCalculation<{node.pk}>: {node.exit_message}")
            found: ExitCode = self.exit_codes.ERROR_DOS
            return found
        return None

    def results(self) -> None:
        """Attach what was found."""
        node = self.ctx.bands
        inputs: dict[str, Data] = {
            "scf": node.outputs.scf_parameters,
            "path": node.outputs.band_structure,
            "structure": self.inputs.structure,
            "primitive": self.ctx.structure,
        }
        if self.should_run_dos():
            mesh = self.ctx.mesh.outputs
            inputs |= {"mesh": mesh.output_band, "mesh_parameters": mesh.output_parameters}
            inputs |= {
                "dos": self.ctx.dos.outputs.output_dos,
                "dos_parameters": self.ctx.dos.inputs.parameters,
            }
            self.out("mesh_bands", mesh.output_band)
            self.out("density_of_states", self.ctx.dos.outputs.output_dos)
        self.out("electronic", electronic_structure(self.inputs.settings, **inputs))

    # ------------------------------------------------------------------ what both parts need
    def _look(self, bands: BandsData, parameters: Dict) -> ExitCode | None:
        """Note the Fermi level so far, and how many bands the window needs."""
        levels = _levels(bands)
        self.ctx.bands_computed = levels.shape[2]
        said = parameters.get_dict()
        sets = [levels]
        if self.ctx.mesh is not None:
            sets.append(_levels(self.ctx.bands.outputs.band_structure))
        try:
            self.ctx.fermi = _zero(_edges(sets, said), _fermi_of(said))
        except LevelsError as error:
            found: ExitCode = self.exit_codes.ERROR_TOO_FEW_BANDS
            return found.format(detail=str(error))
        top = self.ctx.fermi + float(self.inputs.settings.get_dict()["window"][1])
        self.ctx.bands_wanted = bands_needed(levels, top)
        return None


def bands_needed(levels: np.ndarray, top: float) -> int:
    """Return how many bands it takes to have all states up to an energy, with those that there are.

    All of them if the highest one lies above it everywhere; else as the number of states of free electrons grows,
    with the power 3/2 of the energy above the lowest level, and two more.

    Parameters
    ----------
    levels
        f8[spins, k-points, bands] in eV.
    top
        In eV.
    """
    bands = int(levels.shape[2])
    complete, bottom = float(levels[:, :, -1].min()), float(levels.min())
    if complete >= top:
        return bands
    # Deep levels say nothing of how densely those above the Fermi level lie: count from no more than 20 eV below.
    bottom = max(bottom, complete - 20.0)
    ratio = (top - bottom) / max(complete - bottom, 1.0)
    return max(bands + 2, int(np.ceil(bands * ratio**1.5)) + 2)


@calcfunction
def electronic_structure(settings: Dict, **outputs: Data) -> Dict:
    """Return gap, Fermi level and density of states from the outputs of pw.x and dos.x.

    Parameters
    ----------
    settings
        ``dos``, ``window``, ``points`` of the task ``bands``.
    outputs
        ``scf`` (output_parameters), ``path`` (BandsData), ``structure`` and ``primitive``, the cell that was computed;
        with a density of states also ``mesh`` (BandsData), ``mesh_parameters``, ``dos`` (XyData of dos.x) and
        ``dos_parameters`` (its input).

    Returns
    -------
    aiida.orm.Dict
        ``status`` (:class:`matcompute.dataset.Status`), ``message``, ``values`` (columns of a dataset) and
        ``code_version``.
    """
    from matcompute.dataset import Status

    given: Any = outputs
    scf = given["scf"].get_dict()
    said = given["mesh_parameters"].get_dict() if "mesh" in given else scf
    sets = [_levels(given[name]) for name in ("path", "mesh") if name in given]
    edges = _edges(sets, said)
    fermi = _zero(edges, _fermi_of(said))
    values: dict[str, Any] = {
        "band_gap": edges.gap,
        "gap_is_direct": -1 if edges.direct is None else int(edges.direct),
        "fermi_energy": fermi,
    }
    if "dos" in given:
        points = int(settings.get_dict()["points"])
        grid = given["dos_parameters"].get_dict()["DOS"]
        # dos.x prints its energies with three digits only: they are those that it was asked for.
        values["dos_energy"] = (grid["emin"] - fermi + grid["deltae"] * np.arange(points)).tolist()
        curves = {name: np.asarray(y) for name, y, _ in given["dos"].get_y() if name.startswith("dos")}
        # Of the cell of the entry, which may hold the primitive one many times.
        cells = len(given["structure"].sites) / len(given["primitive"].sites)
        values["dos"] = (cells * np.sum([curve[:points] for curve in curves.values()], axis=0)).tolist()
    return Dict(
        {
            "status": int(Status.OK),
            "message": "",
            "values": values,
            "code_version": str(scf.get("creator_version", "")),
        }
    )


def _levels(bands: BandsData) -> np.ndarray:
    """Return eigenvalues as f8[spins, k-points, bands] in eV, sorted by band."""
    found = np.asarray(bands.get_bands(), dtype=float)
    return np.sort(found if found.ndim == 3 else found[None], axis=2)


def _edges(sets: list[np.ndarray], parameters: dict[str, Any]) -> Edges:
    spinors = bool(parameters.get("non_colinear_calculation", False))
    electrons = float(parameters["number_of_electrons"])
    return band_edges(sets, electrons, _fermi_of(parameters), per_band=1 if spinors else 2)


def _fermi_of(parameters: dict[str, Any]) -> float:
    """Return the Fermi level in eV; where the moment of the cell is fixed each spin has one, and the higher counts."""
    one = parameters.get("fermi_energy")
    found = [one] if one is not None else [parameters[f"fermi_energy_{spin}"] for spin in ("up", "down")]
    return float(max(found))


def _zero(edges: Edges, fermi: float) -> float:
    """Return the Fermi level as the column has it: in a gap its middle, where the program's may be anywhere."""
    return fermi if edges.middle is None else edges.middle


def _grid(fermi: float, settings: dict[str, Any]) -> tuple[float, float]:
    """Return the first energy of the density of states and the step, in eV."""
    low, high = (float(value) for value in settings["window"])
    return fermi + low, (high - low) / (int(settings["points"]) - 1)
