"""Campaign files: what is read, and what each mistake is told as."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from matcompute import plugins
from matcompute.campaign.model import Campaign, CampaignFileError
from matcompute.campaign.schema import campaign_schema, schema_text
from matcompute.campaign.starter import write_starter
from matcompute.campaign.vocabulary import check_orcid
from matcompute.errors import InputError
from matcompute.yamlfile import load_yaml, parse_yaml

ROOT = Path(__file__).parents[2]

GOOD = """\
schema: matcompute.campaign/v1
name: fcc-alloys
title: Alloys
domain: advanced-nonferrous-metals
classification: {grade: important, tier: member-1}
licence: cc-by-4.0
contributors:
  - name: Josiah Carberry
    orcid: https://orcid.org/0000-0002-1825-0097
structures:
  - prototypes: [L1_2]
    elements: {A: [Al], B: [Ni, Cu]}
  - files: "*.cif"
    limit: 5
stages:
  - relax:
      calculator: emt
      fmax: 50 meV/angstrom
      resources: {processes: 2, memory: 500 MB, walltime: 2 h}
  - hull: {max: 100 meV/atom}
  - filter: e_above_hull <= 0.05 eV/atom
  - relax:
      name: tight
      calculator: {name: emt, asap_cutoff: true}
      batch_size: 50
  - eos: {calculator: emt}
  - eos: {calculator: emt, points: 9}
  - top: {n: 3, by: bulk_modulus}
