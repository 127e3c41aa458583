"""Tasks of a profile: parameters are validated, then encoded as the device expects them. Pure.

The terms are those of OGC SensorThings, part 2 (Tasking Core): a tasking capability has tasking parameters; a task is
one request to carry it out.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec

from sensegate.decode import downlink, topics
from sensegate.decode.device_names import subscribe_filters
from sensegate.decode.formats.script import DownlinkScript, encoder_of
from sensegate.decode.grammar import ConfirmPart, ParameterPart, TaskPart
from sensegate.decode.keys import ProfileKeys, nearest
from sensegate.decode.part import Scalar
from sensegate.decode.profile import CompiledProfile
from sensegate.errors import ConfigError, ProfileError
from sensegate.quantities.properties import PROPERTIES, ValueKind
from sensegate.quantities.units import UnitError, dimension

PAYLOAD_MAX: Final = 65_536
DEFAULT_TOPIC: Final = "sg/{device}/down"
"""Topic to which every device subscribes."""
Values = Mapping[str, Scalar]
"""Parameter -> value."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_SLOT = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([a-z0-9]+))?\}")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})*")
_STRUCT_CODES: Final = {
    f"{sign}{bits}{order}": f"{'<' if order == 'le' else '>'}{code if sign == 'i' else code.upper()}"
    for bits, code in ((8, "b"), (16, "h"), (32, "i"), (64, "q"))
    for sign in "ui"
    for order in (("",) if bits == 8 else ("be", "le"))
} | {"f32be": ">f", "f32le": "<f"}


def find_task(profile: CompiledProfile, name: str) -> TaskPart:
    """Return a task of a profile. Raises `ConfigError` that names the closest task."""
    tasks = {task.name: task for task in profile.source.tasks}
    if name in tasks:
        return tasks[name]
    if not tasks:
        raise ConfigError(f"{profile.id} has no tasks", key="task", remedy="add `tasks` to its profile")
    raise ConfigError(f"{profile.id} has no task '{name[:40]}'", key="task", remedy=nearest(name, tuple(tasks)))


def validate_parameters(task: TaskPart, given: Values) -> dict[str, Scalar]:
    """Return all parameters of a task, with defaults for those not given.

    Raises:
        ConfigError: naming the parameter, what is wrong with it and which values are allowed.
    """
    known = tuple(task.parameters)
    for name in given:
        if name not in task.parameters:
            remedy = nearest(name, known) if known else f"{task.name} has no parameters"
            raise ConfigError("there is no such parameter", key=f"parameters.{name[:40]}", remedy=remedy)
    values: dict[str, Scalar] = {}
    for name, part in task.parameters.items():
        value = given.get(name, part.default)
        if value is None:
            raise ConfigError("is required", key=f"parameters.{name}", remedy=_allowed_text(part))
        if not _is_allowed(part, value):
            raise ConfigError(f"{value!r:.60} is not allowed", key=f"parameters.{name}", remedy=_allowed_text(part))
        values[name] = value
    return values


def _is_allowed(part: ParameterPart, value: Scalar) -> bool:
    if part.words:
        return any(type(word) is type(value) and word == value for word in part.words)
    match part.kind:
        case "boolean":
            return isinstance(value, bool)
        case "text":
            return isinstance(value, str) and 0 < len(value) <= part.text_max and value.isprintable()
        case "integer" | "number":
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                return False
            if part.kind == "integer" and value != int(value):
                return False
            low, high = part.range or (-math.inf, math.inf)
            return low <= value <= high


def _allowed_text(part: ParameterPart) -> str:
    if part.words:
        return f"one of: {', '.join(str(word) for word in part.words)}"
    if part.range:
        return f"{part.kind} from {part.range[0]:g} to {part.range[1]:g}{' ' + part.unit if part.unit else ''}"
    return f"text of at most {part.text_max} printable characters" if part.kind == "text" else part.kind


class EncodedTask(NamedTuple):
    """A task as it is sent."""

    payload: bytes
    port: int = 0
    """Port of the frame; 0: it is no frame."""


