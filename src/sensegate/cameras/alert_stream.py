"""Cameras whose alarms are fetched: a multipart stream that stays open (Hikvision ``alertStream``, Dahua ``attach``).

    camera ─▶ chunks ─▶ Cutter (whole parts) ─▶ pictures dropped ─▶ Delivery ─▶ … commit

A stream has no place to go on from: what a camera says while nobody listens is lost at the camera. So a stream is
opened anew for ever, soon and at random times, and one that is silent is not believed. What was read is given again
until it is committed; while too much of it waits, the stream is read no further.
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
from aiohttp.abc import AbstractResolver

from sensegate import metrics
from sensegate.clock import Clock
from sensegate.collect.pushed import Pushed
from sensegate.config import IngestConfig, read_secret
from sensegate.config.cameras import CameraConfig
from sensegate.errors import ConfigError
from sensegate.frames.multipart import PARTS_MAX, BodyPart, MultipartParser, boundary_of, prepend_empty_parts

BACKOFF_S: Final = 0.5
CHUNK: Final = 65_536
_LOCKED: Final = frozenset({401, 403})
_FORM: Final = {"hikvision": "hikvision", "dahua": "dahua"}
"""Make -> format of video metadata, under which pictures are counted that no document follows soon."""

_log = structlog.get_logger("collect")


class Way(Protocol):
    """Where may be connected to (`publish.egress`)."""

    def check(self, url: str) -> None:
        """Return if an address may be connected to. Raises `ConfigError`."""
        ...


class Make(NamedTuple):
    """What is peculiar to a make."""

    path: str
    whole: Callable[[bytes], bool]
    """Whether a part is complete, so that it need not wait for the next boundary."""


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


MAKES: Final = {
    "hikvision": Make("/ISAPI/Event/notification/alertStream", _alert),
    "dahua": Make("/cgi-bin/eventManager.cgi?action=attach&codes=[All]&heartbeat=5", _event),
}


def address(config: CameraConfig) -> str:
    """Return the address of a camera's stream."""
    parts = urlsplit(config.url)
    return config.url if parts.path.strip("/") or parts.query else config.url.rstrip("/") + MAKES[config.make].path


