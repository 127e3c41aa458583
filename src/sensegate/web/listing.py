"""Lists of rows: filter, sort and page, the same for every resource."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Generic, TypeVar
from urllib.parse import quote, unquote

import msgspec

from sensegate.web.problems import BadRequest
from sensegate.web.routing import PAGING, Call, QueryParam

Row = TypeVar("Row", bound=msgspec.Struct)


def params(row: type[msgspec.Struct]) -> tuple[QueryParam, ...]:
    """Return the query parameters of a list of rows: paging, and each field as a filter."""
    filters = [
        QueryParam(field.name, f"filter by {field.name}; several: any of them; `!value`: not this one")
        for field in msgspec.structs.fields(row)
        if field.name not in {param.name for param in PAGING}
    ]
    return (*PAGING, *filters)


WITHIN = QueryParam("within", "rows of this division and those below it")


class RowPage(msgspec.Struct, Generic[Row], frozen=True, omit_defaults=True):
    """Page of a list."""

    rows: list[Row]
    next: str = ""
    """Key after which the next page starts (with another order: number of rows to skip); absent on the last page."""
    total: int | msgspec.UnsetType = msgspec.UNSET
    """Number of rows of all pages that match the filters, where it is known."""


def page_of(call: Call, rows: Iterable[Row], kind: type[Row], *key: str, text: bool = True) -> RowPage[Row]:
    """Return rows filtered, sorted (by `key` unless the call gives another order) and paged.

    No two rows may have the same `key`: a page begins after the key of the last row before it. Without `text` the rows
    were already searched for `q`.
    """
    fields = kind.__struct_fields__
    filters = {name: call.values(name) for name in fields if name in call.request.query and name not in _PAGING}
    query, within = call.text("q").casefold() if text else "", call.text("within")
    selected = [
        row
        for row in rows
        if all(matches(str(getattr(row, name)), values) for name, values in filters.items())
        and (not within or str(getattr(row, "division", "")).startswith(within))
        and (not query or any(query in str(getattr(row, name)).casefold() for name in fields))
    ]
    by_key = [(name, False) for name in key]
    terms = sort_terms(call, fields) or by_key
    for name, descends in reversed(terms):
        selected.sort(key=lambda row, name=name: _rank(getattr(row, name)), reverse=descends)  # type: ignore[misc]
    is_by_key = terms == by_key
    skipped, total = 0, len(selected)
    limit, after = call.integer("limit", 1_000, call.deps.config.page_max), call.text("after")
    if is_by_key:
        if after:
            last = _ranks_of(after, kind, key)
            selected = [row for row in selected if [_rank(getattr(row, name)) for name in key] > last]
    elif after:
        skipped = rows_to_skip(after)
        selected = selected[skipped:]
    page = selected[:limit]
    if len(selected) <= limit:
        return RowPage(page, "", total)
    return RowPage(page, _cursor(page[-1], key) if is_by_key else str(skipped + limit), total)


def sort_terms(call: Call, fields: Collection[str]) -> list[tuple[str, bool]]:
    """Return the order that a call asks for, as (field, whether it descends). Raises `BadRequest`."""
    text = call.text("sort")
    terms = [(term.removeprefix("-"), term.startswith("-")) for term in text.split(",")] if text else []
    for name, _ in terms:
        if name not in fields:
            raise BadRequest(f"query: sort: '{name[:40]}' is unknown; use {', '.join(fields)}")
    return terms


def rows_to_skip(after: str) -> int:
    """Return the number of rows that the pages before take, from the cursor of a list that is not in order of key."""
    if not after:
        return 0
    return int(after) if after.isdecimal() and len(after) < 10 else _ROWS_MAX


def matches(text: str, values: tuple[str, ...]) -> bool:
    """Return whether a field is one of the values wanted, and none of those after ``!``."""
    wanted = [value for value in values if not value.startswith("!")]
    return (not wanted or text in wanted) and f"!{text}" not in values


_ROWS_MAX = 10**9
_PAGING = {param.name for param in PAGING}


def _cursor(row: msgspec.Struct, key: Sequence[str]) -> str:
    """Return the key of a row as text: that of one field as it is, those of several quoted and with colons between."""
    texts = [str(getattr(row, name)) for name in key]
    return texts[0] if len(texts) == 1 else ":".join(quote(text, safe="") for text in texts)


def _ranks_of(cursor: str, kind: type[msgspec.Struct], key: Sequence[str]) -> list[tuple[int, float, str]]:
    """Return the sort keys of the row that a cursor names. Raises `BadRequest`."""
    texts = [cursor] if len(key) == 1 else [unquote(text) for text in cursor.split(":")]
    numbers = {field.name for field in msgspec.structs.fields(kind) if field.type in {int, float}}
    try:
        return [_rank(float(text) if name in numbers else text) for name, text in zip(key, texts, strict=True)]
    except ValueError:
        raise BadRequest(f"query: after: '{cursor[:80]}' is no `next` of this list; start without it") from None


def _rank(value: object) -> tuple[int, float, str]:
    """Return a sort key: None first, then numbers by size, then all else as text."""
    if value is None:
        return (0, 0.0, "")
    return (1, float(value), "") if isinstance(value, int | float) else (2, 0.0, str(value))
