from __future__ import annotations

import os
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest

from tests.ledger.controls import SOURCE, Control, controls, edited_files, patched
from tests.ledger.kills import Campaign, Target, plan
from tests.ledger.soak import say

CONTROLS = controls()
SEED = 11
NODE = "4401"
REPLACED = "replaced worker"
ATTEMPTS = 16 if "SENSEGATE_SOAK" in os.environ else 4
"""A kill hits the window of some faults only now and then; the soak tries until it did."""


def test_every_control_of_the_contract_is_there() -> None:
    """Five ways to get it wrong are tried."""
    assert set(CONTROLS) == {
        "acknowledge-before-commit",
        "batches-not-reset",
        "duplicate-state-dropped",
        "fence-removed",
        "position-apart",
    }


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_fits_the_source(name: str) -> None:
    """Each edit finds its place exactly once, and changes its file."""
    for file, text in edited_files(CONTROLS[name]).items():
        assert text != (SOURCE / "sensegate" / file).read_text(encoding="utf-8")


def test_a_copy_is_edited_and_the_source_is_not(tmp_path: Path) -> None:
    """The processes of a campaign run the copy."""
    control = CONTROLS["fence-removed"]
    before = {edit.file: (SOURCE / "sensegate" / edit.file).read_text(encoding="utf-8") for edit in control.edits}
    assert patched(control, tmp_path) == {"PYTHONPATH": str(tmp_path / "src")}
    for file, text in before.items():
        assert (tmp_path / "src" / "sensegate" / file).read_text(encoding="utf-8") == edited_files(control)[file]
        assert (SOURCE / "sensegate" / file).read_text(encoding="utf-8") == text


def campaign(control: Control | None, directory: Path, targets: list[str], kills: int, *, seed: int = SEED) -> Campaign:
    """Return a campaign against one node alone, on the patched tree or on ours."""
    environment = patched(control, directory / "tree") if control else None
    chosen = [target for target in Target if target.value in targets]
    delays = cycle(control.delays_s if control else [0.1])
    planned = plan(seed, kills, least=0, targets=chosen)
    wanted = [replace(kill, delay_s=delay, again_s=None) for kill, delay in zip(planned, delays, strict=False)]
    return Campaign(
        directory / "city",
        wanted,
        seed=seed,
        nodes=(NODE,),
        alone=True,
        burst=8_000,
        faults=control.faults if control else 1.0,
        environment=environment,
        # With a front of its own process, a gateway that is stopped leaves messages for the one in its place.
        settings={"listen": {"mqtt": {"processes": 1}}} if targets == [REPLACED] else None,
        until_guilty=True,
        deadline_s=6.0,
        say=say,
    )


RARE = {"acknowledge-before-commit", "batches-not-reset", "duplicate-state-dropped", "position-apart"}
"""Controls whose window a kill seldom hits, half a minute and more each: in the soak. `persist/test_machine.py` has the
control of state that is dropped, without processes."""


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.parametrize("name", CONTROLS if "SENSEGATE_SOAK" in os.environ else sorted(CONTROLS.keys() - RARE))
async def test_a_control_is_caught(name: str, tmp_path: Path) -> None:
    """With the fault in the tree, the same measurement is not zero: a kill hits the fault's window now and then."""
    control = CONTROLS[name]
    for attempt in range(ATTEMPTS):
        directory = tmp_path / str(attempt)
        directory.mkdir()
        report = await campaign(control, directory, control.targets, control.kills, seed=SEED + attempt).run()
        say(report.table())
        if any(report.of(verdict) for verdict in control.caught):
            return
    pytest.fail(f"not caught in {ATTEMPTS} campaigns")


@pytest.mark.live
@pytest.mark.slow
async def test_a_worker_that_was_replaced_is_fenced(tmp_path: Path) -> None:
    """Two workers at once, the older one woken after the newer has committed: each reading stays one."""
    report = await campaign(None, tmp_path, [REPLACED], 1).run()
    say(report.table())
    assert report.good, report.table()
