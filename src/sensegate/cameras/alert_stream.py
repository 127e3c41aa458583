"""The camera source: long-lived multipart alarm streams (Hikvision ``alertStream``, Dahua ``attach``).

    camera ─▶ chunks ─▶ MultipartParser (parts) ─▶ pictures dropped ─▶ Delivery ─▶ … commit

A stream cannot be resumed: what a camera reports while disconnected is lost at the camera. Therefore a stream is
reopened without end, with a jittered back-off, and an idle stream counts as broken. Received parts are redelivered
until they are committed; reading pauses while too many are uncommitted.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol
from urllib.parse import urlsplit

import aiohttp
import msgspec
import structlog

from sensegate import metrics
from sensegate.clock import Clock
from sensegate.collect.pushed import PushSource
from sensegate.config import IngestConfig, read_secret
from sensegate.config.cameras import CameraConfig
from sensegate.errors import CancellableTaskGroup, ConfigError
from sensegate.video.multipart import PARTS_MAX, BodyPart, MultipartParser, boundary_of, prepend_empty_parts

BACKOFF_S: Final = 0.5
CHUNK: Final = 65_536
_LOCKED: Final = frozenset({401, 403})
_FORM: Final = {"hikvision": "hikvision", "dahua": "dahua"}
"""Vendor -> format of video metadata under which dropped pictures are counted."""

_log = structlog.get_logger("cameras")


class Connect(Protocol):
    """A maker of connectors that connect only where the policy permits it."""

    def __call__(self, *, ssl: ssl.SSLContext | aiohttp.Fingerprint | bool, limit: int) -> aiohttp.BaseConnector:
        """Return a connector for one client session."""
        ...


class OutboundPolicy(Protocol):
    """The policy for outbound connections (`authority.egress`)."""

    def check(self, url: str) -> None:
        """Require that an address is permitted. Raises `ConfigError`."""
        ...


class VendorStream(NamedTuple):
    """The properties of a vendor's stream."""

    path: str
    is_complete: Callable[[bytes], bool]
    """True if a part is complete before the next boundary arrives."""


def _alert(content: bytes) -> bool:
    text = content.strip()
    if text.startswith(b"{"):
        return _json(text)
    return text.startswith(b"<") and text.endswith((b"EventNotificationAlert>", b"ResponseStatus>"))


def _event(content: bytes) -> bool:
    text = content.strip()
    if text == b"Heartbeat":
        return True
    head, data, tree = text.partition(b"data=")
    return head.startswith(b"Code=") and b"index=" in head and (_json(tree) if data else True)


def _json(text: bytes) -> bool:
    if not text.endswith(b"}"):
        return False
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


VENDORS: Final = {
    "hikvision": VendorStream("/ISAPI/Event/notification/alertStream", _alert),
    "dahua": VendorStream("/cgi-bin/eventManager.cgi?action=attach&codes=[All]&heartbeat=5", _event),
}


def stream_url(config: CameraConfig) -> str:
    """Return the URL of a camera's stream."""
    parts = urlsplit(config.url)
    return config.url if parts.path.strip("/") or parts.query else config.url.rstrip("/") + VENDORS[config.make].path


