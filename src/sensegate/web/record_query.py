"""Query parameters of records: times, areas, fields; and the media types in which records are answered."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from sensegate.quantities.properties import PROPERTIES
from sensegate.share.feeds import BoundingBox, Circle, FeedFilter
from sensegate.share.projection import FIELDS
from sensegate.share.sharing import FeedRequest
from sensegate.web.problems import BadRequest
from sensegate.web.routing import Call, QueryParam

MEDIA_TYPES = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "msgpack": "application/vnd.msgpack",
    "senml": "application/senml+json",
    "parquet": "application/vnd.apache.parquet",
    "geojson": "application/geo+json",
}
"""Form of records -> its media type."""
_ALIASES = {
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/msgpack": "msgpack",
    "application/x-msgpack": "msgpack",
    "application/parquet": "parquet",
    "application/x-parquet": "parquet",
}
_FORMS = {**{media: form for form, media in MEDIA_TYPES.items()}, **_ALIASES}
_PROJECTED = frozenset({"json", "ndjson", "csv", "geojson"})
"""Forms of which a request may choose the fields."""
_RADIUS_MAX_M = 20_100_000.0
"""More than half of the circumference of the Earth."""
_ZONE = re.compile(r"(?:Z|[+-]\d\d:?\d\d| \d\d:?\d\d)$")

_AREAS = (
    QueryParam("bbox", "area as `west,south,east,north` in WGS-84 degrees"),
    QueryParam("near", "area as `lon,lat,metres`: a position in WGS-84 degrees and the distance from it"),
)
ORIGIN_PARAMS = (
    QueryParam("division", "filter by division; several: repeated or separated by commas"),
    QueryParam("property", "filter by property; several: repeated or separated by commas"),
    QueryParam("device", "filter by device; several: repeated or separated by commas"),
    *_AREAS,
)
"""Parameters that choose devices and properties."""
CHANNEL_PARAM = QueryParam("channel", "filter by channel; several: repeated or separated by commas")
PERIOD_PARAMS = (
    QueryParam("from", "earliest phenomenon time, or how far back (30m, 1h)"),
    QueryParam("to", "phenomenon time before which records are wanted"),
)
SELECTION_PARAMS = (
    QueryParam("after", "cursor after which to continue"),
    QueryParam("since", "time of arrival from which to start, or how far back (30m, 1h)"),
    *ORIGIN_PARAMS,
    CHANNEL_PARAM,
    *PERIOD_PARAMS,
)
PAGE_PARAMS = (
    QueryParam("until", "time of arrival before which to end; with it `next` is empty at the end"),
    QueryParam("order", "asc (default) or desc: the last records to arrive first"),
    QueryParam("fields", f"fields of each record in JSON, NDJSON, CSV and GeoJSON: some of {', '.join(FIELDS)}"),
)


def request_of(call: Call, after: str) -> FeedRequest:
    """Return the feed request of a call that continues after a cursor. Raises `BadRequest`."""
    descending = descends(call)
    since, until = instant(call, "since"), instant(call, "until")
    if after and since is not None and not descending:
        raise BadRequest("query: after and since are both given; give one of them")
    _demand_order("since", since, "until", until)
    return FeedRequest(call.path("feed"), after, since, until, filter_of(call), descending, fields_of(call))


def filter_of(call: Call) -> FeedFilter:
    """Return the filter of a call by division, property, device, channel, area and time. Raises `BadRequest`."""
    begin, end = instant(call, "from"), instant(call, "to")
    _demand_order("from", begin, "to", end)
    return FeedFilter(
        call.values("division"),
        _properties(call),
        call.values("device"),
        begin,
        end,
        _bbox(call),
        _near(call),
        call.values("channel"),
    )


def instant(call: Call, name: str) -> int | None:
    """Return a time with a zone, or how far back, µs UTC; None: it is not given. Raises `BadRequest`."""
    text = _single(call, name)
    if ("T" in text or text[4:5] == "-") and not ("T" in text and _ZONE.search(text)):
        raise BadRequest(f"query: {name}: '{text[:40]}' has no zone; give 2026-01-01T00:00:00Z, or %2B08:00 for Z")
    return call.time(name) if text else None


def fields_of(call: Call) -> tuple[str, ...]:
    """Return the fields that a call asks for; empty: all. Raises `BadRequest`."""
    fields = call.values("fields")
    for field in fields:
        if field not in FIELDS:
            raise BadRequest(f"query: fields: '{field[:40]}' is not a field; use some of {', '.join(FIELDS)}")
    if len(set(fields)) < len(fields):
        raise BadRequest("query: fields: a field is given twice; give each field once")
    return fields


def media_of(call: Call) -> tuple[str, str]:
    """Return (form, media type) of the first form that the caller accepts; JSON without an Accept header.

    Raises:
        BadRequest: no supported form is accepted (406), or it has no fields to choose.
    """
    media = accepted(call, tuple(_FORMS))
    form = _FORMS[media]
    if call.text("fields") and form not in _PROJECTED:
        raise BadRequest(f"query: fields: does not apply to {form}; accept one of {', '.join(sorted(_PROJECTED))}")
    return form, media


def accepted(call: Call, offered: Sequence[str]) -> str:
    """Return the first media type that the caller accepts; the first offered one without a preference.

    Raises:
        BadRequest: none is accepted (406).
    """
    for part in call.request.headers.get("Accept", "*/*").lower().split(","):
        media = part.partition(";")[0].strip()
        if media in {"*/*", "application/*", ""}:
            return offered[0]
        for candidate in offered:
            if media in {candidate, f"{candidate.partition('/')[0]}/*"}:
                return candidate
    raise BadRequest(f"Accept: no media type is supported; use one of {', '.join(offered)}", status=406)


def _single(call: Call, name: str) -> str:
    texts = call.request.query.getall(name, [])
    if len(texts) > 1:
        raise BadRequest(f"query: {name}: is given {len(texts)} times; give it once")
    return texts[0] if texts else ""


def descends(call: Call) -> bool:
    """Return whether a call asks for the newest first. Raises `BadRequest`."""
    order = _single(call, "order")
    if order not in {"", "asc", "desc"}:
        raise BadRequest(f"query: order: '{order[:20]}' is unknown; use asc or desc")
    if order == "desc" and call.text("wait"):
        raise BadRequest("query: wait: does not apply to order=desc; leave it out")
    return order == "desc"


def _demand_order(first: str, begin: int | None, second: str, end: int | None) -> None:
    if begin is not None and end is not None and begin >= end:
        raise BadRequest(f"query: {second}: is not after {first}; give a later time")


def _properties(call: Call) -> tuple[str, ...]:
    names = call.values("property")
    for name in names:
        if PROPERTIES.find(name) < 0:
            near = PROPERTIES.nearest(name)
            remedy = f"did you mean '{near}'?" if near else "GET /api/v1/properties lists them"
            raise BadRequest(f"query: property: there is no property '{name[:64]}'; {remedy}")
    return names


def _numbers(text: str, name: str, form: str) -> list[float]:
    parts = text.split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != form.count(",") + 1 or not all(map(math.isfinite, numbers)):
        raise BadRequest(f"query: {name}: '{text[:60]}' is not `{form}`; give numbers separated by commas")
    return numbers


def _demand_position(name: str, lon: float, lat: float) -> None:
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        raise BadRequest(
            f"query: {name}: {lon:g},{lat:g} is not a position; give a longitude of -180 to 180, then a latitude of "
            "-90 to 90"
        )


def _bbox(call: Call) -> BoundingBox | None:
    text = _single(call, "bbox")
    if not text:
        return None
    west, south, east, north = _numbers(text, "bbox", "west,south,east,north")
    _demand_position("bbox", west, south)
    _demand_position("bbox", east, north)
    if west > east or south > north:
        raise BadRequest(f"query: bbox: '{text[:60]}' crosses itself; give west <= east and south <= north")
    return BoundingBox(west, south, east, north)


def _near(call: Call) -> Circle | None:
    text = _single(call, "near")
    if not text:
        return None
    lon, lat, metres = _numbers(text, "near", "lon,lat,metres")
    _demand_position("near", lon, lat)
    if not 0 < metres <= _RADIUS_MAX_M:
        raise BadRequest(f"query: near: {metres:g} m is out of range; give a distance above 0 m, at most 20,100,000 m")
    return Circle(lon, lat, metres)
