"""One table of routes: what aiohttp serves, what the OpenAPI document says, and what is checked of each call."""

from __future__ import annotations

import asyncio
import base64
import difflib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action, Principal, lacking, may
from sensegate.config import durations
from sensegate.errors import NotFound, PermissionDenied
from sensegate.frames import multipart
from sensegate.ports import Part
from sensegate.web import auth
from sensegate.web.deps import Deps
from sensegate.web.problems import REQUEST_ID, BadRequest

T = TypeVar("T")
API = "/api/v1"


class Param(msgspec.Struct, frozen=True):
    """A query parameter."""

    name: str
    what: str
    schema: str = "string"
    """JSON Schema type."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One operation."""

    method: str
    path: str
    call: Callable[[Call], Awaitable[Any]]
    what: str
    """One line."""
    tag: str
    action: Action | None = None
    """What the caller's role must allow somewhere; None: nothing (public, or any token if `token`)."""
    token: bool = True
    """False: no token is asked for."""
    query: tuple[Param, ...] = ()
    body: Any = None
    """Type of a JSON body."""
    raw: str = ""
    """Content type of a body that is not JSON of a known form."""
    answer: Any = None
    """Type of a JSON answer."""
    media: tuple[str, ...] = ("application/json",)
    status: int = 200
    errors: tuple[int, ...] = ()
    """Beside 400, 401, 403, 429 and 503."""


PAGING = (
    Param("limit", "most rows, default 1,000", "integer"),
    Param("after", "id or cursor after which to go on"),
    Param("sort", "fields, comma separated, `-` before a falling one"),
    Param("q", "part of any text field"),
)


