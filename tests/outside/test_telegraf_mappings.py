"""Telegraf's 32 JSON mappings, said in our grammar: the same points come out, but where we differ on purpose.

Each mapping is a fixture of ours in `telegraf/`: the rules of a profile, with made-up properties (`number`, `text`,
`truth`), and how its readings are called among the points. Documents and points are not ours to copy:
`SENSEGATE_SAMPLES` names the folder that holds `telegraf/json_v2/<case>/`.

A point is compared by its items: (measurement, tags, field, value, time). Telegraf multiplies lists that stand beside
each other; the items are the same.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import yaml

from sensegate.authoring.examples import NamedDevices, readings_of
from sensegate.decode import Decoder, ProfileSet
from sensegate.decode.extract import Element, bind
from sensegate.decode.frame import PayloadFrame
from sensegate.decode.profile import CompiledRule, ValueRejection
from sensegate.decode.times import BAD
from sensegate.model import Message
from sensegate.quantities.properties import PROPERTIES, ValueKind

SAMPLES = os.environ.get("SENSEGATE_SAMPLES", "")
FOLDER = Path(SAMPLES) / "telegraf" / "json_v2"
OURS = Path(__file__).parent / "telegraf"
CASES = sorted(path.stem for path in OURS.glob("*.yaml"))
RECEIVED = 1_767_225_600_000_000
CONDITION = re.compile(r"\[[^\]]*=[^\]]*\]$")
"""What stands at the end of a reading's name where the reading has a condition."""
PROPERTY = {"number": "energy", "text": "state", "truth": "online"}
"""Any property of each kind: what is looked at is which members become which values."""

pytestmark = pytest.mark.skipif(
    not SAMPLES, reason="SENSEGATE_SAMPLES is not set: it names the folder with telegraf/json_v2"
)


class Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fixture: rules in our grammar, and how their readings are called in the points."""

    messages: list[dict[str, Any]]
    documents: tuple[str, ...] = ("input.json",)
    measurement: str = "file"
    fields: dict[str, str] = {}
    """Reading -> field (``measurement/field`` where the reading has a measurement of its own); else its last part."""
    tags: dict[str, str] = {}
    """Reading -> tag; MEASUREMENT: it names the measurement."""
    differs: str = ""
    """Where our grammar differs on purpose, and why."""
    without: list[str] = []
    """Fields of the points that are left out for that reason."""
    instead: dict[str, float] = {}
    """What such a field is with us."""
    rejected: dict[str, str] = {}
    refused: str = ""
    """Reason of the quarantine where nothing comes out."""
    untimed: bool = False
    """The times of the points are not those of the documents."""
    times: list[int] = []
    """The times of the documents, µs, where those of the points are not."""
    seconds: bool = False
    """The points' times are rounded to seconds."""
    merged: bool = False
    """Objects of a document that are points of their own are one element with us."""
    apart: bool = False
    """Each rule stands for a mapping of its own."""


class Item(NamedTuple):
    """One field of a point."""

    measurement: str
    tags: frozenset[tuple[str, str]]
    field: str
    value: float | str | bool
    time: int | None


@cache
def mapping(case: str) -> Mapping:
    tree = yaml.safe_load((OURS / f"{case}.yaml").read_text(encoding="utf-8"))
    return msgspec.convert(tree, Mapping, strict=False)


def compiled(rules: list[dict[str, Any]], folder: Path) -> ProfileSet:
    """Return a profile of these rules, its made-up properties replaced by real ones."""
    messages = [
        {
            "topics": ["x/{device}"],
            **rule,
            "readings": [{**reading, "property": PROPERTY[reading["property"]]} for reading in rule["readings"]],
        }
        for rule in rules
    ]
    profile = {
        "profile": "telegraf/mapping",
        "version": 1,
        "label": {"zh": "x", "en": "x"},
        "source": "telegraf json_v2",
        "messages": messages,
    }
    (folder / "telegraf").mkdir(exist_ok=True)
    (folder / "telegraf" / "mapping.yaml").write_text(yaml.safe_dump(profile, allow_unicode=True), encoding="utf-8")
    return ProfileSet.load([folder])


