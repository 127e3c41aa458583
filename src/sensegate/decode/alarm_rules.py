"""Checks of the alarm rules of a profile."""

from __future__ import annotations

import re

from sensegate.decode.grammar import AlarmPart
from sensegate.decode.keys import ProfileKeys

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


def check_alarms(alarms: tuple[AlarmPart, ...], keys: ProfileKeys, available: set[str]) -> None:
    """Check the alarm rules of a profile; `available`: properties of its readings.

    Raises:
        ProfileError: with file, line and key.
    """
    seen: set[str] = set()
    for index, alarm in enumerate(alarms):
        here = ("alarms", index)
        if not _NAME.fullmatch(alarm.name):
            raise keys.error("must be lower-case letters, digits and -", *here, "name", remedy="e.g. high-water")
        if alarm.name in seen:
            raise keys.error(f"two alarms have the name '{alarm.name}'", *here, "name", remedy="rename one of them")
        seen.add(alarm.name)
        if alarm.kind != "silence" and alarm.property not in available:
            remedy = f"use one of {', '.join(sorted(available)[:20])}"
            raise keys.error(f"no reading of this profile is '{alarm.property}'", *here, "property", remedy=remedy)
        if alarm.kind == "threshold" and alarm.above is None and alarm.below is None and alarm.equals is None:
            raise keys.error("the threshold is missing", *here, remedy="give above, below or equals")
        if alarm.above is not None and alarm.below is not None and alarm.above <= alarm.below:
            raise keys.error("above is not greater than below", *here, "above", remedy="exchange the two")
        if alarm.kind == "change" and not alarm.by:
            raise keys.error("the difference is missing", *here, "by", remedy="give a number above 0")
