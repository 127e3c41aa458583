"""Write the examples of a draft: recorded messages with the readings the draft makes of them, and one refusal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from sensegate.authoring.examples import ExampleRun, decode_example, payload_of, readings_of
from sensegate.authoring.learn.learn import LearnedShape, best_messages
from sensegate.authoring.learn.shapes import ParsedSample
from sensegate.authoring.yaml_text import as_json, flow_text, plain_text, quoted
from sensegate.decode import paths
from sensegate.decode.compiler import Compiler
from sensegate.decode.grammar import Example, parse
from sensegate.decode.paths import Path, walk
from sensegate.decode.profile import CompiledProfile
from sensegate.decode.profiles import ProfileSet
from sensegate.decode.topics import match
from sensegate.decode.topics import parse as topic_of
from sensegate.errors import ProfileError
from sensegate.model import RejectReason, Spec
from sensegate.quantities.quality import Quality, quality_word


def iso_seconds(time: int) -> str:
    """Return µs UTC as ISO 8601 with Z, to the second."""
    return datetime.fromtimestamp(time / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def examples(body: str, learned: Sequence[LearnedShape]) -> tuple[str, str]:
    """Return the examples as text, and why the draft does not load (empty: it does)."""
    try:
        source, lines = parse(body, file="draft")
        specs: list[Spec] = []
        profile = Compiler(source, lines, "draft", specs).compile()
    except ProfileError as error:
        return "", str(error)
    profiles = ProfileSet([profile], specs)
    texts: list[str] = []
    refusal = ""
    for shape in learned:
        for index, message in enumerate(best_messages(shape) if shape.recognised else ()):
            example = _example(
                shape, message, f"{shape.group.pattern or 'frame'}, as recorded" + (f" ({index + 1})" if index else "")
            )
            texts += _expected_lines(profiles, profile, example)
            refusal = refusal or _refusal(profiles, profile, example)
    if not texts:
        return "# No example yet: no reading was recognised in the messages.\n", ""
    return (
        "examples: # the expectations are what this draft makes of the messages: compare with the maker's document\n"
        + "".join([*texts, refusal]),
        "",
    )


_EXAMPLE_NAMES = {"device": "d1", "gateway": "g1"}


def _example(learned: LearnedShape, message: ParsedSample, label: str) -> Example:
    """Return a recorded message as an example for the device d1, without expectations."""
    sample = message.sample
    options: dict[str, Any] = {
        "label": label,
        "received": iso_seconds(sample.received) if sample.received else "2026-01-01T00:00:00Z",
    }
    if learned.group.carried:
        return Example(hex=sample.payload.hex(), port=sample.port, **options)
    pattern = topic_of(learned.group.pattern)
    captured = match(pattern, sample.topic) or {}
    topic = "/".join(
        level.before + (_EXAMPLE_NAMES.get(level.capture) or captured.get(level.capture, "x")) + level.after
        if level.capture
        else level.literal
        for level in pattern.levels
    )
    if "{device}" not in learned.group.pattern:
        options["gateway"] = "g1" if learned.names_devices else "d1"
    try:
        payload: Any = sample.payload.decode("utf-8")
    except UnicodeDecodeError:
        return Example(topic=topic, hex=sample.payload.hex(), **options)
    if learned.group.format == "json" and not isinstance(message.tree, str):
        payload = _renamed(message.tree, paths.parse(learned.device).path) if learned.names_devices else message.tree
    elif learned.names_devices:
        options["devices"] = (str(walk(message.tree, paths.parse(learned.device).path)),)
    return Example(topic=topic, payload=payload, **options)


def _renamed(tree: Any, path: Path) -> Any:
    """Return a copy of a tree with the name of the example's device at a path."""
    if not path:
        return "d1"
    step = path[0]
    if isinstance(tree, dict) and step in tree:
        return {**tree, step: _renamed(tree[step], path[1:])}
    if isinstance(tree, list) and isinstance(step, int) and step < len(tree):
        return [*tree[:step], _renamed(tree[step], path[1:]), *tree[step + 1 :]]
    return tree


def _example_lines(example: Example) -> list[str]:
    lines = [f"  - label: {plain_text(example.label)}\n"]
    for key in ("topic", "port", "hex", "received", "gateway"):
        value = getattr(example, key)
        if value not in {"", None}:
            lines.append(f"    {key}: {quoted(value) if key in {'hex', 'received'} else flow_text(value)}\n")
    if example.devices != ("d1",):
        lines.append(f"    devices: {flow_text(list(example.devices))}\n")
    if not example.hex:
        lines.append(f"    payload: {as_json(example.payload)}\n")
    return lines


def _expected_lines(profiles: ProfileSet, profile: CompiledProfile, example: Example) -> list[str]:
    """Return an example with its current readings as lines; no lines if it is refused."""
    result = decode_example(profiles, profile, example)
    if result.fields.quarantined:
        return []
    return [*_example_lines(example), *expected_lines(result, profiles)]


def expected_lines(result: ExampleRun, profiles: ProfileSet) -> list[str]:
    """Return the lines of an example that state what its message gives."""
    lines: list[str] = []
    if result.fields.ignored:
        lines.append(f"    ignored: {result.fields.ignored}\n")
    rejected = {value.field: RejectReason(value.reason).value for value in result.fields.rejected}
    if rejected:
        lines.append(f"    reject: {flow_text(rejected)}\n")
    if rows := _expected_values(result, profiles):
        lines.append("    expect:\n")
        lines += [f"      - {flow_text(row)}\n" for row in rows]
    return lines


def _expected_values(result: ExampleRun, profiles: ProfileSet) -> list[dict[str, Any]]:
    readings = readings_of(result.fields, profiles.specs, result.devices)
    counts = Counter(reading.property for reading in readings)
    rows: list[dict[str, Any]] = []
    for reading in readings:
        row: dict[str, Any] = {"property": reading.property}
        row["value"] = float(f"{reading.value:.12g}") if isinstance(reading.value, float) else reading.value
        if reading.time != result.message.received:
            time = datetime.fromtimestamp(reading.time // 1_000_000, UTC).replace(microsecond=reading.time % 1_000_000)
            row["time"] = time.isoformat().replace("+00:00", "Z")
        if counts[reading.property] > 1:
            row["field"] = reading.field
        if reading.quality != quality_word(Quality.GOOD):
            row["quality"] = reading.quality
        rows.append(row)
    return rows


def _refusal(profiles: ProfileSet, profile: CompiledProfile, example: Example) -> str:
    """Return an example of a refusal: the same message truncated, not text, or empty."""
    payload = payload_of(example)
    for broken, label in (
        (payload[: len(payload) * 2 // 3], "truncated in transit"),
        (b"\xff\xfe", "not text"),
        (b"", "empty"),
    ):
        if broken == payload:
            continue
        refused = _with_payload(example, broken, label)
        result = decode_example(profiles, profile, refused)
        if result.fields.quarantined and not len(result.fields):
            return "".join([*_example_lines(refused), f"    refuse: {result.fields.quarantined[0].reason.value}\n"])
    return ""


def _with_payload(example: Example, payload: bytes, label: str) -> Example:
    change: Callable[..., Example] = msgspec.structs.replace
    if example.hex or not payload:
        return change(example, hex=payload.hex(), payload="", label=label)
    try:
        return change(example, payload=payload.decode(), label=label)
    except UnicodeDecodeError:
        return change(example, hex=payload.hex(), payload="", label=label)
