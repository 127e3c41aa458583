"""Marked personal values in every place of every format: what is kept of a message holds none of them.

The whole gateway, and every byte that it writes: tests/live/test_canary.py.
"""

from __future__ import annotations

import os

import msgspec
import pytest

from sensegate.errors import Rejected
from sensegate.video import stored
from sensegate.video.format import CameraInfo
from sensegate.video.formats import FORMATS
from tests.video.canary import AT, BASES, KINDS, MARKS, PSEUDONYMISER, forms, marks_in, opened, planted

STEP = int(os.environ.get("CANARY_STEP", "1" if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else "5"))
"""Every so-manieth kind is put into each place of a message; 1, as `make fuzz` has it: all of them."""


def kept_of(name: str, topic: str, payload: bytes) -> tuple[bytes, bytes]:
    """Return (what the log would hold, what the feed would) of a message, as the walk makes them."""
    form = FORMATS[name]
    try:
        kept = stored.encode_redacted(name, form.redact(payload, topic, AT, PSEUDONYMISER))
    except Rejected as why:
        return stored.encode_withheld(name, payload, why, PSEUDONYMISER), str(why).encode()
    cut = stored.decode_stored(kept)
    assert cut is not None
    try:
        decoded = form.decode(bytes(cut.body), topic, AT, CameraInfo(id="c1"))
    except Rejected as why:
        return kept, str(why).encode()
    return kept, msgspec.json.encode(decoded)


def test_forty_kinds() -> None:
    """There are forty of them, no one a part of another, each found in every form of it: the scan is not blind."""
    assert len(MARKS) >= 40
    for kind, value in MARKS.items():
        for form in forms(value):
            assert kind in marks_in(b"..." + form + b"...")
        assert list(marks_in(value.encode())) == [kind] or kind.startswith("face")


@pytest.mark.fuzz
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_what_is_kept_holds_no_mark(name: str) -> None:
    """Each kind in each place, over the shifts; one at a time in a message that is good otherwise, and many at once."""
    assert BASES[name], f"no example of a profile is of {name}"
    leaks: dict[tuple[str, str], str] = {}
    count = 0
    for number, (topic, payload) in enumerate(BASES[name]):
        for shift in range(number % STEP, len(KINDS), STEP):
            for place, message in planted(payload, shift):
                count += 1
                for where, content in zip(("kept", "seen"), kept_of(name, topic, message), strict=True):
                    for blob in opened(content):
                        leaks |= {(kind, f"{where} {place}"): str(blob)[:300] for kind in marks_in(blob)}
    assert not leaks, f"{len(leaks)} of {count}:\n" + "\n".join(
        f"{key}: {text}" for key, text in list(leaks.items())[:12]
    )


def test_the_scan_finds_what_is_not_cut() -> None:
    """Control: the same messages as they come hold all kinds."""
    for name, base in BASES.items():
        results: set[str] = set()
        for topic, payload in base:
            assert topic is not None
            for shift in range(0, len(KINDS), 5):
                for _, message in planted(payload, shift) if len(results) < 40 else ():
                    results |= marks_in(message).keys()
        assert len(results) >= 40, name
