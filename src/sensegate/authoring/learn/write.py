"""Write what was learned as a draft: a profile that loads, with the reasons of its guesses as comments."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from sensegate.authoring.learn.examples import examples, iso_seconds
from sensegate.authoring.learn.guess import Guess
from sensegate.authoring.learn.learn import LearnedShape, RecognisedField, interval_s, summary
from sensegate.authoring.yaml_text import DRAFT_LINE, comment_text, flow_text, number_text, plain_text, quoted
from sensegate.decode.paths import render
from sensegate.quantities.properties import PROPERTIES

KINDS_MAX = 12
"""Most kinds of messages in one draft; rarer ones are listed in a comment."""
_BYTES_SHOWN = 24


class ProfileDraft(NamedTuple):
    """The draft of a profile and its basis."""

    profile: str
    text: str
    messages: int
    topics: list[str]
    recognised: list[tuple[str, Guess]]
    """(field, its guess)."""
    unrecognised: list[tuple[str, str]]
    """(field, why it becomes no reading)."""
    problem: str
    """Reason why the draft does not load; empty if it does."""


def draft(learned: Sequence[LearnedShape], profile: str, *, source: str = "") -> ProfileDraft:
    """Write the draft of one profile for some kinds of messages, the most frequent first.

    Args:
        learned: the kinds of messages; each becomes a message rule of the profile.
        profile: ``vendor/model``.
        source: origin of the layout, for the profile's `source`.
    """
    # Ignored kinds come last: they would hide others with the same topic.
    shown = sorted(learned[:KINDS_MAX], key=lambda kind: not kind.recognised)
    forms = Counter(
        {form: sum(len(kind.messages) for kind in shown if kind.group.format == form) for form in _forms(shown)}
    )
    form = forms.most_common(1)[0][0] if forms else "json"
    lines = [*_head(shown, profile, form, source), "messages:"]
    for kind in shown:
        lines += rule(kind, form)
    for kind in learned[KINDS_MAX:]:
        lines.append("  " + comment_text(f"left out: {len(kind.messages)} messages of {kind.group.pattern}"))
    body = "\n".join(lines) + "\n"
    example_text, problem = examples(body, shown)
    return ProfileDraft(
        profile,
        body + example_text,
        sum(len(kind.messages) for kind in learned),
        sorted({topic for kind in learned for topic in kind.topics}),
        [(field.field, field.guess) for kind in shown for field in kind.recognised],
        [(field.field, field.reason) for kind in shown for field in kind.unrecognised],
        problem,
    )


def _forms(learned: Sequence[LearnedShape]) -> list[str]:
    return list(dict.fromkeys(kind.group.format for kind in learned if kind.group.format != "binary"))


def _head(learned: Sequence[LearnedShape], profile: str, form: str, source: str) -> list[str]:
    count = sum(len(kind.messages) for kind in learned)
    arrivals = [message.sample.received for kind in learned for message in kind.messages if message.sample.received]
    span = f", {iso_seconds(min(arrivals))} to {iso_seconds(max(arrivals))}" if arrivals else ""
    topics = {topic for kind in learned for topic in kind.topics}
    lines = [
        "# yaml-language-server: $schema=../_schema.json",
        comment_text(f"DRAFT, learned from {count} messages of {len(topics)} topics{span}."),
        "# Not compared with the maker's document yet; check the lines that say `guess` first. The examples expect",
        "# what this draft makes of the messages: replace that by what the document says.",
        f"profile: {plain_text(profile)}",
        "version: 1",
        DRAFT_LINE,
        f"label: {{zh: {plain_text(profile + '（草稿）')}, en: {plain_text('draft of ' + profile)}}}",
        f"source: {plain_text(source or f'learned from {count} recorded messages; name the maker document here')}",
    ]
    if domain := _domain(learned):
        lines.append(f"domain: {domain}")
    if form != "json":
        lines.append(f"format: {form}")
    intervals = [interval_s(kind) for kind in learned if kind.recognised]
    if usual := next((interval for interval in intervals if interval), 0.0):
        lines.append(f"interval_s: {number_text(usual)} # median of the recorded messages")
    zones = {kind.time.zone for kind in learned if kind.time and kind.time.zone}
    lines.append(f"zone: {zones.pop() if len(zones) == 1 else 'Asia/Shanghai'} # for times without a zone")
    return lines


def _domain(learned: Sequence[LearnedShape]) -> str:
    """Return the domain of most properties, not counting the device's own (battery, signal)."""
    domains = Counter(PROPERTIES.by_name(field.guess.property).domain for kind in learned for field in kind.recognised)
    del domains["device"]
    return domains.most_common(1)[0][0] if domains else ""


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────


