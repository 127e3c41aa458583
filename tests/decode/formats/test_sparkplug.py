"""Sparkplug sessions: births, aliases, numbers and their gaps, deaths, and what is asked when something is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.authoring.examples import readings_of
from sensegate.decode import Decoder
from sensegate.decode.formats.sparkplug import FORMAT, REBIRTH, initial_request, parse, parse_topic
from sensegate.decode.formats.sparkplug_payload import read
from sensegate.decode.frame import PayloadFrame
from sensegate.decode.memory import DecoderMemory
from sensegate.errors import Rejected
from sensegate.model import Fields, Message, QuarantineReason
from tests.decode.formats.sparkplug_nodes import (
    AT,
    NODE,
    PROFILES,
    Registry,
    dbirth,
    level,
    nbirth,
    temperature,
)
from tests.decode.formats.sparkplug_payloads import metric, payload


class Line:
    """A decoder and what is sent to it, message by message."""

    def __init__(self, *, probe_enabled: bool = True, hindsight: bool = False) -> None:
        self.memory = DecoderMemory(undoable=True, hindsight=hindsight)
        self.decoder = Decoder(PROFILES, Registry(probe_enabled=probe_enabled), memory=self.memory)
        self.fields: Fields = self.decoder.decode([])
        self._now = 1_767_225_600_000_000

    def send(
        self, kind: str, *metrics: bytes, seq: int | None = None, node: str = "pump-01", device: str = "probe-A"
    ) -> list[Any]:
        """Decode one message; return (device, property, value) of its readings."""
        self._now += 1_000_000
        topic = f"spBv1.0/Water/{kind}/{node}" + (f"/{device}" if kind.startswith("D") else "")
        message = Message(topic, payload(*metrics, seq=seq, timestamp=AT), self._now, 1)
        self.fields = self.decoder.decode([message])
        readings = readings_of(self.fields, PROFILES.specs, ["n1", "p1", "n2", "p2"])
        return [(reading.device, reading.property, reading.value) for reading in readings]

    @property
    def refused(self) -> list[QuarantineReason]:
        return [refusal.reason for refusal in self.fields.quarantined]

    def asked(self) -> list[str]:
        return [ask.topic for ask in self.memory.take_requests()]


@pytest.fixture
def line() -> Line:
    """A line after both births, numbers 0 and 1."""
    line = Line()
    line.send("NBIRTH", *nbirth(), seq=0)
    line.send("DBIRTH", *dbirth(), seq=1)
    assert not line.asked()
    return line


def test_values_by_alias_get_name_type_and_unit_from_the_birth(line: Line) -> None:
    """Neither name nor type nor unit is in the message."""
    assert line.send("DDATA", temperature(21.5), seq=2) == [("p1", "water_temperature", 21.5)]
    assert line.send("NDATA", level(2.5), seq=3) == [("n1", "liquid_level", 2.5)]
    assert not line.asked()


def test_signed_type_of_a_birth_is_used_for_values_without_one() -> None:
    """-1 in an unsigned field, its type known from the birth only."""
    line = Line()
    line.send("NBIRTH", *nbirth(metric("Tilt", "Int16", -42, alias=4, timestamp=AT)), seq=0)
    assert line.send("NDATA", metric(alias=4, value=-1, as_kind="Int16", timestamp=AT), seq=1) == [
        ("n1", "tilt_angle", -1.0)
    ]


def test_a_new_birth_gives_an_alias_to_another_metric(line: Line) -> None:
    """What the alias meant in the life before means nothing any more."""
    line.send("NBIRTH", *nbirth(bd_seq=1, level=7), seq=0)
    assert line.send("NDATA", level(2.5, alias=7), seq=1) == [("n1", "liquid_level", 2.5)]
    assert line.send("NDATA", level(2.5, alias=1), seq=2) == []
    assert line.refused == [QuarantineReason.UNRESOLVED]
    assert line.asked() == ["spBv1.0/Water/NCMD/pump-01"]


def test_without_a_birth_nothing_is_resolved_and_one_is_asked_for() -> None:
    """Whether by alias or by name: the unit would be a guess."""
    line = Line()
    assert line.send("DDATA", metric("temperature", "Double", 20.0, timestamp=AT), seq=5) == []
    assert line.refused == [QuarantineReason.UNRESOLVED]
    (ask,) = line.memory.take_requests()
    assert ask.topic == "spBv1.0/Water/NCMD/pump-01"
    (command,) = read(ask.payload, 4).metrics
    assert (command.name, command.read(None), command.datatype) == (REBIRTH, True, 11)


def test_a_death_of_the_node_is_that_of_its_devices(line: Line) -> None:
    """Node and device are offline; what comes after is unresolved until the next births."""
    assert line.send("NDEATH", metric("bdSeq", "UInt64", 0)) == [("n1", "online", False), ("p1", "online", False)]
    assert line.fields.time_quality.tolist() == [3, 3]  # of arrival: the will was written at the connection's beginning
    line.send("NDATA", level(1), seq=2)
    assert line.refused == [QuarantineReason.UNRESOLVED]
    births = line.send("NBIRTH", *nbirth(bd_seq=1), seq=0)
    assert ("n1", "online", True) in births


def test_the_will_of_an_earlier_life_kills_nobody(line: Line) -> None:
    """It may come after the next birth: its bdSeq tells."""
    line.send("NBIRTH", *nbirth(bd_seq=1), seq=0)
    assert line.send("NDEATH", metric("bdSeq", "UInt64", 0)) == []
    assert line.refused == []
    assert line.send("NDATA", level(3), seq=1) == [("n1", "liquid_level", 3.0)]


def test_a_death_of_a_device_leaves_the_others(line: Line) -> None:
    """Its values are unresolved from here, the node's are not."""
    assert line.send("DDEATH", seq=2) == [("p1", "online", False)]
    line.send("DDATA", temperature(1), seq=3)
    assert line.refused == [QuarantineReason.UNRESOLVED]
    assert line.send("NDATA", level(3), seq=4) == [("n1", "liquid_level", 3.0)]


