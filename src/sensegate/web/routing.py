"""Routes, from which aiohttp serves, the OpenAPI document is generated, and calls are checked."""

from __future__ import annotations

import asyncio
import base64
import codecs
import difflib
import zlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from sensegate.authority.attempts import FailedAttempts
from sensegate.authority.scope import Action, Principal, has_right, missing_right
from sensegate.config import durations
from sensegate.errors import NotFound, PermissionDenied, SensegateError
from sensegate.video import multipart
from sensegate.web import auth, limits
from sensegate.web.addresses import client_address
from sensegate.web.deps import WebDependencies
from sensegate.web.parts import PartKey
from sensegate.web.problems import REQUEST_ID, BadRequest
from sensegate.web.quotas import CallerQuota

T = TypeVar("T")
API = "/api/v1"


class QueryParam(msgspec.Struct, frozen=True):
    """Query parameter."""

    name: str
    description: str
    schema: str = "string"
    """JSON Schema type."""
    minimum: int | None = None
    maximum: int | None = None
    """Greatest number that has an effect; a greater one counts as this."""
    maximum_setting: str = ""
    """Field of `WebConfig` that holds the greatest number instead."""


class Route(msgspec.Struct, frozen=True):
    """Operation of the REST interface."""

    method: str
    path: str
    handler: Callable[[Call], Awaitable[object]]
    summary: str = ""
    """One line for the OpenAPI document."""
    tag: str = ""
    is_tree: bool = False
    """True if the last parameter of the path takes all remaining segments."""
    action: Action | None = None
    """Action that the caller's role must permit; None: none (public, or any credential if `token`)."""
    or_action: Action | None = None
    """Another action that suffices instead of `action`."""
    token: bool = True
    """True if the caller must authenticate."""
    query: tuple[QueryParam, ...] = ()
    body: Any = None
    """Type of a JSON body."""
    raw: str = ""
    """Content type of a body that is not decoded."""
    response: Any = None
    """Type of the JSON response."""
    media: tuple[str, ...] = ("application/json",)
    status: int = 200
    is_stream: bool = False
    """True if the response stays open; counted apart from other requests of a caller."""
    is_essential: bool = False
    """True if it is served on reserved connections to everybody: health, signing in."""
    conditional: bool = False
    """True if the response has an ETag of its body, so that `If-None-Match` saves sending it again."""
    errors: tuple[int, ...] = ()
    """Error statuses, besides 400, 401, 403, 429 and 503."""
    problem_type: Callable[[SensegateError], str] | None = None
    """Returns the URI of the problem type of an error; None: problems have no type of their own."""


RECORD_LIMIT = QueryParam(
    "limit", "maximum number of records, default 1,000", "integer", minimum=1, maximum_setting="page_max"
)
PAGING = (
    QueryParam("limit", "maximum number of rows, default 1,000", "integer", minimum=1, maximum_setting="page_max"),
    QueryParam("after", "key or cursor after which to continue"),
    QueryParam("sort", "fields separated by commas, `-` before a descending one"),
    QueryParam("q", "text contained in any field"),
)


