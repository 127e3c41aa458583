"""Sparkplug data as flat values: by layouts and births the same readings, requests and state as one by one."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.decode import Decoder, columnar
from sensegate.decode.formats.sparkplug import SparkplugParse, parse
from sensegate.decode.formats.sparkplug_session import Birth, BirthModels, MetricDefinition
from sensegate.decode.frame import FormedTree, PayloadFrame
from sensegate.decode.memory import DecoderMemory
from sensegate.errors import Rejected
from sensegate.model import Message
from tests.decode.bulk import FEW, mutated, mutations, rows
from tests.decode.decoding import same
from tests.decode.formats.flat_values import leaves, same_values
from tests.decode.formats.sparkplug_nodes import AT, PROFILES, Registry, dbirth, level, nbirth, temperature
from tests.decode.formats.sparkplug_payloads import metric, payload

NOW = AT * 1_000
TOPICS = ["NDATA/pump-01", "DDATA/pump-01/probe-A", "NDATA/pump-02", "DDATA/pump-01/none"]
KINDS = [
    "Double",
    "Float",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "UInt8",
    "UInt32",
    "UInt64",
    "Boolean",
    "String",
    "DateTime",
]
VALUES: dict[str, Any] = {"Double": 1.5, "Float": -2.5, "Boolean": True, "String": "温x"}


def assert_values_are_of_trees(parse_: SparkplugParse, birth: bytes, sent: list[bytes]) -> int:
    """Assert that a node's messages give the same by layout as by tree, and the same state; return how many had one."""
    quick, slow = DecoderMemory(), DecoderMemory()
    formed = 0
    for number, raw in enumerate([birth, *sent]):
        topic = f"spBv1.0/G/{'NDATA' if number else 'NBIRTH'}/N"
        (result,) = SparkplugParse.many([(parse_, PayloadFrame(raw, 32, topic, NOW, memory=quick))])
        frame = PayloadFrame(raw, 32, topic, NOW, memory=slow)
        if isinstance(result, Rejected):
            with pytest.raises(Rejected) as refusal:
                parse(frame)
            assert (result.reason, result.detail) == (refusal.value.reason, refusal.value.detail)
        elif isinstance(result, FormedTree):
            formed += 1
            expected = parse(frame)
            assert result.tree is not None
            assert result.tree() == expected
            assert same_values(dict(zip(result.form.pointers, result.values, strict=True)), leaves(expected))
        else:
            assert result == parse(frame)
        key = ("sparkplug", "G/N")
        assert quick.get(key) == slow.get(key)
        assert quick.take_requests() == slow.take_requests()
    return formed


