"""The reference of the settings: key, default, range and help text of each, from the records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args, get_origin, get_type_hints

import msgspec

from sensegate.config.gateway import Config
from sensegate.config.setting import ConfigRecord


class Setting(msgspec.Struct, frozen=True):
    """A setting as the reference describes it."""

    key: str
    """Key with those of its sections, separated by dots; ``[]`` marks a list of records."""
    default: str
    help: str
    is_number: bool
    least: float | None
    """Least number, and `most`: the greatest."""
    most: float | None


def record_type(kind: object) -> type[ConfigRecord] | None:
    """Return the record within an annotation (optional, list, annotated); None if there is none."""
    if isinstance(kind, type) and issubclass(kind, ConfigRecord):
        return kind
    for part in get_args(kind):
        if record := record_type(part):
            return record
    return None


def settings(record: type[ConfigRecord] = Config, prefix: str = "") -> Iterator[Setting]:
    """Yield every setting, in the order of the records."""
    hints = get_type_hints(record, include_extras=True)
    for field in msgspec.structs.fields(record):
        kind, meta = get_args(hints[field.name])[:2]
        nested = record_type(kind)
        key = f"{prefix}{field.name}{'[]' if nested and get_origin(kind) is tuple else ''}"
        if nested:
            yield from settings(nested, f"{key}.")
            continue
        default = "(required)" if field.default is msgspec.NODEFAULT else msgspec.json.encode(field.default).decode()
        yield Setting(key, default, str(meta.description), _is_number(kind), meta.ge, meta.le)


def _is_number(kind: object) -> bool:
    """Return whether an annotation holds a number, alone or in a list or union."""
    return kind in {int, float} or any(_is_number(part) for part in get_args(kind) if not isinstance(part, str))


def reference() -> str:
    """Return the Markdown table of all settings."""
    rows = ["| key | default | range | description |", "|---|---|---|---|"]
    for setting in settings():
        bounds = f"{setting.least:,} to {setting.most:,}" if setting.is_number else ""
        rows.append(f"| `{setting.key}` | `{setting.default}` | {bounds} | {setting.help} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201 - this is the command
