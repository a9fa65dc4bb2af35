"""Energy above hull against pymatgen: 5,000 quaternary entries, and 12 elements (PatchedPhaseDiagram)."""

from __future__ import annotations

from _interleaved import compare, report, use_peers

if __name__ == "__main__":
    use_peers()
    import numpy as np
    from pymatgen.analysis.phase_diagram import PatchedPhaseDiagram, PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    from matcompute_kernels import energy_above_hull

    def entries(n: int, elements: list[str], parts: tuple[int, int]) -> tuple[list[Composition], np.ndarray]:
        rng = np.random.default_rng(0)
        compositions = [Composition(e) for e in elements]
        energies = list(rng.uniform(-5, -1, len(elements)))
        reference = dict(zip(elements, energies, strict=True))
        for _ in range(n):
            chosen = rng.choice(elements, rng.integers(parts[0], parts[1] + 1), replace=False)
            c = Composition({e: int(rng.integers(1, 9)) for e in chosen})
            compositions.append(c)
            energies.append(sum(reference[e] * c[e] for e in chosen) + c.num_atoms * rng.uniform(-1, 0.6))
        return compositions, np.array(energies)

    def peer(kind: type, compositions: list[Composition], energies: np.ndarray) -> list[float]:
        pool = [PDEntry(c, e) for c, e in zip(compositions, energies, strict=True)]
        diagram = kind(pool)
        return [diagram.get_e_above_hull(e) for e in pool]

    twelve = ["Li", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ca", "Fe", "Ti", "O"]
    results = {}
    for name, kind, n, elements, parts in (
        ("quaternary_5000", PhaseDiagram, 5000, ["Li", "Fe", "P", "O"], (1, 4)),
        ("twelve_elements", PatchedPhaseDiagram, 1500, twelve, (2, 4)),
    ):
        data = entries(n, elements, parts)
        results[name] = compare(
            name,
            lambda d=data: energy_above_hull(*d),
            lambda k=kind, d=data: peer(k, *d),
            len(data[0]),
            "entries",
        )
    report("hull", results, ["pymatgen"])
