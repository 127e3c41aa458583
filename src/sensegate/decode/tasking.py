"""Tasks of a profile, compiled: parameters are checked, then written in the device's own form. Pure.

The words are those of OGC SensorThings, part 2 (Tasking Core): what a device can be told is a tasking capability with
tasking parameters, what it is told a task.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import msgspec

from sensegate.decode import topics
from sensegate.decode.device_names import heard
from sensegate.decode.grammar import ConfirmPart, ParameterPart, TaskPart
from sensegate.decode.keys import Keys, nearest
from sensegate.decode.part import Scalar
from sensegate.decode.profile import Profile
from sensegate.errors import ConfigError, ProfileError
from sensegate.quantities.properties import PROPERTIES, Kind
from sensegate.quantities.units import UnitError, dimension

PAYLOAD_MAX: Final = 65_536
PLAIN: Final = "sg/{device}/down"
"""Every device hears this topic."""
Values = Mapping[str, Scalar]
"""Parameter -> what was said."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_SLOT = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([a-z0-9]+))?\}")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})*")
_FORMS: Final = {
    f"{sign}{bits}{order}": f"{'<' if order == 'le' else '>'}{code if sign == 'i' else code.upper()}"
    for bits, code in ((8, "b"), (16, "h"), (32, "i"), (64, "q"))
    for sign in "ui"
    for order in (("",) if bits == 8 else ("be", "le"))
} | {"f32be": ">f", "f32le": "<f"}


def of(profile: Profile, name: str) -> TaskPart:
    """Return a task of a profile. Raises `ConfigError` that names the nearest right word."""
    found = {task.name: task for task in profile.source.tasks}
    if name in found:
        return found[name]
    if not found:
        raise ConfigError(f"{profile.id} takes no tasks", key="task", remedy="add `tasks` to its profile")
    raise ConfigError(f"no task '{name[:40]}' of {profile.id}", key="task", remedy=nearest(name, tuple(found)))


def checked(task: TaskPart, said: Values) -> dict[str, Scalar]:
    """Return all parameters of a task, those not said by their defaults.

    Raises:
        ConfigError: naming the parameter, what is wrong with it and what may stand there.
    """
    known = tuple(task.parameters)
    for name in said:
        if name not in task.parameters:
            remedy = nearest(name, known) if known else f"{task.name} has no parameters"
            raise ConfigError("no such parameter", key=f"parameters.{name[:40]}", remedy=remedy)
    values: dict[str, Scalar] = {}
    for name, part in task.parameters.items():
        value = said.get(name, part.default)
        if value is None:
            raise ConfigError("must be said", key=f"parameters.{name}", remedy=_may_be(part))
        if not _fits(part, value):
            raise ConfigError(f"{value!r:.60} may not be said", key=f"parameters.{name}", remedy=_may_be(part))
        values[name] = value
    return values


def _fits(part: ParameterPart, value: Scalar) -> bool:
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


def _may_be(part: ParameterPart) -> str:
    if part.words:
        return f"one of: {', '.join(str(word) for word in part.words)}"
    if part.range:
        return f"{part.kind} from {part.range[0]:g} to {part.range[1]:g}{' ' + part.unit if part.unit else ''}"
    return f"text of at most {part.text_max} printable characters" if part.kind == "text" else part.kind


def payload(task: TaskPart, values: Values) -> bytes:
    """Return what is sent for checked parameters. Raises `ConfigError` where a number has no room."""
    sent = {name: task.parameters[name].words.get(value, value) for name, value in values.items()}
    if task.text:
        made = _SLOT.sub(lambda slot: _text(sent[slot[1]]), task.text).encode()
    elif task.hex:
        made = _binary(task.hex, sent)
    else:
        made = msgspec.json.encode(_tree(task.json, sent))
    if len(made) > PAYLOAD_MAX:
        raise ConfigError(f"{len(made)} bytes to send; at most {PAYLOAD_MAX}", key="parameters")
    return made


