"""Video metadata as flat values: messages of a form give in bulk what they give one by one, and the same state."""

from __future__ import annotations

import random

import pytest

from sensegate.authoring.examples import NamedDevices, message_of
from sensegate.config import IngestConfig
from sensegate.decode import Decoder
from sensegate.decode.formats.video import VideoTree
from sensegate.decode.frame import FormedTree
from sensegate.decode.profile import CompiledProfile
from sensegate.model import Message
from sensegate.video.format import RejectedObject, VideoReport
from tests.decode.bulk import assert_bulk_is_single, mutated
from tests.support.profiles import library

PROFILES = [
    profile
    for name in library().ids
    if (profile := library().find(name)) is not None and any(rule.video for rule in profile.rules)
]
LIMITS = IngestConfig(rate_per_device_s=1e9)
SPOILT = 8
"""The share of messages with a changed byte is one of this number."""


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: str(profile.id))
def test_bulk_is_single(profile: CompiledProfile) -> None:
    """The examples of each profile of cameras in any order, again and again, and some of them spoilt."""
    examples = [example for example in profile.source.examples if not example.before]
    names = list(dict.fromkeys(name for example in examples for name in example.devices))
    gateway = next((example.gateway for example in examples if example.gateway), "")
    r = random.Random(1)
    batches: list[list[Message]] = []
    for _ in range(2):
        sent = [message_of(r.choice(examples)) for _ in range(40)]
        changes = [(number, r.randrange(10_000), r.randrange(1, 255)) for number in range(0, 40, SPOILT)]
        raws = mutated([message.payload for message in sent], changes)
        batches.append(
            [
                Message(message.topic, raw, message.received, number)
                for number, (message, raw) in enumerate(zip(sent, raws, strict=True))
            ]
        )
    assert_bulk_is_single(lambda: Decoder(library(), NamedDevices(names, profile.id, gateway=gateway), LIMITS), batches)


def test_counts_are_decoded_into_columns() -> None:
    """Counts over a line, as Axis sends them, have a plan once three were seen."""
    (axis,) = [profile for profile in PROFILES if profile.id == "axis/camera"]
    message = message_of(axis.source.examples[0])
    decoder = Decoder(library(), NamedDevices(["d1"], axis.id), LIMITS)
    first, second = (decoder.decode([message] * 60) for _ in range(2))
    assert len(first) == len(second) == 60 * len(axis.source.examples[0].expect)
    assert decoder.plans.count == 1


def test_what_is_more_than_elements_has_no_form() -> None:
    """A message with refused or downsampled objects, or without elements, is counted by its tree."""
    part = {"n": "field_occupied", "v": True, "u": None, "t": (1, 0), "c": "d1", "i": "x"}
    whole = VideoTree([part], VideoReport(), {})
    assert isinstance(whole.formed, FormedTree)
    assert whole.formed.form.tree(whole.formed.values) == whole
    for tree in (
        VideoTree([part], VideoReport(ignored=1), {}),
        VideoTree([part], VideoReport(), {"d1": 1}),
        VideoTree([part], VideoReport(rejected=(RejectedObject(0, "wrong_type", ""),)), {}),
        VideoTree([], VideoReport(), {}),
        VideoTree([part] * 60, VideoReport(), {}),
    ):
        assert tree.formed is None
