"""The grammar of device profiles: YAML to records, with file, line, key and the nearest right word in every error.

A payload format is a file in `formats/`: `format: name` chooses it, its options stand under its name in a rule, and all
that follows (topics, times, identity, readings) is the same for every format.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import yaml

from sensegate.config import yaml as yamls
from sensegate.decode.charsets import Charset
from sensegate.decode.formats.csv import CsvPart
from sensegate.decode.formats.hj212 import Hj212Part
from sensegate.decode.formats.jsonlines import JsonLinesPart
from sensegate.decode.formats.keyvalue import KeyValuePart
from sensegate.decode.formats.number import NumberPart
from sensegate.decode.formats.script import ScriptPart
from sensegate.decode.formats.sl651 import Sl651Part
from sensegate.decode.formats.text_frame import TextFramePart
from sensegate.decode.formats.video import VideoPart
from sensegate.decode.formats.xml import XmlPart
from sensegate.decode.layout.steps import BinaryPart
from sensegate.decode.part import Part, Scalar
from sensegate.decode.part import says as _h
from sensegate.decode.reshape import TablePart
from sensegate.errors import ProfileError
from sensegate.model import Datum, IdentityKind, QuarantineReason, RejectReason


class Label(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What people read."""

    zh: Annotated[str, _h("Chinese")]
    en: Annotated[str, _h("English")]


