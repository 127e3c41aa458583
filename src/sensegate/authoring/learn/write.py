"""What was learned, as the text of a draft: a profile that loads, with the reasons of its guesses as comments."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from sensegate.authoring.learn.examples import examples, iso
from sensegate.authoring.learn.guess import Guess
from sensegate.authoring.learn.learn import Found, Learned, interval_s, summary
from sensegate.authoring.yaml_text import comment, flow, number, quoted, text
from sensegate.decode.paths import render
from sensegate.quantities.properties import PROPERTIES

KINDS_MAX = 12
"""Most kinds of messages in one draft; rarer ones are named in a comment."""
_BYTES_SHOWN = 24


class Draft(NamedTuple):
    """A draft and what it rests on."""

    profile: str
    text: str
    messages: int
    topics: list[str]
    found: list[tuple[str, Guess]]
    """(field, what it became)."""
    left: list[tuple[str, str]]
    """(field, why it became nothing)."""
    problem: str
    """Why it does not load, if it does not."""


def draft(learned: Sequence[Learned], profile: str, *, source: str = "") -> Draft:
    """Return the draft of one profile for some kinds of messages, the most frequent first.

    Args:
        learned: what was learned; all become messages of this profile.
        profile: ``vendor/model``.
        source: what to say of where the layout comes from.
    """
    # What is ignored comes last: it would hide what has the same topic.
    shown = sorted(learned[:KINDS_MAX], key=lambda one: not one.found)
    forms = Counter(
        {form: sum(len(one.messages) for one in shown if one.group.format == form) for form in _forms(shown)}
    )
    form = forms.most_common(1)[0][0] if forms else "json"
    lines = [*_head(shown, profile, form, source), "messages:"]
    for one in shown:
        lines += rule(one, form)
    for one in learned[KINDS_MAX:]:
        lines.append("  " + comment(f"left out: {len(one.messages)} messages of {one.group.pattern}"))
    body = "\n".join(lines) + "\n"
    written, problem = examples(body, shown)
    return Draft(
        profile,
        body + written,
        sum(len(one.messages) for one in learned),
        sorted({topic for one in learned for topic in one.topics}),
        [(each.field, each.guess) for one in shown for each in one.found],
        [(each.field, each.why) for one in shown for each in one.left],
        problem,
    )


def _forms(learned: Sequence[Learned]) -> list[str]:
    return list(dict.fromkeys(one.group.format for one in learned if one.group.format != "binary"))


def _head(learned: Sequence[Learned], profile: str, form: str, source: str) -> list[str]:
    count = sum(len(one.messages) for one in learned)
    arrivals = [message.sample.received for one in learned for message in one.messages if message.sample.received]
    span = f", {iso(min(arrivals))} to {iso(max(arrivals))}" if arrivals else ""
    topics = {topic for one in learned for topic in one.topics}
    lines = [
        "# yaml-language-server: $schema=../_schema.json",
        comment(f"DRAFT, learned from {count} messages of {len(topics)} topics{span}."),
        "# Nobody has compared it with the maker's document yet; lines that say `guess` need it most. What the",
        "# examples expect is what this draft makes of the messages: replace it by what the document says.",
        f"profile: {text(profile)}",
        "version: 1",
        f"label: {{zh: {text(profile + '（草稿）')}, en: {text('draft of ' + profile)}}}",
        f"source: {text(source or f'learned from {count} recorded messages; name the document of the maker here')}",
    ]
    if domain := _domain(learned):
        lines.append(f"domain: {domain}")
    if form != "json":
        lines.append(f"format: {form}")
    intervals = [interval_s(one) for one in learned if one.found]
    if usual := next((one for one in intervals if one), 0.0):
        lines.append(f"interval_s: {number(usual)} # median of what was seen")
    zones = {one.time.zone for one in learned if one.time and one.time.zone}
    lines.append(f"zone: {zones.pop() if len(zones) == 1 else 'Asia/Shanghai'} # of times that name none")
    return lines


def _domain(learned: Sequence[Learned]) -> str:
    """Return the domain of most properties, the device's own (battery, signal) left out."""
    domains = Counter(PROPERTIES.by_name(each.guess.property).domain for one in learned for each in one.found)
    del domains["device"]
    return domains.most_common(1)[0][0] if domains else ""


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────


def rule(one: Learned, form: str) -> list[str]:
    """Return the lines of one kind of message; `form`: the profile's format."""
    group = one.group
    name = next((level for level in reversed(group.pattern.split("/")) if "{" not in level), "") or group.format
    if group.carried:
        ports = group.ports or ((group.port,) if group.port is not None else ())
        lines = [f"  - label: {text('frames of port ' + ', '.join(map(str, ports)) if ports else 'frames')}"]
        lines.append(f"    frames: {flow({'ports': list(ports)} if ports else {})}")
    else:
        lines = [f"  - label: {text(name)} {comment(f'{len(one.messages)} messages')}"]
        lines.append(f"    topics: [{quoted(group.pattern)}] {comment(_topic_note(one))}")
    if group.format == "binary":
        return [*lines, *_bytes(one)]
    lines += [f"    {line}" for line in group.options]
    if group.format != form and not group.options:
        lines.append(f"    format: {group.format}")
    lines += _ways(one)
    if one.found:
        lines.append("    readings:")
        lines += [_reading(each) for each in one.found]
    else:
        lines.append("    ignore: true # nothing in it is a measurement that we know by its name")
    lines += ["    " + comment(f"left out: {each.field}: {summary(each.facts)} ({each.why})") for each in one.left]
    return lines


