"""Canaries under watch: what counts, against whom it is held, and when it is enough."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.errors import Conflict
from sensegate.lifecycle.canaries import CanaryAnalysis
from sensegate.lifecycle.history import CanaryLimits
from sensegate.lifecycle.outcomes import Outcomes, canary_failure
from sensegate.lifecycle.releases import CanaryPlan
from sensegate.model import Quarantined, QuarantineReason, Readings, RejectedValue, RejectReason, Spec
from sensegate.quantities.quality import Flag, Quality
from tests.conftest import eventually
from tests.support.release_office import CITY, NAME, Office

SPECS = [
    Spec("acme/th@1", "t", "air_temperature"),
    Spec("acme/th@2", "t", "air_temperature"),
    Spec("acme/other@1", "t", "air_temperature"),
]


def readings(spec: int, count: int, *, flags: int = 0, quality: int = 0) -> Readings:
    """Return readings of one spec."""
    ints = np.zeros(count, np.int32)
    long = np.zeros(count, np.int64)
    return Readings(
        ints,
        ints,
        np.full(count, spec, np.int32),
        np.zeros(count, np.int16),
        np.zeros(count),
        {},
        long,
        np.zeros(count, np.uint8),
        long,
        long,
        np.zeros(count, np.uint16),
        np.full(count, quality, np.uint8),
        np.full(count, flags, np.uint32),
    )


@pytest.fixture
async def office(tmp_path: Path) -> Office:
    """A county's profile in version 1, version 2 as a canary of a quarter."""
    made = Office(tmp_path)
    await made.released(1)
    await made.proposed(2)
    await made.releases.canary(NAME, 2, by=CITY, plan=CanaryPlan(share=0.25, limits=CanaryLimits(outcomes_min=10)))
    return made


@pytest.mark.parametrize(
    ("tried", "others", "verdict"),
    [
        pytest.param(Outcomes(readings=100), Outcomes(readings=100), "", id="both are good"),
        pytest.param(Outcomes(readings=9, faults=9), Outcomes(), "", id="too few to say"),
        pytest.param(Outcomes(readings=100, faults=6), Outcomes(readings=100), "6.0% doubted", id="faults"),
        pytest.param(Outcomes(readings=100, faults=6), Outcomes(readings=100, faults=2), "", id="no more than allowed"),
        pytest.param(Outcomes(readings=97, rejected=3), Outcomes(readings=100), "3.0% rejected", id="rejected values"),
        pytest.param(Outcomes(quarantined=10), Outcomes(), "100.0% rejected", id="nothing decoded, nobody to compare"),
        pytest.param(Outcomes(readings=50, faults=50), Outcomes(readings=50, faults=50), "", id="all are bad alike"),
    ],
)
def test_when_it_is_enough(tried: Outcomes, others: Outcomes, verdict: str) -> None:
    """Shares are held against those of the others; where there are none, against perfection."""
    assert canary_failure(tried, others, CanaryLimits(outcomes_min=10)).startswith(verdict)
    assert bool(canary_failure(tried, others, CanaryLimits(outcomes_min=10))) == bool(verdict)


COUNT = st.integers(0, 1_000)


@given(faults=COUNT, rejected=COUNT, readings_=st.integers(1, 1_000))
def test_property_who_does_as_the_others_do_goes_on(faults: int, rejected: int, readings_: int) -> None:
    """Whatever the counts: the same shares on both sides never end a canary."""
    side = Outcomes(readings=readings_ + faults, faults=faults, rejected=rejected)
    double = Outcomes(readings=2 * side.readings, faults=2 * faults, rejected=2 * rejected)
    assert canary_failure(side, double, CanaryLimits(outcomes_min=1, rejected=0, faults=0)) == ""


