"""Chemical symbols by atomic number, and the alphabetical order that reduced formulas follow."""

from __future__ import annotations

import numpy as np

__all__ = ["MAX_Z", "SYMBOLS"]

#: Symbol of atomic number Z at index Z; index 0 is the unknown species ``X``.
SYMBOLS: tuple[str, ...] = tuple(
    """X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y
    Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir
    Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc
    Lv Ts Og""".split()  # noqa: SIM905 (a list of 119 literals reads worse)
)

#: The largest known atomic number.
MAX_Z: int = len(SYMBOLS) - 1

#: Symbols as two bytes (second byte 0 for one-letter symbols), u1[Z, 2]; read by the formula kernel.
SYMBOL_BYTES: np.ndarray = np.array([list(s.encode().ljust(2, b"\0")) for s in SYMBOLS], dtype=np.uint8)

#: Atomic numbers in the alphabetical order of their symbols, u1[MAX_Z + 1].
ALPHABETICAL: np.ndarray = np.array(sorted(range(MAX_Z + 1), key=lambda z: SYMBOLS[z]), dtype=np.uint8)
