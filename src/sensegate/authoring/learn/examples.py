"""Examples of a draft: recorded messages with what the draft makes of them, and one that it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from sensegate.authoring.examples import Ran, payload_of, ran, readings_of
from sensegate.authoring.learn.learn import Learned, best_messages
from sensegate.authoring.learn.shapes import Understood
from sensegate.authoring.yaml_text import as_json, flow, quoted, text
from sensegate.decode.compiler import Compiler
from sensegate.decode.grammar import Example, parse
from sensegate.decode.profile import Profile
from sensegate.decode.profiles import ProfileSet
from sensegate.decode.topics import match
from sensegate.decode.topics import parse as topic_of
from sensegate.errors import ProfileError
from sensegate.model import RejectReason, Spec
from sensegate.quantities.quality import Quality, quality_word


def iso(time: int) -> str:
    """Return µs UTC as ISO 8601 with Z, to the second."""
    return datetime.fromtimestamp(time / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def examples(body: str, learned: Sequence[Learned]) -> tuple[str, str]:
    """Return the examples (text) and why the draft does not load (empty: it does)."""
    try:
        source, lines = parse(body, file="draft")
        specs: list[Spec] = []
        profile = Compiler(source, lines, "draft", specs).compile()
    except ProfileError as why:
        return "", str(why)
    profiles = ProfileSet([profile], specs)
    written: list[str] = []
    refusal = ""
    for one in learned:
        for at, message in enumerate(best_messages(one) if one.found else ()):
            example = _example(
                one, message, f"{one.group.pattern or 'frame'}, as recorded" + (f" ({at + 1})" if at else "")
            )
            written += _expected(profiles, profile, example)
            refusal = refusal or _refusal(profiles, profile, example)
    if not written:
        return "# No example yet: nothing of the messages became a reading.\n", ""
    return (
        "examples: # what they expect is what this draft makes of the messages: compare with the document\n"
        + "".join([*written, refusal]),
        "",
    )


def _example(one: Learned, message: Understood, label: str) -> Example:
    """Return a recorded message as an example of the device d1, without what it became."""
    sample = message.sample
    fixed: dict[str, Any] = {
        "label": label,
        "received": iso(sample.received) if sample.received else "2026-01-01T00:00:00Z",
    }
    if one.group.carried:
        return Example(hex=sample.payload.hex(), port=sample.port, **fixed)
    pattern = topic_of(one.group.pattern)
    captured = match(pattern, sample.topic) or {}
    topic = "/".join(
        level.before + ("d1" if level.capture == "device" else captured.get(level.capture, "x")) + level.after
        if level.capture
        else level.literal
        for level in pattern.levels
    )
    if "{device}" not in one.group.pattern:
        fixed["gateway"] = "d1"
    try:
        payload: Any = sample.payload.decode("utf-8")
    except UnicodeDecodeError:
        return Example(topic=topic, hex=sample.payload.hex(), **fixed)
    if one.group.format == "json" and not isinstance(message.tree, str):
        payload = message.tree
    return Example(topic=topic, payload=payload, **fixed)


def _head_of(example: Example) -> list[str]:
    lines = [f"  - label: {text(example.label)}\n"]
    for key in ("topic", "port", "hex", "received", "gateway"):
        value = getattr(example, key)
        if value not in {"", None}:
            lines.append(f"    {key}: {quoted(value) if key in {'hex', 'received'} else flow(value)}\n")
    if not example.hex:
        lines.append(f"    payload: {as_json(example.payload)}\n")
    return lines


def _expected(profiles: ProfileSet, profile: Profile, example: Example) -> list[str]:
    """Return an example with what comes of it now; nothing where it is refused."""
    result = ran(profiles, profile, example)
    if result.fields.quarantined:
        return []
    lines = _head_of(example)
    if result.fields.ignored:
        lines.append(f"    ignored: {result.fields.ignored}\n")
    rejected = {value.field: RejectReason(value.reason).value for value in result.fields.rejected}
    if rejected:
        lines.append(f"    reject: {flow(rejected)}\n")
    if rows := _values(result, profiles):
        lines.append("    expect:\n")
        lines += [f"      - {flow(row)}\n" for row in rows]
    return lines


def _values(result: Ran, profiles: ProfileSet) -> list[dict[str, Any]]:
    seen = readings_of(result.fields, profiles.specs, result.devices)
    many = Counter(one.property for one in seen)
    rows: list[dict[str, Any]] = []
    for one in seen:
        row: dict[str, Any] = {"property": one.property}
        row["value"] = float(f"{one.value:.12g}") if isinstance(one.value, float) else one.value
        if one.time != result.message.received:
            at = datetime.fromtimestamp(one.time // 1_000_000, UTC).replace(microsecond=one.time % 1_000_000)
            row["time"] = at.isoformat().replace("+00:00", "Z")
        if many[one.property] > 1:
            row["field"] = one.field
        if one.quality != quality_word(Quality.GOOD):
            row["quality"] = one.quality
        rows.append(row)
    return rows


def _refusal(profiles: ProfileSet, profile: Profile, example: Example) -> str:
    """Return an example of a refusal: the same message cut off, or with no byte left."""
    payload = payload_of(example)
    for cut, label in (
        (payload[: len(payload) * 2 // 3], "cut off on the way"),
        (b"\xff\xfe", "no such text"),
        (b"", "empty"),
    ):
        if cut == payload:
            continue
        wrong = _with_payload(example, cut, label)
        result = ran(profiles, profile, wrong)
        if result.fields.quarantined and not len(result.fields):
            return "".join([*_head_of(wrong), f"    refuse: {result.fields.quarantined[0].reason.value}\n"])
    return ""


def _with_payload(example: Example, payload: bytes, label: str) -> Example:
    change: Callable[..., Example] = msgspec.structs.replace
    if example.hex or not payload:
        return change(example, hex=payload.hex(), payload="", label=label)
    try:
        return change(example, payload=payload.decode(), label=label)
    except UnicodeDecodeError:
        return change(example, hex=payload.hex(), payload="", label=label)