class Call:
    """Request to a route, with its dependencies."""

    def __init__(
        self, request: web.Request, deps: WebDependencies, guesses: FailedAttempts, quota: CallerQuota
    ) -> None:
        """`quota`: that of the requests which the caller has open."""
        self.request = request
        self.deps = deps
        self.auth_failures = guesses
        self.quota = quota
        self._principal: Principal | None = None

    def identify(self) -> None:
        """Authenticate the caller by bearer token or session. Raises `PermissionDenied`, `Overloaded`."""
        self._principal = auth.caller(self.request, self.deps, self.auth_failures)

    @property
    def principal(self) -> Principal:
        """Authenticated caller."""
        if self._principal is None:
            raise PermissionDenied("send `Authorization: Bearer TOKEN`", authenticated=False)
        return self._principal

    def part(self, key: PartKey[T]) -> T:
        """Return a part of a feature. Raises `NotFound` where this gateway lacks the feature."""
        part: T | None = self.deps.parts.get(key)
        if part is None:
            raise NotFound(key.absent)
        return part

    def find_part(self, key: PartKey[T]) -> T | None:
        """Return a part of a feature; None where this gateway lacks the feature."""
        part: T | None = self.deps.parts.get(key)
        return part

    @property
    def address(self) -> str:
        """Address of the client, behind trusted proxies too."""
        return client_address(self.request, self.deps.config)

    def demand_credential(self) -> None:
        """Return if the credential is still valid. Raises `PermissionDenied`."""
        if self.credential_ended():
            raise PermissionDenied("the credential has ended meanwhile", authenticated=False)

    def credential_ended(self) -> bool:
        """Return whether the token was revoked or has expired, or the session has ended."""
        return not auth.is_valid(self.principal, self.deps)

    @property
    def request_id(self) -> str:
        """Id of the request in the log."""
        request_id: str = self.request.get(REQUEST_ID, "")
        return request_id

    def path(self, name: str) -> str:
        """Return a path parameter."""
        return self.request.match_info[name]

    # ── query ─────────────────────────────────────────────────────────────────────────────────────────

    def text(self, name: str, default: str = "") -> str:
        """Return a query parameter."""
        return self.request.query.get(name, default)

    def values(self, name: str) -> tuple[str, ...]:
        """Return the values of a parameter, repeated or separated by commas."""
        parts = (part for value in self.request.query.getall(name, []) for part in value.split(","))
        values = tuple(part.strip() for part in parts if part.strip())
        if len(values) > 1_000:
            raise BadRequest(f"query: {name}: has {len(values)} values; give at most 1,000")
        return values

    def integer(self, name: str, default: int, most: int) -> int:
        """Return an integer parameter, at least 1 and limited to `most`."""
        text = self.text(name)
        if not text:
            return min(default, most)
        if not (text.isascii() and text.isdigit() and int(text[:12]) > 0):
            raise BadRequest(f"query: {name}: '{text[:20]}' is not a number; give a whole number from 1")
        return min(int(text[:12]), most)

    def seconds(self, name: str, default: float, most: float) -> float:
        """Return a parameter in seconds, limited to `most`."""
        text = self.text(name)
        try:
            value = float(text) if text else default
        except ValueError:
            value = -1.0
        if not value >= 0:
            raise BadRequest(f"query: {name}: '{text[:20]}' is not a duration; give a number of seconds")
        return min(value, most)

    def time(self, name: str) -> int | None:
        """Return a time parameter, µs UTC: ISO 8601, epoch seconds or ms, or how far back (``90s``, ``1h``)."""
        text = self.text(name)
        return self.parse_time(text, f"query: {name}") if text else None

    def parse_time(self, text: str, key: str) -> int:
        """Return the time of a text in the format of `time`; `key` names it in errors."""
        try:
            return durations.time_us(text, self.deps.clock.now())
        except ValueError:
            raise BadRequest(f"{key}: '{text[:40]}' is not a time; give {durations.TIME_EXAMPLES}") from None

    # ── body and preconditions ────────────────────────────────────────────────────────────────────────

    async def raw_body(self, *, gzip: bool = False, bytes_max: int = 0) -> bytes:
        """Return the body.

        Args:
            gzip: it may be compressed.
            bytes_max: largest body, if that is more than the usual limit of bodies.

        Raises:
            BadRequest: too large (413), compressed (415), or too slow (408).
        """
        request, config = self.request, self.deps.config
        is_gzip = gzip and request.headers.get("Content-Encoding", "").lower() == "gzip"
        most = max(config.body_bytes_max, bytes_max)
        self._check_size(most, compressed=is_gzip)
        if most > config.body_bytes_max:
            request = request.clone(client_max_size=most)
        timeout_s = (
            min(config.body_timeout_s, limits.RESERVED_TIMEOUT_S)
            if limits.is_reserved(request)
            else config.body_timeout_s
        )
        try:
            async with asyncio.timeout(timeout_s):
                body = await request.read()
            return await asyncio.to_thread(_gunzip, body, most) if is_gzip else body
        except web.HTTPRequestEntityTooLarge:
            raise BadRequest(f"the body exceeds {most} bytes", status=413) from None
        except TimeoutError:
            raise BadRequest(f"the body was not complete after {timeout_s:g} s", status=408) from None

    def _check_size(self, most: int, *, compressed: bool = False) -> None:
        request = self.request
        if not compressed and request.headers.get("Content-Encoding", "identity") != "identity":
            raise BadRequest("the body is compressed; send it without Content-Encoding", status=415)
        if (request.content_length or 0) > most:
            raise BadRequest(f"the body has {request.content_length} bytes; send at most {most}", status=413)

    async def multipart_without_images(self) -> bytes:
        """Return a multipart body with its images removed while it is received.

        Raises:
            BadRequest: too large with or without images (413), compressed (415), or too slow (408).
        """
        config = self.deps.config
        self._check_size(config.multipart_bytes_max)
        stripper = multipart.PictureStripper(multipart.boundary_of(self.request.headers.get("Content-Type", "")))
        size = 0
        try:
            async with asyncio.timeout(config.body_timeout_s):
                async for chunk in self.request.content.iter_any():
                    size += len(chunk)
                    stripper.feed(chunk)
                    if size > config.multipart_bytes_max or stripper.size > config.body_bytes_max:
                        raise BadRequest(f"the body exceeds {config.multipart_bytes_max} bytes", status=413)
        except TimeoutError:
            raise BadRequest(f"the body was not complete after {config.body_timeout_s:g} s", status=408) from None
        return stripper.close()

    async def body(self, kind: type[T]) -> T:
        """Return the JSON body as a record.

        Raises:
            BadRequest: it is not JSON of that type; the error names the path.
        """
        if self.request.content_type not in {"application/json", "application/octet-stream"}:
            raise BadRequest(
                f"content type {self.request.content_type} is not supported; send application/json", status=415
            )
        raw = await self.raw_body()
        try:
            return msgspec.json.decode(raw or b"{}", type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
            raise BadRequest(f"body: {why}") from None

    def revision(self, *, required: bool = True) -> int | None:
        """Return the revision of `If-Match`.

        Raises:
            BadRequest: it is missing (428) or not a revision.
        """
        text = self.request.headers.get("If-Match", "")
        if not text:
            if required:
                raise BadRequest("If-Match is missing; send the revision that you read", status=428)
            return None
        number = text.removeprefix("W/").strip('"')
        if not (number.isascii() and number.isdigit() and len(number) < 20):
            raise BadRequest(f"If-Match: '{text[:40]}' is not a revision; send the revision that you read")
        return int(number)


def _gunzip(body: bytes, most: int) -> bytes:
    """Return a decompressed body. Raises `BadRequest`."""
    decoder = zlib.decompressobj(wbits=31)
    try:
        plain = decoder.decompress(body, most + 1)
    except zlib.error as why:
        raise BadRequest(f"the body is not gzip ({why}); send it as Content-Encoding says") from None
    if len(plain) > most:
        raise BadRequest(f"the body exceeds {most} bytes when decompressed", status=413)
    if not decoder.eof or decoder.unused_data:
        raise BadRequest("the body is not one whole gzip stream; send it as Content-Encoding says")
    return plain


def check_call(call: Call, route: Route) -> None:
    """Return if a call is permitted: authentication, role, and no unknown query parameter.

    Raises:
        PermissionDenied, Overloaded, BadRequest.
    """
    if route.token:
        call.identify()
        enough = [action for action in (route.action, route.or_action) if action]
        if route.action and not any(has_right(call.principal, action) for action in enough):
            raise PermissionDenied(missing_right(call.principal, route.action))
    known = [param.name for param in route.query]
    for name in call.request.query:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            remedy = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(known) or 'none'}"
            raise BadRequest(f"query: unknown parameter '{name[:40]}'; {remedy}")


def iso(time: int) -> str:
    """Return a time (µs) as ISO 8601 with `Z`; empty for 0.

    A stored time outside the years 1 to 9999 is returned as a text that says so: a list must not fail for one record.
    """
    if not durations.TIME_MIN_US <= time <= durations.TIME_MAX_US:
        return f"{time} µs, outside the years 1 to 9999"
    return (
        datetime.fromtimestamp(time / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if time
        else ""
    )


def payload_text(payload: bytes, most: int = 4_096) -> str:
    """Return a payload as text if it is UTF-8, else as base64; limited to `most` bytes, and to whole characters."""
    part = payload[:most]
    try:
        return codecs.utf_8_decode(part, "strict", len(payload) <= most)[0]
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(part).decode()}"
