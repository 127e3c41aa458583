"""The grammar of device profiles: YAML to records; every error names file, line, key and the closest valid word.

A payload format is a file in `formats/`: `format: name` selects it, its options stand under its name in a rule, and the
rest (topics, times, identity, readings) is the same for every format.
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
from sensegate.decode.part import ProfilePart, Scalar
from sensegate.decode.part import description as _h
from sensegate.decode.reshape import TablePart
from sensegate.errors import ProfileError
from sensegate.model import Datum, IdentityKind, QuarantineReason, RejectReason


class LabelPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A name for people, in two languages."""

    zh: Annotated[str, _h("Chinese")]
    en: Annotated[str, _h("English")]


class UnitFrom(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A unit that the payload itself states."""

    field: Annotated[str, _h("path to the unit's name, from the element or with $ from the root")]
    words: Annotated[dict[str, str], _h("the device's words for units -> UCUM; empty: they are UCUM codes")] = {}


class CounterPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Range in which a counter of the device wraps around."""

    modulus: Annotated[
        float,
        _h("the counter wraps to 0 instead of reaching this value, as sent: 65536, 4294967296; 0: it never wraps"),
    ] = 0.0


class ReadingRule(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value of a message that becomes a reading."""

    field: Annotated[str, _h('path to the value: a.b, a[0].b, ["dotted.key"], $.from.root')] = ""
    fields: Annotated[tuple[str, ...], _h("alternative paths to the same value (one of them occurs in a message)")] = ()
    each: Annotated[str, _h("path to another list whose elements hold the value; replaces the rule's `each`")] = ""
    property: Annotated[str, _h("standard name in the property table")]
    channel: Annotated[str, _h("which of several of a kind on one device: a phase, a probe, a socket")] = ""
    channels: Annotated[
        tuple[str, ...] | dict[str, str],
        _h("channels, for {channel} in the path; a map if the path uses other words: word: channel"),
    ] = ()
    unit: Annotated[str, _h("unit of the value as sent, UCUM; empty: the property's own")] = ""
    unit_from: Annotated[UnitFrom | None, _h("where the payload states the unit; `unit` applies if it does not")] = None
    scale: Annotated[float, _h("value as sent times `scale` plus `offset` is the value in `unit`")] = 1.0
    offset: Annotated[float, _h("see `scale`")] = 0.0
    words: Annotated[
        str | dict[Scalar, Scalar] | None,
        _h("enumeration: value as sent -> value, or the name of a table (wind_16, on_off); other values are rejected"),
    ] = None
    counter: Annotated[CounterPart | None, _h("how a counter wraps around")] = None
    datum: Annotated[Datum, _h("datum of longitude and latitude, which are converted to WGS-84 together")] = Datum.WGS84
    missing: Annotated[tuple[Scalar, ...], _h('values that stand for "not measured" (null always does)')] = ()
    where: Annotated[
        dict[str, Scalar | tuple[Scalar, ...] | None],
        _h(
            "path -> value or values (null: absent): only elements that meet all conditions; "
            "{channel} may be used in the values"
        ),
    ] = {}
    text_numbers: Annotated[bool, _h("accept numbers, true and false as text too; always on for CSV and the like")] = (
        False
    )
    range: Annotated[tuple[float, float] | None, _h("valid range in the property's unit; default: the property's")] = (
        None
    )
    step: Annotated[float | None, _h("greatest credible change between successive values, in the property's unit")] = (
        None
    )
    deadband: Annotated[
        float | None, _h("report by exception: smaller changes (in the property's unit) are suppressed; absent: never")
    ] = None
    heartbeat_s: Annotated[float, _h("with `deadband`, the value is repeated at least this often")] = 3600.0
    interval_s: Annotated[float | None, _h("expected interval; default: the profile's")] = None
    alarm: Annotated[bool, _h("has priority on the uplink to the centre")] = False
    flag: Annotated[str, _h("path to this value's own flag, judged by the rule's `quality`")] = ""


class QualityPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Quality stated by the device: a flag beside its values, and the meaning of the flag."""

    field: Annotated[str, _h("path to the flag, from the element or with $ from the root")] = ""
    words: Annotated[
        str | dict[Scalar, str],
        _h("flag -> quality, or `reject` (no reading); or the name of a table: hj212, opcua, wmo"),
    ]
    absent: Annotated[str, _h("quality of values without a flag")] = "uncertain_unknown"
    other: Annotated[str, _h("quality for flags that are not in `words`")] = "uncertain_unknown"
    doubt: Annotated[str, _h("path to a member that makes a good value uncertain, if it is present and not empty")] = ""


class TimePart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Place and format of the phenomenon time."""

    field: Annotated[str, _h("path to the time")] = ""
    fields: Annotated[tuple[str, ...], _h("alternative paths; the first that is present and a time applies")] = ()
    join: Annotated[
        tuple[str, ...], _h("paths whose values form the time together, joined by spaces: [date, hour]")
    ] = ()
    missing: Annotated[
        tuple[Scalar, ...], _h('values that stand for "no time known" (the time of arrival applies)')
    ] = ()
    format: Annotated[
        str | tuple[str, ...],
        _h("iso, epoch (s below 1e11, ms below 1e14), epoch_s, epoch_ms, epoch_us, epoch_ns, age_s, age_ms, %Y…"),
    ] = "iso"
    zone: Annotated[str, _h("zone of times without one (IANA name); such readings are marked")] = ""
    interval: Annotated[
        Literal["start", "end"], _h("which end of an ISO 8601 interval (2026-01-01T00:00Z/PT1H) is the time")
    ] = "end"
    stamp: Annotated[Literal["instant", "start", "end"], _h("which end of a period the time marks")] = "instant"
    period_s: Annotated[float, _h("length of the period; with `stamp: start` the reading is dated at its end")] = 0.0


class DevicePart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Place of the device's name, if it is not {device} in the topic."""

    field: Annotated[str, _h("path to the name; the device must belong to the topic's {gateway}, if there is one")] = ""
    name: Annotated[str, _h("the name, as a template of the topic's captures: {group}/{node}")] = ""
    gateway: Annotated[str, _h("the gateway's name, as a template of captures, if no {gateway} is captured")] = ""
    any_profile: Annotated[
        bool, _h("the gateway publishes for itself and for the devices behind it, whatever their profiles")
    ] = False
    credential: Annotated[bool, _h("the device is the one that authenticated")] = False
    case: Annotated[Literal["", "lower", "upper"], _h("letter case applied before the name is looked up")] = ""
    decode: Annotated[
        Literal["", "base64_hex"],
        _h("base64_hex: a name in base64 becomes its bytes in hex; one that is hex digits already stays"),
    ] = ""


class NamedPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Elements that carry their own name: ``{"n": "temperature", "v": 21.5}``."""

    name: Annotated[str, _h("path to the name; readings are found by it (`field` is the name)")]
    value: Annotated[tuple[str, ...], _h("paths to the value; the first that is present applies")]
    unit: Annotated[str, _h("path to the unit's UCUM code or SenML symbol, if any")] = ""
    skip: Annotated[
        tuple[str, ...], _h("known names without readings; A/* stands for all names that begin with A/")
    ] = ()


class PayloadPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Place of the bytes of the device in the envelope of a carrier (a LoRaWAN network server, an IoT platform)."""

    field: Annotated[str, _h("path to the device's bytes; the rule matches if they are present")]
    encoding: Annotated[
        Literal["base64", "hex", "text", "json"],
        _h("how the bytes are encoded; json: the member itself, as JSON, is what the device sent"),
    ] = "base64"
    port: Annotated[str, _h("path to the frame's port; if given, the port must be present")] = ""


class FramesPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Selection of the frames of a carrier that a rule decodes."""

    ports: Annotated[tuple[int, ...], _h("ports of the frames; empty: any, and frames without a port")] = ()


class MessageRule(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of message: its topics, and how it becomes readings."""

    topics: Annotated[tuple[str, ...], _h("topics with captures: tele/{device}/SENSOR, a/{device+}")] = ()
    frames: Annotated[
        FramesPart | None,
        _h("frames of this device, delivered by any network server; in addition to or instead of `topics`"),
    ] = None
    payload: Annotated[
        PayloadPart | None, _h("the message is an envelope; the device's own profile decodes the payload in it")
    ] = None
    beside: Annotated[bool, _h("values of the envelope (signal strength), in addition to those of the frame in it")] = (
        False
    )
    label: Annotated[str, _h("name of this kind of message, for people")] = ""
    format: Annotated[str, _h("payload format; default: the profile's")] = ""
    jsonlines: Annotated[JsonLinesPart | None, _h("options of JSON Lines")] = None
    csv: Annotated[CsvPart | None, _h("how a text table is written")] = None
    keyvalue: Annotated[KeyValuePart | None, _h("how pairs are written")] = None
    hj212: Annotated[Hj212Part | None, _h("options of `format: hj212`")] = None
    sl651: Annotated[Sl651Part | None, _h("options of `format: sl651`")] = None
    xml: Annotated[XmlPart | None, _h("how an XML document becomes a tree")] = None
    number: Annotated[NumberPart | None, _h("how a plain number is written")] = None
    binary: Annotated[BinaryPart | None, _h("the layout of the bytes, in order")] = None
    script: Annotated[ScriptPart | None, _h("the maker's codec script")] = None
    text_frame: Annotated[TextFramePart | None, _h("text fields between markers, with a length and a checksum")] = None
    video: Annotated[VideoPart | None, _h("camera metadata: which format, which camera")] = None
    charset: Annotated[Charset, _h("character encoding (text formats only)")] = "utf-8"
    ignore: Annotated[bool, _h("such messages are known and have no readings")] = False
    where: Annotated[
        dict[str, Scalar | tuple[Scalar, ...] | None],
        _h("path -> value or values (null: absent); the rule matches only if all conditions are met"),
    ] = {}
    unpack: Annotated[
        dict[str, str],
        _h("path to text inside the payload -> its format (json …), parsed in place; the step * means every member"),
    ] = {}
    table: Annotated[TablePart | None, _h("arrays without names, turned into objects before paths are looked up")] = (
        None
    )
    metadata: Annotated[
        str,
        _h(
            "key under which the payload gets what MQTT states beside it: client (the client id), credential (the "
            "device that authenticated), content_type, user.<name> (user properties of MQTT 5); a payload that is no "
            "object is then under `payload`"
        ),
    ] = ""
    root: Annotated[str, _h("path to the relevant part; other paths start there")] = ""
    wrap: Annotated[str, _h("put the payload under this key first, e.g. {component} from the topic")] = ""
    each: Annotated[
        str,
        _h(
            "path to a list (or with .* to an object) of elements, each with its own readings; . is the payload; "
            "a.*.b: those of every b; in a path, ^.x starts at the enclosing element, ^^.x at the one around that"
        ),
    ] = ""
    device: Annotated[DevicePart | None, _h("where the device's name is; default: {device} of the topic")] = None
    time: Annotated[TimePart | None, _h("phenomenon time; default: the time of arrival")] = None
    identity: Annotated[
        IdentityKind | None, _h("what makes two readings the same; if it is absent, the next kind that is present")
    ] = None
    sequence: Annotated[str, _h("path to a sequence number")] = ""
    message_id: Annotated[str, _h("path to a message id")] = ""
    path: Annotated[tuple[str, ...], _h("paths whose values tell how the message was routed (gateway, network)")] = ()
    standard: Annotated[str, _h("path to an object whose keys are names of the property table")] = ""
    named: Annotated[NamedPart | None, _h("elements that carry their own name")] = None
    quality: Annotated[QualityPart | None, _h("quality stated by the device; default: good")] = None
    readings: Annotated[tuple[ReadingRule, ...], _h("the values that become readings")] = ()


class Expected(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reading that an example must give."""

    property: Annotated[str, _h("standard name")]
    value: Annotated[Scalar, _h("in the property's unit")]
    time: Annotated[str, _h("phenomenon time, ISO 8601 with Z; absent: the time of arrival")] = ""
    device: Annotated[str, _h("device id or alias; absent: the example's device")] = ""
    field: Annotated[str, _h("path as in the rule, if the property occurs more than once")] = ""
    channel: Annotated[str | None, _h("which of several of a kind (a phase, a probe); absent: not compared")] = None
    quality: Annotated[str, _h("quality that the device's flag gives it")] = "good"


class ExpectedFrame(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The frame that an example's envelope must contain."""

    hex: Annotated[str, _h("the device's bytes; spaces are ignored")]
    port: Annotated[int | None, _h("its port")] = None
    counter: Annotated[int | None, _h("its frame counter; absent: not compared")] = None
    time: Annotated[str, _h("time of its reception, ISO 8601 with Z; absent: the time of arrival")] = ""


class Earlier(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message that precedes an example's."""

    topic: Annotated[str, _h("topic")]
    hex: Annotated[str, _h("binary payload in hex; spaces are ignored")] = ""
    payload: Annotated[Any, _h("text byte for byte, or an object or list that is encoded as JSON")] = ""
    payload_b64: Annotated[str, _h("binary payload in base64")] = ""


class ExampleMetadata(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """MQTT properties of an example's message."""

    client: Annotated[str, _h("client id")] = ""
    credential: Annotated[str, _h("id of the device that authenticated")] = ""
    content_type: Annotated[str, _h("content type of MQTT 5")] = ""
    user: Annotated[dict[str, str], _h("user properties of MQTT 5")] = {}


class Example(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message and its expected readings. Expectations come from the maker's document, never from our output."""

    label: Annotated[str, _h("what it shows")]
    topic: Annotated[str, _h("topic; empty: a frame as a carrier delivers it")] = ""
    port: Annotated[int | None, _h("port of the frame")] = None
    hex: Annotated[str, _h("binary payload in hex; spaces are ignored")] = ""
    payload: Annotated[Any, _h("text byte for byte, or an object or list that is encoded as JSON")] = ""
    payload_b64: Annotated[str, _h("binary payload in base64")] = ""
    before: Annotated[tuple[Earlier, ...], _h("messages that precede it (births); their readings do not count")] = ()
    received: Annotated[str, _h("time of arrival, ISO 8601 with Z")] = "2026-01-01T00:00:00Z"
    devices: Annotated[tuple[str, ...], _h("names of the registered devices; the first is the example's")] = ("d1",)
    gateway: Annotated[str, _h("device id of the gateway that publishes for them")] = ""
    metadata: Annotated[ExampleMetadata | None, _h("what MQTT states of the message; absent: it came otherwise")] = None
    carried: Annotated[bool, _h("the devices have profiles of their own (with `frame`: always)")] = False
    frame: Annotated[ExpectedFrame | None, _h("the frame in the envelope, for devices with a profile of their own")] = (
        None
    )
    expect: Annotated[tuple[Expected, ...], _h("exactly the readings that the message gives")] = ()
    refuse: Annotated[QuarantineReason | None, _h("the message is quarantined for this reason")] = None
    reject: Annotated[dict[str, RejectReason], _h("field -> reason: values that become no reading")] = {}
    ignored: Annotated[int | None, _h('number of values that stand for "not measured"')] = None


class ParameterPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A parameter of a task."""

    label: Annotated[LabelPart, _h("name for people")]
    kind: Annotated[Literal["number", "integer", "boolean", "text"], _h("type of the value")] = "number"
    unit: Annotated[str, _h("unit in which it is given and sent, UCUM")] = ""
    range: Annotated[tuple[float, float] | None, _h("smallest and greatest number; required for numbers")] = None
    words: Annotated[dict[Scalar, Scalar], _h("allowed value -> value that is sent; no other value is allowed")] = {}
    default: Annotated[Scalar | None, _h("value if it is not given; absent: the parameter is required")] = None
    text_max: Annotated[int, msgspec.Meta(ge=1, le=1024), _h("greatest length of a text, characters")] = 64


class ConfirmPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reading that confirms that the device has done a task."""

    property: Annotated[str, _h("standard name of a reading of this profile")]
    channel: Annotated[str, _h("its channel")] = ""
    equals: Annotated[Scalar, _h("value that confirms it, in the property's unit, or {parameter}: the value given")]
    tolerance: Annotated[float, msgspec.Meta(ge=0), _h("accepted deviation of a number")] = 0.0


class FrameTarget(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A task that goes down as a frame, in the envelope of the device's network server."""

    port: Annotated[int, msgspec.Meta(ge=0, le=223), _h("port of the frame; 0: the one that the script returns")] = 0
    confirmed: Annotated[bool, _h("the device must acknowledge the frame")] = False
    replace: Annotated[bool, _h("replaces what waits at the server, where it can do so (The Things Stack)")] = False


class DownlinkEventPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Message by which a network server reports the result of a downlink."""

    topic: Annotated[str, _h("end of its topic, as in `topics`: /event/ack")]
    where: Annotated[
        dict[str, Scalar | tuple[Scalar, ...]], _h("path -> value or values: the rule holds only if all are met")
    ] = {}
    device: Annotated[str, _h("path to the device's name, where the topic does not tell it")] = ""
    id: Annotated[str, _h("path to the id of the downlink (or a list with it) that the envelope gave it")] = ""
    state: Annotated[Literal["transmitted", "acknowledged", "failed"], _h("state of the task")]
    reason: Annotated[str, _h("path to the reason of a failure")] = ""


class DownlinkPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Form in which a network server takes downlinks for the devices behind it."""

    topics: Annotated[
        dict[str, str],
        _h("end of the topic of uplinks -> end of the topic of downlinks: {/event/up: /command/down}"),
    ]
    replace: Annotated[dict[str, str], _h("the same for downlinks that replace what waits")] = {}
    json: Annotated[
        Any,
        _h(
            "the envelope, with {device} {DEVICE} {port} {confirmed} {confirmed_digit} {base64} {hex} {HEX} {id} "
            "{id16} {uuid} {time}"
        ),
    ]
    events: Annotated[
        tuple[DownlinkEventPart, ...], _h("messages that tell what became of it; the first that matches applies")
    ] = ()


class TaskExample(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A task with the message that it sends, or its refusal."""

    parameters: Annotated[dict[str, Scalar], _h("the parameters given")] = {}
    topic: Annotated[str, _h("topic of the message for the device d1; absent: not compared")] = ""
    payload: Annotated[Any, _h("text byte for byte, or an object or list that is compared as JSON")] = ""
    hex: Annotated[str, _h("binary payload in hex; spaces are ignored")] = ""
    port: Annotated[int, _h("port of the frame; 0: not compared")] = 0
    refuse: Annotated[bool, _h("such parameters are refused")] = False


class TaskPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A task that such a device can carry out."""

    name: Annotated[str, _h("short name: letters, digits, -")]
    label: Annotated[LabelPart, _h("name for people")]
    topic: Annotated[str, _h("topic to which the device subscribes; captures as in `hears`")] = "sg/{device}/down"
    json: Annotated[Any, _h('payload as JSON; "{parameter}" alone is its value, within a string its text')] = None
    text: Annotated[str, _h("payload as text, with {parameter}")] = ""
    hex: Annotated[str, _h("payload in hex; {parameter:u16be} is a number as binary: u8 i8 u16be i16le u32be …")] = ""
    data: Annotated[
        Any, _h("data that encodeDownlink of the profile's codec script makes the frame of; as in `json`")
    ] = None
    frame: Annotated[
        FrameTarget | None, _h("the payload goes down as a frame, by the device's network server; `topic` is not used")
    ] = None
    parameters: Annotated[dict[str, ParameterPart], _h("parameters of the task")] = {}
    confirm: Annotated[ConfirmPart | None, _h("reading that confirms it; absent: it is not confirmed")] = None
    role: Annotated[
        Literal["county_operator", "city_operator", "province_operator"], _h("lowest role that may create it")
    ] = "county_operator"
    when: Annotated[
        Literal["now", "heard"], _h("sent at once, or after the next message of the device (which sleeps in between)")
    ] = "now"
    expires_s: Annotated[float, msgspec.Meta(gt=0, le=2_592_000), _h("the task fails if not done within this time")] = (
        600.0
    )
    again_s: Annotated[
        float,
        msgspec.Meta(ge=0, le=86_400),
        _h("interval of retries until it is confirmed; 0: none, for tasks that must not happen twice"),
    ] = 0.0
    examples: Annotated[tuple[TaskExample, ...], _h("tasks with the message that is sent; at least one")] = ()


class AlarmPart(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule by which devices of this model raise an alarm; values in the property's unit."""

    name: Annotated[str, _h("short name: letters, digits, -")]
    kind: Annotated[Literal["threshold", "change", "silence", "gap"], _h("what is watched")] = "threshold"
    title: Annotated[str, _h("text for people; default: the name")] = ""
    severity: Annotated[Literal["info", "warning", "major", "critical"], _h("severity of the alarm")] = "warning"
    property: Annotated[str, _h("standard name of a reading of this profile; not for silence")] = ""
    channel: Annotated[str | None, _h("its channel; absent: any")] = None
    above: Annotated[float | None, _h("threshold: opens above this value")] = None
    below: Annotated[float | None, _h("threshold: opens below this value")] = None
    equals: Annotated[bool | str | None, _h("threshold: opens at this value (true, a word)")] = None
    margin: Annotated[float, msgspec.Meta(ge=0), _h("the alarm closes once the value is back by this much")] = 0.0
    for_s: Annotated[float, msgspec.Meta(ge=0, le=604_800), _h("the alarm opens once the value is out so long")] = 0.0
    by: Annotated[float, msgspec.Meta(ge=0), _h("change: greatest difference between consecutive readings")] = 0.0
    after_s: Annotated[
        float, msgspec.Meta(ge=0, le=604_800), _h("silence, gap: longest time between messages; 0: three intervals")
    ] = 0.0


class ProfileFile(ProfilePart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version of the profile of a device model."""

    profile: Annotated[str, _h("vendor/model, the same as folder and file")]
    version: Annotated[
        int, msgspec.Meta(ge=1, le=9999, description="increases with each change; a version never changes")
    ]
    label: Annotated[LabelPart, _h("name for people")]
    source: Annotated[str, _h("the document that describes the layout")]
    draft: Annotated[bool, _h("true: it is not put in force from a folder, only listed")] = False
    domain: Annotated[str, _h("domain of such devices, as in the property table")] = ""
    format: Annotated[str, _h("payload format")] = "json"
    qos: Annotated[
        Literal[0, 1], _h("0: the device publishes at QoS 0 only; its messages may be lost before they arrive")
    ] = 1
    zone: Annotated[str, _h("zone of times without one")] = "Asia/Shanghai"
    interval_s: Annotated[float, _h("expected interval between messages; 0: none")] = 0.0
    client_id: Annotated[bool, _h("the MQTT client id must be the device id")] = False
    hears: Annotated[
        tuple[str, ...],
        _h(
            "topics to which such a device subscribes, besides sg/<id>/down; its names fill captures; {any} {any_b} "
            "{any_c}: anything"
        ),
    ] = ()
    tasks: Annotated[tuple[TaskPart, ...], _h("tasks that its devices can carry out")] = ()
    downlink: Annotated[
        DownlinkPart | None, _h("of a network server: how it takes downlinks for devices behind it")
    ] = None
    alarms: Annotated[tuple[AlarmPart, ...], _h("rules by which its devices raise alarms")] = ()
    messages: Annotated[
        tuple[MessageRule, ...], _h("kinds of messages; for one topic, the first rule that matches applies")
    ]
    examples: Annotated[tuple[Example, ...], _h("messages with their expected readings; at least one is refused")] = ()
    shared: Annotated[Any, _h("place for YAML anchors (&name) that rules refer to (*name)")] = None


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


def _limit_nodes(node: yaml.Node, count: list[int]) -> None:
    """Refuse documents whose anchors expand into something huge."""
    count[0] += 1
    if count[0] > _NODES_MAX:
        raise yaml.YAMLError("too many nodes")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _limit_nodes(key, count)
            _limit_nodes(value, count)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _limit_nodes(value, count)


Lines = dict[tuple[str | int, ...], int]
"""Path of keys and indices -> line in the file."""


def _build(node: yaml.Node, path: tuple[str | int, ...], lines: Lines, loader: _Loader, file: str) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_build(child, (*path, index), lines, loader, file) for index, child in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
    tree: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, (str, int, float, bool)):
            raise ProfileError("a key must be a string or a number", file=file, line=key_node.start_mark.line + 1)
        if key in tree:  # Python treats true and 1 as the same key
            line = key_node.start_mark.line + 1
            raise ProfileError("the key occurs twice", file=file, line=line, key=str(key), remedy="keep one of them")
        key_path = (*path, key if isinstance(key, str) else str(key))
        lines[key_path] = key_node.start_mark.line + 1
        tree[key] = _build(value_node, key_path, lines, loader, file)
    return tree


@cache
def _part_type(kind: Any) -> type[ProfilePart] | None:
    if isinstance(kind, type) and issubclass(kind, ProfilePart):
        return kind
    return next((part for inner in get_args(kind) if (part := _part_type(inner))), None)


@cache
def _hints(part: type[ProfilePart]) -> dict[str, Any]:
    return get_type_hints(part)


def _unknown_keys(
    part: type[ProfilePart], tree: Any, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield (path, remedy) of each key that no part has."""
    if not isinstance(tree, dict):
        return
    hints = _hints(part)
    for key, value in tree.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.5)
            yield (*path, str(key)), f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(hints)}"
            continue
        inner = _part_type(hints[key])
        if inner is None:
            continue
        for child, key_path in _members(value, (*path, key), keyed=_is_keyed(hints[key])):
            yield from _unknown_keys(inner, child, key_path)


def _is_keyed(kind: Any) -> bool:
    """Return whether a value of this type may be a table of parts by key (`cases` of a binary layout)."""
    return get_origin(kind) is dict or (get_origin(kind) is not tuple and any(map(_is_keyed, get_args(kind))))


def _members(value: Any, path: tuple[str | int, ...], *, keyed: bool) -> Iterator[tuple[Any, tuple[str | int, ...]]]:
    """Yield each part under a key, with its path."""
    if isinstance(value, list):
        for index, child in enumerate(value):
            yield child, (*path, index)
    elif keyed and isinstance(value, dict):
        for key, child in value.items():
            yield from _members(child, (*path, str(key)), keyed=False)
    else:
        yield value, path


def line_of(lines: Lines, path: tuple[str | int, ...]) -> int:
    """Return the line of a path, or of its nearest parent that has a line."""
    for length in range(len(path), -1, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


def key_text(path: tuple[str | int, ...]) -> str:
    """Return a path as people write it: ``messages[0].topics``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def parse(text: str, *, file: str = "") -> tuple[ProfileFile, Lines]:
    """Parse YAML text into a profile and the lines of its keys.

    Raises:
        ProfileError: with file, line and key of the first problem.
    """
    tree, lines = read_tree(text, file=file)
    for unknown in find_unknown_keys(tree, lines, file):
        raise unknown
    return convert(tree, lines, file), lines


def read_tree(text: str, *, file: str = "") -> tuple[Any, Lines]:
    """Return the tree of a profile's YAML text and the lines of its keys. Raises `ProfileError`."""
    loader = _Loader(text)
    lines: Lines = {}
    try:
        node = loader.get_single_node()
        if node is None:
            raise ProfileError("the file is empty", file=file, line=1, remedy="copy _template.yaml")
        _limit_nodes(node, [0])
        tree = _build(node, (), lines, loader, file)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        remedy = str(getattr(error, "problem", None) or error)
        raise ProfileError("is not YAML", file=file, line=mark.line + 1 if mark else 1, remedy=remedy) from error
    except RecursionError as error:
        raise ProfileError("is nested too deeply", file=file, line=1) from error
    finally:
        loader.dispose()
    return tree, lines


def find_unknown_keys(tree: Any, lines: Lines, file: str) -> list[ProfileError]:
    """Return an error for each key that the grammar does not have."""
    return [
        ProfileError("unknown key", file=file, line=line_of(lines, path), key=key_text(path), remedy=remedy)
        for path, remedy in _unknown_keys(ProfileFile, tree, ())
    ]


def convert(tree: Any, lines: Lines, file: str) -> ProfileFile:
    """Return the profile that a tree describes. Raises `ProfileError` with the first value of a wrong type."""
    try:
        return msgspec.convert(tree, ProfileFile)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), file, lines) from error


_REMEDIES = {
    "array": "write a list: [first, second]",
    "object": "write keys and values: {key: value}",
    "str": "write a text, in quotes if it looks like something else",
    "int": "write a whole number without quotes",
    "float": "write a number without quotes",
    "bool": "write true or false without quotes",
}
"""Type that a key expects, in the words of msgspec -> what to write."""


def _remedy(problem: str) -> str:
    """Return what to do about a value of a wrong type, or a key that is missing."""
    if missing := re.search(r"missing required field `(\w+)`", problem):
        return f"add `{missing[1]}`; device_profiles/README.md says what it is for"
    expected = re.search(r"Expected `(\w+)`, got", problem)
    return _REMEDIES.get(expected[1] if expected else "", "see device_profiles/README.md")


def _invalid(message: str, file: str, lines: Lines) -> ProfileError:
    problem, _, location = message.partition(" - at `$")
    steps = re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", location.rstrip("`"))
    path = tuple(name or int(index) for name, index in steps)
    remedy = _remedy(problem)
    if enum_error := re.search(r"[Ii]nvalid enum value '([^']*)'", problem):
        words = {"datum": Datum, "identity": IdentityKind, "refuse": QuarantineReason, "reject": RejectReason}
        choices = next((list(words[step]) for step in reversed(path) if step in words), [])
        near = difflib.get_close_matches(enum_error[1], choices, n=1, cutoff=0.4)
        remedy = f"did you mean '{near[0]}'?" if near else f"one of: {', '.join(choices)}" if choices else remedy
    return ProfileError(problem, file=file, line=line_of(lines, path), key=key_text(path), remedy=remedy)
