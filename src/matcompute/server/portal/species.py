"""How the structure viewer draws elements."""

from __future__ import annotations

from collections import Counter
from typing import Any

__all__ = ["species_of"]


def species_of(symbols: list[str]) -> list[dict[str, Any]]:
    """Return the elements of a structure with count, colour (Jmol's) and covalent radius in Å (Cordero 2008)."""
    from ase.data import atomic_numbers, covalent_radii
    from ase.data.colors import jmol_colors

    found = []
    for symbol, count in sorted(Counter(symbols).items()):
        z = atomic_numbers.get(symbol, 0)
        rgb = jmol_colors[z] if z < len(jmol_colors) else (0.9, 0.0, 0.5)
        colour = "#" + "".join(f"{round(255 * float(part)):02x}" for part in rgb)
        radius = float(covalent_radii[z]) if z < len(covalent_radii) else 1.5
        found.append({"symbol": symbol, "count": count, "colour": colour, "radius": radius})
    return found
