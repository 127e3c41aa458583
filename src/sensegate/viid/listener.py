"""The listener of GA/T 1400 (VIID), apart from the console: registration, objects, catalogues, subscriptions.

Paths are read without regard to case. Every answer is a status object, whatever went wrong; a status for an object is
given when its commit is on the log, never before.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol

import aiohttp
import msgspec
import structlog
from aiohttp import web

from sensegate import metrics
from sensegate.authority.devices import Devices
from sensegate.clock import Clock
from sensegate.config.viid import ViidConfig, ViidDeviceConfig
from sensegate.errors import ConfigError, NotFound, Overloaded, Rejected, SensegateError, StoreFull, Unavailable
from sensegate.model import Device
from sensegate.video.formats import viid_responses as answers
from sensegate.video.formats.viid_read import decode_body, lower_keys
from sensegate.video.formats.viid_responses import ObjectResult
from sensegate.viid.digest_auth import Denied, Digest
from sensegate.viid.password_digests import Digests
from sensegate.viid.sessions import Lockouts, Session, Sessions
from sensegate.web.listener import HttpListener

_log = structlog.get_logger(__name__)

COLLECTIONS: Final = {
    "motorvehicles": "MotorVehicle",
    "nonmotorvehicles": "NonMotorVehicle",
    "persons": "Person",
    "faces": "Face",
    "things": "Thing",
    "scenes": "Scene",
    "videolabels": "VideoLabel",
    "vehiclesflows": "VehiclesFlow",
    "images": "Image",
    "imageinfos": "Image",
    "videoslices": "VideoSlice",
    "videosliceinfos": "VideoSlice",
    "files": "File",
    "fileinfos": "File",
    "cases": "Case",
    "caseinfos": "Case",
    "apes": "APE",
    "apss": "APS",
    "tollgates": "Tollgate",
    "lanes": "Lane",
    "apestatuss": "APEStatus",
    "apestatus": "APEStatus",
    "subscribenotifications": "SubscribeNotification",
}
"""Path below /VIID, folded -> kind of its objects."""
CATALOGUES: Final = frozenset({"APE", "APS", "Tollgate", "Lane"})
SYSTEM_BYTES_MAX: Final = 65_536
SWEEP_S: Final = 5.0
_METHODS: Final = ("GET", "POST", "PUT", "DELETE")


class Taken(Protocol):
    """What became of a body (`collect.viid.Outcome`)."""

    @property
    def answers(self) -> Sequence[ObjectResult]: ...
    @property
    def listed(self) -> bool: ...
    @property
    def at(self) -> int: ...


class Orders(Protocol):
    """Subscriptions of platforms above (`publish.viid_orders.Orders`)."""

    async def place(self, peer: str, payload: bytes) -> Sequence[ObjectResult]:
        """Make, change or cancel subscriptions. Raises `Rejected`."""
        ...

    async def remove(self, peer: str, names: Sequence[str]) -> Sequence[ObjectResult]:
        """Cancel subscriptions."""
        ...

    def listed(self, peer: str) -> bytes:
        """Return the peer's subscriptions as an envelope."""
        ...