def rule(learned: LearnedShape, form: str) -> list[str]:
    """Return the lines of the rule for one kind of message; `form`: the profile's format."""
    group = learned.group
    name = next((level for level in reversed(group.pattern.split("/")) if "{" not in level), "") or group.format
    if group.carried:
        ports = group.ports or ((group.port,) if group.port is not None else ())
        lines = [f"  - label: {plain_text('frames of port ' + ', '.join(map(str, ports)) if ports else 'frames')}"]
        lines.append(f"    frames: {flow_text({'ports': list(ports)} if ports else {})}")
    else:
        lines = [f"  - label: {plain_text(name)} {comment_text(f'{len(learned.messages)} messages')}"]
        lines.append(f"    topics: [{quoted(group.pattern)}] {comment_text(_topic_note(learned))}")
    if group.format == "binary":
        return [*lines, *_byte_notes(learned)]
    lines += [f"    {line}" for line in group.options]
    if group.format != form and not group.options:
        lines.append(f"    format: {group.format}")
    lines += _location_lines(learned)
    stated = [field for field in learned.recognised if not field.guess.fragment]
    if stated:
        lines.append("    readings:")
        lines += [_reading_line(field) for field in stated]
    else:
        why = "only guesses from fragments of names" if learned.recognised else "no member was recognised by its name"
        lines.append(f"    ignore: true # {why}")
    for field in learned.recognised:
        if field.guess.fragment:
            lines.append("      #" + comment_text(_reading_line(field).strip()).removeprefix("#"))
    lines += [
        "    " + comment_text(f"left out: {field.field}: {summary(field.facts)} ({field.reason})")
        for field in learned.unrecognised
    ]
    return lines


def _location_lines(learned: LearnedShape) -> list[str]:
    """Return the lines that locate elements, device, time and sequence number."""
    lines: list[str] = []
    if learned.names_devices:
        part = flow_text({"field": learned.device})
        lines.append(f"    device: {part} # guess: the topic names no device; register its gateway as well")
    elif "{device}" not in learned.group.pattern and not learned.group.carried:
        lines.append("    device: {credential: true} # guess: the topic names no device; taken from the login")
    elif learned.device and not learned.group.carried:
        lines.append("    " + comment_text(f"{learned.device} seems to name the device as well"))
    if learned.elements is not None:
        lines.append(f"    each: {plain_text(render(learned.elements.path))} # a list of elements")
        if learned.elements.name:
            named: dict[str, Any] = {"name": learned.elements.name, "value": list(learned.elements.values)}
            if learned.elements.unit:
                named["unit"] = learned.elements.unit
            lines.append(f"    named: {flow_text(named)} # each element carries its name")
    lines += _time_lines(learned)
    if learned.sequence:
        lines.append(f"    sequence: {plain_text(learned.sequence)} # rises by one with each message")
    return lines


