"""Codec scripts as a format: errors of profiles, refusals, flags, batches, and frames in envelopes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sensegate.authoring.examples import NamedDevices, check_profile, readings_of
from sensegate.authoring.explain import explain
from sensegate.clock import FakeClock
from sensegate.decode import Decoder, ProfileSet
from sensegate.decode.formats import script
from sensegate.decode.frame import PayloadFrame
from sensegate.decode.watch import ProfileWatcher
from sensegate.errors import ProfileError
from sensegate.model import Device, Fields, Message
from sensegate.normalise.normalise import Normaliser
from sensegate.quantities.quality import Flag
from sensegate.quantities.series import SeriesIndex
from sensegate.scripts import pool
from sensegate.scripts.pool import PendingCall, ScriptPool
from sensegate.scripts.wire import CallResult
from tests.decode.decoding import same
from tests.support.profiles import ROOT, Make

NOW = 1_772_366_400_000_000

SCRIPT = """
function decodeUplink(input) {
  if (input.bytes[0] === 255) while (true) {}
  if (input.bytes.length < 2) return { errors: ["too short"] };
  var data = { t: ((input.bytes[0] << 8) | input.bytes[1]) / 100, port: input.fPort };
  if (input.bytes[0] === 254) data.t = NaN;
  return { data: data, warnings: data.t > 50 ? ["hot"] : [] };
}
"""
RULE = """
  - topics: ["x/{device}"]
    frames: {ports: [2]}
    script: {file: codec.js}
    readings:
      - {field: t, property: air_temperature, unit: Cel}
"""


class Spy(ScriptPool):
    """Remembers how many frames each exchange had."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def run(self, asks: Sequence[PendingCall]) -> list[CallResult]:
        self.batches.append(len(asks))
        return super().run(asks)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spy]:
    """The children of one test, in place of the shared ones."""
    made = Spy()
    monkeypatch.setattr(pool, "decoding_pool", lambda: made)
    yield made
    made.close()


@pytest.fixture
def decoder(make: Make, tmp_path: Path, spy: Spy) -> Decoder:
    """A decoder with the script above."""
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "codec.js").write_text(SCRIPT, encoding="utf-8")
    return make(RULE, "d1", "d2")


def message(payload: bytes, device: str = "d1") -> Message:
    """Return a message to the rule above."""
    return Message(f"x/{device}", payload, NOW, 1)


def refusals(fields: Fields) -> list[tuple[int, str, str]]:
    """Return what is in quarantine."""
    return [(refusal.message, refusal.reason.value, refusal.detail) for refusal in fields.quarantined]


def test_a_batch_is_decoded_in_one_exchange(decoder: Decoder, spy: Spy) -> None:
    """Good frames become readings in their order, each bad one has its reason, and the child is asked once."""
    payloads = [b"\x08\xca", b"\x01", b"\x07\xd0", b"\x08\x98"]
    fields = decoder.decode([message(payload, f"d{1 + index % 2}") for index, payload in enumerate(payloads)])
    assert fields.value.tolist() == [22.5, 20.0, 22.0]
    assert fields.message.tolist() == [0, 2, 3]
    assert refusals(fields) == [(1, "script_refused", "too short")]
    assert spy.batches == [4]


def test_both_ways_of_decoding_agree(decoder: Decoder) -> None:
    """The path that the tests trust gives the same rows."""
    messages = [message(bytes([at, at])) for at in range(40)]
    quick, slow = decoder.decode(messages), decoder.decode_row_by_row(messages)
    assert quick.value.tolist() == slow.value.tolist()
    assert refusals(quick) == refusals(slow)


def test_trees_of_a_script_are_decoded_by_columns(decoder: Decoder, spy: Spy) -> None:
    """Once a shape is known: equal in every column, with refused, warned and odd frames among them, in one exchange."""
    payloads = [bytes([at % 20, at]) for at in range(90)]
    payloads[7], payloads[30], payloads[50] = b"\x01", b"\x17\x70", b"\xfe\x00"
    messages = [message(payload, f"d{1 + at % 2}") for at, payload in enumerate(payloads)]
    for _ in range(4):
        spy.batches.clear()
        quick = decoder.decode(messages)
        assert spy.batches == [90]
        same(quick, decoder.decode_row_by_row(messages))
    assert decoder.plans.count == 1
    assert quick.source_flags == {29: int(Flag.WARNED)}
    assert len(quick) == 88


def test_a_runaway_is_quarantined_and_the_others_go_on(decoder: Decoder) -> None:
    """The message that stops the script is kept with its reason."""
    fields = decoder.decode([message(b"\x08\xca"), message(b"\xff\xff"), message(b"\x08\xca")])
    assert fields.message.tolist() == [0, 2]
    assert refusals(fields) == [(1, "script_limit", "more CPU time than it may have")]


def test_a_number_that_is_none_is_rejected(decoder: Decoder) -> None:
    """NaN is a fault of the value, not a missing one."""
    fields = decoder.decode([message(b"\xfe\x00")])
    assert [value.reason.value for value in fields.rejected] == ["not_finite"]