class ViidDeps(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What the listener is handed by the wiring."""

    config: ViidConfig
    clock: Clock
    devices: Devices
    digests: Digests
    take: Callable[[Device, bytes, frozenset[str]], Awaitable[Taken]]
    """(sender, body, kinds) -> what became of it, after the commit."""
    orders: Orders
    catalogue: Callable[[Device, str, Sequence[str]], bytes]
    """(asker, kind, ids or none for all) -> an envelope of what it may see."""
    alive: Callable[[Device], None] = lambda _device: None
    """A device has given a sign of life."""
    registered: Callable[[Device], None] = lambda _device: None
    gone: Callable[[str], None] = lambda _device: None
    """The registration of a device (by id) has ended or lapsed."""
    superior: Callable[[str, str], bool] = lambda _code, _address: False
    """Whether a code is that of a platform above, which asks from there without being a device here."""


class _Refusal(Exception):
    """A request ends with this answer."""

    def __init__(self, status: int, answer: ObjectResult, *, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.status = status
        self.answer = answer
        self.headers = headers
        super().__init__(answer.text)


class _Asker(NamedTuple):
    """Who asks."""

    code: str
    """As it calls itself."""
    device: Device
    session: Session | None
    superior: bool = False
    """Whether it is a platform above, which may subscribe; without a session it may do that alone."""


class ViidWeb:
    """The listener."""

    def __init__(self, deps: ViidDeps) -> None:
        self.deps = deps
        config = deps.config
        self.sessions = Sessions(config)
        self.lockouts = Lockouts(config)
        self._digest = Digest(config.realm, nonce_s=config.nonce_lifetime_s)
        self._addresses = Lockouts(
            msgspec.structs.replace(config, auth_failures_max=config.auth_failures_max * 20, lockout_s=60.0)
        )
        self._manners = {device.device: device for device in config.devices}
        self._reading = 0
        self._listener = HttpListener(
            "viid.port", connections_max=config.connections_max, header_timeout_s=10.0, reports_truncation=True
        )

    # ── listening ────────────────────────────────────────────────────────────────────────────────────

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._serve, expect_handler=self._expect)
        return app

    async def start(self) -> str:
        """Listen; return the base URL. Raises `ConfigError`."""
        config = self.deps.config
        return await self._listener.start(self.app(), [config.host], config.port, _tls(config))

    async def stop(self) -> None:
        """Close the listener; short answers finish."""
        await self._listener.stop()

    async def _expect(self, request: web.Request) -> web.StreamResponse | None:
        """Refuse a body that is too large before it is sent (`Expect: 100-continue`)."""
        if (request.content_length or 0) > self.deps.config.body_bytes_max:
            return None  # the handler answers 413 and reads nothing
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    # ── every request ────────────────────────────────────────────────────────────────────────────────

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        device = request.headers.get("User-Identify", "").strip()[:64]
        closes = False
        headers: Sequence[tuple[str, str]] = ()
        try:
            status, body = 200, await self._route(request)
        except _Refusal as why:
            status, headers = why.status, why.headers
            body = self._single(request, why.answer)
            closes = status in {400, 408, 413}
        except Rejected as why:
            code = answers.BAD_JSON if why.reason in {"malformed", "not_utf8", "too_deep"} else answers.BAD_CONTENT
            status = 413 if why.reason == "too_large" else 400
            body = self._single(request, ObjectResult(device, code, why.detail))
        except Overloaded as why:
            status, headers = 503, [("Retry-After", str(max(1, round(why.retry_after_s))))]
            body = self._single(request, ObjectResult(device, answers.BUSY, str(why)))
        except (Unavailable, StoreFull):
            status, headers = 503, [("Retry-After", "1")]
            body = self._single(request, ObjectResult(device, answers.BUSY, "not committed in time; send it again"))
        except NotFound as why:
            status, body = 404, self._single(request, ObjectResult(device, answers.INVALID_OPERATION, str(why)))
        except SensegateError as why:
            what = COLLECTIONS.get(request.path.lower().strip("/").partition("/")[2].partition("/")[0], "")  # no id
            _log.warning("VIID: a request was not done", kind=what, cause=type(why).__name__)
            status, body = 500, self._single(request, ObjectResult(device, answers.OTHER_ERROR))
        metrics.VIID_REQUESTS.labels(str(status)).inc()
        response = web.Response(status=status, body=body)
        response.headers["Content-Type"] = f"{answers.MEDIA};charset=UTF-8"
        response.headers["Server"] = "sensegate"
        for name, value in headers:
            response.headers.add(name, value)
        if closes:
            response.force_close()
        return response

    def _single(self, request: web.Request, answer: ObjectResult) -> bytes:
        return answers.encode_status(request.path[:200], answer, self.deps.clock.now())

    async def _route(self, request: web.Request) -> bytes:  # noqa: PLR0911 - a table
        parts = [part for part in request.path.split("/") if part]
        if not parts or parts[0].lower() != "viid" or request.method not in _METHODS:
            raise _Refusal(404, ObjectResult("", answers.INVALID_OPERATION, "no such path; all begin with /VIID/"))
        low = [part.lower() for part in parts[1:]]
        match low:
            case ["system", "register"]:
                return await self._register(request)
            case ["system", "unregister"]:
                return await self._unregister(request)
            case ["system", "keepalive"]:
                return await self._keepalive(request)
            case ["system", "time"]:
                return self._time()
            case ["subscribes", *rest] if rest != ["notifications"]:
                return await self._subscribes(request, parts[3:])
            case ["subscribe", "notifications"] | ["subscribes", "notifications"]:
                return await self._objects(request, "SubscribeNotification", [])
            case [name, *_] if name in COLLECTIONS:
                return await self._objects(request, COLLECTIONS[name], parts[2:])
        raise _Refusal(404, ObjectResult("", answers.INVALID_OPERATION, f"no such path: {request.path[:100]}"))

    # ── who asks ─────────────────────────────────────────────────────────────────────────────────────

    def _address(self, request: web.Request) -> str:
        return request.remote or ""

    def _certificate(self, request: web.Request) -> str:
        transport = request.transport
        shown = transport.get_extra_info("ssl_object") if transport is not None else None
        raw = shown.getpeercert(binary_form=True) if shown is not None else None
        return hashlib.sha256(raw).hexdigest() if raw else ""

    def _challenge(self, code: str, why: str, *, stale: bool = False, status: int = 401) -> _Refusal:
        manners = self._manners.get(code, ViidDeviceConfig(device=code))
        algorithms = manners.algorithms or self.deps.config.algorithms
        lines = self._digest.challenges(
            algorithms, self.deps.clock.monotonic(), stale=stale, compact=manners.compact_challenge
        )
        headers = [("WWW-Authenticate", line) for line in lines]
        return _Refusal(status, ObjectResult(code, answers.INVALID_OPERATION, why), headers=headers)

    def _prove(self, request: web.Request, code: str) -> Device:
        """Return the device whose digest the request carries. Raises a challenge, or that it must wait."""
        header = request.headers.get("Authorization", "")
        if not header:
            raise self._challenge(code, "who are you? answer the digest")
        now, address = self.deps.clock.monotonic(), self._address(request)
        if left := self._addresses.left_s("", address, now):
            raise Overloaded("too many wrong passwords from this address", retry_after_s=left)
        found: list[Device] = []
        named = code

        def known(user: str, algorithm: str) -> list[str]:
            nonlocal named
            named = user[:64]
            if left := self.lockouts.left_s(named, address, now):
                text = "too many wrong passwords; locked out for a while"
                raise _Refusal(
                    403,
                    ObjectResult(code, answers.INVALID_OPERATION, text),
                    headers=[("Retry-After", str(round(left) + 1))],
                )
            held = self.deps.devices.digests(user)
            if held is None or not held[1]:
                return [self.deps.digests.nobody(user)]
            found.append(held[0])
            return [self.deps.digests.open(nonce, held[0].id, user, algorithm) for nonce in held[1]]

        try:
            user = self._digest.verify(header, request.method, request.raw_path, known, now)
        except Denied as why:
            if why.wrong:
                metrics.PERMISSION_DENIED.labels("viid").inc()
                self._addresses.failed("", address, now)
                self.lockouts.failed(named, address, now)
            raise self._challenge(code, why.why, stale=why.stale) from why
        self.lockouts.passed(user, address)
        return found[0]

    def forget(self, device: str) -> None:
        """End the registration of a device that may not go on: disabled, or its password was changed."""
        if self.sessions.close(device) is not None:
            _log.info("VIID: a registration is ended here", device=device)
            self.deps.gone(device)

    async def sweep(self) -> None:
        """Tell of registrations that lapse, until cancelled."""
        while True:
            await self.deps.clock.sleep(min(SWEEP_S, self.deps.config.session_timeout_s / 4))
            for session in self.sessions.lapsed(self.deps.clock.monotonic()):
                _log.info("VIID: a registration has lapsed", device=session.device)
                self.deps.gone(session.device)

    async def _system(self, request: web.Request, envelope: str) -> str:
        """Return the DeviceID of a system request."""
        payload = await self._body(request, SYSTEM_BYTES_MAX)
        if not payload and not request.headers.get("Authorization"):
            raise self._challenge("", "who are you? answer the digest")  # how curl asks whether it must
        inner = decode_body(payload).get(envelope)
        code = lower_keys(inner).get("deviceid") if isinstance(inner, dict) else None
        if not isinstance(code, str) or not code.strip() or len(code) > 64:
            raise Rejected("schema", f"the body must be {{{envelope}: {{DeviceID: 20 digits}}}}")
        return code.strip()

    async def _register(self, request: web.Request) -> bytes:
        code = await self._system(request, "registerobject")
        device = self._prove(request, code)
        self._demand_same(device, code)
        now, at = self.deps.clock.monotonic(), self.deps.clock.now()
        session = Session(device.id, self._address(request), self._certificate(request), at, now, at)
        self.sessions.open(session)
        _log.info("VIID: registered", device=device.id, address=session.address)
        self.deps.alive(device)
        self.deps.registered(device)
        return self._single(request, ObjectResult(code))

    async def _unregister(self, request: web.Request) -> bytes:
        code = await self._system(request, "unregisterobject")
        by_session = self.deps.config.unregister_auth == "session" and not request.headers.get("Authorization")
        device = self._asker(request, code).device if by_session else self._prove(request, code)
        self._demand_same(device, code)
        if self.sessions.close(device.id) is None:
            raise _Refusal(401, ObjectResult(code, answers.INVALID_OPERATION, "not registered"))
        _log.info("VIID: unregistered", device=device.id)
        self.deps.gone(device.id)
        return self._single(request, ObjectResult(code))

    def _demand_same(self, device: Device, code: str) -> None:
        if code not in {device.id, device.alias}:
            text = "DeviceID is not the one whose password this is"
            raise _Refusal(403, ObjectResult(code, answers.INVALID_OPERATION, text))

    async def _keepalive(self, request: web.Request) -> bytes:
        code = await self._system(request, "keepaliveobject")
        asker = self._asker(request, code)
        if asker.session is not None:
            self._demand_same(asker.device, code)
        self.deps.alive(asker.device)
        return self._single(request, ObjectResult(code))

    def _asker(self, request: web.Request, code: str = "") -> _Asker:
        """Return who asks: by its registration, and by its digest where it sends one. Raises 401 with a challenge."""
        code = request.headers.get("User-Identify", "").strip() or code
        proved = self._prove(request, code) if request.headers.get("Authorization") else None
        if proved is not None and not code:
            code = proved.id
        superior = bool(code) and self.deps.superior(code, self._address(request))
        at = self.deps.devices.find(code) if code else -1
        device = self.deps.devices.record(at) if at >= 0 and self.deps.devices.enabled[at] else None
        now = self.deps.clock.monotonic()
        session = None
        if device is not None and (proved is None or proved.id == device.id):
            session = self.sessions.of(device.id, self._address(request), self._certificate(request), now)
        if superior and session is None:
            return _Asker(code, Device(code, "", ""), None, superior=True)
        if device is None or session is None:
            metrics.PERMISSION_DENIED.labels("viid").inc()
            raise self._challenge(code[:64], "not registered; register first (POST /VIID/System/Register)")
        self.sessions.renew(session, now, self.deps.clock.now())
        return _Asker(code, device, session, superior)

    def _time(self) -> bytes:
        told = {
            "VIIDServerID": self.deps.config.server_id,
            "TimeMode": "1",
            "LocalTime": answers.format_beijing(self.deps.clock.now()),
            "TimeZone": self.deps.config.time_zone,
        }
        return msgspec.json.encode({"SystemTimeObject": told})

    # ── objects ──────────────────────────────────────────────────────────────────────────────────────

    async def _objects(self, request: web.Request, kind: str, rest: list[str]) -> bytes:
        if request.method == "GET":
            return self._listed(request, kind, rest)
        if request.method == "DELETE":
            self._asker(request)
            raise _Refusal(405, ObjectResult("", answers.INVALID_OPERATION, "what was reported is not taken back"))
        if rest[1:] and rest[1].lower() == "data":
            self._asker(request)
            text = "pictures and recordings are not taken; send what they show"
            raise _Refusal(403, ObjectResult(rest[0][:64], answers.INVALID_OPERATION, text))
        if not request.can_read_body and not request.headers.get("Authorization"):
            raise self._challenge("", "who are you? answer the digest")  # how curl asks whether it must
        asker = self._asker(request)
        if asker.session is None:
            text = "a platform above sends no objects unless it registers"
            raise _Refusal(403, ObjectResult("", answers.INVALID_OPERATION, text))
        payload = await self._body(request, self.deps.config.body_bytes_max)
        kinds = frozenset({kind, "APEStatus"}) if kind == "APE" else frozenset({kind})
        if kind == "SubscribeNotification":
            kinds = frozenset()
        taken = await self.deps.take(asker.device, payload, kinds)
        asker.session.objects += len(taken.answers)
        if taken.at:
            asker.session.offsets.append(self.deps.clock.now() - taken.at)
        self.deps.alive(asker.device)
        manners = self._manners.get(asker.device.id) or self._manners.get(asker.device.alias)
        now, path = self.deps.clock.now(), request.path[:200]
        if rest or not taken.listed or (manners is not None and manners.batch_reply == "single"):
            return answers.encode_status(path, answers.combine_results(taken.answers), now)
        return answers.encode_status_list(path, taken.answers, now)

    def _listed(self, request: web.Request, kind: str, rest: list[str]) -> bytes:
        asker = self._asker(request)
        if kind not in CATALOGUES:
            text = "what was reported is read from the feeds"
            raise _Refusal(405, ObjectResult("", answers.INVALID_OPERATION, text))
        return self.deps.catalogue(asker.device, kind, rest[:1])

    async def _subscribes(self, request: web.Request, rest: list[str]) -> bytes:
        if request.method in {"POST", "PUT"} and not request.can_read_body and not request.headers.get("Authorization"):
            raise self._challenge("", "who are you? answer the digest")
        asker = self._asker(request)
        if not asker.superior:
            text = "only the platforms above that are configured subscribe here (viid.superiors)"
            raise _Refusal(403, ObjectResult("", answers.INVALID_OPERATION, text))
        peer, now, path = asker.code, self.deps.clock.now(), request.path[:200]
        if request.method == "GET":
            return self.deps.orders.listed(peer)
        if request.method == "DELETE":
            names = rest[:1] or [
                identifier.strip() for identifier in request.query.get("IDList", "").split(",") if identifier.strip()
            ]
            return answers.encode_status_list(path, await self.deps.orders.remove(peer, names[:1_000]), now)
        payload = await self._body(request, SYSTEM_BYTES_MAX * 16)
        told = await self.deps.orders.place(peer, payload)
        return (
            answers.encode_status(path, answers.combine_results(told), now)
            if rest
            else answers.encode_status_list(path, told, now)
        )

    # ── bodies ───────────────────────────────────────────────────────────────────────────────────────

    async def _body(self, request: web.Request, most: int) -> bytes:
        """Return the body, read in pieces.

        Raises:
            _Refusal: too large (413), compressed or cut off (400), too slow (408). Overloaded: too many at a time.
        """
        code = request.headers.get("User-Identify", "").strip()[:64]
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise _Refusal(400, ObjectResult(code, answers.BAD_JSON, "compressed bodies are not taken"))
        if (request.content_length or 0) > most:
            metrics.LIMIT_HITS.labels("viid_body").inc()
            raise _Refusal(413, ObjectResult(code, answers.BAD_CONTENT, f"a body has at most {most} bytes"))
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.deps.config.body_timeout_s):
                async for piece in request.content.iter_any():
                    size += len(piece)
                    self._reading += len(piece)
                    if size > most:
                        metrics.LIMIT_HITS.labels("viid_body").inc()
                        raise _Refusal(413, ObjectResult(code, answers.BAD_CONTENT, f"a body has at most {most} bytes"))
                    if self._reading > self.deps.config.bodies_total_bytes_max:
                        metrics.LIMIT_HITS.labels("viid_bodies").inc()
                        raise Overloaded("too many large bodies at a time; try again")
                    pieces.append(piece)
        except TimeoutError:
            raise _Refusal(408, ObjectResult(code, answers.BAD_JSON, "the body is not complete")) from None
        except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, ConnectionError, EOFError):
            raise _Refusal(400, ObjectResult(code, answers.BAD_JSON, "the body was cut off")) from None
        finally:
            self._reading -= size
        return b"".join(pieces)


def _tls(config: ViidConfig) -> ssl.SSLContext | None:
    if not config.cert_file:
        if config.host not in {"127.0.0.1", "::1", "localhost"} and not config.allow_plaintext:
            raise ConfigError(
                f"{config.host} without TLS",
                key="viid.cert_file",
                remedy="give a certificate, or say viid.allow_plaintext: true",
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.cert_file, config.key_file or None)
        if config.ca_file:
            context.load_verify_locations(config.ca_file)
            context.verify_mode = ssl.CERT_OPTIONAL
    except (OSError, ssl.SSLError) as why:
        raise ConfigError(f"certificate cannot be used: {why}", key="viid.cert_file", remedy="PEM files") from why
    return context