def _ways(one: Learned) -> list[str]:
    """Return where the elements, the device, the time and the running number stand."""
    lines: list[str] = []
    if "{device}" not in one.group.pattern and not one.group.carried:
        lines.append("    device: {credential: true} # guess: the topic names no device; the one that logged in is it")
    elif one.device and not one.group.carried:
        lines.append("    " + comment(f"{one.device} seems to name the device as well"))
    if one.elements is not None:
        lines.append(f"    each: {text(render(one.elements.path))} # a list of elements")
        if one.elements.name:
            named: dict[str, Any] = {"name": one.elements.name, "value": list(one.elements.values)}
            if one.elements.unit:
                named["unit"] = one.elements.unit
            lines.append(f"    named: {flow(named)} # they name themselves")
    if one.time is not None:
        time: dict[str, Any] = {"field": one.time_field, "format": one.time.format}
        if one.time.zone:
            time["zone"] = one.time.zone
        lines.append(f"    time: {flow(time)} {comment(one.time.reason)}")
    if one.sequence:
        lines.append(f"    sequence: {text(one.sequence)} # rises by one from message to message")
    return lines


def _topic_note(one: Learned) -> str:
    topics = one.topics
    shown = ", ".join(topics[:2]) + (f", … ({len(topics)})" if len(topics) > 2 else "")
    return shown if one.group.sure else f"{shown}; guess: which level is the device?"


def _reading(each: Found) -> str:
    row: dict[str, Any] = {"field": each.field, "property": each.guess.property}
    if each.channel:
        row["channel"] = each.channel
    if each.guess.unit and (each.guess.unit != PROPERTIES.by_name(each.guess.property).unit or each.guess.scale != 1):
        row["unit"] = each.guess.unit
    if each.guess.scale != 1:
        row["scale"] = each.guess.scale
    if each.guess.words is not None:
        row["words"] = each.guess.words
    if each.guess.missing:
        row["missing"] = list(each.guess.missing)
    if each.facts.texts_as_numbers and PROPERTIES.by_name(each.guess.property).unit:
        row["text_numbers"] = True
    said = each.guess.reason if each.guess.sure else f"guess: {each.guess.reason}"
    if each.guess.missing:
        said += "; `missing` is suspected: is it the maker's mark for no value?"
    if each.facts.rises() and PROPERTIES.by_name(each.guess.property).counter:
        said += "; only rises: say `counter: {modulus: …}` if it is narrow"
    return f"      - {flow(row)} {comment(said)}"


def _bytes(one: Learned) -> list[str]:
    """Return the rule of frames that no format explains: what can be said of each byte."""
    frames = [message.sample.payload for message in one.messages]
    lengths = sorted({len(frame) for frame in frames})
    lines = ["    " + comment(f"bytes that no format explains; {len(frames)} frames of {_some(lengths)} bytes:")]
    for at in range(min(lengths[0] if lengths else 0, _BYTES_SHOWN)):
        values = [frame[at] for frame in frames]
        if len(set(values)) == 1:
            said = f"always 0x{values[0]:02x}"
        else:
            said = f"{min(values)} to {max(values)}"
            if at + 1 < lengths[0]:
                words = [int.from_bytes(frame[at : at + 2], "big", signed=True) for frame in frames]
                turned = [int.from_bytes(frame[at : at + 2], "little", signed=True) for frame in frames]
                said += f"; as s16 {min(words)} to {max(words)}, little-endian {min(turned)} to {max(turned)}"
        lines.append("    " + comment(f"byte {at}: {said}"))
    lines += [
        "    # In place of this write `binary: {read: [{name: …, type: u16}, …]}` and `readings`, by the document:",
        "    format: binary",
        "    ignore: true",
    ]
    return lines


def _some(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:6])) + (", …" if len(values) > 6 else "")


_PART = re.compile(r"[^A-Za-z0-9_.\-]+")


def name_for(learned: Sequence[Learned]) -> str:
    """Return a name ``vendor/model`` for what was learned: of the topic's fixed levels."""
    levels = [level for one in learned[:1] for level in one.group.pattern.split("/") if "{" not in level and level]
    vendor = _PART.sub("-", levels[0]).strip("-.$").lower() if levels else "unknown"
    model = _PART.sub("-", "-".join(levels[1:])).strip("-.$").lower() if len(levels) > 1 else "draft"
    return f"{vendor or 'unknown'}/{model or 'draft'}"