class UnitFrom(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A unit that the payload itself names."""

    field: Annotated[str, _h("path to the unit's name, from the element or with $ from the root")]
    words: Annotated[dict[str, str], _h("the device's words for units -> UCUM; empty: they are UCUM")] = {}


class CounterPart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a counter of the device starts again."""

    modulus: Annotated[
        float, _h("it starts again at 0 instead of reaching this, as sent: 65536, 4294967296; 0: it never does")
    ] = 0.0


class ReadingRule(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One value of a message that becomes a reading."""

    field: Annotated[str, _h('path to the value: a.b, a[0].b, ["dotted.key"], $.from.root')] = ""
    fields: Annotated[tuple[str, ...], _h("several paths that mean the same (one of them occurs in a message)")] = ()
    each: Annotated[str, _h("path to another list, in whose elements it is; in place of the rule's `each`")] = ""
    property: Annotated[str, _h("standard name in the property table")]
    channel: Annotated[str, _h("which of several alike on one device: a phase, a probe, a socket")] = ""
    channels: Annotated[
        tuple[str, ...] | dict[str, str],
        _h("channels whose names stand in the path as {channel}; a map where they are called otherwise: word: channel"),
    ] = ()
    unit: Annotated[str, _h("unit as sent, UCUM; empty: the property's own")] = ""
    unit_from: Annotated[UnitFrom | None, _h("where the payload names the unit; `unit` where it does not")] = None
    scale: Annotated[float, _h("the value as sent times this, plus `offset`, is in `unit`")] = 1.0
    offset: Annotated[float, _h("see `scale`")] = 0.0
    words: Annotated[
        str | dict[Scalar, Scalar] | None,
        _h("enumeration: value as sent -> value meant, or a table by name (wind_16, on_off); others are rejected"),
    ] = None
    counter: Annotated[CounterPart | None, _h("how a counter starts again")] = None
    datum: Annotated[Datum, _h("of longitude and latitude, which are shifted to WGS-84 together")] = Datum.WGS84
    missing: Annotated[tuple[Scalar, ...], _h("values that mean: not measured (null always does)")] = ()
    where: Annotated[
        dict[str, Scalar | tuple[Scalar, ...]],
        _h("path -> value or values: only in elements that meet all; {channel} may stand in the values"),
    ] = {}
    text_numbers: Annotated[bool, _h("numbers, true and false are also accepted as text; CSV and the like: always")] = (
        False
    )
    range: Annotated[tuple[float, float] | None, _h("valid range in the property's unit; else the property's")] = None
    step: Annotated[float | None, _h("greatest credible change between neighbours, in the property's unit")] = None
    deadband: Annotated[
        float | None, _h("report by exception: changes up to this (property's unit) are suppressed; absent: never")
    ] = None
    heartbeat_s: Annotated[float, _h("with `deadband`, the last value is repeated at least this often")] = 3600.0
    interval_s: Annotated[float | None, _h("expected interval; else the profile's")] = None
    alarm: Annotated[bool, _h("goes first on the way to the centre")] = False
    flag: Annotated[str, _h("path to this value's own flag, judged by the rule's `quality`")] = ""


class QualityPart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the device itself says of its values: a flag beside each, and what it means."""

    field: Annotated[str, _h("path to the flag, from the element or with $ from the root")] = ""
    words: Annotated[
        str | dict[Scalar, str],
        _h("flag -> quality, or `reject` (no reading); or a table by name: hj212, opcua, wmo"),
    ]
    absent: Annotated[str, _h("quality of values without a flag")] = "uncertain_unknown"
    other: Annotated[str, _h("quality where the flag is not in `words`")] = "uncertain_unknown"
    doubt: Annotated[str, _h("path to what makes even a good value uncertain, if it is there and not empty")] = ""


class TimePart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the phenomenon time stands and how it is written."""

    field: Annotated[str, _h("path to the time")] = ""
    fields: Annotated[tuple[str, ...], _h("several paths; the first that is there counts")] = ()
    join: Annotated[
        tuple[str, ...], _h("several paths whose values make the time together, joined by blanks: [date, hour]")
    ] = ()
    missing: Annotated[tuple[Scalar, ...], _h("values that mean: no time known (the time of arrival is taken)")] = ()
    format: Annotated[
        str | tuple[str, ...],
        _h("iso, epoch (s below 1e11, ms below 1e14), epoch_s, epoch_ms, epoch_us, epoch_ns, age_s, age_ms, %Y…"),
    ] = "iso"
    zone: Annotated[str, _h("zone of times that name none (IANA name); such readings are marked")] = ""
    stamp: Annotated[Literal["instant", "start", "end"], _h("what of a period the time marks")] = "instant"
    period_s: Annotated[float, _h("length of the period; with `stamp: start` the reading is dated at its end")] = 0.0


class DevicePart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the device's name stands, if not in the topic as {device}."""

    field: Annotated[str, _h("path to the name; the device must belong to the topic's {gateway}, if there is one")] = ""
    name: Annotated[str, _h("the name, made of the topic's captures: {group}/{node}")] = ""
    gateway: Annotated[str, _h("the gateway's name, made of the topic's captures, where no {gateway} is captured")] = ""
    any_profile: Annotated[
        bool, _h("the gateway speaks for itself and for the devices behind it, whatever their profiles are")
    ] = False
    credential: Annotated[bool, _h("the device is the one that logged in")] = False
    case: Annotated[Literal["", "lower", "upper"], _h("letters are changed so before the look-up")] = ""


class NamedPart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Elements that say themselves what they are: ``{"n": "temperature", "v": 21.5}``."""

    name: Annotated[str, _h("path to the name; readings are found by it (`field` is the name)")]
    value: Annotated[tuple[str, ...], _h("paths to the value; the first that is there counts")]
    unit: Annotated[str, _h("path to the unit's UCUM code or SenML symbol, if any")] = ""
    skip: Annotated[
        tuple[str, ...], _h("names that are known and hold no readings; A/* is all that begin with A/")
    ] = ()


class PayloadPart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a carrier (a LoRaWAN network server, an IoT platform) holds the bytes that the device itself sent."""

    field: Annotated[str, _h("path to the device's bytes; the rule holds where they are")]
    encoding: Annotated[
        Literal["base64", "hex", "text", "json"],
        _h("how they are written; json: the member itself, as JSON, is what the device sent"),
    ] = "base64"
    port: Annotated[str, _h("path to the frame's port; where it is named, it must be there")] = ""


class FramesPart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which frames of a carrier a rule takes."""

    ports: Annotated[tuple[int, ...], _h("ports of the frames; empty: any, and frames without a port")] = ()


class MessageRule(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of message: its topics and how it becomes readings."""

    topics: Annotated[tuple[str, ...], _h("topics with captures: tele/{device}/SENSOR, a/{device+}")] = ()
    frames: Annotated[
        FramesPart | None,
        _h("frames of this device that a carrier brings, by any network server; beside or without `topics`"),
    ] = None
    payload: Annotated[
        PayloadPart | None, _h("the message is an envelope: the device's own profile decodes what is in it")
    ] = None
    beside: Annotated[
        bool, _h("values of the envelope (signal strength) that stand beside those of the frame in it")
    ] = False
    label: Annotated[str, _h("what this message is, for people")] = ""
    format: Annotated[str, _h("payload format; else the profile's")] = ""
    jsonlines: Annotated[JsonLinesPart | None, _h("options of JSON Lines")] = None
    csv: Annotated[CsvPart | None, _h("how a table of text is written")] = None
    keyvalue: Annotated[KeyValuePart | None, _h("how pairs are written")] = None
    hj212: Annotated[Hj212Part | None, _h("options of `format: hj212`")] = None
    sl651: Annotated[Sl651Part | None, _h("options of `format: sl651`")] = None
    xml: Annotated[XmlPart | None, _h("how an XML document becomes a tree")] = None
    number: Annotated[NumberPart | None, _h("how a plain number is written")] = None
    binary: Annotated[BinaryPart | None, _h("what the bytes mean, one after the other")] = None
    script: Annotated[ScriptPart | None, _h("the maker's codec script, which decodes them")] = None
    text_frame: Annotated[TextFramePart | None, _h("fields of text between marks, with a length and a check value")] = (
        None
    )
    video: Annotated[VideoPart | None, _h("metadata of cameras: what the message and its camera are")] = None
    charset: Annotated[Charset, _h("how text is written in bytes (formats of text only)")] = "utf-8"
    ignore: Annotated[bool, _h("such messages are known and hold no readings")] = False
    where: Annotated[
        dict[str, Scalar | tuple[Scalar, ...] | None],
        _h("path -> value or values (null: it is not there); the rule holds only where all are met"),
    ] = {}
    unpack: Annotated[
        dict[str, str],
        _h(
            "path to text inside the payload -> its format (json …), parsed where it stands; the step * is every member"
        ),
    ] = {}
    table: Annotated[TablePart | None, _h("arrays without names, made into objects before any path is looked up")] = (
        None
    )
    root: Annotated[str, _h("path to the part that matters; other paths begin there")] = ""
    wrap: Annotated[str, _h("put the payload under this key first, e.g. {component} from the topic")] = ""
    each: Annotated[
        str,
        _h(
            "path to a list (or with .* to an object) of elements, each with its own readings; . is the payload; "
            "a.*.b: those of every b; in a path, ^.x begins at the element around this one, ^^.x at the next one out"
        ),
    ] = ""
    device: Annotated[DevicePart | None, _h("where the device's name stands; else {device} of the topic")] = None
    time: Annotated[TimePart | None, _h("phenomenon time; else the time of arrival")] = None
    identity: Annotated[
        IdentityKind | None, _h("what makes two readings the same one; where it is absent, the next that is there")
    ] = None
    sequence: Annotated[str, _h("path to a sequence number")] = ""
    message_id: Annotated[str, _h("path to a message id")] = ""
    path: Annotated[
        tuple[str, ...], _h("paths whose values tell by which way the message came (gateway, network)")
    ] = ()
    standard: Annotated[str, _h("path to an object whose keys are names of the property table")] = ""
    named: Annotated[NamedPart | None, _h("elements that name themselves")] = None
    quality: Annotated[QualityPart | None, _h("what the device itself says of its values; else they are good")] = None
    readings: Annotated[tuple[ReadingRule, ...], _h("the values that become readings")] = ()


class Expected(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One reading that an example must give."""

    property: Annotated[str, _h("standard name")]
    value: Annotated[Scalar, _h("in the property's unit")]
    time: Annotated[str, _h("phenomenon time, ISO 8601 with Z; absent: the time of arrival")] = ""
    device: Annotated[str, _h("device id or alias; absent: the example's device")] = ""
    field: Annotated[str, _h("path as in the rule, where the property occurs more than once")] = ""
    channel: Annotated[str | None, _h("which of several alike (a phase, a probe); absent: not compared")] = None
    quality: Annotated[str, _h("quality that the device's flag gives it")] = "good"


class ExpectedFrame(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The frame that an envelope must give."""

    hex: Annotated[str, _h("the device's bytes; blanks are left out")]
    port: Annotated[int | None, _h("its port")] = None
    counter: Annotated[int | None, _h("its frame counter; absent: not looked at")] = None
    time: Annotated[str, _h("time of its reception, ISO 8601 with Z; absent: the time of arrival")] = ""


class Earlier(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message that came before an example's."""

    topic: Annotated[str, _h("topic")]
    hex: Annotated[str, _h("binary payload in hex; blanks are left out")] = ""
    payload: Annotated[Any, _h("text byte for byte, or an object or list that is written as JSON")] = ""
    payload_b64: Annotated[str, _h("binary payload in base64")] = ""


class Example(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message and what becomes of it. Expected values come from the maker's document, never from our output."""

    label: Annotated[str, _h("what it shows")]
    topic: Annotated[str, _h("topic; empty: a frame as a carrier brings it")] = ""
    port: Annotated[int | None, _h("port of the frame")] = None
    hex: Annotated[str, _h("binary payload in hex; blanks are left out")] = ""
    payload: Annotated[Any, _h("text byte for byte, or an object or list that is written as JSON")] = ""
    payload_b64: Annotated[str, _h("binary payload in base64")] = ""
    before: Annotated[
        tuple[Earlier, ...], _h("messages that came before it (births); their readings do not count")
    ] = ()
    received: Annotated[str, _h("time of arrival, ISO 8601 with Z")] = "2026-01-01T00:00:00Z"
    devices: Annotated[tuple[str, ...], _h("names of the devices that exist; the first is the example's")] = ("d1",)
    gateway: Annotated[str, _h("device id of the gateway that publishes for them")] = ""
    carried: Annotated[bool, _h("the devices have profiles of their own (with `frame`: always)")] = False
    frame: Annotated[ExpectedFrame | None, _h("what the envelope holds, for devices with a profile of their own")] = (
        None
    )
    expect: Annotated[tuple[Expected, ...], _h("all readings, none missing, none more")] = ()
    refuse: Annotated[QuarantineReason | None, _h("the message goes to quarantine for this reason")] = None
    reject: Annotated[dict[str, RejectReason], _h("field -> reason: values that become no reading")] = {}
    ignored: Annotated[int | None, _h("number of values that mean: not measured")] = None


class ParameterPart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must be said with a task."""

    label: Annotated[Label, _h("name for people")]
    kind: Annotated[Literal["number", "integer", "boolean", "text"], _h("what it is")] = "number"
    unit: Annotated[str, _h("unit in which it is given and sent, UCUM")] = ""
    range: Annotated[tuple[float, float] | None, _h("least and greatest number; numbers need one")] = None
    words: Annotated[dict[Scalar, Scalar], _h("what may be said -> what is sent; nothing else may be said")] = {}
    default: Annotated[Scalar | None, _h("where it is not said; absent: it must be")] = None
    text_max: Annotated[int, msgspec.Meta(ge=1, le=1024), _h("greatest length of a text, characters")] = 64


class ConfirmPart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reading by which the device shows that it has done a task."""

    property: Annotated[str, _h("standard name of a reading of this profile")]
    channel: Annotated[str, _h("its channel")] = ""
    equals: Annotated[Scalar, _h("value that it then has, in the property's unit, or {parameter} as it was said")]
    tolerance: Annotated[float, msgspec.Meta(ge=0), _h("how far a number may be off")] = 0.0


class TaskExample(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A task with what is sent, or its refusal."""

    parameters: Annotated[dict[str, Scalar], _h("as they are said")] = {}
    topic: Annotated[str, _h("where it goes for the device d1; absent: not compared")] = ""
    payload: Annotated[Any, _h("text byte for byte, or an object or list that is compared as JSON")] = ""
    hex: Annotated[str, _h("binary payload in hex; blanks are left out")] = ""
    refuse: Annotated[bool, _h("such parameters are refused")] = False


class TaskPart(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that such a device can be told to do."""

    name: Annotated[str, _h("short name: letters, digits, -")]
    label: Annotated[Label, _h("name for people")]
    topic: Annotated[str, _h("where the device hears it; captures as in `hears`")] = "sg/{device}/down"
    json: Annotated[Any, _h('payload as JSON; "{parameter}" alone is its value, within a text its text')] = None
    text: Annotated[str, _h("payload as text, with {parameter}")] = ""
    hex: Annotated[
        str, _h("payload in hex; {parameter:u16be} is a number in so many bytes: u8 i8 u16be i16le u32be …")
    ] = ""
    parameters: Annotated[dict[str, ParameterPart], _h("what must be said with it")] = {}
    confirm: Annotated[ConfirmPart | None, _h("reading that shows that it was done; absent: nothing does")] = None
    role: Annotated[
        Literal["county_operator", "city_operator", "province_operator"], _h("least role that may give it")
    ] = "county_operator"
    when: Annotated[
        Literal["now", "heard"], _h("sent at once, or as soon as the device is heard (it sleeps between)")
    ] = "now"
    expires_s: Annotated[float, msgspec.Meta(gt=0, le=2_592_000), _h("it is given up after so long")] = 600.0
    again_s: Annotated[
        float,
        msgspec.Meta(ge=0, le=86_400),
        _h("sent again until it is confirmed; 0: never, as it must not happen twice"),
    ] = 0.0
    examples: Annotated[tuple[TaskExample, ...], _h("tasks with what is sent; at least one")] = ()


class ProfileFile(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device model, in one version."""

    profile: Annotated[str, _h("vendor/model, the same as folder and file")]
    version: Annotated[int, msgspec.Meta(ge=1, le=9999, description="rises with each change; versions never change")]
    label: Annotated[Label, _h("name for people")]
    source: Annotated[str, _h("where the layout is written down")]
    domain: Annotated[str, _h("domain of such devices, as in the property table")] = ""
    format: Annotated[str, _h("payload format")] = "json"
    qos: Annotated[Literal[0, 1], _h("0: the device publishes at QoS 0 only; its messages may be lost before us")] = 1
    zone: Annotated[str, _h("zone of times that name none")] = "Asia/Shanghai"
    interval_s: Annotated[float, _h("expected interval between messages; 0: none")] = 0.0
    client_id: Annotated[bool, _h("the MQTT client id must be the device id")] = False
    hears: Annotated[
        tuple[str, ...],
        _h("topics that such a device listens to, beside sg/<id>/down; its names fill the captures, {any} is anything"),
    ] = ()
    tasks: Annotated[tuple[TaskPart, ...], _h("what its devices can be told to do")] = ()
    messages: Annotated[tuple[MessageRule, ...], _h("kinds of messages; of those with one topic the first that holds")]
    examples: Annotated[tuple[Example, ...], _h("messages with what becomes of them; at least one is refused")] = ()
    shared: Annotated[Any, _h("a place for YAML anchors (&name) that the rules refer to (*name)")] = None


# ── YAML ─────────────────────────────────────────────────────────────────────────────────────────────


_Base: Any = yamls.LOADER


class _Loader(_Base):  # type: ignore[misc] # one of two classes with the same contract
    """YAML 1.2's core schema: only true and false are booleans, dates are text, no octal or base-60 numbers."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:null|~|)$"), ["n", "~", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_NODES_MAX = 200_000


def _guard(node: yaml.Node, seen: list[int]) -> None:
    """Refuse documents whose anchors multiply into something huge."""
    seen[0] += 1
    if seen[0] > _NODES_MAX:
        raise yaml.YAMLError("too many nodes")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _guard(key, seen)
            _guard(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _guard(value, seen)


Lines = dict[tuple[str | int, ...], int]
"""Path of keys and indices -> line in the file."""


def _build(node: yaml.Node, path: tuple[str | int, ...], lines: Lines, loader: _Loader, file: str) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_build(child, (*path, at), lines, loader, file) for at, child in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
    tree: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, (str, int, float, bool)):
            raise ProfileError("a key must be a word", file=file, line=key_node.start_mark.line + 1)
        if key in tree:  # true and 1 are the same key to Python: one of them
            line = key_node.start_mark.line + 1
            raise ProfileError("occurs twice", file=file, line=line, key=str(key), remedy="keep one of them")
        here = (*path, key if isinstance(key, str) else str(key))
        lines[here] = key_node.start_mark.line + 1
        tree[key] = _build(value_node, here, lines, loader, file)
    return tree


def _part(kind: Any) -> type[Part] | None:
    if isinstance(kind, type) and issubclass(kind, Part):
        return kind
    return next((found for inner in get_args(kind) if (found := _part(inner))), None)


@cache
def _hints(part: type[Part]) -> dict[str, Any]:
    return get_type_hints(part)


def _unknown(part: type[Part], tree: Any, path: tuple[str | int, ...]) -> tuple[tuple[str | int, ...], str] | None:
    if not isinstance(tree, dict):
        return None
    hints = _hints(part)
    for key, value in tree.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.5)
            return (*path, str(key)), f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(hints)}"
        inner = _part(hints[key])
        if inner is None:
            continue
        for child, where in _members(value, (*path, key), keyed=_is_keyed(hints[key])):
            if found := _unknown(inner, child, where):
                return found
    return None


def _is_keyed(kind: Any) -> bool:
    """Return whether a value of this type may be a table of parts by key (`cases` of a binary layout)."""
    return get_origin(kind) is dict or (get_origin(kind) is not tuple and any(map(_is_keyed, get_args(kind))))


def _members(value: Any, path: tuple[str | int, ...], *, keyed: bool) -> Iterator[tuple[Any, tuple[str | int, ...]]]:
    """Yield each part below a key, with its path."""
    if isinstance(value, list):
        for at, child in enumerate(value):
            yield child, (*path, at)
    elif keyed and isinstance(value, dict):
        for key, child in value.items():
            yield from _members(child, (*path, str(key)), keyed=False)
    else:
        yield value, path


def line_of(lines: Lines, path: tuple[str | int, ...]) -> int:
    """Return the line of a path, or of its nearest parent that has one."""
    for length in range(len(path), -1, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


def key_text(path: tuple[str | int, ...]) -> str:
    """Return a path as people write it: ``messages[0].topics``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def parse(text: str, *, file: str = "") -> tuple[ProfileFile, Lines]:
    """Return the profile in YAML text and the lines of its keys.

    Raises:
        ProfileError: with file, line and key of the first thing that is wrong.
    """
    loader = _Loader(text)
    lines: Lines = {}
    try:
        node = loader.get_single_node()
        if node is None:
            raise ProfileError("empty", file=file, line=1, remedy="copy _template.yaml")
        _guard(node, [0])
        tree = _build(node, (), lines, loader, file)
    except yaml.YAMLError as why:
        mark = getattr(why, "problem_mark", None)
        remedy = str(getattr(why, "problem", None) or why)
        raise ProfileError("not YAML", file=file, line=mark.line + 1 if mark else 1, remedy=remedy) from why
    except RecursionError as why:
        raise ProfileError("nested too deeply", file=file, line=1) from why
    finally:
        loader.dispose()
    if found := _unknown(ProfileFile, tree, ()):
        path, remedy = found
        raise ProfileError("unknown key", file=file, line=line_of(lines, path), key=key_text(path), remedy=remedy)
    try:
        return msgspec.convert(tree, ProfileFile), lines
    except msgspec.ValidationError as why:
        raise _invalid(str(why), file, lines) from why


def _invalid(message: str, file: str, lines: Lines) -> ProfileError:
    what, _, place = message.partition(" - at `$")
    steps = re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", place.rstrip("`"))
    path = tuple(name or int(index) for name, index in steps)
    remedy = "see device_profiles/README.md"
    if found := re.search(r"[Ii]nvalid enum value '([^']*)'", what):
        words = {"datum": Datum, "identity": IdentityKind, "refuse": QuarantineReason, "reject": RejectReason}
        choices = next((list(words[step]) for step in reversed(path) if step in words), [])
        near = difflib.get_close_matches(found[1], choices, n=1, cutoff=0.4)
        remedy = f"did you mean '{near[0]}'?" if near else f"one of: {', '.join(choices)}" if choices else remedy
    return ProfileError(what, file=file, line=line_of(lines, path), key=key_text(path), remedy=remedy)
