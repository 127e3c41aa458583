"""Tables of routes, completed from their handlers."""

from __future__ import annotations

import typing
from types import UnionType
from typing import Any

import msgspec

from sensegate.web.listing import RowPage
from sensegate.web.routing import Route


def tagged(tag: str, *routes: Route) -> tuple[Route, ...]:
    """Return routes under a tag of the OpenAPI document, completed from their handlers.

    A route takes, unless it gives them itself, its summary from the docstring of its handler and the type of its
    response from the type that the handler returns. A handler that makes the HTTP response has no such type.
    """
    return tuple(
        msgspec.structs.replace(
            route,
            tag=route.tag or tag,
            summary=route.summary or route.handler.__doc__ or "",
            response=route.response or _record_type(typing.get_type_hints(route.handler).get("return")),
        )
        for route in routes
    )


def _record_type(answer: Any) -> Any:
    """Return the record, or the list of records, among the types of an answer; None without either."""
    if typing.get_origin(answer) in {typing.Union, UnionType}:
        return next(filter(None, map(_record_type, typing.get_args(answer))), None)
    if typing.get_origin(answer) is RowPage:
        return list[typing.get_args(answer)[0]]  # type: ignore[misc] # an argument that mypy cannot know: it is read from the handler
    is_record = isinstance(answer, type) and issubclass(answer, msgspec.Struct)
    return answer if is_record or typing.get_origin(answer) is list else None
