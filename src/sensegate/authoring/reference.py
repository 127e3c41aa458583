"""The generated tables of `device_profiles/README.md`: grammar keys, formats, and the profile library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import msgspec

from sensegate.decode.formats import FORMATS
from sensegate.decode.grammar import (
    CounterPart,
    DevicePart,
    Example,
    Expected,
    ExpectedFrame,
    FramesPart,
    MessageRule,
    NamedPart,
    PayloadPart,
    ProfileFile,
    ReadingRule,
    TimePart,
    UnitFrom,
)
from sensegate.decode.part import ProfilePart
from sensegate.decode.profiles import ProfileSet
from sensegate.decode.reshape import TablePart
from sensegate.decode.words import TABLES

_PARTS: tuple[tuple[type[ProfilePart], str], ...] = (
    (ProfileFile, ""),
    (MessageRule, "messages[]."),
    (FramesPart, "messages[].frames."),
    (PayloadPart, "messages[].payload."),
    (DevicePart, "messages[].device."),
    (TimePart, "messages[].time."),
    (NamedPart, "messages[].named."),
    (TablePart, "messages[].table."),
    (ReadingRule, "messages[].readings[]."),
    (UnitFrom, "messages[].readings[].unit_from."),
    (CounterPart, "messages[].readings[].counter."),
    (Example, "examples[]."),
    (ExpectedFrame, "examples[].frame."),
    (Expected, "examples[].expect[]."),
)


def _rows(part: type[ProfilePart], prefix: str) -> Iterator[str]:
    hints = get_type_hints(part, include_extras=True)
    for field in msgspec.structs.fields(part):
        meaning = next(
            item.description
            for item in get_args(hints[field.name])
            if isinstance(item, msgspec.Meta) and item.description is not None
        )
        required = field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT
        default = None if field.default is msgspec.NODEFAULT else msgspec.to_builtins(field.default)
        shown = "(required)" if required else "" if default in (None, "", [], {}, ()) else f"`{_yaml(default)}`"
        yield f"| `{prefix}{field.name}` | {shown} | {meaning.replace('|', '/')} |"


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def keys() -> str:
    """Return the Markdown table of all keys of a profile."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    formats = [
        option
        for name, form in FORMATS.items()
        if form.options
        for option in _nested(form.options, f"messages[].{name}.")
    ]
    return "\n".join([*rows, *(row for part, prefix in (*_PARTS, *formats) for row in _rows(part, prefix))]) + "\n"


def _nested(
    part: type[ProfilePart], prefix: str, known: frozenset[type[ProfilePart]] = frozenset()
) -> Iterator[tuple[type[ProfilePart], str]]:
    """Yield a format's options and the parts inside them, each once, since steps nest."""
    yield part, prefix
    known |= {part}
    for name, kind in get_type_hints(part).items():
        inner, many = _part_of(kind)
        if inner is not None and inner not in known:
            known |= {inner}
            yield from _nested(inner, f"{prefix}{name}{'[]' if many else ''}.", known)


def _part_of(kind: object) -> tuple[type[ProfilePart] | None, bool]:
    """Return the part in a type annotation, and whether it is repeated."""
    if isinstance(kind, type) and issubclass(kind, ProfilePart):
        return kind, False
    for inner in get_args(kind):
        part, many = _part_of(inner)
        if part is not None:
            return part, many or get_origin(kind) is tuple
    return None, False


def formats() -> str:
    """Return the Markdown table of the payload formats."""
    rows = ["| format | tree |", "|---|---|"]
    package = "sensegate.decode.formats"
    for name in sorted(FORMATS):
        module = import_module(f"{package}.{name}")
        rows.append(f"| `{name}` | {str(module.__doc__).strip().splitlines()[0]} |")
    return "\n".join(rows) + "\n"


def words() -> str:
    """Return the Markdown table of the word tables."""
    rows = ["| table | holds |", "|---|---|"]
    return "\n".join([*rows, *(f"| `{name}` | {table.label} |" for name, table in sorted(TABLES.items()))]) + "\n"


def library(folders: Iterable[Path | str]) -> str:
    """Return the Markdown table of the profiles in some folders."""
    profile_set = ProfileSet.load(folders)
    rows = ["| profile | 名称 | name | topics | properties |", "|---|---|---|---|---|"]
    for name in profile_set.ids:
        profile = profile_set.find(name)
        if profile is not None:
            label = profile.source.label
            first = profile.source.messages[0]
            topics = ", ".join(f"`{text}`" for text in dict.fromkeys(first.topics))
            if first.frames is not None:
                ports = ", ".join(map(str, first.frames.ports))
                topics = ", ".join(filter(None, (topics, f"frames on port {ports}" if ports else "frames")))
            count = len({profile_set.specs[spec].property for spec in profile.specs})
            rows.append(f"| `{profile.name}` | {label.zh} | {label.en} | {topics} | {count} |")
    return "\n".join(rows) + "\n"