# ── points, as InfluxDB writes them ──────────────────────────────────────────────────────────────────

_PART = r"(?:\\.|[^\\,= ])+"
_VALUE = r'"(?:\\.|[^"\\])*"|[^", ]+'
_LINE = re.compile(rf"({_PART})((?:,{_PART}={_PART})*) ((?:{_PART}=(?:{_VALUE}),?)+)(?: (\d+))?$")


def plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def value_of(text: str) -> float | str | bool:
    if text.startswith('"'):
        return plain(text[1:-1])
    if text in {"true", "false"}:
        return text == "true"
    return float(text.rstrip("iu"))


def tag_of(value: Any) -> str:
    """Return a tag in one way of writing: numbers without what says nothing."""
    try:
        number = float(value)
    except ValueError:
        return str(value)
    return str(int(number)) if number.is_integer() else str(number)


def points(text: str, given: Mapping) -> tuple[int, set[Item]]:
    """Return (number of points, their items)."""
    items: set[Item] = set()
    lines = [line for line in text.splitlines() if line]
    for line in lines:
        match = _LINE.fullmatch(line)
        assert match, line
        measurement, tags, fields, time = match.groups()
        named = re.findall(rf"({_PART})=({_PART})", tags)
        tagged = frozenset((plain(key), tag_of(plain(value))) for key, value in named)
        at = None if time is None or given.untimed else int(time) // 1_000
        for key, value in re.findall(rf"({_PART})=({_VALUE})", fields):
            if plain(key) not in given.without:
                items.add(Item(plain(measurement), tagged, plain(key), value_of(value), at))
    return len(lines), items


# ── ours ─────────────────────────────────────────────────────────────────────────────────────────────


def items_and_cells(
    rule: CompiledRule, element: Element, given: Mapping, *, timed: bool
) -> tuple[set[Item], list[tuple[str, Any, int]]]:
    """Return the items of an element, and (reading, value, time) of each of its cells."""
    time = RECEIVED
    if element.time is not None:
        time, _ = rule.reader.parse(element.time.raw, RECEIVED)
        assert time != BAD
    values: dict[str, Any] = {}
    for cell in element.cells:
        assert cell.reading is not None
        value = cell.reading.convert(cell.leaf.raw)
        if value is None:
            continue
        if isinstance(value, ValueRejection):
            assert given.rejected[cell.name] == value.reason
            continue
        values[cell.name] = bool(value) if cell.reading.kind is ValueKind.BOOLEAN else value
    tags = {given.tags[name]: tag_of(value) for name, value in values.items() if name in given.tags}
    measurement = tags.pop("MEASUREMENT", given.measurement)
    tagged = frozenset(tags.items())
    items: set[Item] = set()
    for name, value in values.items():
        if name in given.tags:
            continue
        field = given.fields.get(name) or CONDITION.sub("", name).rpartition(".")[2]
        own, _, field = field.rpartition("/")
        if field in given.instead:
            assert value == given.instead[field]
        elif field not in given.without:
            items.add(Item(own or measurement, tagged, field, value, time if timed else None))
    return items, [(name, value, time) for name, value in values.items()]


def ours(case: str, folder: Path) -> tuple[int, set[Item]]:
    """Return (number of elements that hold fields, their items) of a case's documents, and check the rows of each."""
    given = mapping(case)
    profiles = compiled(given.messages, folder)
    decoder = Decoder(profiles, NamedDevices(["d1"], "telegraf/mapping"))
    count, items, times = 0, set[Item](), set[int]()
    for name in given.documents:
        payload = (FOLDER / case / name).read_bytes()
        fields = decoder.decode([Message("x/d1", payload, RECEIVED, 1)])
        if given.refused:
            assert [message.reason for message in fields.quarantined] == [given.refused]
            continue
        assert not fields.quarantined, fields.quarantined
        assert {rejection.field: rejection.reason for rejection in fields.rejected} == given.rejected
        rows = Counter(
            (reading.field, reading.value, reading.time) for reading in readings_of(fields, profiles.specs, ["d1"])
        )
        bound: Counter[tuple[str, Any, int]] = Counter()
        rule, elements = next(
            (rule, result.elements)
            for rule, _ in decoder.routes.build("x/d1").rules
            if (result := bind(rule, "", rule.parse(PayloadFrame(payload, 32)), [])) and result.elements
        )
        timed = bool(rule.time) and not given.untimed
        for element in elements:
            more, cells = items_and_cells(rule, element, given, timed=timed)
            bound.update(cells)
            items |= more
            count += bool(more)
            times.update(time for _, _, time in cells)
        assert rows == bound
    assert not given.times or sorted(times) == given.times
    return count, items


