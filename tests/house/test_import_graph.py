"""The import graph of the package: how many rooms and arrows, no circle; parts are not set into one another."""

from __future__ import annotations

import ast

import pytest

from tests.house import graph

CORE_ROOMS_MAX = 26
CORE_ARROWS_MAX = 149
"""Without features, and without the arrow of `flow` to each. `collect` to `logs`: a front is a process of its own
and configures its log lines. `feature` to `collect`: a feature may bring sources. `cli` to `ingest`: `front`;
to `quantities`: `profile properties`."""
FEATURE_ARROWS_MAX = 8
WIDE_FEATURES = {
    "alarms": 11,
    "cameras": 11,
    "control": 10,
    "failover": 10,
    "history": 11,
    "sensorthings": 11,
    "tiers": 11,
    "viid": 11,
}
"""`alarms`: rules watch readings, devices and the store, deliveries go by the transports of `share` and the mail server
of `config`. `failover`: a standby's deduplication index (`persist`), its routes (`web`). `history`: a store of its own
on the disk, whose rows are columns (`model`) sorted by radix (`quantities`). `sensorthings`: an interface over the
registry, feeds and the history, and by MQTT over fronts, the broker and its connections. The others are older than the
limit of eight."""
STAGES = ("collect", "decode", "normalise", "persist", "share", "web")
"""In the order of the flow: a stage may import those before it, and nothing imports `web` but what has routes."""


def test_the_graph_is_small_and_has_no_circle() -> None:
    """Imports for types count too: what is imported for a type cannot be understood without it."""
    rooms = graph.graph()
    features = graph.feature_rooms()
    core = {room: targets for room, targets in rooms.items() if room not in features}
    assert len(core) <= CORE_ROOMS_MAX
    assert sum(len(targets - features if room == "flow" else targets) for room, targets in core.items()) <= (
        CORE_ARROWS_MAX
    )
    assert graph.circles(rooms) == []


@pytest.mark.parametrize("room", sorted(graph.feature_rooms()))
def test_a_feature_has_few_arrows(room: str) -> None:
    """A new feature needs no change of this file: it may import eight rooms."""
    assert len(graph.graph()[room]) <= WIDE_FEATURES.get(room, FEATURE_ARROWS_MAX)


def test_an_import_against_the_flow_is_found() -> None:
    """Control: an import of a stage by its foundation closes a circle, and the circle is named."""
    rooms = graph.graph(extra={"sensegate.bus.log": "\nfrom sensegate.web.app import Web\n"})
    assert any({"bus", "web"} <= set(circle) for circle in graph.circles(rooms))


def test_every_room_has_its_layer() -> None:
    """The drawing shows each room once, and an arrow never points to a higher layer."""
    rooms = graph.graph()
    layer = {room: number for number, (_, members) in enumerate(graph.LAYERS) for room in members}
    assert sorted(layer) == sorted(rooms)
    assert [(room, target) for room in rooms for target in rooms[room] if layer[target] > layer[room]] == []


def test_no_stage_imports_one_that_follows_it() -> None:
    """Readings go one way; so do imports."""
    rooms = graph.graph()
    later = {stage: set(STAGES[number + 1 :]) for number, stage in enumerate(STAGES)}
    assert {stage: rooms[stage] & later[stage] for stage in STAGES} == {stage: set() for stage in STAGES}


def test_the_http_side_knows_no_feature() -> None:
    """A feature brings its routes along: neither `web` nor `feature` imports one."""
    features = dict(graph.LAYERS)["features"]
    rooms = graph.graph()
    assert [room for room in ("web", "feature", "share", "ingest") if rooms[room] & set(features)] == []


def set_into_parts(text: str) -> list[str]:
    """Return the assignments to an attribute of something that is not `self`: parts set into one another."""
    set_into_parts = []
    for node in ast.walk(ast.parse(text)):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
        )
        set_into_parts += [
            ast.unparse(target)
            for target in targets
            if isinstance(target, ast.Attribute)
            and not (isinstance(target.value, ast.Name) and target.value.id == "self")
        ]
    return set_into_parts


def asserts_of_parts(text: str) -> list[str]:
    """Return the assertions that a part is there."""
    return [
        ast.unparse(node.test)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Assert) and "is not None" in ast.unparse(node.test)
    ]


def wiring() -> list[str]:
    """Return the modules that build parts: the page of wiring, features, and what opens a folder."""
    names = ("flow", "feature", "opening", "stage", "node_feature", "centre_side", "privacy", "admission")
    return [module for module in graph.modules() if module.rpartition(".")[2] in names]


def test_parts_are_finished_when_they_are_built() -> None:
    """No build function sets an attribute of a part, and none asserts that a part is there."""
    files = graph.modules()
    assert len(wiring()) >= len(("flow", "feature", "opening", "stage"))
    for module in wiring():
        text = files[module].read_text(encoding="utf-8")
        assert set_into_parts(text) == [], module
        assert asserts_of_parts(text) == [], module


def test_a_part_that_is_set_later_is_found() -> None:
    """Control: both ways of handing a part over late are seen."""
    assert set_into_parts("desk.distant = distant\nself.x = 1") == ["desk.distant"]
    assert asserts_of_parts("assert gateway.share is not None\nassert x") == ["gateway.share is not None"]
