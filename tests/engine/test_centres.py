"""A campaign over several centres of one machine: routing, grades, quotas, a centre whose disk is full."""

from __future__ import annotations

import json

import pytest

from .conftest import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PROFILE = """\
schema: matcompute.centre/v1
centre: {{id: {name}, clearance: {clearance}}}
scheduler: {{max_submitted: {window}}}
partitions:
  - {{name: cpu, cores: 2, mem_gb: 4}}
storage: {{work_dir: "{work_dir}"}}
projects: [{{account: alloys, quota_core_h: {quota}}}]
"""


def add(
    site: Site,
    name: str,
    *,
    clearance: str = "general",
    window: int = 2,
    quota: float = 10,
    work_dir: str = "",
) -> None:
    (site.root / "centres" / f"{name}.yaml").write_text(
        PROFILE.format(
            name=name,
            clearance=clearance,
            window=window,
            quota=quota,
            work_dir=work_dir or f"{{workspace}}/scratch/{name}",
        )
    )


def used(site: Site, name: str) -> dict[str, int]:
    return dict(
        site.query(
            "SELECT s.centre, count(*) FROM submission s JOIN campaign c ON c.id = s.campaign_id "
            "WHERE c.name = ? GROUP BY 1",
            name,
        )
    )


def test_two_centres_share_a_campaign_and_important_data_stay_at_one(new_site: Site) -> None:
    site = new_site
    add(site, "near")
    add(site, "safe", clearance="important")
    site.matcompute("campaign", "run", str(site.campaign_file("both", resources="processes: 1", size=1)))
    counts = used(site, "both")
    assert set(counts) == {"near", "safe"}, "and not this machine, which has no profile here"
    file = site.campaign_file("secret", resources="processes: 1", size=2)
    file.write_text(file.read_text().replace("licence:", "classification: {grade: important}\nlicence:"))
    site.matcompute("campaign", "run", str(file))
    assert set(used(site, "secret")) == {"safe"}

    report = json.loads(site.look("centre", "usage", "--by", "centre", "--json"))
    assert {row["centre"] for row in report["rows"]} == {"near", "safe"}
    total = sum(hours for (hours,) in site.query("SELECT core_s / 3600 FROM campaign"))
    assert report["core_h"] == pytest.approx(total), "every core-second of the campaigns is accounted for"
    text = site.matcompute("centre", "explain", "secret").stdout
    assert "cleared for 'general' data, these are 'important'" in text
