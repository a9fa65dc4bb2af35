"""Steinhardt q6 and w6 against freud on the crystal of 4,096 atoms (freud: float32)."""

from __future__ import annotations

from _interleaved import big4096, compare, report, use_peers

if __name__ == "__main__":
    use_peers()
    import freud

    from matcompute_kernels import steinhardt

    freud.parallel.set_num_threads(1)
    (atoms,) = big4096()
    lengths = atoms.cell.lengths()
    if abs(atoms.cell.array - atoms.cell.array.diagonal() * [[1, 0, 0], [0, 1, 0], [0, 0, 1]]).max() > 1e-6:
        raise SystemExit("error: this benchmark expects an orthogonal cell")
    box = freud.box.Box(*lengths)
    points = box.wrap(atoms.positions)

    def peer(average: bool) -> None:
        query = {"r_max": 4.0, "exclude_ii": True}
        for w in (False, True):
            order = freud.order.Steinhardt(6, average=average, wl=w, wl_normalize=w)
            order.compute((box, points), neighbors=query)

    results = {
        name: compare(
            f"{name}, big4096",
            lambda a=average: steinhardt(atoms, 4.0, 6, average=a),
            lambda a=average: peer(a),
            len(atoms),
            "atoms",
        )
        for name, average in (("q6 w6", False), ("q6 w6 averaged", True))
    }
    report("steinhardt", results, ["freud-analysis"])
