"""Lists of records: filter, sort, page. The same on every path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from sensegate.web.problems import BadRequest
from sensegate.web.routing import PAGING, Call, QueryParam

Row = TypeVar("Row", bound=msgspec.Struct)


def params(row: type[msgspec.Struct]) -> tuple[QueryParam, ...]:
    """Return the query parameters of a list of these rows: paging, and each plain field as a filter."""
    filters = [
        QueryParam(field.name, f"only rows whose {field.name} is this")
        for field in msgspec.structs.fields(row)
        if field.name not in {param.name for param in PAGING}
    ]
    return (*PAGING, *filters)


def page_of(call: Call, rows: Iterable[Row], kind: type[Row], key: str, *, text: bool = True) -> dict[str, Any]:
    """Return ``{"rows": […], "next": …}``: filtered, sorted (by `key` unless asked otherwise), paged.

    `next` is the key after which to go on (with another order: how many rows to skip); it is missing on the last page.
    Without `text` the rows were searched for `q` already.
    """
    fields = kind.__struct_fields__
    wanted = {name: call.values(name) for name in fields if name in call.request.query and name not in _PAGING}
    part = call.text("q").casefold() if text else ""
    kept = [
        row
        for row in rows
        if all(_text(getattr(row, name)) in values for name, values in wanted.items())
        and (not part or any(part in str(getattr(row, name)).casefold() for name in fields))
    ]
    order = call.text("sort") or key
    for name in reversed(order.split(",")):
        plain = name.removeprefix("-")
        if plain not in fields:
            raise BadRequest(f"query: sort: '{plain[:40]}'; one of {', '.join(fields)}")
        kept.sort(key=lambda row, plain=plain: _rank(getattr(row, plain)), reverse=name.startswith("-"))  # type: ignore[misc]
    skipped = 0
    limit, after = call.integer("limit", 1_000, call.deps.config.page_max), call.text("after")
    if order == key:
        kept = [row for row in kept if _text(getattr(row, key)) > after] if after else kept
    elif after:
        skipped = int(after) if after.isdecimal() and len(after) < 10 else len(kept)
        kept = kept[skipped:]
    page = kept[:limit]
    found: dict[str, Any] = {"rows": page}
    if len(kept) > limit:
        found["next"] = _text(getattr(page[-1], key)) if order == key else str(skipped + limit)
    return found


_PAGING = {param.name for param in PAGING}


def _text(value: object) -> str:
    return str(value)


def _rank(value: object) -> tuple[int, float, str]:
    """Return what sorts numbers by size, all else as text, and nothing first."""
    if value is None:
        return (0, 0.0, "")
    return (1, float(value), "") if isinstance(value, int | float) else (2, 0.0, str(value))