async def test_what_counts(office: Office) -> None:
    """Readings by their version, what was refused by the version that it bears; other profiles nowhere."""
    trials = CanaryAnalysis(office.releases, "4401")
    trials.count(
        SPECS,
        readings(1, 4, flags=int(Flag.RANGE)),
        [RejectedValue(0, RejectReason.DIMENSION, profile="acme/th@2")],
        [Quarantined(0, QuarantineReason.SCHEMA, profile="acme/th@1"), Quarantined(1, QuarantineReason.SCHEMA)],
    )
    trials.count(SPECS, readings(0, 3), [], [Quarantined(0, QuarantineReason.SCHEMA, profile="acme/other@1")])
    trials.count(SPECS, readings(2, 5, flags=int(Flag.RANGE)), [], [])
    assert trials.outcomes(NAME) == (
        Outcomes(readings=4, faults=4, rejected=1),
        Outcomes(readings=3, quarantined=1),
    )
    assert trials.outcomes("acme/other") == (Outcomes(), Outcomes())


async def test_versions_that_change_places_are_counted_as_what_they_are(office: Office) -> None:
    """Other profiles come into force with as many specs as before: the canary's rows have another number."""
    trials = CanaryAnalysis(office.releases, "4401")
    trials.count(SPECS, readings(1, 4), [], [])
    trials.count([SPECS[1], SPECS[0], SPECS[2]], readings(0, 5), [], [])
    assert trials.outcomes(NAME) == (Outcomes(readings=9), Outcomes())


@pytest.mark.parametrize(
    ("flags", "quality", "faults"),
    [
        (0, Quality.GOOD, 0),
        (Flag.LATE | Flag.CONFLICT, Quality.GOOD, 0),
        (Flag.CLOCK, Quality.UNCERTAIN_CLOCK, 0),
        (Flag.STEP, Quality.UNCERTAIN_STEP, 5),
        (Flag.STUCK | Flag.CLOCK, Quality.UNCERTAIN_CLOCK, 5),
        (0, Quality.BAD_SENSOR, 5),
    ],
)
async def test_what_is_a_fault(office: Office, flags: int, quality: int, faults: int) -> None:
    """Own checks and the device's own doubts; not the clock, nor what duplicates found."""
    trials = CanaryAnalysis(office.releases, "4401")
    trials.count(SPECS, readings(1, 5, flags=int(flags), quality=quality), [], [])
    assert trials.outcomes(NAME)[0].faults == faults


async def test_it_is_ended_once_by_the_gateway_itself(office: Office) -> None:
    """With what was measured on the trail; of two processes that see it one is the first."""
    trials, other = CanaryAnalysis(office.releases, "4401"), CanaryAnalysis(office.releases, "4401")
    tasks = [asyncio.create_task(trial.run()) for trial in (trials, other)]
    for trial in (trials, other):
        trial.count(SPECS, readings(1, 20, flags=int(Flag.RANGE)), [], [])
        trial.count(SPECS, readings(0, 100), [], [])
    await eventually(lambda: office.releases.history(NAME).canary is None)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    steps = [step for step in office.steps() if step[1] == "profile.rollback"]
    assert steps == [("canary-watch", "profile.rollback", "acme/th@2")]
    _, _, _, _, after = office.trail.records[-1]
    assert after is not None
    assert after["measured"] == {
        "reason": "100.0% doubted, the others 0.0%; at most 5.0% more is allowed",
        "canary": {"readings": 20, "faults": 20, "rejected": 0, "quarantined": 0},
        "others": {"readings": 100, "faults": 0, "rejected": 0, "quarantined": 0},
    }
    assert office.of("d1") == 1


async def test_the_next_canary_begins_at_nothing(office: Office) -> None:
    """What was counted of one says nothing of the next; a verdict on the first does not end the second."""
    trials = CanaryAnalysis(office.releases, "4401")
    trials.count(SPECS, readings(1, 20, flags=int(Flag.RANGE)), [], [])
    since = office.releases.history(NAME).canary
    assert since is not None
    await office.releases.end_canary(NAME, by=CITY)
    await office.clock.advance(1)
    await office.releases.canary(NAME, 2, by=CITY, plan=CanaryPlan(share=0.25))
    assert trials.outcomes(NAME) == (Outcomes(), Outcomes())
    with pytest.raises(Conflict):
        await office.releases.end_canary(NAME, by=CITY, measured={}, since=since.since)
    assert office.releases.history(NAME).canary is not None