def test_a_message_without_metrics_is_known(line: Line) -> None:
    """It is no reading and no fault; its number counts."""
    assert line.send("NDATA", seq=2) == []
    assert line.refused == []
    line.send("NDATA", level(3), seq=3)
    assert not line.asked()


def test_null_is_not_measured(line: Line) -> None:
    """A null metric is counted as ignored, whether alone or not."""
    assert line.send("DDATA", metric(alias=10, null=True, timestamp=AT), seq=2) == []
    assert (line.refused, line.fields.ignored) == ([], 1)


def test_numbers_go_round(line: Line) -> None:
    """After 255 comes 0: 300 messages, no gap."""
    for at in range(2, 302):
        assert line.send("NDATA", level(at), seq=at % 256)
    assert not line.asked()


def test_a_number_that_jumps_ahead_leaves_the_births_in_doubt(line: Line) -> None:
    """Messages were lost, the node's birth not: values are uncertain until the next birth, which is asked for."""
    assert line.send("NDATA", level(3), seq=5) == [("n1", "liquid_level", 3.0)]
    assert set(line.fields.source_quality.values()) == {64}
    assert line.asked() == ["spBv1.0/Water/NCMD/pump-01"]
    line.send("NDATA", level(3), seq=6)
    assert set(line.fields.source_quality.values()) == {64}
    assert not line.asked()
    line.send("NBIRTH", *nbirth(), seq=0)
    line.send("NDATA", level(3), seq=1)
    assert not set(line.fields.source_quality.values()) - {0}


def test_a_number_that_falls_back_makes_the_births_void(line: Line) -> None:
    """A birth may have been missed, and with it new aliases: nothing is guessed."""
    line.send("NDATA", level(3), seq=200)
    line.asked()
    assert line.send("NDATA", level(3), seq=7) == []
    assert line.refused == [QuarantineReason.UNRESOLVED]
    assert line.asked() == ["spBv1.0/Water/NCMD/pump-01"]
    # The devices are not forgotten: the death that may come is theirs too.
    assert ("p1", "online", False) in line.send("NDEATH", metric("bdSeq", "UInt64", 3))


