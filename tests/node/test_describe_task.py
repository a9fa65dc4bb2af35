"""The task ``describe``: jobs that need no calculator and give a descriptor."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from matcompute.dataset import Dataset, Status, validate_dataset
from matcompute.dataset.descriptors import BlockSparse, descriptor_status, read_descriptor
from matcompute.node.descriptors import Facts, descriptor_adapter, descriptor_names
from matcompute_kernels import Batch, feature_labels, soap

MakeJob = Callable[..., Any]
MakeAlloys = Callable[..., list[Atoms]]

SOAP: dict[str, Any] = {"r_cut": 4.0, "n_max": 3, "l_max": 2, "sigma": 0.5}
SPECIES = ["Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au"]
GRID = {"min": 0, "max": 1, "sigma": 0.02, "n": 40}
#: Parameters of those descriptors that cannot do without.
NEEDED: dict[str, dict[str, Any]] = {
    "soap": SOAP,
    "acsf": {"r_cut": 4.0, "g2": [[1.0, 0.0]], "g4": [[0.01, 1, 1]]},
    "adf": {"r_cut": 3.5},
    "steinhardt": {"r_cut": 3.5},
    "mbtr": {"grid": GRID, "weighting": {"function": "exp", "r_cut": 6.0, "threshold": 1e-3}},
    "local_mbtr": {"grid": GRID, "weighting": {"function": "exp", "r_cut": 6.0, "threshold": 1e-3}},
}


def _job(make_job: MakeJob, structures: list[Atoms], name: str = "job", **parameters: Any) -> Any:
    return make_job(
        name,
        structures=structures,
        task="describe",
        calculator=None,
        stage="fingerprint",
        parameters=parameters,
    )


def _check(job: Any) -> Dataset:
    finished = job.run()
    assert finished.returncode == 0, finished.stderr
    assert validate_dataset(job.folder / "results.h5") == []
    return job.results()


def test_rows_are_the_kernels(make_job: MakeJob, make_alloys: MakeAlloys) -> None:
    structures = make_alloys(9, sites=8)
    job = _job(make_job, structures, descriptor="soap", species=SPECIES, average="inner", **SOAP)
    with _check(job) as shard:
        assert list(shard.descriptors) == ["fingerprint"]
        info = shard.descriptors["fingerprint"]
        expected = soap(Batch.from_atoms(structures), SPECIES, **SOAP, average="inner")
        np.testing.assert_allclose(read_descriptor(shard, "fingerprint"), expected, rtol=1e-12, atol=1e-300)
        assert (info.kernel, info.per, info.layout, info.units, info.dtype) == (
            "soap",
            "entry",
            "dense",
            "1",
            "f8",
        )
        assert list(info.labels) == feature_labels("soap", species=SPECIES, **SOAP)
        assert info.parameters == {
            **SOAP, "species": SPECIES, "average": "inner", "convention": "dscribe-gto", "dtype": "float64"
        }  # fmt: skip
        assert (descriptor_status(shard, "fingerprint") == Status.OK).all()
        (method,) = shard.methods
        assert (method.name, method.code, method.code_version) == ("soap", "matcompute", "0.1.0")
        assert list(shard.properties) == ["cpu_time"]
    assert job.summary["counts"] == {"ok": 9}
    assert job.summary["calculator"] is None


def test_rows_per_site_are_blocks(make_job: MakeJob, make_alloys: MakeAlloys) -> None:
    structures = make_alloys(6, sites=8)
    job = _job(make_job, structures, descriptor="soap", species=SPECIES, average="off", **SOAP)
    with _check(job) as shard:
        blocks = read_descriptor(shard, "fingerprint")
        assert isinstance(blocks, BlockSparse)
        expected = soap(Batch.from_atoms(structures), SPECIES, **SOAP)
        np.testing.assert_array_equal(blocks.toarray(), expected.astype("f4"))
        assert blocks.nbytes < expected.astype("f4").nbytes
        assert shard.descriptors["fingerprint"].layout == "block-sparse"


def test_bad_structures_have_a_reason_and_the_rest_goes_on(make_job: MakeJob) -> None:
    molecule = Atoms("Al2", positions=[[0, 0, 0], [2, 0, 0]])
    structures = [bulk("Al"), molecule, bulk("Cu"), bulk("Fe")]
    job = _job(make_job, structures, descriptor="valle_oganov", species=["Al", "Cu"], r_cut=4.0)
    with _check(job) as shard:
        status = descriptor_status(shard, "fingerprint")
        assert status.tolist() == [
            Status.OK, Status.INVALID_INPUT, Status.OK, Status.UNSUPPORTED_SPECIES
        ]  # fmt: skip
        message = shard.entry_column("message").tolist()
        assert "periodic in three directions" in message[1]
        assert message[3] == "Fe not in the descriptor's species (Al, Cu)"
        values = read_descriptor(shard, "fingerprint")
        assert np.isnan(values).all(axis=1).tolist() == [False, True, False, True]
    assert job.summary["counts"] == {"ok": 2, "invalid_input": 1, "unsupported_species": 1}


def test_continues_after_a_stop(make_job: MakeJob, make_alloys: MakeAlloys) -> None:
    structures = make_alloys(12)
    whole = _job(make_job, structures, "whole", descriptor="rdf", r_cut=6.0)
    broken = _job(make_job, structures, "broken", descriptor="rdf", r_cut=6.0)
    _check(whole).close()
    _check(broken).close()
    (broken.folder / "results.h5").unlink()
    with _check(broken) as again, whole.results() as shard:
        assert broken.summary["n_computed"] == 0
        assert broken.summary["n_reused"] == 12
        assert (
            read_descriptor(again, "fingerprint").tobytes() == read_descriptor(shard, "fingerprint").tobytes()
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parameters": {"descriptor": "soup"}}, "did you mean 'soap'"),
        ({"parameters": {}}, "'descriptor' is missing"),
        ({"parameters": {"descriptor": "rdf", "rcut": 3}}, "did you mean 'r_cut'"),
        ({"parameters": {"descriptor": "rdf"}, "calculator": "emt"}, "needs none"),
        ({"task": "static", "parameters": {}}, "needs one"),
    ],
)
def test_wrong_task_files(make_job: MakeJob, change: dict[str, Any], words: str) -> None:
    spec: dict[str, Any] = {"structures": [bulk("Al")], "task": "describe", "calculator": None} | change
    finished = make_job(**spec).run()
    assert finished.returncode == 65
    assert words in finished.stderr


def test_parameters_that_only_the_kernel_refuses_end_the_job(make_job: MakeJob) -> None:
    # The species are known here, so the layout could be checked; this one cannot be before the kernel runs.
    weighting = {"function": "exp", "scale": 1.0, "r_cut": 5.0, "threshold": 0.01}
    job = _job(make_job, [bulk("Al")], descriptor="mbtr", species=["Al"], grid=GRID, weighting=weighting)
    finished = job.run()
    assert finished.returncode == 65, finished.stderr
    assert "mbtr" in finished.stderr


@pytest.mark.parametrize("name", descriptor_names())
def test_registry(name: str) -> None:
    """Every descriptor: parameters survive JSON, ``auto`` is filled in, one row per structure, one name per column."""
    batch = Batch.from_atoms([bulk("NaCl", "rocksalt", a=5.64), bulk("Al", cubic=True)])
    facts = Facts.of(batch)
    assert facts == Facts(("Na", "Al", "Cl"), 4)
    adapter = descriptor_adapter(name)
    parameters = adapter.Parameters.model_validate(NEEDED.get(name, {})).resolve(facts)
    assert parameters.automatic == ()
    assert adapter.Parameters.model_validate(json.loads(parameters.model_dump_json())) == parameters
    values = adapter.compute(batch, parameters)
    assert isinstance(values, np.ndarray)
    labels = adapter.labels(parameters)
    assert values.shape == (2, len(labels))
    assert adapter.width(parameters) == len(labels)
    assert len(set(labels)) == len(labels)
    cost = adapter.cost(parameters, np.array([4, 32]))
    assert 0 < cost[0] <= cost[1] < 0.1
    # Structures do not depend on their neighbours in the batch.
    np.testing.assert_allclose(adapter.compute(batch[1:2], parameters), values[1:2], rtol=1e-12, atol=1e-14)