class Stream:
    """One camera: opens its stream again and again, and says why it is not open."""

    def __init__(  # noqa: PLR0917 - what it is tied to
        self,
        config: CameraConfig,
        take: Callable[[str, bytes], asyncio.Future[None]],
        room: Callable[[], asyncio.Future[None] | None],
        clock: Clock,
        way: Way,
        resolver: Callable[[], AbstractResolver],
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`take`: (device, payload) -> done when committed. `room`: None, or done when more can be taken.

        Raises:
            ConfigError: the address may not be connected to, or the password cannot be read.
        """
        self.config = config
        self.name = f"camera {config.device}"
        self.url = address(config)
        way.check(self.url)
        self.trouble = "not open yet"
        """Why it is not open; empty while it is."""
        self.parts = 0
        """Whole parts so far."""
        self._password = read_secret(config.password_file, config.password_env) if config.user else ""
        self._take = take
        self._room = room
        self._clock = clock
        self._way = way
        self._resolver = resolver
        self._jitter = jitter
        self._owed = 0
        self._dropped: list[BodyPart] = []
        """Pictures, empty: the next document brings them, so that the ledger counts them with it."""
        self._less = asyncio.Event()

    async def run(self) -> None:
        """Keep the stream open until cancelled."""
        attempt = 0
        while True:
            before = self.parts
            refused = False
            try:
                self.trouble = await self._hold()
            except _Refused as why:
                self.trouble, refused = str(why), True
            except (aiohttp.ClientError, ssl.SSLError, OSError, ConfigError, ValueError) as why:
                # What another service may have answered is told to nobody.
                self.trouble = f"not reached: {type(why).__name__}"
            metrics.CAMERA_STREAM.labels(self.config.device).set(0)
            _log.warning("camera's stream is not open; trying again", camera=self.config.device, reason=self.trouble)
            metrics.RESTARTS.labels("camera stream").inc()
            attempt = 0 if self.parts > before else min(attempt + 1, 16)
            most = min(self.config.backoff_max_s, BACKOFF_S * 2**attempt)
            if refused:
                await self._clock.sleep(self.config.auth_failure_wait_s * (1 + self._jitter() / 4))
            else:
                await self._clock.sleep(self._jitter() * most)

    async def _hold(self) -> str:
        """Open the stream and read until it ends; return why it did."""
        config = self.config
        self._way.check(self.url)
        tls: ssl.SSLContext | aiohttp.Fingerprint | bool = True
        if config.pin_sha256:
            tls = aiohttp.Fingerprint(bytes.fromhex(config.pin_sha256))
        elif config.ca_file:
            tls = ssl.create_default_context(cafile=config.ca_file)
        connector = aiohttp.TCPConnector(resolver=self._resolver(), use_dns_cache=False, ssl=tls, limit=2)
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
            asking = session.get(self.url, allow_redirects=False)
            try:
                async with asyncio.timeout(config.connect_timeout_s):
                    response = await asking
            except TimeoutError:
                return f"no answer within {config.connect_timeout_s:g} s"
            async with response:
                if response.status in _LOCKED:
                    raise _Refused(f"answered {response.status}: user or password is refused")
                if response.status != 200:
                    return f"answered {response.status}"
                return await self._read(response)

    async def _read(self, response: aiohttp.ClientResponse) -> str:
        whole = MAKES[self.config.make].whole
        cutter = MultipartParser(boundary_of(response.headers.get("Content-Type", "")), is_complete=whole)
        why = await self._parts(response, cutter)
        for part in cutter.close():
            if whole(part.content):  # the last part is whole, or it is none
                await self._given(part)
        return why

    async def _parts(self, response: aiohttp.ClientResponse, cutter: MultipartParser) -> str:
        """Give parts as they come; return why there are no more."""
        loop = asyncio.get_running_loop()
        silence_s = self.config.idle_timeout_s
        try:
            async with asyncio.timeout(silence_s) as watch:
                async for chunk in response.content.iter_any():
                    for part in cutter.feed(chunk):
                        if self.trouble:
                            self.trouble = ""
                            metrics.CAMERA_STREAM.labels(self.config.device).set(1)
                        watch.reschedule(None)  # the camera is not to blame while we have no room
                        await self._given(part)
                        watch.reschedule(loop.time() + silence_s)
        except TimeoutError:
            return f"no whole part for {silence_s:g} s"
        except aiohttp.ClientError as why:
            return f"broken: {type(why).__name__}"
        return "ended by the camera"

    async def _given(self, part: BodyPart) -> None:
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
        while self._owed >= self.config.inflight_max:
            metrics.LIMIT_HITS.labels("inflight_max").inc()
            self._less.clear()
            await self._less.wait()
        while (room := self._room()) is not None:
            await room
        self._owed += 1
        payload = prepend_empty_parts(self._dropped, part.content)
        self._dropped = []
        self._take(self.config.device, payload).add_done_callback(self._paid)

    def _paid(self, _committed: asyncio.Future[None]) -> None:
        self._owed -= 1
        self._less.set()


class _Refused(Exception):
    """The camera does not take our user or password."""


class CameraSource(Pushed):
    """All cameras whose streams are fetched, as one source. `run` reads; `start` and `stop` are those of the ingest."""

    def __init__(
        self,
        cameras: Sequence[CameraConfig],
        limits: IngestConfig,
        clock: Clock,
        way: Way,
        resolver: Callable[[], AbstractResolver],
        *,
        known: Callable[[str], bool] = lambda _device: True,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`known`: whether a device is registered.

        Raises:
            ConfigError: a camera occurs twice, may not be reached, or has no password.
        """
        super().__init__("cameras", limits, clock)
        self._known = known
        names = [camera.device for camera in cameras]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise ConfigError(f"'{twice}' occurs twice", key="cameras", remedy="one stream for each device")
        self.streams: list[Stream] = []
        for at, one in enumerate(cameras):
            try:
                stream = Stream(one, self._take, self._wait, clock, way, resolver, jitter=jitter)
            except ConfigError as why:
                raise ConfigError(
                    why.problem, file=why.file, key=f"cameras[{at}].{why.key}", remedy=why.remedy
                ) from why
            self.streams.append(stream)

    async def run(self) -> None:
        """Keep all streams open until cancelled."""
        async with asyncio.TaskGroup() as group:
            for stream in self.streams:
                group.create_task(stream.run(), name=stream.name)

    def troubles(self) -> list[str]:
        """Return which streams are not open, and why; and which are of no registered device."""
        unknown = [stream.name for stream in self.streams if not self._known(stream.config.device)]
        return [
            *(f"{name}: not registered, its messages go to quarantine; sensegate device add" for name in unknown),
            *(f"{stream.name}: {stream.trouble}" for stream in self.streams if stream.trouble),
        ]

    def _take(self, device: str, payload: bytes) -> asyncio.Future[None]:
        return self.put(f"http/{device}", payload, device)

    def _wait(self) -> asyncio.Future[None] | None:
        return asyncio.ensure_future(self.room()) if self.full else None