def test_warnings_become_flags(decoder: Decoder) -> None:
    """All readings of the message carry `warned`, through to the reading; others do not."""
    fields = decoder.decode([message(b"\x08\xca"), message(b"\x17\x70")])
    assert fields.source_flags == {1: int(Flag.WARNED)}
    normaliser = Normaliser(decoder.profiles.specs, series=SeriesIndex(), clock=FakeClock(NOW))
    readings, _ = normaliser.normalise(fields, fields.time)
    assert [bool(flags & Flag.WARNED) for flags in readings.flags] == [False, True]


def test_a_suspension_is_told_with_the_message(decoder: Decoder, spy: Spy) -> None:
    """A sender whose frames run away is kept out; its messages say why, and can be decoded again."""
    fields = decoder.decode([*(message(bytes([255, at])) for at in range(4)), message(b"\x08\xca", "d2")])
    assert [reason for _, reason, _ in refusals(fields)] == ["script_limit"] * 2 + ["script_suspended"] * 2
    assert fields.value.tolist() == [22.5]


# ── frames in envelopes ──────────────────────────────────────────────────────────────────────────────


class Registry(NamedDevices):
    """A network server and devices behind it that have a profile of their own."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__([], "chirpstack/v4", gateway="ns")
        records = [Device(id=name, alias=name, division="440106", profile="acme/x", gateway="ns") for name in names]
        self._records += records
        self._index |= {record.id: index for index, record in enumerate(self._records)}
        self.enabled = self.enabled.repeat(len(self._records))


def uplink(device: str, payload: bytes, port: int = 2, counter: int = 1) -> Message:
    """Return ChirpStack's message."""
    body = {
        "time": "2026-03-01T12:00:00Z",
        "deviceInfo": {"devEui": device},
        "fPort": port,
        "fCnt": counter,
        "data": base64.b64encode(payload).decode(),
    }
    return Message(f"application/a/device/{device}/event/up", json.dumps(body).encode(), NOW, 1, principal="ns")


def test_frames_in_envelopes_are_decoded_in_one_exchange(decoder: Decoder, tmp_path: Path, spy: Spy) -> None:
    """The device's own script decodes what the network server carries, all frames of a batch at once."""
    profiles = ProfileSet.load([tmp_path, ROOT / "chirpstack" / "v4.yaml"])
    names = [f"{at:016x}" for at in range(20)]
    chained = Decoder(profiles, Registry(names))
    fields = chained.decode([uplink(name, bytes([8, index])) for index, name in enumerate(names)])
    assert refusals(fields) == []
    assert [
        reading.value for reading in readings_of(fields, profiles.specs, Registry(names)) if reading.field == "t"
    ] == [(0x800 + at) / 100 for at in range(20)]
    assert spy.batches == [20]


def test_an_envelope_whose_frame_is_refused_says_so(decoder: Decoder, tmp_path: Path) -> None:
    """The script's word is the message's reason."""
    chained = Decoder(ProfileSet.load([tmp_path, ROOT / "chirpstack" / "v4.yaml"]), Registry(["0" * 16]))
    fields = chained.decode([uplink("0" * 16, b"\1")])
    assert [(reason, detail) for _, reason, detail in refusals(fields)] == [("script_refused", "too short")]


# ── profiles ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "options", "file", "line", "message"),
    [
        ("var a = 1;\nfunction (", "", "codec.js", 2, "SyntaxError"),
        ("function decodeUplink(i) {\n  return {};\n", "", "codec.js", 3, "not closed"),
        ("var a;\nimport x from 'y';\n", "", "codec.js", 2, "an ES module"),
        ("export default function (a) {}\n", "", "codec.js", 1, "an ES module"),
        ("}, function () {\n", "", "codec.js", 1, "SyntaxError"),
        ("} (0), function () {\n", "", "codec.js", 1, "SyntaxError"),
        ("var a;\n\nthrow new Error('at once');", "", "codec.js", 3, "Error: at once"),
        ("while (true) {}", "", "codec.js", 1, "more than 1 s of CPU time to load"),
        ("var decodeUplink = 5;", "", "x.yaml", 9, "it has none of the functions decodeUplink, Decode"),
        ("function Decode(p, b) {}", ", entry: Decoder", "x.yaml", 9, "it has no function 'Decoder'"),
        ("function Decode(p, b) {}", ", take: normalized", "x.yaml", 9, "normalizeUplink"),
        ("function Decode(p, b) {}", ", entry: a-b", "x.yaml", 9, "is not a function name"),
        ("function Decode(p, b) {}", ", arguments: [input, bytes]", "x.yaml", 9, "must stand alone"),
        ("function Decode(p, b) {}", ", limits: {cpu_ms: 5000}", "x.yaml", 9, "<= 200"),
        ("function Decode(p, b) {}", ", file: ../codec.js", "x.yaml", 9, "must lie beside the profile"),
        (None, "", "x.yaml", 9, "put the script beside the profile"),
    ],
)
def test_errors_name_file_and_line(
    make: Make, tmp_path: Path, text: str | None, options: str, file: str, line: int, message: str
) -> None:
    """Of the script where the script is wrong, of the profile where that is."""
    (tmp_path / "acme").mkdir()
    if text is not None:
        (tmp_path / "acme" / "codec.js").write_text(text, encoding="utf-8")
    name = "" if "file:" in options else "file: codec.js"
    with pytest.raises(ProfileError) as caught:
        make(RULE.replace("{file: codec.js}", f"{{{name}{options}}}".replace("{, ", "{")))
    assert Path(caught.value.file).name == file
    assert (caught.value.line, message) == (line, message if message in str(caught.value) else str(caught.value))