def test_the_same_message_again_is_no_gap(line: Line) -> None:
    """A redelivery gives the same rows; duplicates are judged elsewhere."""
    first = line.send("NDATA", level(3), seq=2)
    assert line.send("NDATA", level(3), seq=2) == first
    line.send("NDATA", level(4), seq=3)
    assert not line.asked()


def test_a_device_whose_birth_comes_before_the_nodes_is_read(line: Line) -> None:
    """A birth stands for itself; that of the node is asked for."""
    line = Line()
    assert ("p1", "water_temperature", 20.0) in line.send("DBIRTH", *dbirth(), seq=4)
    assert line.asked() == ["spBv1.0/Water/NCMD/pump-01"]
    assert line.send("DDATA", temperature(21.0), seq=5) == [("p1", "water_temperature", 21.0)]


def test_two_nodes_do_not_mix(line: Line) -> None:
    """Aliases and numbers are those of one node."""
    line.send("NBIRTH", *nbirth(metric("Tilt", "Int16", 1, alias=10, timestamp=AT), level=3), seq=0, node="pump-02")
    assert line.send("NDATA", level(9.0, alias=3), seq=1, node="pump-02") == [("n2", "liquid_level", 9.0)]
    assert line.send("DDATA", temperature(21.5), seq=2) == [("p1", "water_temperature", 21.5)]


def test_a_disabled_device_is_refused_and_its_numbers_are_heard() -> None:
    """Its messages are quarantined as such; the node's others see no gap."""
    line = Line(probe_enabled=False)
    line.send("NBIRTH", *nbirth(), seq=0)
    line.send("DBIRTH", *dbirth(), seq=1)
    assert line.refused == [QuarantineReason.DISABLED_DEVICE]
    line.send("DDATA", temperature(1), seq=2)
    assert line.refused == [QuarantineReason.DISABLED_DEVICE]
    assert line.send("NDATA", level(3), seq=3) == [("n1", "liquid_level", 3.0)]
    assert not line.asked()


def test_a_stranger_behind_a_node_is_refused_and_its_numbers_are_heard(line: Line) -> None:
    """Its messages can be decoded again when it is registered; the node's others see no gap."""
    line.send("DBIRTH", *dbirth(20), seq=2, device="probe-Z")
    assert line.refused == [QuarantineReason.UNKNOWN_DEVICE]
    assert line.send("NDATA", level(3), seq=3) == [("n1", "liquid_level", 3.0)]
    assert not line.asked()


def test_a_node_does_not_speak_for_devices_of_another(line: Line) -> None:
    """probe-B is registered behind another node: this one's death is not its."""
    line.send("NBIRTH", *nbirth(), seq=0, node="pump-02")
    line.send("DBIRTH", *dbirth(), seq=1, node="pump-02", device="probe-B")
    answer = line.send("NDEATH", metric("bdSeq", "UInt64", 0), node="pump-02")
    assert answer == [("n2", "online", False)]
    assert [value.reason for value in line.fields.rejected] == ["unknown_device"]


def test_what_has_parts_is_taken_apart() -> None:
    """Members of a template, items of an array, cells of a data set; the definition of a template gives no values."""
    members = {
        "metrics": [metric("rpm", "Int16", -5, timestamp=AT + 1), metric("hot", "Boolean", True)],
        "template_ref": "motor",
    }
    definition = {"metrics": [metric("rpm", "Int16")], "is_definition": True}
    table = {"columns": ["depth", "t"], "types": ["Int8", "Float"], "rows": [[1, 2.5], [2, None]]}
    whole = payload(
        metric("motor", "Template", definition),
        metric("m1", "Template", members, timestamp=AT),
        metric("spectrum", "UInt8Array", [3, 4], timestamp=AT),
        metric("profile", "DataSet", table, timestamp=AT),
        seq=0,
    )
    tree = parse(PayloadFrame(whole, 32, "spBv1.0/Water/NBIRTH/pump-01", memory=DecoderMemory()))
    metrics = {entry["name"]: (entry["value"], entry.get("time")) for entry in tree["metrics"]}
    assert metrics == {
        "online": (True, 1_714_982_400_000),
        "m1/rpm": (-5, AT + 1),
        "m1/hot": (True, AT),
        "spectrum/0": (3, AT),
        "spectrum/1": (4, AT),
        "profile/0/depth": (1, AT),
        "profile/0/t": (2.5, AT),
        "profile/1/depth": (2, AT),
        "profile/1/t": (None, AT),
    }
    assert tree["tables"] == {"profile": [{"depth": 1, "t": 2.5}, {"depth": 2, "t": None}]}


