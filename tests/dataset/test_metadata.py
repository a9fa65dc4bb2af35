from __future__ import annotations

import pytest

from matcompute.dataset import PROPERTIES, DatasetError, Metadata, PropertyInfo, Quality, Status, spdx
from matcompute.dataset.metadata import highest_grade
from matcompute.dataset.properties import lookup
from matcompute.units import convert, registry


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("domain", "advanced-steels", "did you mean 'advanced-steel'"),
        ("grade", "zzz", "known: core, general, important"),
        ("tier", "publik", "did you mean 'public'"),
        ("node_class", "computing", "did you mean 'computation'"),
        ("license", "CC-BY", "did you mean 'CC-BY-4.0'"),
        ("dataset_id", "7", "is not a UUID"),
    ],
)
def test_vocabularies(field: str, value: str, text: str) -> None:
    with pytest.raises(DatasetError, match=text):
        Metadata(**{field: value})


def test_grades_and_licences() -> None:
    assert highest_grade(["general", "core", "important"]) == "core"
    assert highest_grade([]) == "general"
    assert spdx("mit or apache-2.0") == "MIT OR Apache-2.0"


def test_every_status_and_quality_is_explained() -> None:
    assert [s.value for s in Status] == list(range(13))
    for status in Status:
        assert status.describe
        assert status.remedy
    assert [s for s in Status if s.keeps_value] == [Status.OK, Status.NOT_CONVERGED]
    assert not Status.OK.failed
    assert Status.LOST.failed
    assert [q.value for q in Quality] == [1, 2, 4, 8, 16, 32]


def test_every_unit_of_the_registry_is_known_to_the_unit_parser() -> None:
    for info in PROPERTIES.values():
        assert info.long_name
        assert info.definition
        if info.units != "1":
            registry().Unit(info.units)
    assert convert(1.0, "GPa", PROPERTIES["bulk_modulus"].units) == 1.0


def test_lookup_of_stages_and_unknown_names() -> None:
    info = lookup("relax__energy")
    assert (info.units, info.long_name) == ("eV", "total energy (relax)")
    assert lookup("eos-2__eos_volume").dimensions == ("eos-2__eos_point",)
    with pytest.raises(DatasetError, match="did you mean 'bulk_modulus'"):
        lookup("bulk_modulos")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("Gap", "eV"), "lower-case"),
        (("gap", ""), "no units"),
        (("gap", "eV", "", "c16"), "dtype"),
        (("a b", "eV"), "lower-case"),
    ],
)
def test_wrong_property(arguments: tuple[str, ...], text: str) -> None:
    with pytest.raises(DatasetError, match=text):
        PropertyInfo(*arguments)  # type: ignore[arg-type]
