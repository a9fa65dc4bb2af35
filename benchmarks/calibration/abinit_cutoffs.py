"""Measure the cutoffs of ``matcompute/node/calculators/abinit.yaml``: python abinit_cutoffs.py Si Cu …

For each element a crystal (its own, or a compound whose other element is softer) is computed at 0.97 and 1.03 times
its volume, without spin, at cutoffs around those that its file recommends. What is asked of the cutoff of a protocol,
against the highest one: the error of the pressure, as an error of the volume; that of the bulk modulus; that of the
difference of the two energies. Prints the element's line of the table; without a name of an element, the lines by the
rule for those that were not measured.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, reference_states
from ase.units import GPa, Hartree

from matcompute.node.adapters import NoDeadline
from matcompute.node.calculators.abinit_calculator import AbinitCalculator, AbinitSettings
from matcompute.node.calculators.psp8 import Psp8, psp8_files, shipped_folder

#: Largest error of volume (1), bulk modulus (1) and energy difference (meV/atom) of each protocol.
LIMITS = ((5e-3, 0.05, 5.0), (1e-3, 0.01, 1.0), (3e-4, 0.003, 0.3))
RATIOS = (0.97, 1.03)
#: Elements whose own crystals are molecular or large: compounds with a softer element.
COMPOUNDS = {
    **{"H": ("LiH", "rocksalt", 4.02), "N": ("BN", "zincblende", 3.626), "O": ("MgO", "rocksalt", 4.25)},
    **{"F": ("LiF", "rocksalt", 4.07), "S": ("CaS", "rocksalt", 5.72), "Cl": ("KCl", "rocksalt", 6.37)},
    **{"Br": ("KBr", "rocksalt", 6.7), "I": ("KI", "rocksalt", 7.17), "Se": ("SrSe", "rocksalt", 6.29)},
    **{
        "Te": ("SrTe", "rocksalt", 6.71),
        "As": ("AlAs", "zincblende", 5.73),
        "P": ("AlP", "zincblende", 5.51),
    },
    **{
        "Sb": ("AlSb", "zincblende", 6.22),
        "B": ("BP", "zincblende", 4.55),
        "Ga": ("GaAs", "zincblende", 5.75),
    },
}
DIAMOND = {"C": 3.57, "Si": 5.47, "Ge": 5.78, "Sn": 6.65}
#: Å^3 an atom of a face-centred crystal in place of a complicated one.
CLOSE_PACKED = {"In": 27.5, "Hg": 29.0, "Mn": 10.8, "Bi": 31.5, "Tl": 31.0, "La": 37.0}


def crystal(symbol: str) -> Atoms:
    """Return the crystal of an element; hexagonal ones as face-centred ones of the same volume."""
    if symbol in COMPOUNDS:
        formula, structure, a = COMPOUNDS[symbol]
        return bulk(formula, structure, a)
    if symbol in DIAMOND:
        return bulk(symbol, "diamond", DIAMOND[symbol])
    if symbol in CLOSE_PACKED:
        return bulk(symbol, "fcc", (4 * CLOSE_PACKED[symbol]) ** (1 / 3))
    known = reference_states[atomic_numbers[symbol]]
    if known["symmetry"] == "hcp":
        return bulk(symbol, "fcc", (2 * np.sqrt(3) * known["a"] ** 3 * known["c/a"] / 2) ** (1 / 3))
    return bulk(symbol, known["symmetry"], known["a"])


def recommended(file: Psp8) -> list[int]:
    """Return what a file of the SPMS set recommends for 1 and 0.1 mHa/atom, in Hartree."""
    text = file.path.read_text(encoding="utf-8", errors="replace")
    return [
        int(re.findall(rf"Ecut \({k} Ha/atom accuracy\):\s*(\d+) Ha", text)[-1]) for k in ("1e-3", "1e-4")
    ]


def measure(symbol: str, files: dict[str, Psp8]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Return cutoffs (Hartree), pressures (GPa) and energies (meV/atom), f8[2, n]."""
    rough, fine = recommended(files[symbol])
    cutoffs = [*sorted({rough, fine, round(1.2 * fine), round(1.4 * fine)}), round(1.75 * fine)]
    pressure, energy = np.empty((2, 2, len(cutoffs)))
    for row, ratio in enumerate(RATIOS):
        atoms = crystal(symbol)
        atoms.set_cell(atoms.cell.array * ratio ** (1 / 3), scale_atoms=True)
        for column, cutoff in enumerate(cutoffs):
            settings = AbinitSettings(
                dict.fromkeys(files, cutoff * Hartree), 0.8, "cold", 0.3, tolvrs=1e-9, spin="none"
            )
            calc = AbinitCalculator(settings, files, "abinit")
            with calc.session(NoDeadline()):
                energy[row, column] = 1e3 * calc.get_potential_energy(atoms) / len(atoms)
                pressure[row, column] = -calc.get_stress(atoms)[:3].mean() / GPa
    return cutoffs, pressure, energy


def needed(cutoffs: list[int], pressure: np.ndarray, energy: np.ndarray) -> list[int]:
    """Return the lowest cutoff of each protocol from which on all errors are within its limits."""
    stretch = np.log(RATIOS[1] / RATIOS[0])
    modulus = (pressure[0, -1] - pressure[1, -1]) / stretch
    off = pressure - pressure[:, -1:]
    volume = np.abs(off).max(axis=0) / modulus
    stiffness = np.abs(off[0] - off[1]) / stretch / modulus
    difference = np.abs((energy[0] - energy[1]) - (energy[0, -1] - energy[1, -1]))
    print(f"# {cutoffs} B={modulus:.0f} GPa", *(np.round(x, 4) for x in (volume, stiffness, difference)))
    found = []
    for limits in LIMITS:
        fits = np.all(
            [error <= limit for error, limit in zip((volume, stiffness, difference), limits)], axis=0
        )
        found.append(cutoffs[int(np.flatnonzero(~fits).max(initial=-1)) + 1])
    return found


def main(symbols: list[str]) -> None:
    """Print the lines of some elements; of all by the rule for the unmeasured, if none is named."""
    folder = shipped_folder()
    assert folder is not None, "pip install sparc-x-api"
    files = dict(psp8_files(Path(folder)))
    for symbol in symbols or files:
        if symbols:
            cutoffs, origin = needed(*measure(symbol, files)), crystal(symbol).get_chemical_formula()
        else:
            fine = recommended(files[symbol])[1]
            cutoffs, origin = [fine, round(1.3 * fine), round(1.6 * fine)], "file"
        print(f"  {symbol}: {{ecut: {cutoffs}, from: {origin}, sha256: {files[symbol].sha256}}}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