def encode_task(task: TaskPart, values: Values, encoder: DownlinkScript | None) -> EncodedTask:
    """Return payload and port for validated parameters.

    Raises:
        ConfigError: a number does not fit its size, or the codec script refuses the data.
    """
    if task.frame is None:
        return EncodedTask(encode_payload(task, values))
    if task.data is not None and encoder is not None:
        sent = {name: task.parameters[name].words.get(value, value) for name, value in values.items()}
        data, port = encoder.encode(_filled_tree(task.data, sent), task.frame.port)
    else:
        data, port = encode_payload(task, values), task.frame.port
    downlink.check_frame(data, port)
    return EncodedTask(data, port)


def encode_payload(task: TaskPart, values: Values) -> bytes:
    """Return the payload for validated parameters. Raises `ConfigError` if a number does not fit its size."""
    sent = {name: task.parameters[name].words.get(value, value) for name, value in values.items()}
    if task.text:
        encoded = _SLOT.sub(lambda slot: _text(sent[slot[1]]), task.text).encode()
    elif task.hex:
        encoded = _binary(task.hex, sent)
    else:
        encoded = msgspec.json.encode(_filled_tree(task.json, sent))
    if len(encoded) > PAYLOAD_MAX:
        raise ConfigError(f"the payload has {len(encoded)} bytes; at most {PAYLOAD_MAX} are sent", key="parameters")
    return encoded


