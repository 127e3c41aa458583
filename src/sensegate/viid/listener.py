"""The GA/T 1400 (VIID) listener: registration, objects, catalogues, subscriptions.

Paths are case-insensitive. Every response is a status object, also for errors; the status of an object is sent only
after its commit is on the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol

import aiohttp
import msgspec
import structlog
from aiohttp import web

from sensegate import metrics
from sensegate.authority.devices import Devices
from sensegate.bus.trust import server_context
from sensegate.clock import Clock
from sensegate.config import WebConfig
from sensegate.config.viid import ViidConfig, ViidDeviceConfig
from sensegate.errors import ConfigError, NotFound, Overloaded, Rejected, SensegateError, StoreFull, Unavailable
from sensegate.model import Device
from sensegate.video.formats import viid_responses as answers
from sensegate.video.formats.viid_read import decode_body, lower_keys
from sensegate.video.formats.viid_responses import ObjectResult
from sensegate.viid.digest_auth import DigestError, DigestVerifier
from sensegate.viid.password_digests import PasswordDigests
from sensegate.viid.sessions import LoginLockouts, ViidSession, ViidSessions
from sensegate.web.addresses import client_address
from sensegate.web.listener import HttpListener
from sensegate.web.quotas import CallerQuota

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
"""Kind of objects by path below /VIID, in lower case."""
CATALOGUES: Final = frozenset({"APE", "APS", "Tollgate", "Lane"})
SENDER_SHARE: Final = 4
"""Part of setting ``viid.bodies_total_bytes_max`` that the bodies of one sender may fill: one quarter."""
SYSTEM_BYTES_MAX: Final = 65_536
SWEEP_S: Final = 5.0
_METHODS: Final = ("GET", "POST", "PUT", "DELETE")


class TakenBody(Protocol):
    """The outcome of a body (`viid.source.BodyOutcome`)."""

    @property
    def answers(self) -> Sequence[ObjectResult]: ...
    @property
    def listed(self) -> bool: ...
    @property
    def at(self) -> int: ...


class SubscriptionStore(Protocol):
    """The subscriptions of superior platforms (`viid.subscriptions.ViidSubscriptions`)."""

    async def update(self, peer: str, payload: bytes) -> Sequence[ObjectResult]:
        """Create, change or cancel subscriptions. Raises `Rejected`."""
        ...

    async def remove(self, peer: str, names: Sequence[str]) -> Sequence[ObjectResult]:
        """Cancel subscriptions."""
        ...

    def listed(self, peer: str) -> bytes:
        """Return the peer's subscriptions as an envelope."""
        ...