def test_members_of_a_template_have_the_types_of_the_birth() -> None:
    """A later instance may leave types out."""
    memory = DecoderMemory()

    def parse_message(kind: str, value: dict[str, Any], seq: int) -> Any:
        whole = payload(metric("m1", "Template", value, timestamp=AT), seq=seq)
        return parse(PayloadFrame(whole, 32, f"spBv1.0/Water/{kind}/pump-01", memory=memory))["metrics"][-1]

    parse_message("NBIRTH", {"metrics": [metric("rpm", "Int16", 5)], "template_ref": "motor"}, 0)
    result = parse_message("NDATA", {"metrics": [metric("rpm", value=-7, as_kind="Int16")], "template_ref": "motor"}, 1)
    assert (result["name"], result["value"], result["datatype"]) == ("m1/rpm", -7, "Int16")


def test_properties_last_but_for_the_quality_of_one_value() -> None:
    """A birth lends its unit to what follows, not that its value was stale."""
    line = Line()
    stale = {"engUnit": ("String", "m"), "Quality": ("Int32", 500)}
    line.send("NBIRTH", metric("Level", "Double", 2.0, alias=1, timestamp=AT, props=stale), seq=0)
    assert sorted(set(line.fields.source_quality.values()) - {0}) == [74]
    line.send("NDATA", level(2.0), seq=1)
    assert not set(line.fields.source_quality.values()) - {0}
    bad = metric(alias=1, value=2.0, as_kind="Double", timestamp=AT, props={"Quality": ("Int32", 0)})
    line.send("NDATA", bad, seq=2)
    assert set(line.fields.source_quality.values()) == {128}


@pytest.mark.parametrize(("topic", "reason"), [
    ("spBv1.0/Water/NDATA", "schema"),
    ("spBv1.0/Water/NDATA/pump-01/probe-A", "schema"),
    ("spBv1.0/Water/DDATA/pump-01", "schema"),
    ("spBv1.0/Water/XDATA/pump-01", "schema"),
    ("spBv1.0/Water//pump-01", "schema"),
    ("http/n1", "schema"),
])  # fmt: skip
def test_topic_that_is_none_of_sparkplugs_is_refused(topic: str, reason: str) -> None:
    """The topic says what the payload is."""
    with pytest.raises(Rejected) as refused:
        parse(PayloadFrame(payload(seq=0), 32, topic))
    assert refused.value.reason == reason


def test_a_bridge_may_put_levels_before_the_namespace() -> None:
    """Commands go back the same way; nodes behind two bridges are two."""
    result = parse_topic("site/7/spBv1.0/G/DDATA/N/D")
    assert (result.group, result.node, result.device, result.prefix) == ("G", "N", "D", "site/7/")
    assert result.key != parse_topic("spBv1.0/G/DDATA/N/D").key


@pytest.mark.parametrize(("case", "metrics"), [
    ("names missing", (metric(alias=1, value=1.0, as_kind="Double"),)),
    ("one alias for two", (metric("a", "Int8", 1, alias=1), metric("b", "Int8", 1, alias=1))),
], ids=["names", "aliases"])  # fmt: skip
def test_a_birth_that_cannot_be_relied_on_is_refused(line: Line, case: str, metrics: Sequence[bytes]) -> None:
    """Half a table is none."""
    del case
    line.send("NBIRTH", *metrics, seq=0)
    assert line.refused == [QuarantineReason.SCHEMA]


