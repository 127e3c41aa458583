"""REST: a feed as a data source of Prometheus, for Grafana without a plugin.

The address of the data source is ``…/api/v1/feeds/FEED/prometheus`` with a token as header. Errors of queries have the
form of Prometheus.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action
from sensegate.config import durations
from sensegate.errors import PermissionDenied, SensegateError, TooMuch, Unavailable
from sensegate.history.prometheus_reader import (
    LOOKBACK_US,
    STEPS_MAX,
    PrometheusReader,
    QuerySteps,
    SeriesAnswer,
    label_names,
)
from sensegate.history.promql import BadQuery
from sensegate.web import problems
from sensegate.web.parts import PartKey
from sensegate.web.routing import API, Call, QueryParam, Route

PROMETHEUS = PartKey[PrometheusReader](
    "prometheus", absent="this gateway keeps no history; set history.enabled and install sensegate[history]"
)
_FORM = "application/x-www-form-urlencoded"


class Parameters(msgspec.Struct, frozen=True):
    """Parameters of a request, with the values of each."""

    values: dict[str, list[str]]

    def get(self, name: str) -> str:
        """Return the first value; empty: it is not given."""
        return self.values.get(name, [""])[0]

    def all(self, name: str) -> list[str]:
        """Return all values."""
        return self.values.get(name, [])


class PrometheusError(msgspec.Struct, frozen=True):
    """Error in the form of Prometheus."""

    error: str
    errorType: str  # noqa: N815 - the name of Prometheus
    status: str = "error"


async def _parameters(call: Call) -> Parameters:
    """Return the parameters of the address, and of the form that Grafana posts. Raises `BadQuery`."""
    pairs = [*call.request.query.items()]
    if call.request.method == "POST":
        if call.request.content_type != _FORM:
            raise BadQuery(f"content type {call.request.content_type} is not supported; send {_FORM}")
        try:
            pairs += parse_qsl((await call.raw_body()).decode(), keep_blank_values=True, max_num_fields=1_000)
        except ValueError:
            raise BadQuery(f"the body is no form; send {_FORM}") from None
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return Parameters(values)


def _time(call: Call, text: str, name: str, default: int) -> int:
    if not text:
        return default
    try:
        return round(float(text) * 1e6) if text.replace(".", "", 1).isdigit() else call.parse_time(text, name)
    except SensegateError as why:
        raise BadQuery(str(why)) from None


def _length(text: str, name: str, default: int) -> int:
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = durations.duration_s(text) or 0.0
    if not 0.001 <= seconds <= 366 * 86_400:
        raise BadQuery(f"{name}: '{text[:20]}' is no length of time; give seconds, or {durations.DURATION_EXAMPLES}")
    return round(seconds * 1e6)


Work = Callable[[Call, Parameters], Awaitable[tuple[bytes, int, str]]]
"""Returns the data of an answer, how many values were read for it, and the grant."""


def _answer_of(
    work: Work,
) -> Callable[[Call], Awaitable[web.Response]]:
    """Return a handler that answers the data of `work`, counted as delivered, or its error as Prometheus does."""

    async def handle(call: Call) -> web.Response:
        try:
            data, count, grant = await work(call, await _parameters(call))
        except BadQuery as why:
            return _error(400, "bad_data", str(why))
        except TooMuch as why:
            return _error(422, "execution", str(why))
        except Unavailable as why:
            return _error(503, "unavailable", problems.detail_of(why))
        if call.credential_ended():
            raise PermissionDenied("the credential has ended meanwhile", authenticated=False)
        share, caller, feed = call.deps.share, call.principal, call.path("feed")
        async with share.reserve(caller, feed, "json", count, grant):
            share.count(caller, feed, "json", requests=1, records=count, size=len(data), grant=grant)
        return web.Response(body=b'{"status":"success","data":' + data + b"}", content_type="application/json")

    return handle


def _error(status: int, kind: str, text: str) -> web.Response:
    body = msgspec.json.encode(PrometheusError(text, kind))
    return web.Response(status=status, body=body, content_type="application/json")


async def _query(call: Call, parameters: Parameters) -> tuple[bytes, int, str]:
    at = _time(call, parameters.get("time"), "time", call.deps.clock.now())
    lookback = _length(parameters.get("lookback_delta"), "lookback_delta", LOOKBACK_US)
    answer = await call.part(PROMETHEUS).instant(
        call.principal, call.path("feed"), _text(parameters), QuerySteps(at, at, 1_000_000, lookback)
    )
    return answer.data, answer.count, answer.grant


async def _query_range(call: Call, parameters: Parameters) -> tuple[bytes, int, str]:
    now = call.deps.clock.now()
    for name in ("start", "end", "step"):
        if not parameters.get(name):
            raise BadQuery(f"{name}: is missing; give start, end and step")
    start, end = (_time(call, parameters.get(name), name, now) for name in ("start", "end"))
    if end < start:
        raise BadQuery("end: is before start; give a later time")
    lookback = _length(parameters.get("lookback_delta"), "lookback_delta", LOOKBACK_US)
    steps = QuerySteps(start, end, _length(parameters.get("step"), "step", 0), lookback)
    if steps.count > STEPS_MAX:
        raise BadQuery(f"step: gives {steps.count} steps; give at most {STEPS_MAX}")
    answer = await call.part(PROMETHEUS).range(call.principal, call.path("feed"), _text(parameters), steps)
    return answer.data, answer.count, answer.grant


def _text(parameters: Parameters) -> str:
    text = parameters.get("query")
    if not text.strip():
        raise BadQuery("query: is missing; give an expression of PromQL")
    return text


async def _matching_series(call: Call, parameters: Parameters) -> SeriesAnswer:
    reader = call.part(PROMETHEUS)
    selectors = [reader.parser.selector(text) for text in parameters.all("match[]")]
    return await reader.series(call.principal, call.path("feed"), selectors)


async def _series(call: Call, parameters: Parameters) -> tuple[bytes, int, str]:
    if not parameters.all("match[]"):
        raise BadQuery("match[]: is missing; give a selector")
    answer = await _matching_series(call, parameters)
    return msgspec.json.encode(answer.series), answer.count, answer.grant


async def _labels(call: Call, parameters: Parameters) -> tuple[bytes, int, str]:
    answer = await _matching_series(call, parameters)
    return msgspec.json.encode(label_names(answer.series)), answer.count, answer.grant


async def _label_values(call: Call, parameters: Parameters) -> tuple[bytes, int, str]:
    answer = await _matching_series(call, parameters)
    values = sorted({labels[name] for labels in answer.series if (name := call.path("label")) in labels})
    return msgspec.json.encode(values), answer.count, answer.grant


_PATH = f"{API}/feeds/{{feed}}/prometheus/api/v1"
_LOOKBACK = QueryParam("lookback_delta", "how long a sample is the value of its series, default 5m")
_TIMEOUT = QueryParam("timeout", "is not used")
_QUERY = QueryParam("query", "expression: selectors, rate, increase, *_over_time, sum, avg, min, max, count")
_MATCH = (
    QueryParam("match[]", "selector of series; several: repeated"),
    QueryParam("start", "is not used: series are those with a last value"),
    QueryParam("end", "is not used"),
    QueryParam("limit", "is not used"),
)
_OPERATIONS: tuple[
    tuple[str, Callable[[Call, Parameters], Awaitable[tuple[bytes, int, str]]], str, tuple[QueryParam, ...]], ...
] = (
    (
        "query",
        _query,
        "Evaluate a query of PromQL at one time.",
        (
            _QUERY,
            QueryParam("time", "Unix seconds or ISO 8601, default now"),
            _TIMEOUT,
            _LOOKBACK,
        ),
    ),
    (
        "query_range",
        _query_range,
        "Evaluate a query of PromQL at each step.",
        (
            _QUERY,
            QueryParam("start", "first step: Unix seconds or ISO 8601"),
            QueryParam("end", "last step"),
            QueryParam("step", "length of a step: seconds, or 15s, 1m, 1h"),
            _TIMEOUT,
            _LOOKBACK,
        ),
    ),
    ("series", _series, "List series by their labels.", _MATCH),
    ("labels", _labels, "List the names of labels.", _MATCH),
)
ROUTES = (
    *(
        Route(
            method=method,
            path=f"{_PATH}/{name}",
            handler=_answer_of(work),
            summary=summary,
            tag="prometheus",
            action=Action.READ_READINGS,
            query=query,
            raw=_FORM if method == "POST" else "",
            errors=(404, 422),
        )
        for name, work, summary, query in _OPERATIONS
        for method in ("GET", "POST")
    ),
    Route(
        method="GET",
        path=f"{_PATH}/label/{{label}}/values",
        handler=_answer_of(_label_values),
        summary="List the values of a label.",
        tag="prometheus",
        action=Action.READ_READINGS,
        query=_MATCH,
        errors=(404, 422),
    ),
)
