"""Pause, resume, cancel, retry, budget, detaching, and several commands at once, on real processes."""

from __future__ import annotations

import json
import re
import signal

import pytest

from matcompute.dataset import Dataset, Status

from .conftest import PATIENCE_S, Site, write_structures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SIMPLE = """\
schema: matcompute.campaign/v1
name: {name}
title: a small campaign
domain: advanced-nonferrous-metals
licence: CC0-1.0
contributors: [{{name: matcompute tests}}]
structures: [{{files: {source}}}]
stages:
  - relax: {{calculator: gated, cell: false, fmax: {fmax}, steps: {steps}, batch_size: {size}}}
"""


def simple(site: Site, name: str, *, size: int = 4, steps: int = 500, source: str = "rattled.extxyz") -> str:
    path = site.folder / f"{name}.yaml"
    path.write_text(SIMPLE.format(name=name, size=size, steps=steps, source=source, fmax=0.002))
    return str(path)


def batches(site: Site, name: str, *states: str) -> int:
    marks = ",".join("?" * len(states))
    statement = (
        f"SELECT count(*) FROM batch JOIN campaign ON campaign.id = batch.campaign_id "
        f"WHERE campaign.name = ? AND batch.state IN ({marks})"
    )
    return site.query(statement, name, *states)[0][0]


def test_two_runs_at_once_are_safe(site: Site) -> None:
    """The same campaign twice and another one beside it."""
    before, log = site.jobs(), site.root / "logs" / "dispatcher.log"
    seen = len(log.read_text()) if log.exists() else 0
    one, other = simple(site, "twice"), simple(site, "beside")
    running = [site.start("campaign", "run", file, "--no-progress") for file in (one, one, other)]
    texts = [process.communicate(timeout=2 * PATIENCE_S)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], texts
    counts = site.events(site.jobs() - before, "done")
    assert set(counts.values()) == {2}, "each structure once in each of the two campaigns"
    lives = re.findall(r"dispatcher (\d+) (starts|ends)", log.read_text()[seen:])
    begun = [pid for pid, what in lives if what == "starts"]
    lives = [(pid, what) for pid, what in lives if pid in begun]
    one_after_another = [(pid, what) for pid in begun for what in ("starts", "ends")]
    assert lives == one_after_another[: len(lives)]


def test_pause_and_resume(site: Site) -> None:
    file = simple(site, "paused", size=2)
    site.gate.close()
    site.matcompute("campaign", "run", file, "--detach")
    site.let_pass_until(lambda: batches(site, "paused", "finished") >= 1, "the first batch")
    assert "resume paused" in site.look("campaign", "pause", "paused")
    site.gate.open()
    site.until(lambda: not batches(site, "paused", "intent", "submitted"), "the end of what was in flight")
    assert batches(site, "paused", "planned") > 0, "it was paused too late to show anything"
    site.until(lambda: not site.dispatchers(), "the end of the idle dispatcher")
    assert site.status("paused")["state"] == "paused"
    assert "finished: 16 structures" in site.matcompute("campaign", "resume", "paused").stdout


def test_cancel_kills_and_resume_takes_up(site: Site) -> None:
    before = site.jobs()
    file = simple(site, "cancelled", size=4)
    site.gate.close()
    site.matcompute("campaign", "run", file, "--detach")
    site.let_pass_until(lambda: site.done(site.jobs() - before) >= 2, "two structures")
    assert "is cancelled" in site.look("campaign", "cancel", "cancelled", "--yes")
    site.until(lambda: not site.node_programs(), "the end of the node programs")
    site.gate.open()
    assert not batches(site, "cancelled", "intent", "submitted", "planned")
    result = site.matcompute("campaign", "run", file, check=False)
    assert result.returncode == 2
    assert "campaign resume cancelled" in result.stdout
    assert "finished: 16 structures" in site.matcompute("campaign", "resume", "cancelled").stdout


def test_budget(site: Site) -> None:
    path = site.folder / "budget.yaml"
    simple(site, "budget", size=4)
    path.write_text(path.read_text() + "budget: {core_hours: 0.000001}\n")
    result = site.matcompute("campaign", "run", str(path), check=False)
    assert result.returncode == 1
    assert "over-budget" in result.stdout
    assert "--core-hours" in result.stdout
    assert batches(site, "budget", "finished") == 1, "the first batch was allowed, no other"
    result = site.matcompute("campaign", "resume", "budget", check=False)
    assert result.returncode == 2
    assert "has used" in result.stdout
    assert "finished" in site.matcompute("campaign", "resume", "budget", "--core-hours", "1").stdout


def test_failures_and_retry(site: Site) -> None:
    import ase.io
    from ase.build import bulk

    write_structures(site.folder / "mixed.extxyz", count=3)
    frames = [bulk(metal) for metal in ("Cu", "Ag", "Au", "Pt", "Pd")]  # no forces at all: converged at once
    frames += ase.io.read(site.folder / "mixed.extxyz", index=":")
    frames += [bulk("Fe"), bulk("Cu", a=0.4)]  # unknown to EMT; atoms on top of each other
    ase.io.write(site.folder / "mixed.extxyz", frames)
    before = site.jobs()
    file = simple(site, "failing", steps=2, source="mixed.extxyz")
    assert "4 failed" in site.matcompute("campaign", "run", file).stdout

    found = json.loads(site.look("campaign", "failures", "failing", "--json"))
    causes = {(item["what"], item["code"]): item for item in found}
    assert causes["structures", "not_converged"]["count"] == 3
    assert causes["structures", "unsupported_species"]["count"] == 1
    assert "Fe" in causes["structures", "unsupported_species"]["message"]
    assert any(what == "input" and "mixed.extxyz" in item["example"] for (what, _), item in causes.items())
    assert all(item["remedy"] for item in found)
    with Dataset(site.dataset("failing")) as data:
        assert len(data) == 9
        status = list(data.status("energy"))
        assert status.count(Status.NOT_CONVERGED) == 3
        assert status.count(Status.UNSUPPORTED_SPECIES) == 1

    result = site.matcompute("campaign", "retry", "failing", "--failed", "--stage", "relay", check=False)
    assert "did you mean 'relax'?" in result.stdout
    result = site.matcompute("campaign", "retry", "failing", "--failed")
    assert "4 structures of 'failing' computed again" in result.stdout
    counts = sorted(site.events(site.jobs() - before, "done").values())
    assert counts == [1] * 5 + [2] * 4, "what was good is not computed again"
    attempts = site.query(
        "SELECT attempt, task.state, count(*) FROM task JOIN campaign ON campaign.id = task.campaign_id "
        "WHERE campaign.name = 'failing' GROUP BY attempt, task.state ORDER BY attempt, task.state"
    )
    assert attempts == [(1, "done", 5), (1, "superseded", 4), (2, "done", 4)]
    with Dataset(site.dataset("failing")) as data:
        assert (len(data), data.metadata.dataset_version) == (9, "2")


def test_control_c_detaches(site: Site) -> None:
    site.gate.close()
    front = site.start("campaign", "run", simple(site, "detached"), "--no-progress")
    site.until(lambda: site.campaign_state("detached") == "running", "running")
    front.send_signal(signal.SIGINT)
    text = front.communicate(timeout=PATIENCE_S)[0]
    site.gate.open()
    assert front.returncode == 0
    assert "campaign status detached --watch" in text
    result = site.matcompute("campaign", "status", "detached", "--watch")
    assert "finished: 16 structures" in result.stdout
