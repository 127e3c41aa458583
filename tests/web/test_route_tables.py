"""Tables of routes take from their handlers what the OpenAPI document says of them."""

from __future__ import annotations

import msgspec
from aiohttp import web

from sensegate.flow import ROUTES
from sensegate.web.listing import RowPage
from sensegate.web.route_tables import tagged
from sensegate.web.routing import Call, Route


class Row(msgspec.Struct):
    """A record."""


async def record(_call: Call) -> Row:
    """Get a record."""
    return Row()


async def page(_call: Call) -> RowPage[Row] | web.Response:
    """List records."""
    return RowPage([])


async def rows(_call: Call) -> list[Row]:
    """List all records."""
    return []


async def file(_call: Call) -> web.Response:
    """Get a file."""
    return web.Response()


def test_a_route_takes_summary_and_response_from_its_handler() -> None:
    """A page of rows is described as a list of them; a response that the handler makes itself has no type."""
    table = tagged("records", *(Route("GET", "/", handler) for handler in (record, page, rows, file)))
    assert [(route.tag, route.summary, route.response) for route in table] == [
        ("records", "Get a record.", Row),
        ("records", "List records.", list[Row]),
        ("records", "List all records.", list[Row]),
        ("records", "Get a file.", None),
    ]


def test_a_route_keeps_the_values_that_it_gives_itself() -> None:
    """A handler of two routes, or one that makes the HTTP response, is described by its routes."""
    [route] = tagged("records", Route("GET", "/", file, summary="Get a picture.", tag="pictures", response=Row))
    assert (route.tag, route.summary, route.response) == ("pictures", "Get a picture.", Row)


def test_every_route_has_a_tag_and_a_summary_of_a_line() -> None:
    """Also those that stand in no table of this form."""
    assert [route.path for route in ROUTES if not route.tag or not route.summary or "\n" in route.summary] == []
