"""Bodies of every format, spoilt in each place: cut or refused, seen or refused, and nobody is told of.

Those of profiles go through the whole walk in tests/decode/test_spoilt.py; these are also the bodies of GA/T 1400.
"""

from __future__ import annotations

import os
import traceback
from itertools import islice

import pytest

from sensegate.errors import Rejected
from sensegate.video.format import CameraInfo
from sensegate.video.formats import FORMATS, viid_responses, viid_subscriptions
from tests.spoil import UNWRITABLE, spoilt
from tests.video.canary import AT, BASES, MARKS, PSEUDONYMISER

EACH = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 197
NOBODYS = (MARKS["plate"], MARKS["name"])


def outcome_of(name: str, topic: str, payload: bytes) -> str:
    """Return what is kept and told of a body."""
    try:
        cut = FORMATS[name].redact(payload, topic, AT, PSEUDONYMISER)
        decoded = FORMATS[name].decode(cut.payload, topic, AT, CameraInfo(id="c1", width=640, height=480))
    except Rejected as why:
        return why.detail
    assert all(
        observation.box is None or all(0 <= side <= 1 for side in observation.box)
        for observation in decoded.observations
    )
    return f"{cut.payload.decode()} {dict(cut.removed)} {decoded}"


@pytest.mark.fuzz
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_any_change_of_a_body_is_cut_or_refused(name: str) -> None:
    result: dict[str, str] = {}
    for number, (topic, payload) in enumerate(BASES[name]):
        for fault, make in islice(spoilt(payload), number % EACH, None, EACH):
            try:
                body = make()
            except UNWRITABLE:
                continue
            try:
                text = outcome_of(name, topic, body)
            except Exception as why:  # noqa: BLE001 - any is a finding
                place = traceback.extract_tb(why.__traceback__)[-1]
                result.setdefault(
                    f"{type(why).__name__} {place.name}:{place.lineno}", f"{fault}: {why!r} {body[:400]!r}"
                )
                continue
            if any(mark in text for mark in NOBODYS):
                result.setdefault("personal data", f"{fault}: {text[:400]}")
    assert not result, "\n".join(f"{key}: {text}" for key, text in result.items())


@pytest.mark.fuzz
@pytest.mark.parametrize(
    "body",
    [
        (
            b'{"SubscribeListObject":{"SubscribeObject":[{"SubscribeID":"1","SubscribeDetail":"12","ResourceURI":"4401",'
            b'"BeginTime":"20260115100000","EndTime":"20260115110000","ReportInterval":3,"OperateType":0}]}}'
        ),
        b'{"ResponseStatusListObject":{"ResponseStatusObject":[{"Id":"1","StatusCode":0,"StatusString":"OK"}]}}',
    ],
)
def test_any_wish_and_any_answer_is_read(body: bytes) -> None:
    """Subscriptions of platforms above, and what they answer."""
    for _, make in islice(spoilt(body), 0, None, 1 if EACH == 1 else 7):
        try:
            payload = make()
        except UNWRITABLE:
            continue
        viid_responses.parse_response(payload)
        try:
            result = viid_subscriptions.parse_subscriptions(payload, "44000000005030000003", 0)
        except Rejected:
            continue
        assert all(
            item.subscription is None or viid_subscriptions.subscription_fields(item.subscription) for item in result
        )
