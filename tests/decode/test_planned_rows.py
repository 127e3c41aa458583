"""Few messages of a plan: decoded one at a time by the plan, with the rows that decoding without plans gives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.authoring.examples import NamedDevices
from sensegate.decode import Decoder, ProfileSet
from sensegate.decode.decode import COLUMNS_MIN, _BatchDecoder
from sensegate.model import Message
from tests.bench.stages import Registry
from tests.bench.workload import make as make_workload
from tests.decode.bulk import FEW
from tests.decode.decoding import NOW, same
from tests.support.profiles import Make

PROFILE = """
  - topics: ["acme/{device}"]
    time: {field: at, format: [iso, epoch]}
    sequence: n
    readings:
      - {field: v.c, property: pm10, unit_from: {field: v.unit}}
      - {field: v.a, property: air_temperature, missing: [-1]}
      - {field: v.on, property: illumination_on, words: {0: false, 1: true}}
      - {field: v.s, property: state}
      - {field: v.b, property: pm2_5}
"""
LISTED = """
  - topics: ["hub/{gateway}"]
    each: list
    device: {field: name}
    time: {field: at, format: epoch_s}
    readings:
      - {field: t, property: air_temperature}
      - {field: h, property: relative_humidity}
"""
GOOD: dict[str, Any] = {
    "at": "2026-01-01T00:00:05.5Z",
    "n": 1,
    "v": {"c": 5.5, "unit": "ug/m3", "a": 2.5, "on": 1, "s": "dry", "b": 3.25},
}


def messages_of(topic: str, *trees: Any) -> list[Message]:
    return [Message(topic, json.dumps(tree).encode(), NOW + number, number) for number, tree in enumerate(trees)]


def taken_without_plan(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list to which the index of each message is added that is decoded without a plan."""
    taken: list[int] = []
    decode_one = _BatchDecoder.decode_one

    def counted(self: _BatchDecoder, index: int, *, learn: bool) -> None:
        taken.append(index)
        decode_one(self, index, learn=learn)

    monkeypatch.setattr(_BatchDecoder, "decode_one", counted)
    return taken


@pytest.mark.parametrize("count", [1, 2, COLUMNS_MIN - 1, COLUMNS_MIN])
def test_few_messages_of_eight_profiles(profiles: ProfileSet, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of messages of a plan, the rows are the same, and none is decoded without its plan."""
    work = make_workload(600, 80, end=NOW / 1e6)
    decoder = Decoder(profiles, Registry(work.devices))
    messages = [Message(topic, payload, NOW, at) for at, (_, topic, payload) in enumerate(work.messages)]
    decoder.decode(messages[:400])
    taken = taken_without_plan(monkeypatch)
    for first in range(400, 560, count * 8):
        batch = messages[first : first + count * 8]
        fields = decoder.decode(batch)
        assert not taken
        same(fields, decoder.decode_row_by_row(batch))
        assert len(fields) == 6 * len(batch)
        taken.clear()


_values = st.fixed_dictionaries({
    "at": st.sampled_from(["2026-01-01T00:00:05.5Z", "2026-01-01 08:00", "yesterday", ""]),
    "n": st.sampled_from([0, 1, -1, 2**40, 2**64, -(2**63)]),
    "v": st.fixed_dictionaries({
        "c": st.sampled_from([5.5, 0, -1.25, 1e300]),
        "unit": st.sampled_from(["ug/m3", "mg/m3", "m", "nonsense"]),
        "a": st.sampled_from([-1, 2.5, -1.0, 7]),
        "on": st.sampled_from([0, 1, 2]),
        "s": st.sampled_from(["dry", "", "x" * 2_000]),
        "b": st.sampled_from([1, 2.5, 10**400, -0.0]),
    }),
})  # fmt: skip


@settings(max_examples=FEW)
@given(st.lists(_values, min_size=1, max_size=COLUMNS_MIN - 1))
def test_values_that_are_refused_or_missing(learned: Decoder, trees: list[Any]) -> None:
    """Sentinels, units, words, texts, times and numbers beyond any range give what they give without a plan."""
    batch = messages_of("acme/d1", *trees)
    same(learned.decode(batch), learned.decode_row_by_row(batch))


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    """A decoder that has learned the shape of `GOOD`."""
    root = tmp_path_factory.mktemp("profiles")
    (root / "acme").mkdir()
    head = "profile: acme/x\nversion: 1\nlabel: {zh: x, en: x}\nsource: this test\nmessages:\n"
    (root / "acme" / "x.yaml").write_text(head + PROFILE, encoding="utf-8")
    decoder = Decoder(ProfileSet.load([root]), NamedDevices(("d1",), "acme/x"))
    decoder.decode(messages_of("acme/d1", *[GOOD] * 40))
    return decoder


def test_elements_name_their_devices(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elements of a message go to their devices; a message with an unknown one is decoded without the plan."""
    decoder = make(LISTED, "g1", "d1", "d2", gateway="g1")

    def tree(*names: str, at: object = 1_767_225_600) -> object:
        return {"list": [{"name": name, "at": at, "t": 1.5 + place, "h": 40} for place, name in enumerate(names)]}

    decoder.decode(messages_of("hub/g1", *[tree("d1", "d2")] * 40))
    taken = taken_without_plan(monkeypatch)
    batch = messages_of("hub/g1", tree("d1", "d2"), tree("d2", "d1", at=1_767_225_660), tree("d2", "d2", at=-(10**15)))
    fields = decoder.decode(batch)
    assert not taken
    same(fields, decoder.decode_row_by_row(batch))
    assert fields.device.tolist() == [1, 1, 2, 2, 2, 2, 1, 1]
    assert len(fields.rejected) == 4
    taken.clear()
    batch = messages_of("hub/g1", tree("d1", "d2"), tree("d1", "nobody"))
    fields = decoder.decode(batch)
    assert taken == [1]
    same(fields, decoder.decode_row_by_row(batch))