class Call:
    """One request on its way through a route."""

    def __init__(self, request: web.Request, deps: Deps, guesses: auth.Guesses) -> None:
        self.request = request
        self.deps = deps
        self.guesses = guesses
        self._principal: Principal | None = None

    def identify(self) -> None:
        """Take the caller from the bearer token or the session. Raises `PermissionDenied`, `Overloaded`."""
        self._principal = auth.caller(self.request, self.deps, self.guesses)

    @property
    def principal(self) -> Principal:
        """The caller; only where the route asks for a token."""
        if self._principal is None:
            raise PermissionDenied("send `Authorization: Bearer TOKEN`", authenticated=False)
        return self._principal

    def part(self, key: Part[T]) -> T:
        """Return a part of a feature. Raises `NotFound` where this gateway lacks the feature."""
        found: T | None = self.deps.parts.get(key)
        if found is None:
            raise NotFound(key.absent)
        return found

    def find_part(self, key: Part[T]) -> T | None:
        """Return a part of a feature; None where this gateway lacks the feature."""
        found: T | None = self.deps.parts.get(key)
        return found

    def token_ended(self) -> bool:
        """Return whether the token was revoked or has expired since, or the session has ended."""
        return not auth.good(self.principal, self.deps)

    @property
    def request_id(self) -> str:
        """The id by which the log knows the request."""
        found: str = self.request.get(REQUEST_ID, "")
        return found

    def path(self, name: str) -> str:
        """Return a part of the path."""
        return self.request.match_info[name]

    # ── query ─────────────────────────────────────────────────────────────────────────────────────────

    def text(self, name: str, default: str = "") -> str:
        """Return a query parameter."""
        return self.request.query.get(name, default)

    def words(self, name: str) -> tuple[str, ...]:
        """Return a parameter that may be repeated or hold commas."""
        values = (part for value in self.request.query.getall(name, []) for part in value.split(","))
        found = tuple(value.strip() for value in values if value.strip())
        if len(found) > 1_000:
            raise BadRequest(f"query: {name}: {len(found)} values; at most 1,000")
        return found

    def whole(self, name: str, default: int, most: int) -> int:
        """Return an integer parameter, at least 1 and cut to `most`."""
        text = self.text(name)
        if not text:
            return min(default, most)
        if not (text.isascii() and text.isdigit() and int(text[:12]) > 0):
            raise BadRequest(f"query: {name}: '{text[:20]}' is not a whole number from 1")
        return min(int(text[:12]), most)

    def seconds(self, name: str, default: float, most: float) -> float:
        """Return a parameter in seconds, cut to `most`."""
        text = self.text(name)
        try:
            value = float(text) if text else default
        except ValueError:
            value = -1.0
        if not value >= 0:
            raise BadRequest(f"query: {name}: '{text[:20]}' is not a number of seconds")
        return min(value, most)

    def time(self, name: str) -> int | None:
        """Return a time (µs UTC): ISO 8601, epoch seconds or ms, or how far back (``90s``, ``1h``, ``7d``)."""
        text = self.text(name)
        return self.moment(text, f"query: {name}") if text else None

    def moment(self, text: str, key: str) -> int:
        """Return the time of a text, as `time` reads it; `key` names it where it is none."""
        try:
            return durations.moment(text, self.deps.clock.now())
        except ValueError:
            raise BadRequest(f"{key}: '{text[:40]}'; give {durations.WHEN}") from None

    # ── body and preconditions ────────────────────────────────────────────────────────────────────────

    async def raw(self) -> bytes:
        """Return the body.

        Raises:
            BadRequest: too large (413), compressed (415), or too slow (408).
        """
        request, config = self.request, self.deps.config
        self._demand_size(config.body_bytes_max)
        try:
            async with asyncio.timeout(config.body_timeout_s):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise BadRequest(f"body of more than {config.body_bytes_max} bytes", status=413) from None
        except TimeoutError:
            raise BadRequest(f"body not complete after {config.body_timeout_s:g} s", status=408) from None

    def _demand_size(self, most: int) -> None:
        request = self.request
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise BadRequest("compressed bodies are not taken; send it as it is", status=415)
        if (request.content_length or 0) > most:
            raise BadRequest(f"body of {request.content_length} bytes; at most {most}", status=413)

    async def without_pictures(self) -> bytes:
        """Return a multipart body whose pictures are empty; they are dropped while they come.

        Raises:
            BadRequest: too large, without or with its pictures (413), compressed (415), or too slow (408).
        """
        config = self.deps.config
        self._demand_size(config.pictures_bytes_max)
        thin = multipart.PictureStripper(multipart.boundary_of(self.request.headers.get("Content-Type", "")))
        size = 0
        try:
            async with asyncio.timeout(config.body_timeout_s):
                async for chunk in self.request.content.iter_any():
                    size += len(chunk)
                    thin.feed(chunk)
                    if size > config.pictures_bytes_max or thin.size > config.body_bytes_max:
                        raise BadRequest(f"body of more than {config.pictures_bytes_max} bytes", status=413)
        except TimeoutError:
            raise BadRequest(f"body not complete after {config.body_timeout_s:g} s", status=408) from None
        return thin.close()

    async def body(self, kind: type[T]) -> T:
        """Return the JSON body as a record.

        Raises:
            BadRequest: not JSON of that form; it names the place.
        """
        if self.request.content_type not in {"application/json", "application/octet-stream"}:
            raise BadRequest(f"content type {self.request.content_type}; send application/json", status=415)
        raw = await self.raw()
        try:
            return msgspec.json.decode(raw or b"{}", type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
            raise BadRequest(f"body: {why}") from None

    def revision(self, *, required: bool = True) -> int | None:
        """Return the revision of `If-Match`.

        Raises:
            BadRequest: it is missing (428) or no revision.
        """
        text = self.request.headers.get("If-Match", "")
        if not text:
            if required:
                raise BadRequest("send If-Match with the revision that you read", status=428)
            return None
        number = text.removeprefix("W/").strip('"')
        if not (number.isascii() and number.isdigit() and len(number) < 20):
            raise BadRequest(f"If-Match: '{text[:40]}' is not a revision")
        return int(number)


def check(call: Call, route: Route) -> None:
    """Return if the call may go on: token, role, and no unknown query parameter.

    Raises:
        PermissionDenied, Overloaded, BadRequest.
    """
    if route.token:
        call.identify()
        if route.action and not may(call.principal, route.action):
            raise PermissionDenied(lacking(call.principal, route.action))
    known = [param.name for param in route.query]
    for name in call.request.query:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            remedy = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known) or 'none'}"
            raise BadRequest(f"query: unknown parameter '{name[:40]}'; {remedy}")


def iso(time: int) -> str:
    """Return a time (µs) as ISO 8601 with `Z`; empty for 0."""
    return (
        datetime.fromtimestamp(time / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if time
        else ""
    )


def payload_text(payload: bytes, most: int = 4_096) -> str:
    """Return a payload for people: text where it is UTF-8, else base64; cut to `most` bytes."""
    part = payload[:most]
    try:
        return part.decode()
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(part).decode()}"
