"""Shelly's first generation: bare values by topic, and the whole status; `expected` as recorded.

The recordings are not ours to copy: `SENSEGATE_SAMPLES` names the folder that holds `mqtt/shelly-gen1.jsonl`.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from sensegate.authoring.examples import same_value
from sensegate.quantities.properties import PROPERTIES
from sensegate.quantities.units import conversion
from tests.outside.mqtt import SAMPLES, OneDevice, decode, lines

pytestmark = pytest.mark.skipif(
    not SAMPLES, reason="SENSEGATE_SAMPLES is not set: it names the folder with mqtt/shelly-gen1.jsonl"
)
UCUM = {"ppm": "[ppm]"}
CONDITION = re.compile(r"\[[^\]]*=[^\]]*\]$")
"""What stands at the end of a reading's name where the reading has a condition."""


def shelly(sample: dict[str, Any]) -> OneDevice:
    return OneDevice(sample["topic"].split("/")[1], "shelly/gen1")


def canonical(entry: dict[str, Any], name: str) -> Any:
    """Return an expected value in the unit of its property."""
    value, unit = entry["value"], entry.get("unit")
    if unit is None or isinstance(value, (bool, str)):
        return value
    scale, offset = conversion(UCUM.get(unit, unit), PROPERTIES.by_name(name).unit)
    return value * scale + offset


def path_of(name: str) -> str:
    """Return a path of the status as our grammar writes it: ``meters.0.total`` is ``meters[0].total``."""
    return name.replace(".0.", "[0].")


@pytest.mark.parametrize("sample", lines("shelly-gen1.jsonl"))
def test_shelly_gen1_message_gives_what_is_expected(sample: dict[str, Any]) -> None:
    """Every expected reading of a message comes out, energy in kilowatt hours; a bare value gives that one reading."""
    fields, decoded = decode(sample, shelly(sample))
    assert not fields.quarantined, fields.quarantined
    assert not fields.rejected, fields.rejected
    expected = sample["expected"]
    if isinstance(expected, dict):
        assert [(row.property, row.value) for row in decoded] == [("online", expected["availability"] == "online")]
        return
    status = sample["topic"].endswith("/info")
    for entry in expected:
        matches = (
            [row for row in decoded if CONDITION.sub("", row.field) == path_of(entry["name"])] if status else decoded
        )
        assert len(matches) == 1, (entry, [str(row) for row in decoded])
        assert same_value(canonical(entry, matches[0].property), matches[0].value), (entry, str(matches[0]))
        if status:
            assert matches[0].time == json.loads(sample["payload"])["unixtime"] * 1_000_000


def test_the_status_says_what_the_single_values_say() -> None:
    """Power, energy and switch of the status are readings of the same property and channel as those of their topics."""
    single: dict[tuple[str, str], Any] = {}
    status: dict[tuple[str, str], Any] = {}
    for sample in (param.values[0] for param in lines("shelly-gen1.jsonl")):
        device = sample["topic"].split("/")[1]
        fields, decoded = decode(sample, shelly(sample))
        del fields
        into = status if sample["topic"].endswith("/info") else single
        into.update({(device, row.property): row.value for row in decoded})
    both = single.keys() & status.keys()
    assert {name for _, name in both} >= {"active_power", "energy", "switched_on", "gas_state", "gas_fraction"}
    assert all(same_value(single[key], status[key]) for key in both)
