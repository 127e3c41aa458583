"""HTTP layer: the table of routes, the middleware of every request, and the mapping of errors.

`Web(deps)` is started and stopped by the wiring. Every response has a request id and the security headers; every error
is a problem document.
"""

from __future__ import annotations

import re
import secrets
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from importlib.resources import files

import msgspec
import prometheus_client
import structlog
from aiohttp import web

from sensegate import metrics
from sensegate.authority.attempts import FailedAttempts
from sensegate.authority.scope import Action, Role, allows, demand
from sensegate.bus.trust import load_server_files, server_context
from sensegate.errors import ConfigError, Conflict, Overloaded, SensegateError, Unavailable
from sensegate.share import scans
from sensegate.web import (
    accounting,
    applications,
    assessment,
    audit,
    catalogue,
    changes,
    corrections,
    devices,
    drafts,
    encoding,
    feeds,
    grants,
    latest,
    limits,
    log,
    maker_pack,
    map_layers,
    messages,
    openapi,
    people,
    problems,
    profile_editor,
    profile_jobs,
    profiles,
    quality,
    quarantine,
    registry,
    session,
    settings,
    survey,
    system,
    trace,
    webhooks,
    websocket,
)
from sensegate.web.bodies import Readiness
from sensegate.web.console import ConsolePages
from sensegate.web.deps import WebDependencies
from sensegate.web.listener import HttpListener
from sensegate.web.quotas import RETRY_AFTER_S, CallerQuota
from sensegate.web.route_tables import tagged
from sensegate.web.routing import Call, Route, check_call

_log = structlog.get_logger(__name__)

_ADMINISTRATORS = frozenset((Role.ADMIN, Role.AUDITOR))
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PAGES = {
    "/": ("index.html", "text/html"),
    "/docs": ("docs.html", "text/html"),
    "/static/common.js": ("common.js", "text/javascript"),
    "/static/page.js": ("page.js", "text/javascript"),
    "/static/docs.js": ("docs.js", "text/javascript"),
    "/static/page.css": ("page.css", "text/css"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
}
_CONSOLE_MEDIA = {"css": "text/css", "js": "text/javascript"}
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
_SECURITY_HEADERS = {
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), camera=(), microphone=()",
    "Server": "sensegate",
}


async def _health(_call: Call) -> dict[str, bool]:
    """Liveness of the process."""
    return {"alive": True}


async def _ready(call: Call) -> web.Response:
    """Readiness: whether readings are ingested and delivered, with the reasons if not (503)."""
    reasons = list(call.deps.ready())
    devices = {state.value: count for state, count in call.deps.devices.count_states().items()}
    readiness = Readiness(not reasons, reasons, list(call.deps.warnings()), call.deps.clock_judgement(), devices)
    return web.Response(
        status=503 if reasons else 200,
        body=msgspec.json.encode(readiness),
        content_type="application/json",
    )


async def _metrics(call: Call) -> web.StreamResponse:
    """Prometheus metrics; those that name devices, feeds or nodes need a token that may see them all."""
    access, is_named = call.deps.config.metrics, True
    if access != "open":
        if access == "token" or "Authorization" in call.request.headers:
            call.identify()
            is_named = allows(call.principal, Action.READ_LEDGER, call.deps.division)
        else:
            is_named = False
    if access == "token":
        demand(call.principal, Action.READ_LEDGER, call.deps.division)
    return web.Response(
        body=metrics.exposition(is_named=is_named),
        headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST},
    )


_OPERATIONS = tagged(
    "gateway",
    Route("GET", "/healthz", _health, token=False, is_essential=True),
    Route("GET", "/readyz", _ready, token=False, is_essential=True, response=Readiness),
    Route("GET", "/metrics", _metrics, token=False, is_essential=True, media=("text/plain",)),
)
CORE_ROUTES: tuple[Route, ...] = (
    *_OPERATIONS,
    *devices.ROUTES,
    *messages.ROUTES,
    *changes.ROUTES,
    *maker_pack.ROUTES,
    *feeds.ROUTES,
    *latest.ROUTES,
    *websocket.ROUTES,
    *webhooks.ROUTES,
    *catalogue.ROUTES,
    *applications.ROUTES,
    *grants.ROUTES,
    *registry.ROUTES,
    *profiles.ROUTES,
    *profile_jobs.ROUTES,
    *profile_editor.ROUTES,
    *drafts.ROUTES,
    *corrections.ROUTES,
    *accounting.ROUTES,
    *assessment.ROUTES,
    *quality.ROUTES,
    *survey.ROUTES,
    *map_layers.ROUTES,
    *settings.ROUTES,
    *system.ROUTES,
    *quarantine.ROUTES,
    *log.ROUTES,
    *audit.ROUTES,
    *trace.ROUTES,
    *people.ROUTES,
    *session.ROUTES,
)
"""Operations of the core, apart from `/`, `/docs`, `/openapi.json` and static files; `flow.ROUTES` has all."""