def _time_lines(learned: LearnedShape) -> list[str]:
    """Return the line of the time: that of records, and that of the message for what stands beside them."""
    times = [(render(record.time.path), record.time) for record in learned.records]
    if learned.time is not None:
        times.append((learned.time_field, learned.time))
    if not times:
        return []
    names = list(dict.fromkeys(name for name, _ in times))
    formats = list(dict.fromkeys(time.format for _, time in times))
    part: dict[str, Any] = {"field": names[0]} if len(names) == 1 else {"fields": names}
    part["format"] = formats[0] if len(formats) == 1 else formats
    if zone := next((time.zone for _, time in times if time.zone), ""):
        part["zone"] = zone
    reason = (learned.time or times[0][1]).reason
    if learned.records:
        reason = f"records of {', '.join(record.each for record in learned.records)} have times of their own; {reason}"
    return [f"    time: {flow_text(part)} {comment_text(reason)}"]


def _topic_note(learned: LearnedShape) -> str:
    topics = learned.topics
    shown = ", ".join(topics[:2]) + (f", … ({len(topics)})" if len(topics) > 2 else "")
    return shown if learned.group.sure else f"{shown}; guess: which level is the device?"


def _reading_line(field: RecognisedField) -> str:
    row: dict[str, Any] = {"field": field.field, "property": field.guess.property}
    if field.each:
        row["each"] = field.each
    if field.channel:
        row["channel"] = field.channel
    if field.guess.unit and (
        field.guess.unit != PROPERTIES.by_name(field.guess.property).unit or field.guess.scale != 1
    ):
        row["unit"] = field.guess.unit
    if field.guess.scale != 1:
        row["scale"] = field.guess.scale
    if field.guess.words is not None:
        row["words"] = field.guess.words
    if field.guess.missing:
        row["missing"] = list(field.guess.missing)
    if field.facts.texts_as_numbers and PROPERTIES.by_name(field.guess.property).unit:
        row["text_numbers"] = True
    note = field.guess.reason if field.guess.sure else f"guess: {field.guess.reason}"
    if field.guess.missing:
        note += "; `missing` is a guess: is it the maker's marker for no value?"
    if field.facts.is_rising() and PROPERTIES.by_name(field.guess.property).counter:
        note += "; only rises: if the counter wraps, add `counter: {modulus: …}`"
    return f"      - {flow_text(row)} {comment_text(note)}"


def _byte_notes(learned: LearnedShape) -> list[str]:
    """Return the rule for frames that no format explains, with what is known of each byte."""
    frames = [message.sample.payload for message in learned.messages]
    lengths = sorted({len(frame) for frame in frames})
    lines = [
        "    " + comment_text(f"bytes that no format explains; {len(frames)} frames of {_first_few(lengths)} bytes:")
    ]
    for index in range(min(lengths[0] if lengths else 0, _BYTES_SHOWN)):
        values = [frame[index] for frame in frames]
        if len(set(values)) == 1:
            note = f"always 0x{values[0]:02x}"
        else:
            note = f"{min(values)} to {max(values)}"
            if index + 1 < lengths[0]:
                words = [int.from_bytes(frame[index : index + 2], "big", signed=True) for frame in frames]
                swapped = [int.from_bytes(frame[index : index + 2], "little", signed=True) for frame in frames]
                note += f"; as s16 {min(words)} to {max(words)}, little-endian {min(swapped)} to {max(swapped)}"
        lines.append("    " + comment_text(f"byte {index}: {note}"))
    lines += [
        "    # Replace this by `binary: {read: [{name: …, type: u16}, …]}` and `readings`, as the document says:",
        "    format: binary",
        "    ignore: true",
    ]
    return lines


def _first_few(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:6])) + (", …" if len(values) > 6 else "")


_PART = re.compile(r"[^A-Za-z0-9_.\-]+")


def name_for(learned: Sequence[LearnedShape]) -> str:
    """Return a name ``vendor/model`` for what was learned, from the constant levels of the topic."""
    levels = [level for kind in learned[:1] for level in kind.group.pattern.split("/") if "{" not in level and level]
    vendor = _PART.sub("-", levels[0]).strip("-.$").lower() if levels else "unknown"
    model = _PART.sub("-", "-".join(levels[1:])).strip("-.$").lower() if len(levels) > 1 else "draft"
    return f"{vendor or 'unknown'}/{model or 'draft'}"