def test_every_node_is_greeted_at_the_start() -> None:
    """Nodes, not the devices behind them: those are born with their node."""
    line = Line()
    result = line.decoder.initial_requests(1_767_225_600_000_000)
    assert [ask.topic for ask in result] == ["spBv1.0/Water/NCMD/pump-01", "spBv1.0/Water/NCMD/pump-02"]
    assert initial_request("a-name-without-group", 0) is None
    assert FORMAT.initial_request is initial_request


def test_in_hindsight_what_came_before_its_birth_is_resolved() -> None:
    """Decoding a span again: the first time births are learned, the second time all is read, in any order."""
    line = Line(hindsight=True)
    for _ in range(2):
        early = line.send("NDATA", level(1.5), seq=9)
        line.send("NBIRTH", *nbirth(), seq=0)
        line.send("NDEATH", metric("bdSeq", "UInt64", 0))
    assert early == [("n1", "liquid_level", 1.5)]
    assert not line.asked()


def test_in_hindsight_a_birth_is_not_that_of_a_message_of_yesterday() -> None:
    """A birth heard since may name what came shortly before it; an older message may be of another life."""
    line = Line()
    line.send("NBIRTH", *nbirth(), seq=0)
    now = line.memory.get(("sparkplug", NODE)).births[""].received
    for ago_s, reasons in ((60, []), (3_600, [QuarantineReason.UNRESOLVED])):
        reopened = Decoder(PROFILES, Registry(), memory=line.memory.copy(hindsight=True))
        message = Message("spBv1.0/Water/NDATA/pump-01", payload(level(1.5), seq=9), now - ago_s * 1_000_000, 1)
        assert [refusal.reason for refusal in reopened.decode([message]).quarantined] == reasons


def test_memory_takes_back_what_a_lost_walk_has_told_it(line: Line) -> None:
    """After a loss the same messages come again; they meet the memory that they met before."""
    mark = line.memory.savepoint()
    first = line.send("NDATA", level(3), seq=2)
    line.send("NBIRTH", *nbirth(bd_seq=1, level=7), seq=0)
    line.send("NDEATH", metric("bdSeq", "UInt64", 1))
    line.memory.rollback(mark)
    assert line.send("NDATA", level(3), seq=2) == first
    assert not line.asked()


@given(
    st.lists(st.sampled_from(["NBIRTH", "DBIRTH", "NDATA", "DDATA", "DDEATH", "NDEATH"]), min_size=1, max_size=12),
    st.data(),
)
def test_any_order_of_messages_is_answered_the_same_way_twice(kinds: list[str], data: st.DataObject) -> None:
    """Whatever comes in whatever order: rows or a reason, and after a rewind exactly the same again."""
    line = Line()
    sent = [(kind, data.draw(st.integers(0, 300)), data.draw(st.integers(1, 3))) for kind in kinds]

    def walk() -> list[Any]:
        results = []
        for kind, seq, alias in sent:
            bodies = {
                "NBIRTH": nbirth(level=alias),
                "DBIRTH": dbirth(alias),
                "NDATA": (level(1.0, alias),),
                "DDATA": (temperature(2.0, alias),),
                "NDEATH": (metric("bdSeq", "UInt64", 0),),
            }
            rows = line.send(kind, *bodies.get(kind, ()), seq=None if kind == "NDEATH" else seq)
            results.append((rows, line.refused, sorted(line.fields.source_quality.values())))
        return [*results, line.asked()]

    first = walk()
    line.memory.rollback()
    assert walk() == first


@given(st.binary(max_size=120), st.sampled_from(["NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH", "NCMD"]))
def test_any_bytes_on_any_topic_are_a_tree_or_refused(raw: bytes, kind: str) -> None:
    """With births known and without."""
    memory = DecoderMemory()
    topic = f"spBv1.0/G/{kind}/N" + ("/D" if kind.startswith("D") else "")
    birth = payload(*nbirth(), seq=0)
    parse(PayloadFrame(birth, 32, "spBv1.0/G/NBIRTH/N", memory=memory))
    for _ in range(2):
        try:
            tree = parse(PayloadFrame(raw, 32, topic, memory=memory))
        except Rejected as error:
            reason = error.reason
        else:
            reason = "malformed"
            assert tree["count"] == len(tree["metrics"])
        assert reason in set(QuarantineReason)
