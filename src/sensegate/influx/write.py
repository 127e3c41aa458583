"""REST: line protocol as clients of InfluxDB 2 write it, and the requests that they make before.

The bucket is the device: the caller's own, or one behind it (Telegraf: ``bucket_tag = "host"``). The organisation is
empty or a division in which the device stands. Good lines of a request with bad ones are committed; the answer is then
400 and names the bad ones, as InfluxDB answers a partial write.
"""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from sensegate import __version__
from sensegate.decode.formats.influx import Line, split_lines
from sensegate.errors import NotFound, SensegateError
from sensegate.web import problems
from sensegate.web.devices import ingest_device
from sensegate.web.problems import BadRequest, Problem
from sensegate.web.route_tables import tagged
from sensegate.web.routing import Call, QueryParam, Route

POINTS_MAX = 500
"""Lines of one message."""
PROBLEMS_MAX = 10
"""Bad lines that an answer names."""
VERSION = "v2.7.0"
"""Version of InfluxDB whose interface this is, for clients that look."""
_PRECISIONS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_CODES = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    413: "request too large",
    415: "unsupported media type",
    422: "unprocessable entity",
    429: "too many requests",
    503: "unavailable",
}
MEDIA = "text/plain"


class WriteProblem(Problem, frozen=True, omit_defaults=True):
    """Problem document with the keys of an error of InfluxDB."""

    code: str = ""
    message: str = ""


class ServerHealth(msgspec.Struct, frozen=True):
    """Health as InfluxDB 2 answers it."""

    name: str = "influxdb"
    message: str = "ready for queries and writes"
    status: str = "pass"
    checks: tuple[str, ...] = ()
    version: str = VERSION
    commit: str = __version__


async def _write(call: Call) -> web.Response:
    """Ingest line protocol as InfluxDB 2 takes it; responds after the commit."""
    try:
        await _accept(call)
    except SensegateError as error:
        return _problem_response(call, error)
    return web.Response(status=204, headers={"X-Influxdb-Version": VERSION})


async def _accept(call: Call) -> None:
    """Commit the good lines. Raises `BadRequest` where there are others."""
    device, principal = ingest_device(call, _bucket(call))
    org = call.text("org")
    if org and not (org == call.deps.division or device.division.startswith(org)):
        raise NotFound(f'organization name "{org[:40]}" not found; give the division of the device, or none')
    factor = _PRECISIONS.get(call.text("precision", "ns"))
    if factor is None:
        raise BadRequest(f"precision: '{call.text('precision')[:10]}' is unknown; use {', '.join(_PRECISIONS)}")
    ingest = call.deps.ingest
    if ingest is None:
        raise NotFound("this gateway does not ingest telemetry by HTTP")
    with call.quota.held(principal.id):
        body = await call.raw_body(gzip=True)
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise BadRequest("the body is not UTF-8; send line protocol") from None
        split = await asyncio.to_thread(split_lines, text, problems_max=PROBLEMS_MAX)
        if not split.good and not split.bad:
            raise BadRequest("the body has no line; send line protocol")
        far = [line.text for line in split.good if _is_far(line, factor)]
        refusals = split.problems + [f"the time of '{line[:40]}' is out of range" for line in far[:PROBLEMS_MAX]]
        good = [_nanoseconds(line, factor) for line in split.good if not _is_far(line, factor)]
        messages = ["\n".join(good[first : first + POINTS_MAX]) for first in range(0, len(good), POINTS_MAX)]
        await asyncio.gather(*(ingest(device, principal, message.encode(), MEDIA) for message in messages))
    if refusals:
        listed = "; ".join(refusals[:PROBLEMS_MAX])
        raise BadRequest(f"partial write: {listed}; dropped={split.bad + len(far)}, written={len(good)}")


def _is_far(line: Line, factor: int) -> bool:
    return line.time is not None and not -(2**63) <= line.time * factor < 2**63


def _nanoseconds(line: Line, factor: int) -> str:
    """Return a line with its time in nanoseconds."""
    return line.text if line.time is None else f"{line.text} {line.time * factor}"


def _bucket(call: Call) -> str:
    """Return the id of the device: the bucket, or the one of ``Token id:password``.

    Raises:
        BadRequest, PermissionDenied: neither is given.
    """
    scheme, _, credential = call.request.headers.get("Authorization", "").partition(" ")
    own = credential.partition(":")[0] if scheme.lower() == "token" and ":" in credential else ""
    bucket = call.text("bucket") or own
    if not bucket:
        call.identify()
        raise BadRequest("bucket: is missing; give the id of the device")
    return bucket


def _problem_response(call: Call, error: SensegateError) -> web.Response:
    """Return an error in the form of a problem document, and in that of InfluxDB."""
    response = problems.problem_response(error, request_id=call.request_id)
    detail = problems.detail_of(error)
    response.body = msgspec.json.encode(
        WriteProblem(
            title=problems.title_of(response.status),
            status=response.status,
            detail=detail,
            instance=call.request_id,
            code=_CODES.get(response.status, "internal error"),
            message=detail,
        )
    )
    return response


async def _ping(_call: Call) -> web.Response:
    """Answer 204, as clients of InfluxDB ask before they write."""
    return web.Response(status=204, headers={"X-Influxdb-Version": VERSION, "X-Influxdb-Build": "OSS"})


async def _health(_call: Call) -> ServerHealth:
    """Health as InfluxDB 2 answers it; `/readyz` tells more."""
    return ServerHealth()


ROUTES = tagged(
    "ingest",
    Route(
        "POST",
        "/api/v2/write",
        _write,
        token=False,
        raw=MEDIA,
        query=(
            QueryParam("bucket", "id of the device; with `Token id:password` that device unless another is named"),
            QueryParam("org", "empty, or a division in which the device stands"),
            QueryParam("bucketID", "is not used"),
            QueryParam("orgID", "is not used"),
            QueryParam("precision", "unit of the times: ns (default), us, ms or s"),
        ),
        status=204,
        errors=(404, 413, 415, 422),
    ),
    Route("GET", "/ping", _ping, token=False, status=204),
    Route("GET", "/health", _health, token=False),
)