class Web:
    """The listener and its routes."""

    def __init__(self, deps: WebDependencies, routes: Sequence[Route]) -> None:
        """`routes`: all operations, see `flow.ROUTES`."""
        self.deps = deps
        self._routes = routes
        self._guesses = FailedAttempts(deps.clock)
        self._requests = CallerQuota("web.requests_per_caller_max", "requests", deps.config.requests_per_caller_max)
        self._streams = CallerQuota("web.streams_per_caller_max", "streams", deps.config.streams_per_caller_max)
        self._listener = HttpListener(
            "web.port",
            connections_max=deps.config.connections_max,
            per_address_max=deps.config.connections_per_address_max,
            has_reserve=True,
            header_timeout_s=deps.config.header_timeout_s,
            handshake_timeout_s=deps.config.header_timeout_s,
        )
        self._context: ssl.SSLContext | None = None
        tls = deps.config.tls
        self._headers = dict(_SECURITY_HEADERS)
        if tls.cert_file:
            self._headers["Strict-Transport-Security"] = "max-age=31536000"

    @cached_property
    def _document(self) -> bytes:
        """The encoded OpenAPI document: a fifth of the CPU of a start, and few gateways are asked for it."""
        config = self.deps.config
        return msgspec.json.encode(openapi.document(self._routes, version=self.deps.version, config=config))

    def app(self) -> web.Application:
        """Return the application, for tests that serve it themselves."""
        app = web.Application(middlewares=[self._middleware], client_max_size=self.deps.config.body_bytes_max)
        for route in self._routes:
            path = f"{route.path[:-1]}:.+}}" if route.is_tree else route.path
            app.router.add_route(route.method, path, self._endpoint(route))
        app.on_response_prepare.append(self._add_headers)
        app.router.add_get("/openapi.json", self._openapi)
        for path, (name, media) in (*_PAGES.items(), *_console_files()):
            app.router.add_get(path, _page(name, media))
        pages = ConsolePages(self._routes, self._call)
        for path in ("/console", "/console/{page:.*}"):
            app.router.add_get(path, pages.page)
        app.router.add_post("/console/session", pages.sign_in)
        app.router.add_post("/console/session/end", pages.sign_out)
        return app

    async def start(self) -> str:
        """Listen; return the base URL.

        Raises:
            ConfigError: the address is not available, or the certificates cannot be read.
        """
        config = self.deps.config
        self._context = _tls(self.deps)
        return await self._listener.start(
            self.app(), [config.host, *config.additional_hosts], config.port, self._context
        )

    def reload_certificates(self) -> None:
        """Reload the certificate from its file; open connections stay.

        Raises:
            ConfigError: it cannot be used; the previous one stays in force.
        """
        if self._context is None:
            return
        _tls(self.deps)  # fails before the context in use is changed
        tls = self.deps.config.tls
        load_server_files(self._context, cert_file=tls.cert_file, key_file=tls.key_file, ca_file=tls.ca_file)

    async def stop(self) -> None:
        """Close the listener, end open streams (their cursors stay valid), let short responses finish."""
        await self._listener.stop()

    # ── every request ─────────────────────────────────────────────────────────────────────────────────

    def _endpoint(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def entrance(request: web.Request) -> web.StreamResponse:
            call = self._call(request)
            scans.begin(route.path)
            try:
                check_call(call, route)
                if limits.is_reserved(request) and not route.is_essential:
                    _demand_administrator(call, route)
                lasts = route.is_stream or "wait" in request.query
                with self._held(call, route), self._listener.lasting.registered() if lasts else nullcontext():
                    answer = await route.handler(call)
            except SensegateError as why:
                if route.problem_type is not None:
                    request[problems.PROBLEM_TYPE] = route.problem_type(why)
                if isinstance(why, Conflict) and "If-Match" in request.headers:
                    raise problems.BadRequest(str(why), status=412) from why
                raise
            if isinstance(answer, web.StreamResponse):
                return answer
            response = web.Response(
                status=route.status, body=msgspec.json.encode(answer), content_type="application/json"
            )
            if route.conditional:
                return encoding.conditional(request, response)
            if isinstance(revision := getattr(answer, "revision", None), int):
                response.headers["ETag"] = f'"{revision}"'
            return response

        return entrance

    def _call(self, request: web.Request) -> Call:
        return Call(request, self.deps, self._guesses, self._requests)

    def _held(self, call: Call, route: Route) -> AbstractContextManager[None]:
        """Count a request of an authenticated caller while it is open; other routes count for themselves."""
        if not route.token:
            return nullcontext()
        return (self._streams if route.is_stream else self._requests).held(call.principal.id)

    @web.middleware
    async def _middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        offered = request.headers.get("X-Request-Id", "")
        request_id = offered if _REQUEST_ID.fullmatch(offered) else secrets.token_hex(8)
        request[problems.REQUEST_ID] = request_id
        try:
            response = await handler(request)
        except SensegateError as why:
            status = problems.status_of(why)
            if status >= 500 and not isinstance(why, Unavailable):
                _log.warning("request failed", request=request_id, path=request.path, reason=repr(why))
            kind = request.get(problems.PROBLEM_TYPE, "")
            response = problems.problem_response(why, request_id=request_id, kind=kind)
        except web.HTTPException as why:
            response = problems.response_of(why.status, _detail_of(why, request), request_id=request_id)
            if allow := why.headers.get("Allow"):
                response.headers["Allow"] = allow
        await encoding.compress(request, response)
        return response

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(self._headers)
        response.headers["X-Request-Id"] = request.get(problems.REQUEST_ID, "")
        response.headers.setdefault("Cache-Control", "no-store")
        if limits.is_reserved(request):
            response.force_close()
            if response.status != 101:  # the headers that depend on it have been made already
                response.headers["Connection"] = "close"

    async def _openapi(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(body=self._document, content_type="application/json")


def _demand_administrator(call: Call, route: Route) -> None:
    """Return if a request on a reserved connection is made by an administrator. Raises `Overloaded`."""
    if route.token and call.principal.role in _ADMINISTRATORS:
        return
    metrics.LIMIT_HITS.labels("http_reserved").inc()
    raise Overloaded(
        "all connections but those reserved for health and administrators are in use (web.connections_max, "
        "web.connections_per_address_max); close some, or try again later",
        retry_after_s=RETRY_AFTER_S,
        shared=True,
    )


def _detail_of(why: web.HTTPException, request: web.Request) -> str:
    if why.status == 404:
        return f"there is no path {request.path[:200]}; /docs lists all operations"
    if why.status == 405:
        return f"method {request.method} is not allowed here; /docs lists the operations"
    return problems.title_of(why.status)


def _console_files() -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the parts of the console: path, and file name with media type."""
    for file in sorted(files("sensegate.web").joinpath("page", "console").iterdir(), key=lambda file: file.name):
        if media := _CONSOLE_MEDIA.get(file.name.rpartition(".")[2]):
            yield f"/static/console/{file.name}", (f"console/{file.name}", media)


def _page(name: str, media: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    body = files("sensegate.web").joinpath("page", name).read_bytes()

    async def page(request: web.Request) -> web.StreamResponse:
        return encoding.conditional(request, web.Response(body=body, content_type=media, charset="utf-8"))

    return page


def _tls(deps: WebDependencies) -> ssl.SSLContext | None:
    tls = deps.config.tls
    if not tls.cert_file:
        hosts = (deps.config.host, *deps.config.additional_hosts)
        if exposed := next((host for host in hosts if host not in {"127.0.0.1", "::1", "localhost"}), ""):
            raise ConfigError(
                f"{exposed} is not loopback and TLS is not configured",
                key="web.tls",
                remedy="give cert_file and key_file, or listen on loopback",
            )
        return None
    return server_context("web.tls", cert_file=tls.cert_file, key_file=tls.key_file, ca_file=tls.ca_file)