def _text(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _filled_tree(tree: Any, sent: Values) -> Any:
    if isinstance(tree, dict):
        return {key: _filled_tree(value, sent) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_filled_tree(value, sent) for value in tree]
    if not isinstance(tree, str):
        return tree
    alone = _SLOT.fullmatch(tree)
    if alone:
        value = sent[alone[1]]
        return int(value) if isinstance(value, float) and value.is_integer() else value
    return _SLOT.sub(lambda slot: _text(sent[slot[1]]), tree)


def _binary(template: str, sent: Values) -> bytes:
    encoded, end = b"", 0
    for slot in _SLOT.finditer(template):
        encoded += bytes.fromhex(template[end : slot.start()])
        value, form = sent[slot[1]], _STRUCT_CODES[slot[2]]
        try:
            encoded += struct.pack(form, float(value) if form[1] == "f" else round(float(value)))
        except (struct.error, ValueError, OverflowError):
            raise ConfigError(
                f"{value!r:.40} does not fit into {slot[2]}", key=f"parameters.{slot[1]}", remedy="narrow its `range`"
            ) from None
        end = slot.end()
    return encoded + bytes.fromhex(template[end:])


def confirming_value(confirm: ConfirmPart, values: Values) -> Scalar:
    """Return the value of the reading that confirms a task."""
    slot = _SLOT.fullmatch(confirm.equals) if isinstance(confirm.equals, str) else None
    return values[slot[1]] if slot else confirm.equals


def confirms(expected: Scalar, tolerance: float, value: float, text: str | None) -> bool:
    """Return whether a reading has the expected value."""
    if text is not None:
        return text == str(expected)
    return not isinstance(expected, str) and abs(value - float(expected)) <= tolerance + 1e-9


def command_topics(profile: CompiledProfile, task: TaskPart, names: Sequence[str]) -> list[str]:
    """Return the topics at which a device with these names receives a task; it subscribes to that of the name it uses.

    Raises:
        ConfigError: if its names fill no topic.
    """
    subscribed = subscribe_filters([_pattern(task.topic)], [rule.names for rule in profile.rules], names)
    if not subscribed:
        raise ConfigError(f"no name of the device fills {task.topic}", key="device", remedy="add the alias that does")
    return subscribed[:1] if task.topic == DEFAULT_TOPIC else subscribed


@cache
def _pattern(topic: str) -> topics.TopicPattern:
    return topics.parse(topic)


# ── checks when a profile is loaded ──────────────────────────────────────────────────────────────────


def check_tasks(
    tasks: tuple[TaskPart, ...],
    keys: ProfileKeys,
    available: set[tuple[str, str]],
    encoder: DownlinkScript | None = None,
) -> None:
    """Check the tasks of a profile.

    Args:
        tasks: the tasks.
        keys: where they stand.
        available: (property, channel) of the profile's readings.
        encoder: the downlink functions of its codec script.

    Raises:
        ProfileError: with file, line and key.
    """
    seen: set[str] = set()
    for index, task in enumerate(tasks):
        here = ("tasks", index)
        if not _NAME.fullmatch(task.name):
            raise keys.error("must be lower-case letters, digits and -", *here, "name", remedy="e.g. report-interval")
        if task.name in seen:
            raise keys.error(f"two tasks have the name '{task.name}'", *here, "name", remedy="rename one of them")
        seen.add(task.name)
        _check_task(task, keys, here, available)
        _check_frame(task, keys, here, encoder)


def _check_task(
    task: TaskPart, keys: ProfileKeys, here: tuple[str | int, ...], available: set[tuple[str, str]]
) -> None:
    forms = [name for name in ("json", "text", "hex", "data") if getattr(task, name)]
    if len(forms) != 1:
        raise keys.error("give the payload as one of json, text, hex and data", *here, forms[1] if forms else "json")
    keys.pattern(task.topic, *here, "topic")
    for name, part in task.parameters.items():
        _check_parameter(part, keys, (*here, "parameters", name), name)
    used: set[str] = set()
    for text in _all_texts(getattr(task, forms[0])):
        for slot in _SLOT.finditer(text):
            used.add(slot[1])
            _check_slot(task, slot, keys, (*here, forms[0]))
    if not all(_HEX.fullmatch(piece.replace(" ", "")) for piece in _SLOT.sub("|", task.hex).split("|")):
        raise keys.error("is not hex", *here, "hex", remedy="two digits for each byte, e.g. 01 {level:u8} ff")
    for name in task.parameters:
        if name not in used:
            raise keys.error("is not used", *here, "parameters", name, remedy=f"write {{{name}}} in `{forms[0]}`")
    if task.confirm:
        _check_confirm(task, task.confirm, keys, (*here, "confirm"), available)
    if not task.examples:
        raise keys.error(
            "there is no example", *here, "examples", remedy="add one with `parameters` and `encode_payload` or `hex`"
        )


def _check_frame(
    task: TaskPart, keys: ProfileKeys, here: tuple[str | int, ...], encoder: DownlinkScript | None
) -> None:
    if task.data is None:
        if task.frame is not None and not task.frame.port:
            raise keys.error("a frame needs a port", *here, "frame", remedy="give `port`")
        return
    if task.frame is None:
        raise keys.error("the codec script makes a frame", *here, "data", remedy="give `frame: {}`")
    problem = encoder.problem() if encoder is not None else "the profile has no codec script"
    if problem:
        raise keys.error(problem, *here, "data", remedy="give the payload as hex, json or text")


def _check_slot(task: TaskPart, slot: re.Match[str], keys: ProfileKeys, here: tuple[str | int, ...]) -> None:
    part = task.parameters.get(slot[1])
    if part is None:
        remedy = nearest(slot[1], tuple(task.parameters)) if task.parameters else "describe it under `parameters`"
        raise keys.error(f"there is no parameter {{{slot[1]}}}", *here, remedy=remedy)
    if bool(slot[2]) != bool(task.hex):
        problem = "needs a size in bytes" if task.hex else "a size is allowed in hex only"
        raise keys.error(f"{slot[0]}: {problem}", *here, remedy=f"{{{slot[1]}{':u8' if task.hex else ''}}}")
    if slot[2] and slot[2] not in _STRUCT_CODES:
        raise keys.error(f"{slot[0]}: there is no such size", *here, remedy=nearest(slot[2], tuple(_STRUCT_CODES)))
    sent = part.words.values() if part.words else ()
    if slot[2] and ((part.kind == "text" and not part.words) or any(isinstance(word, str) for word in sent)):
        raise keys.error(f"{slot[0]}: text cannot be encoded in hex", *here, remedy="give it `words` that are numbers")


def _check_parameter(part: ParameterPart, keys: ProfileKeys, here: tuple[str | int, ...], name: str) -> None:
    if not _PARAMETER.fullmatch(name):
        raise keys.error("must be letters, digits and _", *here)
    if part.kind in {"number", "integer"} and part.range is None and not part.words:
        raise keys.error("a number needs a range", *here, "range", remedy="the values that may be sent, e.g. [0, 100]")
    if part.range and part.range[0] > part.range[1]:
        raise keys.error("the lower bound is above the upper bound", *here, "range")
    if part.unit:
        try:
            dimension(part.unit)
        except UnitError as error:
            raise keys.error(str(error), *here, "unit", remedy="UCUM, e.g. s, min, %, Cel") from error
    if part.default is not None and not _is_allowed(part, part.default):
        raise keys.error(f"{part.default!r} is not allowed", *here, "default", remedy=_allowed_text(part))


def _check_confirm(
    task: TaskPart,
    confirm: ConfirmPart,
    keys: ProfileKeys,
    here: tuple[str | int, ...],
    available: set[tuple[str, str]],
) -> None:
    index = PROPERTIES.find(confirm.property)
    if (confirm.property, confirm.channel) not in available:
        readings = tuple(sorted({name for name, channel in available if channel == confirm.channel}))
        remedy = nearest(confirm.property, readings) if readings else "its channel has no reading"
        raise keys.error("is not a reading of this profile", *here, "property", remedy=remedy)
    slot = _SLOT.fullmatch(confirm.equals) if isinstance(confirm.equals, str) else None
    if slot and slot[1] not in task.parameters:
        remedy = nearest(slot[1], tuple(task.parameters))
        raise keys.error(f"there is no parameter {{{slot[1]}}}", *here, "equals", remedy=remedy)
    is_text = PROPERTIES.rows[index].kind is ValueKind.STRING
    if not slot and is_text != isinstance(confirm.equals, str):
        raise keys.error("does not have the type of the property", *here, "equals")


def _all_texts(tree: Any) -> list[str]:
    if isinstance(tree, str):
        return [tree]
    if isinstance(tree, dict):
        return [text for value in tree.values() for text in _all_texts(value)]
    return [text for value in tree for text in _all_texts(value)] if isinstance(tree, list) else []


# ── examples ─────────────────────────────────────────────────────────────────────────────────────────


def run_examples(profile: CompiledProfile, keys: ProfileKeys) -> list[ProfileError]:
    """Return the examples of tasks that do not hold, each with its line."""
    problems: list[ProfileError] = []
    encoder = encoder_of(rule.parse for rule in profile.rules)
    for index, task in enumerate(profile.source.tasks):
        for number, example in enumerate(task.examples):
            here = ("tasks", index, "examples", number)
            if not _HEX.fullmatch(example.hex.replace(" ", "")):
                problems.append(keys.error("is not hex", *here, "hex"))
                continue
            try:
                values = validate_parameters(task, example.parameters)
                encoded, port = encode_task(task, values, encoder)
                if task.data is not None and encoder is not None and encoder.decodes:
                    encoder.decode(encoded, port)
            except ConfigError as error:
                if not example.refuse:
                    problems.append(keys.error(f"is refused: {error}", *here))
                continue
            expected = _expected_payload(example.payload, example.hex)
            if example.refuse:
                problems.append(keys.error("is not refused", *here, "refuse", remedy="narrow the range or the words"))
            elif not _payloads_equal(encoded, expected, example.payload):
                problems.append(
                    keys.error(f"gives {_payload_text(encoded)}", *here, "hex" if example.hex else "payload")
                )
            elif example.port and example.port != port:
                problems.append(keys.error(f"goes to port {port}", *here, "port"))
            elif example.topic and example.topic not in (sent_to := command_topics(profile, task, ["d1"])):
                problems.append(keys.error(f"goes to {', '.join(sent_to)}", *here, "topic"))
    return problems


def _expected_payload(text: Any, digits: str) -> bytes:
    if digits:
        return bytes.fromhex(digits)
    return text.encode() if isinstance(text, str) else msgspec.json.encode(text)


def _payloads_equal(encoded: bytes, expected: bytes, example: Any) -> bool:
    if encoded == expected:
        return True
    try:
        return not isinstance(example, str) and msgspec.json.decode(encoded) == msgspec.json.decode(expected)
    except msgspec.DecodeError:
        return False


def _payload_text(encoded: bytes) -> str:
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        return f"hex {encoded.hex(' ')}"