class CameraStream:
    """The alarm stream of a camera, which is reopened whenever it ends."""

    def __init__(
        self,
        config: CameraConfig,
        take: Callable[[str, bytes], asyncio.Future[None]],
        room: Callable[[], asyncio.Future[None] | None],
        clock: Clock,
        policy: OutboundPolicy,
        connector: Connect,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`take` is (device, payload) -> done when committed; `room` returns None, or a future for free capacity.

        Raises:
            ConfigError: the address is not permitted, or the password cannot be read.
        """
        self.config = config
        self.name = f"camera {config.device}"
        self.url = stream_url(config)
        policy.check(self.url)
        self.problem = "not open yet"
        """Reason why the stream is not open; empty while it is."""
        self.parts = 0
        """Number of complete parts so far."""
        self._password = read_secret(config.password_file, config.password_env) if config.user else ""
        self._take = take
        self._room = room
        self._clock = clock
        self._policy = policy
        self._connector = connector
        self._jitter = jitter
        self._pending = 0
        self._dropped: list[BodyPart] = []
        """Dropped pictures, to be counted with the next document."""
        self._settled = asyncio.Event()

    async def run(self) -> None:
        """Keep the stream open until cancelled."""
        attempt = 0
        while True:
            parts_before = self.parts
            refused = False
            try:
                self.problem = await self._run_stream()
            except _Refused as why:
                self.problem, refused = str(why), True
            except (aiohttp.ClientError, ssl.SSLError, OSError, ConfigError, ValueError) as why:
                # The answer may come from another service: do not disclose it.
                self.problem = f"not reachable: {type(why).__name__}"
            metrics.CAMERA_STREAM.labels(self.config.device).set(0)
            _log.warning("camera stream closed; retrying", camera=self.config.device, reason=self.problem)
            metrics.RESTARTS.labels("camera stream").inc()
            attempt = 0 if self.parts > parts_before else min(attempt + 1, 16)
            longest_s = min(self.config.backoff_max_s, BACKOFF_S * 2**attempt)
            if refused:
                await self._clock.sleep(self.config.auth_failure_wait_s * (1 + self._jitter() / 4))
            else:
                await self._clock.sleep(self._jitter() * longest_s)

    async def _run_stream(self) -> str:
        """Open the stream and read until it ends; return the reason."""
        config = self.config
        self._policy.check(self.url)
        tls: ssl.SSLContext | aiohttp.Fingerprint | bool = True
        if config.pin_sha256:
            tls = aiohttp.Fingerprint(bytes.fromhex(config.pin_sha256))
        elif config.ca_file:
            tls = ssl.create_default_context(cafile=config.ca_file)
        connector = self._connector(ssl=tls, limit=2)
        digest = aiohttp.DigestAuthMiddleware(config.user, self._password) if config.user else None
        timeout = aiohttp.ClientTimeout(
            total=None, connect=config.connect_timeout_s, sock_connect=config.connect_timeout_s
        )
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            headers={"User-Agent": "sensegate"},
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(digest,) if digest else (),
            auto_decompress=False,
            read_bufsize=CHUNK,
        ) as session:
            request = session.get(self.url, allow_redirects=False)
            try:
                async with asyncio.timeout(config.connect_timeout_s):
                    response = await request
            except TimeoutError:
                return f"no answer within {config.connect_timeout_s:g} s"
            async with response:
                if response.status in _LOCKED:
                    raise _Refused(f"answered {response.status}: user or password is wrong")
                if response.status != 200:
                    return f"answered {response.status}"
                return await self._read(response)

    async def _read(self, response: aiohttp.ClientResponse) -> str:
        is_complete = VENDORS[self.config.make].is_complete
        parser = MultipartParser(boundary_of(response.headers.get("Content-Type", "")), is_complete=is_complete)
        reason = await self._parts(response, parser)
        for part in parser.close():
            if is_complete(part.content):  # an incomplete last part is dropped
                await self._take_part(part)
        return reason

    async def _parts(self, response: aiohttp.ClientResponse, parser: MultipartParser) -> str:
        """Deliver parts as they arrive; return the reason of the end."""
        loop = asyncio.get_running_loop()
        idle_timeout_s = self.config.idle_timeout_s
        try:
            async with asyncio.timeout(idle_timeout_s) as deadline:
                async for chunk in response.content.iter_any():
                    for part in parser.feed(chunk):
                        if self.problem:
                            self.problem = ""
                            metrics.CAMERA_STREAM.labels(self.config.device).set(1)
                        deadline.reschedule(None)  # waiting for capacity is not the camera's fault
                        await self._take_part(part)
                        deadline.reschedule(loop.time() + idle_timeout_s)
        except TimeoutError:
            return f"no complete part for {idle_timeout_s:g} s"
        except aiohttp.ClientError as why:
            return f"broken: {type(why).__name__}"
        return "closed by the camera"

    async def _take_part(self, part: BodyPart) -> None:
        self.parts += 1
        if part.picture or part.too_long:
            if len(self._dropped) < PARTS_MAX - 1:
                self._dropped.append(part)
            else:
                field = "part.picture" if part.picture else "part.too_long"
                metrics.VIDEO_FIELDS_REMOVED.labels(_FORM[self.config.make], field).inc()
            return
        if not part.content.strip():
            return
        while self._pending >= self.config.inflight_max:
            metrics.LIMIT_HITS.labels("inflight_max").inc()
            self._settled.clear()
            await self._settled.wait()
        while (room := self._room()) is not None:
            await room
        self._pending += 1
        payload = prepend_empty_parts(self._dropped, part.content)
        self._dropped = []
        self._take(self.config.device, payload).add_done_callback(self._settle)

    def _settle(self, _committed: asyncio.Future[None]) -> None:
        self._pending -= 1
        self._settled.set()


class _Refused(Exception):
    """The camera rejects user or password."""


class CameraSource(PushSource):
    """The alarm streams of all cameras as one source; `run` reads, `start` and `stop` restart only the ingest."""

    def __init__(
        self,
        cameras: Sequence[CameraConfig],
        limits: IngestConfig,
        clock: Clock,
        policy: OutboundPolicy,
        connector: Connect,
        *,
        known: Callable[[str], bool] = lambda _device: True,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`known` returns whether a device is registered.

        Raises:
            ConfigError: a camera is listed twice, is not permitted, or has no password.
        """
        super().__init__("cameras", limits, clock)
        self._known = known
        names = [camera.device for camera in cameras]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise ConfigError(f"'{twice}' is listed twice", key="cameras", remedy="give one stream for each device")
        self.streams: list[CameraStream] = []
        for at, camera in enumerate(cameras):
            try:
                stream = CameraStream(camera, self._take, self._wait, clock, policy, connector, jitter=jitter)
            except ConfigError as why:
                raise ConfigError(
                    why.problem, file=why.file, key=f"cameras[{at}].{why.key}", remedy=why.remedy
                ) from why
            self.streams.append(stream)

    async def run(self) -> None:
        """Keep all streams open until cancelled."""
        async with CancellableTaskGroup() as group:
            for stream in self.streams:
                group.create_task(stream.run(), name=stream.name)

    def warnings(self) -> list[str]:
        """Return a warning for each stream that is closed or belongs to no registered device."""
        unknown = [stream.name for stream in self.streams if not self._known(stream.config.device)]
        return [
            *(f"{name}: not registered, its messages go to quarantine; sensegate device add" for name in unknown),
            *(f"{stream.name}: {stream.problem}" for stream in self.streams if stream.problem),
        ]

    def _take(self, device: str, payload: bytes) -> asyncio.Future[None]:
        return self.put(f"http/{device}", payload, device)

    def _wait(self) -> asyncio.Future[None] | None:
        return asyncio.ensure_future(self.wait_for_room()) if self.full else None