def test_a_script_that_is_no_text(make: Make, tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are no script."""
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "codec.js").write_bytes(b"// \xff\n")
    with pytest.raises(ProfileError, match="not valid UTF-8"):
        make(RULE)


def test_a_script_is_looked_at_once(decoder: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile that is read again costs no child; a script that changed does."""
    monkeypatch.setattr(pool, "inspection_pool", lambda: pytest.fail("looked at again"))
    assert ProfileSet.load([tmp_path]).ids
    (tmp_path / "acme" / "codec.js").write_text(SCRIPT + "// changed", encoding="utf-8")
    with pytest.raises(pytest.fail.Exception, match="looked at again"):
        ProfileSet.load([tmp_path])


@pytest.mark.parametrize("rule", [RULE, RULE.replace("frames: {ports: [2]}", "metadata: mqtt")])
async def test_a_changed_script_is_taken_up(make: Make, tmp_path: Path, rule: str) -> None:
    """The file beside the profile counts as the profile does, also where its result is changed by the rule."""
    (tmp_path / "acme").mkdir(exist_ok=True)
    (tmp_path / "acme" / "codec.js").write_text(SCRIPT, encoding="utf-8")
    make(rule)
    clock = FakeClock()
    watched = ProfileWatcher([tmp_path], clock)
    old = watched.set
    (tmp_path / "acme" / "codec.js").write_text(SCRIPT.replace("/ 100", "/ 1000"), encoding="utf-8")
    assert watched._stamps() != watched._last_stamps
    assert watched.set.reload([tmp_path]).find("acme/x") is not old.find("acme/x")
    assert old.reload([tmp_path], {str(tmp_path / "acme" / "x.yaml")}).find("acme/x") is old.find("acme/x")


def test_downlinks_are_recognised(decoder: Decoder, tmp_path: Path) -> None:
    """A script with `encodeDownlink` is known as one, for the day when commands are sent."""
    (tmp_path / "acme" / "codec.js").write_text(SCRIPT + "function encodeDownlink(i) { return {}; }", encoding="utf-8")
    match = ProfileSet.load([tmp_path]).find("acme/x")
    assert match is not None
    assert isinstance(match.rules[0].parse, script.ScriptParse)
    assert match.rules[0].parse.facts.encodes
    assert match.rules[0].parse.facts.entry == "decodeUplink"


def test_examples_and_explain_know_scripts(decoder: Decoder, tmp_path: Path) -> None:
    """`check` runs the examples of a carried profile; `explain` shows its stages."""
    file = tmp_path / "acme" / "x.yaml"
    examples = """examples:
  - {label: good, port: 2, hex: "08ca", expect: [{property: air_temperature, value: 22.5}]}
  - {label: bad, port: 2, hex: "08", refuse: script_refused}
"""
    file.write_text(file.read_text() + examples, encoding="utf-8")
    assert check_profile(file) == []
    file.write_text(file.read_text().replace("22.5", "22.6"), encoding="utf-8")
    assert "22.6" in str(check_profile(file)[0])
    stages = explain([tmp_path], "x/d1", b"\x08\xca")
    assert "air_temperature = 22.5" in json.dumps(stages)


# ── the library's own scripts ────────────────────────────────────────────────────────────────────────

SCRIPTED = ("abeeway/tracker", "mydevices/cayenne-lpp", "watteco/th")


@pytest.fixture(scope="module")
def library() -> ProfileSet:
    """The profiles of the repository that have scripts."""
    return ProfileSet.load([ROOT / f"{name}.yaml" for name in SCRIPTED])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(frames=st.lists(st.tuples(st.binary(max_size=60), st.integers(0, 255)), min_size=1, max_size=20))
def test_any_bytes_are_decoded_or_refused_by_scripts(library: ProfileSet, frames: list[tuple[bytes, int]]) -> None:
    """Property: random bytes give readings or a refusal by the script, never an error of it or a limit."""
    for name in SCRIPTED:
        profile = library.find(name)
        assert profile is not None
        parse = profile.rules[0].parse
        assert isinstance(parse, script.ScriptParse)
        trees = parse.many([(parse, PayloadFrame(payload, 32, "t", NOW, port)) for payload, port in frames])
        for tree in trees:
            assert isinstance(tree, dict) or tree.reason == "script_refused", tree