class ViidDeps(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The collaborators of the listener."""

    config: ViidConfig
    web: WebConfig
    """The reverse proxies that are trusted, as for the other HTTP listener."""
    clock: Clock
    devices: Devices
    digests: PasswordDigests
    take: Callable[[Device, bytes, frozenset[str]], Awaitable[TakenBody]]
    """(sender, body, kinds) -> outcome, after the commit."""
    orders: SubscriptionStore
    catalogue: Callable[[Device, str, Sequence[str]], bytes]
    """(requester, kind, ids or none for all) -> envelope of the entries that it may see."""
    alive: Callable[[Device], None] = lambda _device: None
    """Callback: a device sent a request."""
    registered: Callable[[Device], None] = lambda _device: None
    gone: Callable[[str], None] = lambda _device: None
    """Callback: the registration of a device (by id) has ended or lapsed."""
    superior: Callable[[str, str], bool] = lambda _code, _address: False
    """True if a code and address are those of a superior platform, which need not be a device here."""


class _Refusal(Exception):
    """The request ends with this response."""

    def __init__(self, status: int, answer: ObjectResult, *, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.status = status
        self.answer = answer
        self.headers = headers
        super().__init__(answer.text)


class _Requester(NamedTuple):
    """The sender of a request."""

    code: str
    """Its User-Identify."""
    device: Device
    session: ViidSession | None
    superior: bool = False
    """True if it is a superior platform, which may subscribe; without a session it may do nothing else."""


class ViidListener:
    """The HTTP listener of GA/T 1400."""

    def __init__(self, deps: ViidDeps) -> None:
        self.deps = deps
        config = deps.config
        self.sessions = ViidSessions(config)
        self.lockouts = LoginLockouts(config)
        self._digest = DigestVerifier(config.realm, nonce_lifetime_s=config.nonce_lifetime_s)
        self._addresses = LoginLockouts(
            msgspec.structs.replace(config, auth_failures_max=config.auth_failures_max * 20, lockout_s=60.0)
        )
        self._deviations = {device.device: device for device in config.devices}
        self._reading = 0
        self._listener = HttpListener(
            "viid.port",
            connections_max=config.connections_max,
            per_address_max=config.connections_per_address_max,
            header_timeout_s=10.0,
            reports_truncation=True,
        )
        self._requests = CallerQuota("viid.requests_per_device_max", "requests", config.requests_per_device_max)
        self._bytes_per_sender_max = max(config.body_bytes_max, config.bodies_total_bytes_max // SENDER_SHARE)
        self._bytes_of: Counter[str] = Counter()
        """Bytes of bodies in memory, by sender."""

    # ── listening ────────────────────────────────────────────────────────────────────────────────────

    def app(self) -> web.Application:
        """Return the HTTP application."""
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._serve, expect_handler=self._expect)
        return app

    async def start(self) -> str:
        """Start listening; return the base URL. Raises `ConfigError`."""
        config = self.deps.config
        return await self._listener.start(self.app(), [config.host], config.port, _tls(config))

    async def stop(self) -> None:
        """Stop listening; short responses are finished."""
        await self._listener.stop()

    async def _expect(self, request: web.Request) -> web.StreamResponse | None:
        """Reject a body that is too large before it is sent (`Expect: 100-continue`)."""
        if (request.content_length or 0) > self.deps.config.body_bytes_max:
            return None  # the handler responds with 413 without reading
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    # ── every request ────────────────────────────────────────────────────────────────────────────────

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        device = _code_of(request)
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
            kind = COLLECTIONS.get(request.path.lower().strip("/").partition("/")[2].partition("/")[0], "")  # no id
            _log.warning("VIID: request failed", kind=kind, reason=type(why).__name__)
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
                return await self._subscribes(request, parts[2:])
            case ["subscribe", "notifications"] | ["subscribes", "notifications"]:
                return await self._objects(request, "SubscribeNotification", [])
            case [name, *_] if name in COLLECTIONS:
                return await self._objects(request, COLLECTIONS[name], parts[2:])
        raise _Refusal(404, ObjectResult("", answers.INVALID_OPERATION, f"no such path: {request.path[:100]}"))

    # ── authentication ────────────────────────────────────────────────────────────────────────────────────

    def _address(self, request: web.Request) -> str:
        """Return the address of the sender, also behind the trusted proxies of the configuration."""
        return client_address(request, self.deps.web)

    def _certificate(self, request: web.Request) -> str:
        transport = request.transport
        shown = transport.get_extra_info("ssl_object") if transport is not None else None
        raw = shown.getpeercert(binary_form=True) if shown is not None else None
        return hashlib.sha256(raw).hexdigest() if raw else ""

    def _challenge(self, code: str, why: str, *, stale: bool = False) -> _Refusal:
        deviations = self._deviations.get(code, ViidDeviceConfig(device=code))
        algorithms = deviations.algorithms or self.deps.config.algorithms
        lines = self._digest.challenges(
            algorithms, self.deps.clock.monotonic(), stale=stale, compact=deviations.compact_challenge
        )
        headers = [("WWW-Authenticate", line) for line in lines]
        return _Refusal(401, ObjectResult(code, answers.INVALID_OPERATION, why), headers=headers)

    def _prove(self, request: web.Request, code: str) -> Device:
        """Return the device that the digest of a request authenticates. Raises a challenge, or a lock-out."""
        header = request.headers.get("Authorization", "")
        if not header:
            raise self._challenge(code, "authentication required: answer the digest challenge")
        now, address = self.deps.clock.monotonic(), self._address(request)
        devices: list[Device] = []
        named = code

        def known(user: str, algorithm: str) -> list[str]:
            nonlocal named
            named = user[:64]
            if remaining_s := self.lockouts.left_s(named, address, now):
                text = "too many wrong passwords; locked out for a while"
                raise _Refusal(
                    403,
                    ObjectResult(code, answers.INVALID_OPERATION, text),
                    headers=[("Retry-After", str(round(remaining_s) + 1))],
                )
            stored = self.deps.devices.digests(user)
            if stored is None or not stored[1]:
                return [self.deps.digests.nobody(user)]
            devices.append(stored[0])
            return [self.deps.digests.open(nonce, stored[0].id, user, algorithm) for nonce in stored[1]]

        try:
            user = self._digest.verify(header, request.method, request.raw_path, known, now)
        except DigestError as why:
            if why.wrong:
                metrics.PERMISSION_DENIED.labels("viid").inc()
                self.lockouts.failed(named, address, now)
                self._addresses.failed("", address, now)
                # After the check: wrong passwords of others never lock out a device with the right one.
                if remaining_s := self._addresses.left_s("", address, now):
                    text = "too many wrong passwords from this address; wait"
                    raise Overloaded(text, retry_after_s=remaining_s) from why
            raise self._challenge(code, why.why, stale=why.stale) from why
        self.lockouts.passed(user, address)
        return devices[0]

    def forget(self, device: str) -> None:
        """End the registration of a device that was disabled or whose password was changed."""
        if self.sessions.close(device) is not None:
            _log.info("VIID: registration ended by the gateway", device=device)
            self.deps.gone(device)

    async def sweep(self) -> None:
        """Report lapsed registrations, until cancelled."""
        while True:
            await self.deps.clock.sleep(min(SWEEP_S, self.deps.config.session_timeout_s / 4))
            for session in self.sessions.lapsed(self.deps.clock.monotonic()):
                _log.info("VIID: registration lapsed", device=session.device)
                self.deps.gone(session.device)

    async def _system(self, request: web.Request, envelope: str) -> str:
        """Return the DeviceID of a system request."""
        async with self._body(request, SYSTEM_BYTES_MAX) as payload:
            if not payload and not request.headers.get("Authorization"):
                raise self._challenge(
                    "", "authentication required: answer the digest challenge"
                )  # curl first sends an empty request
            inner = decode_body(payload).get(envelope)
        code = lower_keys(inner).get("deviceid") if isinstance(inner, dict) else None
        if not isinstance(code, str) or not code.strip() or len(code) > 64:
            raise Rejected("schema", f"the body must be {{{envelope}: {{DeviceID: 20 digits}}}}")
        return code.strip()

    async def _register(self, request: web.Request) -> bytes:
        code = await self._system(request, "registerobject")
        device = self._prove(request, code)
        self._require_own_id(device, code)
        now, at = self.deps.clock.monotonic(), self.deps.clock.now()
        session = ViidSession(device.id, self._address(request), self._certificate(request), at, now, at)
        self.sessions.open(session)
        _log.info("VIID: registered", device=device.id, address=session.address)
        self.deps.alive(device)
        self.deps.registered(device)
        return self._single(request, ObjectResult(code))

    async def _unregister(self, request: web.Request) -> bytes:
        code = await self._system(request, "unregisterobject")
        by_session = self.deps.config.unregister_auth == "session" and not request.headers.get("Authorization")
        device = self._requester(request, code).device if by_session else self._prove(request, code)
        self._require_own_id(device, code)
        if self.sessions.close(device.id) is None:
            raise self._challenge(code[:64], "not registered")
        _log.info("VIID: unregistered", device=device.id)
        self.deps.gone(device.id)
        return self._single(request, ObjectResult(code))

    def _require_own_id(self, device: Device, code: str) -> None:
        if code not in {device.id, device.alias}:
            text = "DeviceID does not belong to this password"
            raise _Refusal(403, ObjectResult(code, answers.INVALID_OPERATION, text))

    async def _keepalive(self, request: web.Request) -> bytes:
        code = await self._system(request, "keepaliveobject")
        asker = self._requester(request, code)
        if asker.session is not None:
            self._require_own_id(asker.device, code)
        self.deps.alive(asker.device)
        return self._single(request, ObjectResult(code))

    def _requester(self, request: web.Request, code: str = "") -> _Requester:
        """Return the sender by its registration, and by its digest if it sends one. Raises 401 with a challenge."""
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
            session = self.sessions.find(device.id, self._address(request), self._certificate(request), now)
        if superior and session is None:
            return _Requester(code, Device(code, "", ""), None, superior=True)
        if device is None or session is None:
            metrics.PERMISSION_DENIED.labels("viid").inc()
            raise self._challenge(code[:64], "not registered; register first (POST /VIID/System/Register)")
        self.sessions.renew(session, now, self.deps.clock.now())
        return _Requester(code, device, session, superior)

    def _time(self) -> bytes:
        answer = {
            "VIIDServerID": self.deps.config.server_id,
            "TimeMode": "1",
            "LocalTime": answers.format_beijing(self.deps.clock.now()),
            "TimeZone": self.deps.config.time_zone,
        }
        return msgspec.json.encode({"SystemTimeObject": answer})

    # ── objects ──────────────────────────────────────────────────────────────────────────────────────

    async def _objects(self, request: web.Request, kind: str, rest: list[str]) -> bytes:
        if request.method == "GET":
            return self._listed(request, kind, rest)
        if request.method == "DELETE":
            self._requester(request)
            text = "what was reported is not taken back"
            raise _Refusal(405, ObjectResult("", answers.INVALID_OPERATION, text), headers=_allowed(kind))
        if rest[1:] and rest[1].lower() == "data":
            self._requester(request)
            text = "pictures and recordings are not accepted; send their metadata"
            raise _Refusal(403, ObjectResult(rest[0][:64], answers.INVALID_OPERATION, text))
        if not request.can_read_body and not request.headers.get("Authorization"):
            raise self._challenge(
                "", "authentication required: answer the digest challenge"
            )  # curl first sends an empty request
        asker = self._requester(request)
        if asker.session is None:
            text = "a superior platform must register before it sends objects"
            raise _Refusal(403, ObjectResult("", answers.INVALID_OPERATION, text))
        kinds = frozenset({kind, "APEStatus"}) if kind == "APE" else frozenset({kind})
        if kind == "SubscribeNotification":
            kinds = frozenset()
        with self._requests.held(asker.device.id):
            async with self._body(request, self.deps.config.body_bytes_max, sender=asker.device.id) as payload:
                taken = await self.deps.take(asker.device, payload, kinds)
        asker.session.objects += len(taken.answers)
        if taken.at:
            asker.session.offsets.append(self.deps.clock.now() - taken.at)
        self.deps.alive(asker.device)
        manners = self._deviations.get(asker.device.id) or self._deviations.get(asker.device.alias)
        now, path = self.deps.clock.now(), request.path[:200]
        if rest or not taken.listed or (manners is not None and manners.batch_reply == "single"):
            return answers.encode_status(path, answers.combine_results(taken.answers), now)
        return answers.encode_status_list(path, taken.answers, now)

    def _listed(self, request: web.Request, kind: str, rest: list[str]) -> bytes:
        asker = self._requester(request)
        if kind not in CATALOGUES:
            text = "reported objects can be read only from the feeds"
            raise _Refusal(405, ObjectResult("", answers.INVALID_OPERATION, text), headers=_allowed(kind))
        return self.deps.catalogue(asker.device, kind, rest[:1])

    async def _subscribes(self, request: web.Request, rest: list[str]) -> bytes:
        if request.method in {"POST", "PUT"} and not request.can_read_body and not request.headers.get("Authorization"):
            raise self._challenge("", "authentication required: answer the digest challenge")
        asker = self._requester(request)
        if not asker.superior:
            text = "only configured superior platforms may subscribe (viid.superiors)"
            raise _Refusal(403, ObjectResult("", answers.INVALID_OPERATION, text))
        peer, now, path = asker.code, self.deps.clock.now(), request.path[:200]
        if request.method == "GET":
            return self.deps.orders.listed(peer)
        if request.method == "DELETE":
            names = rest[:1] or [
                identifier.strip() for identifier in request.query.get("IDList", "").split(",") if identifier.strip()
            ]
            return answers.encode_status_list(path, await self.deps.orders.remove(peer, names[:1_000]), now)
        with self._requests.held(peer):
            async with self._body(request, SYSTEM_BYTES_MAX * 16, sender=peer) as payload:
                results = await self.deps.orders.update(peer, payload)
        return (
            answers.encode_status(path, answers.combine_results(results), now)
            if rest
            else answers.encode_status_list(path, results, now)
        )

    # ── bodies ───────────────────────────────────────────────────────────────────────────────────────

    @contextlib.asynccontextmanager
    async def _body(self, request: web.Request, limit: int, *, sender: str = "") -> AsyncIterator[bytes]:
        """Yield the body, read in pieces; its bytes are counted until the end of the block that uses it.

        `sender`: who is authenticated, else they count for the address.

        Raises:
            _Refusal: too large (413), compressed or cut off (400), too slow (408). Overloaded: too many at a time.
        """
        code = _code_of(request)
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise _Refusal(400, ObjectResult(code, answers.BAD_JSON, "compressed bodies are not accepted"))
        if (request.content_length or 0) > limit:
            raise _too_large(request, limit)
        holder = sender or f"address {self._address(request)}"  # a User-Identify without proof may be another's
        pieces: list[bytes] = []
        size = 0
        try:
            try:
                await self._read(request, limit, holder, pieces)
            except TimeoutError:
                raise _Refusal(408, ObjectResult(code, answers.BAD_JSON, "the body is incomplete")) from None
            except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, ConnectionError, EOFError):
                raise _Refusal(400, ObjectResult(code, answers.BAD_JSON, "the body was cut off")) from None
            finally:
                size = sum(map(len, pieces))
            body = b"".join(pieces)
            pieces.clear()  # it would be in memory twice
            yield body
        finally:
            self._reading -= size
            self._bytes_of[holder] -= size
            if not self._bytes_of[holder]:
                del self._bytes_of[holder]

    async def _read(self, request: web.Request, limit: int, holder: str, pieces: list[bytes]) -> None:
        """Add the pieces of a body to `pieces`, and count each for the holder of the body. Raises as `_body`."""
        size = 0
        async with asyncio.timeout(self.deps.config.body_timeout_s):
            async for piece in request.content.iter_any():
                pieces.append(piece)
                size += len(piece)
                self._reading += len(piece)
                self._bytes_of[holder] += len(piece)
                if size > limit:
                    raise _too_large(request, limit)
                if self._reading > self.deps.config.bodies_total_bytes_max:
                    metrics.LIMIT_HITS.labels("viid_bodies").inc()
                    raise Overloaded(
                        "the request bodies at a time exceed viid.bodies_total_bytes_max; try again later", shared=True
                    )
                if self._bytes_of[holder] > self._bytes_per_sender_max:
                    metrics.LIMIT_HITS.labels("viid_bodies_of_sender").inc()
                    raise Overloaded(
                        f"your request bodies at a time exceed {self._bytes_per_sender_max} bytes, your part of "
                        "viid.bodies_total_bytes_max; send fewer at a time"
                    )


def _allowed(kind: str) -> list[tuple[str, str]]:
    """Return the header that names the methods of a collection; each answer with 405 has it (RFC 9110)."""
    return [("Allow", "GET, POST, PUT" if kind in CATALOGUES else "POST, PUT")]


def _code_of(request: web.Request) -> str:
    return request.headers.get("User-Identify", "").strip()[:64]


def _too_large(request: web.Request, limit: int) -> _Refusal:
    """Count a body that is larger than its limit, and return its refusal."""
    metrics.LIMIT_HITS.labels("viid_body").inc()
    problem = f"the body is larger than {limit} bytes"
    return _Refusal(413, ObjectResult(_code_of(request), answers.BAD_CONTENT, problem))


def _tls(config: ViidConfig) -> ssl.SSLContext | None:
    if not config.cert_file:
        if config.host not in {"127.0.0.1", "::1", "localhost"} and not config.allow_plaintext:
            raise ConfigError(
                f"{config.host} would be served without TLS",
                key="viid.cert_file",
                remedy="give a certificate, or set viid.allow_plaintext: true",
            )
        return None
    context = server_context(
        "viid.cert_file", cert_file=config.cert_file, key_file=config.key_file, ca_file=config.ca_file
    )
    if config.ca_file:
        context.verify_mode = ssl.CERT_OPTIONAL  # a camera without a certificate still has its digest
    return context