def _text(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _tree(tree: Any, sent: Values) -> Any:
    if isinstance(tree, dict):
        return {key: _tree(value, sent) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_tree(value, sent) for value in tree]
    if not isinstance(tree, str):
        return tree
    alone = _SLOT.fullmatch(tree)
    if alone:
        value = sent[alone[1]]
        return int(value) if isinstance(value, float) and value.is_integer() else value
    return _SLOT.sub(lambda slot: _text(sent[slot[1]]), tree)


def _binary(template: str, sent: Values) -> bytes:
    made, end = b"", 0
    for slot in _SLOT.finditer(template):
        made += bytes.fromhex(template[end : slot.start()])
        value, form = sent[slot[1]], _FORMS[slot[2]]
        try:
            made += struct.pack(form, float(value) if form[1] == "f" else round(float(value)))
        except (struct.error, ValueError, OverflowError):
            raise ConfigError(
                f"{value!r:.40} has no room in {slot[2]}", key=f"parameters.{slot[1]}", remedy="mend its `range`"
            ) from None
        end = slot.end()
    return made + bytes.fromhex(template[end:])


def expected(confirm: ConfirmPart, values: Values) -> Scalar:
    """Return the value that shows that a task was done."""
    slot = _SLOT.fullmatch(confirm.equals) if isinstance(confirm.equals, str) else None
    return values[slot[1]] if slot else confirm.equals


def shows(wanted: Scalar, tolerance: float, value: float, text: str | None) -> bool:
    """Return whether a reading has the value that was expected."""
    if text is not None:
        return text == str(wanted)
    return not isinstance(wanted, str) and abs(value - float(wanted)) <= tolerance + 1e-9


def topics_of(profile: Profile, task: TaskPart, names: Sequence[str]) -> list[str]:
    """Return the topics at which a device of these names hears a task: it has subscribed to that of the name it uses.

    Raises:
        ConfigError: where its names fill none.
    """
    found = heard([_pattern(task.topic)], [rule.names for rule in profile.rules], names)
    if not found:
        raise ConfigError(f"no name of the device fills {task.topic}", key="device", remedy="give it the alias it has")
    return found[:1] if task.topic == PLAIN else found


@cache
def _pattern(topic: str) -> topics.Pattern:
    return topics.parse(topic)


# ── when a profile is loaded ─────────────────────────────────────────────────────────────────────────


def check(tasks: tuple[TaskPart, ...], keys: Keys, promised: set[tuple[str, str]]) -> None:
    """Return if the tasks of a profile can be meant; `promised`: (property, channel) of its readings.

    Raises:
        ProfileError: with file, line and key.
    """
    seen: set[str] = set()
    for at, task in enumerate(tasks):
        here = ("tasks", at)
        if not _NAME.fullmatch(task.name):
            raise keys.error("small letters, digits and -", *here, "name", remedy="e.g. report-interval")
        if task.name in seen:
            raise keys.error(f"two tasks are called '{task.name}'", *here, "name")
        seen.add(task.name)
        _check_task(task, keys, here, promised)


def _check_task(task: TaskPart, keys: Keys, here: tuple[str | int, ...], promised: set[tuple[str, str]]) -> None:
    forms = [name for name in ("json", "text", "hex") if getattr(task, name)]
    if len(forms) != 1:
        raise keys.error("say what is sent in one of json, text and hex", *here, forms[1] if forms else "json")
    keys.pattern(task.topic, *here, "topic")
    for name, part in task.parameters.items():
        _check_parameter(part, keys, (*here, "parameters", name), name)
    used: set[str] = set()
    for text in _texts(getattr(task, forms[0])):
        for slot in _SLOT.finditer(text):
            used.add(slot[1])
            _check_slot(task, slot, keys, (*here, forms[0]))
    if not all(_HEX.fullmatch(piece.replace(" ", "")) for piece in _SLOT.sub("|", task.hex).split("|")):
        raise keys.error("not hex", *here, "hex", remedy="two digits a byte, e.g. 01 {level:u8} ff")
    for name in task.parameters:
        if name not in used:
            raise keys.error("is nowhere sent", *here, "parameters", name, remedy=f"write {{{name}}} in `{forms[0]}`")
    if task.confirm:
        _check_confirm(task, task.confirm, keys, (*here, "confirm"), promised)
    if not task.examples:
        raise keys.error("no example", *here, "examples", remedy="add one with `parameters` and `payload` or `hex`")


def _check_slot(task: TaskPart, slot: re.Match[str], keys: Keys, here: tuple[str | int, ...]) -> None:
    part = task.parameters.get(slot[1])
    if part is None:
        remedy = nearest(slot[1], tuple(task.parameters)) if task.parameters else "describe it under `parameters`"
        raise keys.error(f"no parameter {{{slot[1]}}}", *here, remedy=remedy)
    if bool(slot[2]) != bool(task.hex):
        what = "say in how many bytes" if task.hex else "a size has its place in hex only"
        raise keys.error(f"{slot[0]}: {what}", *here, remedy=f"{{{slot[1]}{':u8' if task.hex else ''}}}")
    if slot[2] and slot[2] not in _FORMS:
        raise keys.error(f"{slot[0]}: no such size", *here, remedy=nearest(slot[2], tuple(_FORMS)))
    sent = part.words.values() if part.words else ()
    if slot[2] and ((part.kind == "text" and not part.words) or any(isinstance(one, str) for one in sent)):
        raise keys.error(f"{slot[0]}: a text has no place in hex", *here, remedy="give it `words` that are numbers")


def _check_parameter(part: ParameterPart, keys: Keys, here: tuple[str | int, ...], name: str) -> None:
    if not _PARAMETER.fullmatch(name):
        raise keys.error("letters, digits and _", *here)
    if part.kind in {"number", "integer"} and part.range is None and not part.words:
        raise keys.error("no range", *here, "range", remedy="what may be sent at all, e.g. [0, 100]")
    if part.range and part.range[0] > part.range[1]:
        raise keys.error("the least is above the greatest", *here, "range")
    if part.unit:
        try:
            dimension(part.unit)
        except UnitError as why:
            raise keys.error(str(why), *here, "unit", remedy="UCUM, e.g. s, min, %, Cel") from why
    if part.default is not None and not _fits(part, part.default):
        raise keys.error(f"{part.default!r} may not be said", *here, "default", remedy=_may_be(part))


def _check_confirm(
    task: TaskPart, confirm: ConfirmPart, keys: Keys, here: tuple[str | int, ...], promised: set[tuple[str, str]]
) -> None:
    index = PROPERTIES.find(confirm.property)
    if (confirm.property, confirm.channel) not in promised:
        readings = tuple(sorted({name for name, channel in promised if channel == confirm.channel}))
        remedy = nearest(confirm.property, readings) if readings else "its channel has no reading"
        raise keys.error("no reading of this profile", *here, "property", remedy=remedy)
    slot = _SLOT.fullmatch(confirm.equals) if isinstance(confirm.equals, str) else None
    if slot and slot[1] not in task.parameters:
        remedy = nearest(slot[1], tuple(task.parameters))
        raise keys.error(f"no parameter {{{slot[1]}}}", *here, "equals", remedy=remedy)
    is_text = PROPERTIES.rows[index].kind is Kind.STRING
    if not slot and is_text != isinstance(confirm.equals, str):
        raise keys.error("not of the property's kind", *here, "equals")


def _texts(tree: Any) -> list[str]:
    if isinstance(tree, str):
        return [tree]
    if isinstance(tree, dict):
        return [text for value in tree.values() for text in _texts(value)]
    return [text for value in tree for text in _texts(value)] if isinstance(tree, list) else []


# ── examples ─────────────────────────────────────────────────────────────────────────────────────────


def run_examples(profile: Profile, keys: Keys) -> list[ProfileError]:
    """Return which examples of tasks do not come out, each with its line."""
    wrong: list[ProfileError] = []
    for at, task in enumerate(profile.source.tasks):
        for number, example in enumerate(task.examples):
            here = ("tasks", at, "examples", number)
            if not _HEX.fullmatch(example.hex.replace(" ", "")):
                wrong.append(keys.error("not hex", *here, "hex"))
                continue
            try:
                made = payload(task, checked(task, example.parameters))
            except ConfigError as why:
                if not example.refuse:
                    wrong.append(keys.error(f"is refused: {why}", *here))
                continue
            wanted = _wanted(example.payload, example.hex)
            if example.refuse:
                wrong.append(keys.error("is not refused", *here, "refuse", remedy="mend the range or the words"))
            elif not _alike(made, wanted, example.payload):
                wrong.append(keys.error(f"gives {_shown(made)}", *here, "hex" if example.hex else "payload"))
            elif example.topic and example.topic not in (goes := topics_of(profile, task, ["d1"])):
                wrong.append(keys.error(f"goes to {', '.join(goes)}", *here, "topic"))
    return wrong


def _wanted(text: Any, digits: str) -> bytes:
    if digits:
        return bytes.fromhex(digits)
    return text.encode() if isinstance(text, str) else msgspec.json.encode(text)


def _alike(made: bytes, wanted: bytes, told: Any) -> bool:
    if made == wanted:
        return True
    try:
        return not isinstance(told, str) and msgspec.json.decode(made) == msgspec.json.decode(wanted)
    except msgspec.DecodeError:
        return False


def _shown(made: bytes) -> str:
    try:
        return made.decode()
    except UnicodeDecodeError:
        return f"hex {made.hex(' ')}"