def rounded(items: set[Item], given: Mapping) -> set[Item]:
    """Return items with times in whole seconds, where the points have no others."""
    if not given.seconds:
        return items
    return {item._replace(time=None if item.time is None else round(item.time / 1e6)) for item in items}


@pytest.mark.parametrize("case", CASES)
def test_points_are_equal(case: str, tmp_path: Path) -> None:
    """Measurement, tags, fields, values and times of each point; the decoder's rows are the same values."""
    given = mapping(case)
    if given.apart:
        errors = (FOLDER / case / "expected.err").read_text(encoding="utf-8").splitlines()
        assert len(errors) == len(given.messages)
        for rule in given.messages:
            decoder = Decoder(compiled([rule], tmp_path), NamedDevices(["d1"], "telegraf/mapping"))
            payload = (FOLDER / case / "input.json").read_bytes()
            quarantined = decoder.decode([Message("x/d1", payload, RECEIVED, 1)]).quarantined
            assert [message.reason for message in quarantined] == [given.refused]
        return
    count, result = ours(case, tmp_path)
    many, expected = points((FOLDER / case / "expected.out").read_text(encoding="utf-8"), given)
    if not any(expectation.time is not None for expectation in expected):
        result = {reading._replace(time=None) for reading in result}
    assert rounded(result, given) == rounded(expected, given)
    assert given.differs or given.merged or count == many


def test_every_case_has_its_mapping() -> None:
    """No case of the folder is left out, and none is made up."""
    assert sorted(path.name for path in FOLDER.iterdir() if path.is_dir()) == CASES
    assert len(CASES) == 32


def test_a_wrong_mapping_is_noticed(tmp_path: Path) -> None:
    """The control: another path, another tag, another time, each makes the points unequal."""
    case = "object_timestamp"
    given = mapping(case)
    _, expected = points((FOLDER / case / "expected.out").read_text(encoding="utf-8"), given)
    assert ours(case, tmp_path)[1] == expected
    wrong = [
        [{**given.messages[0], "each": "events", "time": {"field": "time", "stamp": "start", "period_s": 60}}],
        [{**given.messages[0], "readings": given.messages[0]["readings"][:1]}],
        [{**given.messages[0], "readings": [{"field": "value", "property": "number", "missing": [200.001]}]}],
    ]
    for messages in wrong:
        changed = msgspec.structs.replace(given, messages=messages)
        profiles = compiled(messages, tmp_path)
        rule = profiles.match("x/d1")[0][0]
        payload = (FOLDER / case / "input.json").read_bytes()
        bound = bind(rule, "", json.loads(payload), [])
        assert bound is not None
        items = set().union(*(items_and_cells(rule, element, changed, timed=True)[0] for element in bound.elements))
        assert items != expected


def test_where_we_differ_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """The table of the cases in which our grammar differs on purpose."""
    differing = {case: mapping(case).differs for case in CASES if mapping(case).differs}
    with capsys.disabled():
        print(f"\n{len(CASES)} mappings, {len(CASES) - len(differing)} alike; these differ on purpose:")
        for case, why in differing.items():
            print(f"  {case:28} {why}")
    assert {PROPERTIES.by_name(name).kind for name in PROPERTY.values()} == {
        ValueKind.NUMBER,
        ValueKind.STRING,
        ValueKind.BOOLEAN,
    }