budget: {core_hours: 2}
"""


def load(tmp_path: Path, text: str) -> Campaign:
    path = tmp_path / "campaign.yaml"
    path.write_text(text, encoding="utf-8")
    return Campaign.load(path)


def problems(tmp_path: Path, text: str) -> list[tuple[int, str, str]]:
    with pytest.raises(CampaignFileError) as caught:
        load(tmp_path, text)
    for problem in caught.value.problems:
        assert f"campaign.yaml:{problem.line}: {problem.key}: " in str(caught.value)
    return [(p.line, p.key, p.message) for p in caught.value.problems]


def test_good_file(tmp_path: Path) -> None:
    campaign = load(tmp_path, GOOD)
    assert campaign.name == "fcc-alloys"
    assert campaign.licence == "CC-BY-4.0"
    assert campaign.contributors[0].orcid == "0000-0002-1825-0097"
    assert campaign.grade == "important"
    assert campaign.centres.allow is None
    assert campaign.centres.chosen(["local", "far"]) == ["local", "far"]
    assert campaign.centres.strategy == "balanced"
    assert campaign.budget.core_hours == 2
    assert campaign.wants_references
    assert campaign.base_dir == tmp_path
    assert [s.name for s in campaign.stages] == ["relax", "hull", "filter", "tight", "eos", "eos_2", "top"]
    assert [s.is_gate for s in campaign.stages] == [False, True, True, False, False, False, True]
    relax, tight = campaign.stages[0], campaign.stage("tight")
    assert relax.parameters["fmax"] == pytest.approx(0.05)
    assert relax.parameters["cell"] is True
    assert (relax.resources.memory, relax.resources.walltime, relax.resources.cores) == (0.5, 7200.0, 2)
    assert campaign.stages[1].parameters["max"] == pytest.approx(0.1)
    assert (tight.calculator.name, tight.calculator.parameters, tight.batch_size) == (
        "emt",
        {"asap_cutoff": True},
        50,
    )
    assert [s.line for s in campaign.stages] == [16, 20, 21, 22, 26, 27, 28]
    assert [(s.kind, s.line) for s in campaign.structures] == [("prototypes", 11), ("files", 13)]
    assert campaign.structures[1].model.limit == 5
    with pytest.raises(InputError, match="did you mean 'tight'"):
        campaign.stage("tigth")


def test_dump_reads_back(tmp_path: Path) -> None:
    campaign = load(tmp_path, GOOD)
    document = json.loads(json.dumps(campaign.model_dump(mode="json", by_alias=True)))
    again = Campaign.model_validate(document)
    assert again.model_dump(mode="json") == campaign.model_dump(mode="json")


# What is replaced, by what; then line, key and words of the only problem.
MISTAKES = [
    ("domain:", "domian:", 4, "domian", "did you mean 'domain'"),
    (
        "advanced-nonferrous-metals",
        "nonferrous-metals",
        4,
        "domain",
        "did you mean 'advanced-nonferrous-metals'",
    ),
    ("grade: important", "grade: importent", 5, "classification.grade", "did you mean 'important'"),
    ("tier: member-1", "level: 3", 5, "classification.level", "unknown key"),
    ("cc-by-4.0", "CC-BY4.0", 6, "licence", "did you mean 'CC-BY-4.0'"),
    ("licence:", "licens:", 6, "licens", "did you mean 'licence'"),
    ("0000-0002-1825-0097", "0000-0002-1825-0098", 9, "contributors[0].orcid", "check digit"),
    ("0000-0002-1825-0097", "0000-0002-1825", 9, "contributors[0].orcid", "0000-0000-0000-0000"),
    ("orcid:", "orchid:", 9, "contributors[0].orchid", "did you mean 'orcid'"),
    ("name: fcc-alloys", "name: Fcc alloys", 2, "name", "wrong form"),
    ("campaign/v1", "campaign/v2", 1, "schema", "expected matcompute.campaign/v1"),
    ("[L1_2]", "[L1_3]", 11, "structures[0].prototypes", "did you mean 'L1_2'"),
    ("B: [Ni, Cu]", "B: [Ni, cu]", 12, "structures[0].elements", "did you mean 'Cu'"),
    ("files:", "flies:", 13, "structures[1]", "did you mean 'files'"),
    ("limit: 5", "limit: 0", 14, "structures[1].limit", "greater than or equal to 1, found 0"),
    ("limit: 5", "limits: 5", 14, "structures[1].limits", "did you mean 'limit'"),
    (
        "- relax:\n      calculator: emt\n      fmax",
        "- relx:\n      calculator: emt\n      fmax",
        16,
        "stages[0].relx",
        "did you mean 'relax'",
    ),
    ("fmax: 50 meV/angstrom", "fmax: 50 meV", 18, "stages[0].relax.fmax", "not a quantity in eV/angstrom"),
    ("fmax: 50 meV/angstrom", "fmax: -1", 18, "stages[0].relax.fmax", "greater than 0"),
    ("fmax: 50 meV/angstrom", "f_max: 1", 18, "stages[0].relax.f_max", "did you mean 'fmax'"),
    ("500 MB", "lots", 19, "stages[0].relax.resources.memory", "not a quantity"),
    ("processes: 2", "proceses: 2", 19, "stages[0].relax.resources.proceses", "did you mean 'processes'"),
    ("100 meV/atom", "100 meV/atoms_", 20, "stages[1].hull.max", "unit"),
    ("{max: 100", "{maximum: 100", 20, "stages[1].hull.maximum", "did you mean 'max'"),
    ("filter: e_above_hull", "filter: e_abov_hull", 21, "stages[2].filter", "did you mean 'e_above_hull'"),
    ("0.05 eV/atom", "0.05 GPa", 21, "stages[2].filter", "GPa"),
    ("<= 0.05", "<= <= 0.05", 21, "stages[2].filter", ""),
    ("name: tight", "name: relax", 23, "stages[3].relax.name", "unique"),
    ("name: tight", "name: Tight", 23, "stages[3].relax.name", "stage name"),
    ("{name: emt,", "{name: emmt,", 24, "stages[3].relax.calculator.name", "did you mean 'emt'"),
    ("asap_cutoff", "asap_cutof", 24, "stages[3].relax.calculator.asap_cutof", "did you mean 'asap_cutoff'"),
    ("batch_size: 50", "batch_size: many", 25, "stages[3].relax.batch_size", "whole number"),
    ("{calculator: emt}", "{}", 26, "stages[4].eos.calculator", "missing; known: abinit, chgnet, emt"),
    ("by: bulk_modulus", "by: bulk_moduls", 28, "stages[6].top.by", "did you mean 'bulk_modulus'"),
    ("n: 3, ", "", 28, "stages[6].top.n", "missing"),
    ("core_hours: 2", "core_hours: two", 29, "budget.core_hours", "number"),
    ("budget: {core_hours: 2}", "centres: [local, local]", 29, "centres", "twice"),
    ("title: Alloys", "title: Alloys\ntitle: More", 4, "title", "duplicate key 'title' (first on line 3)"),
    ("title: Alloys", "title: Alloys\nlicense: MIT", 4, "license", "mean the same"),
]


@pytest.mark.parametrize(("old", "new", "line", "key", "words"), MISTAKES, ids=[m[1][:30] for m in MISTAKES])
def test_mistakes(tmp_path: Path, old: str, new: str, line: int, key: str, words: str) -> None:
    assert old in GOOD
    found = problems(tmp_path, GOOD.replace(old, new, 1))
    assert (line, key) in {(at, k) for at, k, _ in found}, found
    assert any(words in message for at, k, message in found if (at, k) == (line, key)), found
    # A missing required key is the other side of a misspelt one; nothing else follows from one mistake.
    assert all("is missing" in message for at, k, message in found if (at, k) != (line, key)), found


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    text = GOOD
    chosen = [MISTAKES[k] for k in (2, 4, 6, 9, 11, 14, 17, 21, 29)]
    for old, new, *_ in chosen:
        text = text.replace(old, new, 1)
    found = problems(tmp_path, text)
    assert {(line, key) for line, key, _ in found} == {(line, key) for _, _, line, key, _ in chosen}
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a mapping"),
        ("- a\n", "expected a mapping"),
        ("a: [1, 2\nb: 3\n", "campaign.yaml:2:2: not valid YAML"),
        ("a: b: c\n", "campaign.yaml:1:5: not valid YAML"),
        ("a: *nothing\n", "undefined alias"),
        ("a: !!python/object:os.system x\n", "schema"),
    ],
)
def test_no_campaign_at_all(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Campaign.load(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"title: caf\xe9\n")
    with pytest.raises(InputError, match="not UTF-8"):
        Campaign.load(tmp_path / "latin.yaml")


def test_yaml_places(tmp_path: Path) -> None:
    text = (
        "a: 1\nb:\n  - c: [x, y]\n    d: 2024-01-01\nbase: &base {k: 1, l: 2}\nmore:\n  <<: *base\n  l: 3\n"
    )
    found = parse_yaml(text, tmp_path / "x.yaml")
    assert found.data["b"][0]["c"] == ["x", "y"]
    assert found.data["more"] == {"k": 1, "l": 3}
    assert not found.problems
    assert found.place(("b", 0, "c", 1)) == (3, 12)
    assert found.place(("b", 0, "missing")) == (3, 5)
    assert found.place(("more", "l")) == (8, 3)


def test_orcid_check_digit_x() -> None:
    assert check_orcid("0000-0002-1694-233X") == "0000-0002-1694-233X"
    with pytest.raises(ValueError, match="check digit"):
        check_orcid("0000-0002-1694-2331")


def test_ready_campaigns_load_and_fit_the_schema() -> None:
    validator = jsonschema.Draft202012Validator(campaign_schema())
    files = sorted((ROOT / "workflows" / "campaigns").glob("*.yaml"))
    assert len(files) >= 2
    for path in files:
        assert Campaign.load(path).name == path.stem
        validator.validate(load_yaml(path).data)


def test_schema_agrees_with_the_reader(tmp_path: Path) -> None:
    """What the schema can express, it refuses as the reader does; it accepts what the reader accepts."""
    schema = campaign_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(yaml.safe_load(GOOD))
    beyond = [
        "licence",
        "orcid",
        "prototypes",
        "elements",
        "filter",
        "unique",
        "duplicate",
        "twice",
        "quantity",
    ]
    beyond += ["unit", "mean"]
    for old, new, _, key, words in MISTAKES:
        if any(word in key or word in words for word in beyond) or key in {"stages[6].top.by", "title"}:
            continue  # check digits, vocabularies that grow, units, columns
        if key == "stages[3].relax.name" or key.endswith("memory"):
            continue
        assert not validator.is_valid(yaml.safe_load(GOOD.replace(old, new, 1))), (old, new)


def test_committed_schema_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    """`matcompute campaign schema > docs/reference/campaign.schema.json` mends it."""
    names = plugins.names

    def ours(group: str) -> list[str]:  # a developer may have adapters of other packages installed
        return [
            name
            for name in names(group)
            if plugins._group(group)[name].value.startswith(("matcompute.", "matcompute_workflows."))
        ]

    monkeypatch.setattr(plugins, "names", ours)
    committed = (ROOT / "docs" / "reference" / "campaign.schema.json").read_text(encoding="utf-8")
    assert committed == schema_text()


def test_examples_of_the_manual(tmp_path: Path) -> None:
    """Every YAML block of the pages on campaign files is read as it stands, in a file or as a part of one."""
    whole = parts = 0
    for page in ("reference/campaign-file.md", "how-to/structure-sources.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for block in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            if block.startswith("schema:"):
                load(tmp_path, block)
                whole += 1
            elif block.startswith("structures:"):
                start, end = GOOD.index("structures:"), GOOD.index("stages:")
                load(tmp_path, GOOD[:start] + block + GOOD[end:])
                parts += 1
    assert whole >= 1
    assert parts >= 3


def test_starter(tmp_path: Path) -> None:
    path = write_starter("my-first", tmp_path / "first.yaml")
    assert Campaign.load(path).name == "my-first"
    with pytest.raises(InputError, match="exists"):
        write_starter("my-first", path)
    write_starter("another", path, overwrite=True)
    assert Campaign.load(path).name == "another"
    with pytest.raises(InputError, match="cannot name") as caught:
        write_starter("My First!", path)
    assert "my-first" in str(caught.value)


def test_loading_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom matcompute.campaign.model import Campaign\n"
        f"Campaign.load({str(ROOT / 'workflows/campaigns/al-intermetallics.yaml')!r})\n"
        "print([m for m in ('torch', 'aiida', 'pymatgen', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
