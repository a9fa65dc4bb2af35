"""Whole jobs: statuses, checkpoints, stops, and everything that may be wrong with the files."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from matcompute.dataset import Status

from .conftest import PATIENCE_S

MakeJob = Callable[..., Any]
MakeAlloys = Callable[..., list[Atoms]]


def test_result_shard_is_the_input_with_results(make_job: MakeJob, make_alloys: MakeAlloys) -> None:
    structures = make_alloys(8, sites=8)
    job = make_job(structures=structures, parameters={"fmax": 0.03}, stage="relax")
    finished = job.run()
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    with job.results() as shard:
        assert shard.ids.tolist() == [f"entry-{i}" for i in range(8)]
        assert set(shard.properties) >= {
            "energy",
            "energy_per_atom",
            "forces",
            "stress",
            "n_steps",
            "cpu_time",
        }
        assert (shard.status("energy") == Status.OK).all()
        assert (shard.column("max_force") <= 0.03).all()
        assert (shard.column("cpu_time") > 0).all()
        batch = shard.batch()
        norms = np.linalg.norm(shard.column("forces"), axis=1)
        largest = np.maximum.reduceat(norms, batch.ptr[:-1])
        np.testing.assert_allclose(largest, shard.column("max_force"), rtol=1e-12)
        np.testing.assert_allclose(batch.volumes / batch.n_sites, shard.column("volume_per_atom"), rtol=1e-12)
        before = np.array([a.get_volume() / len(a) for a in structures])
        np.testing.assert_allclose(shard.column("initial_volume_per_atom"), before, rtol=1e-12)
        (method,) = shard.methods
        assert (method.name, method.code, method.parameters["task"]) == ("emt", "ase", "relax")
        # The final structures give the stored energies.
        from ase.calculators.emt import EMT

        atoms = shard.atoms(3)
        atoms.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(float(shard.column("energy")[3]), abs=1e-10)
    summary = job.summary
    assert summary["counts"] == {"ok": 8}
    assert (summary["n_total"], summary["n_computed"], summary["n_reused"]) == (8, 8, 0)
    assert summary["stage"] == "relax"
    assert summary["cpu_s"] > 0
    assert summary["core_s"] > 0


def test_distribution_does_not_change_values(make_job: MakeJob, make_alloys: MakeAlloys, same: Any) -> None:
    structures = make_alloys(5)
    one = make_job("one", structures=structures, processes=1)
    many = make_job("many", structures=structures, processes=3)
    ranks = make_job("ranks", structures=structures)
    assert (one.run().returncode, many.run().returncode, ranks.run(ranks=2).returncode) == (0, 0, 0)
    assert ranks.summary["ranks"] == 2
    same(many.values(), one.values())
    same(ranks.values(), one.values())


def test_bad_structures_never_stop_a_batch(make_job: MakeJob) -> None:
    squeezed = Atoms("Al2", positions=[[0, 0, 0], [0.001, 0, 0]], cell=[4, 4, 4], pbc=True)
    structures = [
        bulk("Al", a=4.0),
        bulk("Pd", a=3.9),  # segmentation fault
        bulk("Pt", a=3.9),  # exception
        bulk("Ag", a=4.1),  # NaN
        bulk("Fe", a=2.8),  # unknown species
        bulk("Au", a=4.1),  # hangs inside an evaluation
        bulk("Ni", a=3.9),  # slow between evaluations
        squeezed,
        bulk("Cu", a=3.5),
        bulk("Cu", a=2.5),  # grows out of the volume limit
    ]
    job = make_job(
        structures=structures, parameters={"fmax": 0.01, "max_volume_ratio": 1.5}, calculator="faulty",
        structure_timeout_s=2,
    )  # fmt: skip
    finished = job.run()
    assert finished.returncode == 0, finished.stderr
    with job.results() as shard:
        status = [Status(s).label for s in shard.status("energy")]
        messages = shard.entry_column("message").tolist()
        assert status == [
            "ok", "crashed", "crashed", "exploded", "unsupported_species", "timed_out", "timed_out", "exploded",
            "ok", "exploded",
        ]  # fmt: skip
        assert "SIGSEGV" in messages[1]
        assert "twice" in messages[1]
        assert messages[2].startswith("ArithmeticError: the potential is singular here")
        assert "energy is nan" in messages[3]
        assert "Fe" in messages[4]
        assert "than 2 s" in messages[5]
        assert "than 2 s" in messages[6]
        assert "volume" in messages[7]
        assert "volume" in messages[9]
        energy = shard.column("energy")
        assert (np.isfinite(energy) == (shard.status("energy") == Status.OK)).all()
    summary = job.summary
    assert summary["n_retried"] == 1
    assert summary["counts"]["crashed"] == 2
    assert {f["id"] for f in summary["failures"]} == {f"entry-{i}" for i in (1, 2, 3, 4, 5, 6, 7, 9)}
    # Failures are results: a rerun reuses them.
    assert job.run().returncode == 0
    assert job.summary["n_computed"] == 0


def test_not_converged_keeps_its_values(make_job: MakeJob, make_alloys: MakeAlloys) -> None:
    job = make_job(structures=make_alloys(2), parameters={"fmax": 1e-6, "steps": 2})
    assert job.run().returncode == 0
    with job.results() as shard:
        assert (shard.status("energy") == Status.NOT_CONVERGED).all()
        assert np.isfinite(shard.column("energy")).all()
        assert (shard.column("n_steps") == 2).all()
        assert "not converged to 1e-06 eV/Å in 2 steps" in shard.entry_column("message")[0]


def test_checkpoint_serves_other_shards_and_no_other_parameters(
    make_job: MakeJob, make_alloys: MakeAlloys
) -> None:
    structures = make_alloys(8)
    first = make_job("first", structures=structures)
    assert first.run().returncode == 0
    # Another shard with some of the entries, and one entry whose id is the same but whose structure is not.
    second = make_job("second", structures=structures[:5])
    moved = structures[4].copy()
    moved.positions[0, 0] += 0.01
    second.write([*structures[:4], moved])
    shutil.copytree(first.folder / "checkpoint", second.folder / "checkpoint")
    assert second.run().returncode == 0
    assert (second.summary["n_reused"], second.summary["n_computed"]) == (4, 1)
    # Other parameters: nothing may be reused.
    second.write(None, parameters={"fmax": 0.02})
    assert second.run().returncode == 0
    assert (second.summary["n_reused"], second.summary["n_computed"]) == (0, 5)


def test_walltime_stops_in_time_and_continues(make_job: MakeJob, make_alloys: MakeAlloys) -> None:
    """The structures sleep longer than the walltime; what they need besides depends on the machine."""
    job = make_job(structures=make_alloys(60), task="static", calculator="slow", margin_s=0.5)
    job.env["TEST_SLEEP"] = "0.3"
    finished = job.run("--walltime", "8")
    assert finished.returncode == 75, finished.stderr
    assert "walltime" in finished.stderr
    first = job.summary
    assert first["wall_s"] < 8
    assert 0 < first["counts"]["ok"] < 60
    job.env["TEST_SLEEP"] = "0"
    assert job.run().returncode == 0
    assert job.summary["n_reused"] == first["counts"]["ok"]
    assert max(job.done().values()) == 1


def test_structure_longer_than_the_walltime_is_given_up(make_job: MakeJob) -> None:
    job = make_job(structures=[bulk("Cu", a=3.7)], parameters={"fmax": 1e-9}, calculator="slow", processes=1)
    job.env["TEST_SLEEP"] = "3"
    codes = [job.run("--walltime", "8").returncode for _ in range(2)]
    assert codes == [0, 0]
    with job.results() as shard:
        assert shard.status("energy")[0] == Status.TIMED_OUT
        assert "walltime" in shard.entry_column("message")[0]


def test_second_copy_waits_and_finds_everything_done(make_job: MakeJob, make_alloys: MakeAlloys) -> None:
    job = make_job(structures=make_alloys(8), calculator="slow")
    job.gate.close()
    with job.start() as first:
        job.let_done(1, first)
        with job.start() as second:
            time.sleep(1)  # it may come as far as it can
            job.gate.open()
            codes = first.wait(PATIENCE_S), second.wait(PATIENCE_S)
    assert codes == (0, 0)
    assert set(job.done().values()) == {1}
    assert (job.summary["n_computed"], job.summary["n_reused"]) == (0, 8)


def test_a_job_that_was_taken_back_computes_nothing(make_job: MakeJob, make_alloys: MakeAlloys) -> None:
    """Its structures may be computed elsewhere; a scheduler may start it all the same."""
    job = make_job(structures=make_alloys(2))
    (job.folder / "withdrawn").touch()
    stopped = job.run()
    assert stopped.returncode == 75
    assert "taken back" in job.summary["message"]
    assert not (job.folder / "checkpoint").exists()


def test_slots_are_shared_between_jobs(make_job: MakeJob, make_alloys: MakeAlloys) -> None:
    job = make_job("a", structures=make_alloys(3), task="static", calculator="slow", slots="../slots")
    other = make_job(
        "b", structures=make_alloys(3, seed=1), task="static", calculator="slow", slots="../slots"
    )
    slots = job.folder.parent / "slots"
    slots.mkdir()
    (slots / "core-0").touch()
    for one in (job, other):
        one.env["TEST_SLEEP"] = "0.02"
    with job.start() as first, other.start() as second:
        assert (first.wait(PATIENCE_S), second.wait(PATIENCE_S)) == (0, 0)
    # With one slot no two structures of either job may overlap.
    spans = []
    for one in (job, other):
        for path in (one.folder / "checkpoint").glob("journal-[0-9].jsonl"):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            spans += [(a["time"], b["time"]) for a, b in zip(lines[::2], lines[1::2], strict=True)]
    spans.sort()
    assert len(spans) == 6
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


def test_full_disk(make_job: MakeJob, make_alloys: MakeAlloys, same: Any) -> None:
    job = make_job(structures=make_alloys(40), task="static")

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    finished = job.run(preexec_fn=small_files)
    assert finished.returncode == 73, finished.stderr
    assert "run again" in finished.stderr
    kept = len(job.done())
    assert 0 < kept < 40
    assert job.summary["exit_code"] == 73
    assert job.run().returncode == 0
    assert job.summary["n_reused"] >= kept
    assert max(job.done().values()) == 1
    whole = make_job("whole", structures=make_alloys(40), task="static")
    assert whole.run().returncode == 0
    same(job.values(), whole.values())


def test_result_file_that_cannot_be_written_loses_nothing(make_job: MakeJob, make_alloys: MakeAlloys) -> None:
    job = make_job(structures=make_alloys(3), task="static", results="missing/results.h5")
    finished = job.run()
    assert finished.returncode == 73
    assert "missing" in finished.stderr
    (job.folder / "missing").mkdir()
    assert job.run().returncode == 0
    assert (job.summary["n_reused"], job.summary["n_computed"]) == (3, 0)


def test_read_only_folder(make_job: MakeJob, make_alloys: MakeAlloys) -> None:
    job = make_job(structures=make_alloys(2))
    # Mode bits do not bind root; a read-only bind mount does, in a mount namespace of its own.
    script = f"mount --bind {job.folder} {job.folder} && mount -o remount,ro,bind {job.folder} && "
    probe = subprocess.run(["unshare", "-m", "sh", "-c", script + "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("no permission for a mount namespace")
    finished = subprocess.run(
        ["unshare", "-m", "sh", "-c", script + " ".join(job.command())],
        capture_output=True, text=True, env=job.env, check=False,
    )  # fmt: skip
    assert finished.returncode == 73, finished.stderr
    assert "cannot write" in finished.stderr


def test_checkpoint_in_the_way_of_a_file(make_job: MakeJob, make_alloys: MakeAlloys) -> None:
    job = make_job(structures=make_alloys(2))
    (job.folder / "checkpoint").write_text("not a folder")
    finished = job.run()
    assert finished.returncode == 73
    assert str(job.folder / "checkpoint") in finished.stderr


def test_damaged_checkpoint_is_recomputed(make_job: MakeJob, make_alloys: MakeAlloys) -> None:
    job = make_job(structures=make_alloys(4), processes=1)
    assert job.run().returncode == 0
    (job.folder / "checkpoint" / "rank-0.sqlite").write_bytes(b"not a database" * 500)
    assert job.run().returncode == 0
    assert job.summary["n_computed"] == 4
    assert (job.folder / "checkpoint" / "rank-0.damaged").exists()


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("{", 65, "line 1"),
        ('{"schema": "matcompute.task/v9"}', 65, "matcompute.task/v9"),
        ({"task": "relaxx"}, 69, "did you mean 'relax'"),
        ({"calculator": {"name": "emtt"}}, 69, "did you mean 'emt'"),
        ({"calculator": {"name": "qe"}}, 69, "gives each structure a process of its own"),
        ({"parameters": {"fmaxx": 1}}, 65, "parameters.fmaxx: unknown key; did you mean 'fmax'"),
        ({"parameters": {"fmax": -1}}, 65, "parameters.fmax"),
        ({"procesess": 2}, 65, "procesess: unknown key; did you mean 'processes'"),
        ({"calculator": {"name": "emt", "model": "weights.bin"}}, 66, "weights.bin"),
        ({"calculator": {"name": "chgnet", "model_sha256": "0" * 64}}, 66, "SHA-256"),
        ({"structures": "nowhere.h5"}, 65, "nowhere.h5"),
        ({"slots": "no-slots"}, 73, "no-slots"),
    ],
)
def test_wrong_task_files(
    make_job: MakeJob, make_alloys: MakeAlloys, content: Any, code: int, words: str
) -> None:
    job = make_job(structures=make_alloys(1))
    if isinstance(content, str):
        (job.folder / "task.json").write_text(content)
    else:
        spec = json.loads((job.folder / "task.json").read_text())
        (job.folder / "task.json").write_text(json.dumps(spec | content))
    finished = job.run()
    assert (finished.returncode, finished.stdout) == (code, "")
    assert words in finished.stderr
    assert "Traceback" not in finished.stderr
    assert job.summary["exit_code"] == code


@pytest.mark.parametrize("ranks", [0, 2])
def test_corrupt_shard_and_other_version(make_job: MakeJob, make_alloys: MakeAlloys, ranks: int) -> None:
    import h5py

    job = make_job(structures=make_alloys(4))
    with h5py.File(job.folder / "structures.h5", "r+") as file:
        file.attrs["format_version"] = np.bytes_("9.0")
    finished = job.run(ranks=ranks)
    assert finished.returncode == 65
    assert "9.0" in finished.stderr
    assert finished.stderr.count("error:") == 1
    job.write(make_alloys(4))
    raw = (job.folder / "structures.h5").read_bytes()
    (job.folder / "structures.h5").write_bytes(raw[: len(raw) // 2])
    finished = job.run(ranks=ranks)
    assert finished.returncode == 65
    assert "structures.h5" in finished.stderr


def test_model_in_the_task_file_must_be_a_checkpoint(make_job: MakeJob, make_alloys: MakeAlloys) -> None:
    job = make_job(structures=make_alloys(1), calculator={"name": "chgnet", "model": "model.bin"})
    import pickle

    (job.folder / "model.bin").write_bytes(pickle.dumps({"model": print}))
    finished = job.run()
    assert finished.returncode == 66, finished.stderr
    assert "model.bin" in finished.stderr


def test_empty_shard(make_job: MakeJob) -> None:
    job = make_job(structures=[])
    assert job.run().returncode == 0
    with job.results() as shard:
        assert len(shard) == 0