@st.composite
def nodes(draw: st.DrawFn) -> tuple[list[str], bytes]:
    """Return the types of a node's metrics, and its birth, which may say them or leave them out."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    unit = {"engUnit": ("String", "Cel"), "deep": ("Int32", 5)}
    metrics = [
        metric(f"m{number}", kind, VALUES.get(kind, 3), alias=number, props=unit if draw(st.booleans()) else None)
        for number, kind in enumerate(kinds)
    ]
    return kinds, payload(*metrics, seq=0, timestamp=AT)


@given(nodes(), st.data())
def test_values_are_those_of_the_tree(node: tuple[list[str], bytes], data: st.DataObject) -> None:
    """Metrics of every simple type by alias and by name, numbers of any length, gaps, single bytes changed."""
    kinds, birth = node
    sent = []
    by_name, own_times, typed = (data.draw(st.booleans()) for _ in range(3))
    for number in range(1, 9):
        metrics = [
            metric(
                f"m{at}" if by_name else None,
                kind if typed else None,
                data.draw(st.sampled_from([VALUES.get(kind, 3), VALUES.get(kind, 100)])),
                alias=None if by_name else at,
                timestamp=AT + number if own_times else None,
                as_kind=kind,
            )
            for at, kind in enumerate(kinds)
        ]
        seq = number + data.draw(st.sampled_from([0, 0, 0, 0, 1, -1, 126]))
        sent.append(payload(*metrics, seq=seq, timestamp=data.draw(st.sampled_from([AT, AT, None]))))
    assert_values_are_of_trees(SparkplugParse(), birth, mutated(sent, data.draw(mutations(2))))


def test_usual_messages_have_a_form() -> None:
    """The numbers of a node go round, and its values stand without their tree from the fourth message of a length."""
    birth = payload(metric("a", "Double", 1.5, alias=1), metric("b", "Int32", -3, alias=2), seq=0, timestamp=AT)
    sent = [
        payload(metric(None, "Double", number / 2, alias=1), metric(None, "Int32", -1, alias=2), seq=number % 256)
        for number in range(1, 300)
    ]
    assert assert_values_are_of_trees(SparkplugParse(), birth, sent) > 280


def test_births_that_define_the_same_share_a_number() -> None:
    """Another name, type, alias or property is another model; beyond the limit there is no number."""
    models = BirthModels(4)

    def numbered(name: str, datatype: int | None, alias: int, **properties: Any) -> int:
        metric_ = MetricDefinition(name, datatype, properties)
        return models.numbered(Birth({name: metric_}, {alias: metric_}, 1)).model

    first = numbered("a", 9, 1)
    assert numbered("a", 9, 1) == first > 0
    others = [numbered("b", 9, 1), numbered("a", 10, 1), numbered("a", 9, 2), numbered("a", 9, 1, unit=1)]
    assert len({first, *others[:3]}) == 4
    assert others[3] == 0


@pytest.mark.parametrize("probe_enabled", [True, False])
@settings(max_examples=FEW)
@given(st.lists(st.sampled_from([*TOPICS, *TOPICS, "NBIRTH", "DBIRTH", "NDEATH"]), min_size=30, max_size=60), st.data())
def test_bulk_is_single(probe_enabled: bool, kinds: list[str], data: st.DataObject) -> None:  # noqa: FBT001 - a case
    """Births, data and deaths of nodes in one batch are decoded in their order, whichever of them have a form."""
    r = random.Random(data.draw(st.integers(0, 99)))
    number = 0
    sent: list[tuple[str, bytes]] = []
    for kind in ["NBIRTH", "DBIRTH", *kinds]:
        topic = {"NBIRTH": "NBIRTH/pump-01", "DBIRTH": "DBIRTH/pump-01/probe-A", "NDEATH": "NDEATH/pump-01"}.get(
            kind, kind
        )
        number = 0 if kind == "NBIRTH" else number if "pump-02" in topic else number + r.choice([1, 1, 1, 1, 1, 2])
        bodies = {
            "NBIRTH": nbirth(level=r.randrange(1, 3)),
            "DBIRTH": dbirth(),
            "NDEATH": (metric("bdSeq", "UInt64", 0),),
        }
        default = (temperature(r.random()),) if "DDATA" in kind else (level(r.random(), r.choice([1, 1, 1, 9])),)
        seq = None if kind == "NDEATH" else number % 256
        sent.append((f"spBv1.0/Water/{topic}", payload(*bodies.get(kind, default), seq=seq, timestamp=AT)))
    raws = mutated([raw for _, raw in sent], data.draw(mutations(1)))
    messages = [Message(topic, raw, NOW, 1) for (topic, _), raw in zip(sent, raws, strict=True)]
    bulk, single, slow = (Decoder(PROFILES, Registry(probe_enabled=probe_enabled)) for _ in range(3))
    for _ in range(3):
        fields = bulk.decode(messages)
        same(fields, slow.decode_row_by_row(messages))
        for index, message in enumerate(messages):
            assert rows(fields, index, index) == rows(single.decode([message]), 0, index)
        assert {ask.topic for ask in bulk.memory.take_requests()} == {
            ask.topic for ask in single.memory.take_requests()
        }
        key = ("sparkplug", "Water/pump-01")
        assert bulk.memory.get(key) == single.memory.get(key)


def test_a_large_first_batch_does_not_end_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are learned from a sample of it, and the rest of it is decoded into columns already."""
    monkeypatch.setattr(columnar, "_WINDOW", 40)
    decoder = Decoder(PROFILES, Registry())
    decoder.decode([Message("spBv1.0/Water/NBIRTH/pump-01", payload(*nbirth(), seq=0, timestamp=AT), NOW, 1)])
    for first in (1, 121):
        sent = [payload(level(number / 8), seq=number, timestamp=AT) for number in range(first, first + 120)]
        fields = decoder.decode([Message("spBv1.0/Water/NDATA/pump-01", raw, NOW, 1) for raw in sent])
        assert len(fields) == 120
    (reader,) = [known.reader for known in decoder.plans.readers._of_trees.values() if known is not None]
    assert reader._frames_hit > 80
