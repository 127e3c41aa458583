"""Subscriptions at subordinate platforms by GA/T 1400: created when such a platform registers here, and maintained.

A subscription has a persistent id, so that the platform continues where it was after a restart. Pictures and features
are not requested.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import structlog

from sensegate import metrics
from sensegate.authority.bucket import Bucket
from sensegate.clock import Clock
from sensegate.config.viid import ViidSubordinateConfig
from sensegate.errors import NotFound, Overloaded, PermissionDenied, Rejected, SensegateError, StoreFull, Unavailable
from sensegate.video.formats import viid_ids as ids
from sensegate.video.formats.viid_responses import OK, ObjectResult, combine_results, format_beijing
from sensegate.video.formats.viid_subscriptions import FOREVER
from sensegate.viid.client import ViidClient

PATH: Final = "/VIID/Subscribes"
_PREFIX: Final = "wish."
_RENEW_S: Final = 300.0
"""Interval of repeating an active subscription, in case the platform lost it."""
_log = structlog.get_logger("viid")


class DesiredSubscription(msgspec.Struct, frozen=True):
    """The desired state of the subscription at a platform."""

    device: str
    id: str
    """SubscribeID, 33 digits."""
    since: int
    """µs UTC."""
    cancelled: bool = False
    format: int = 1


class ViidSubordinate:
    """A subordinate platform; `run` maintains its subscription."""

    def __init__(
        self,
        config: ViidSubordinateConfig,
        client: ViidClient,
        bucket: Bucket,
        clock: Clock,
        *,
        receive: Callable[[], str],
        adopt: Callable[[bytes], Awaitable[None]],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Create the subscriber of a platform.

        Args:
            config: configuration of the platform.
            client: client of the platform.
            bucket: stores the desired state.
            clock: gives the time.
            receive: returns the address of our own listener.
            adopt: takes a catalogue of the platform, as received.
            uniform: returns a random number between two bounds, for the jitter.
        """
        self._adopt = adopt
        self.config = config
        self._client = client
        self._bucket = bucket
        self._clock = clock
        self._receive = receive
        self._uniform = uniform
        self._wake = asyncio.Event()
        self.desired: DesiredSubscription | None = None
        self._confirmed: DesiredSubscription | None = None
        self.problem = "the platform has not registered here yet"

    @property
    def in_force(self) -> bool:
        """Return whether the platform has confirmed the subscription."""
        return self.desired is not None and self._confirmed == self.desired and not self.desired.cancelled

    def registered(self) -> None:
        """Note that the platform has registered here."""
        self._wake.set()

    async def run(self) -> None:
        """Maintain the subscription until cancelled."""
        try:
            self.desired = await self._load()
            await self._wake.wait()
            while True:
                self._wake.clear()
                wait_s = await self._subscribe()
                try:
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            await self._client.close()

    async def _subscribe(self) -> float:
        """Send the desired state; return the time until the next attempt."""
        desired = self.desired
        if desired is None or (desired.cancelled and self._confirmed == desired):
            return _RENEW_S
        try:
            result = await self._send(desired)
        except (Unavailable, PermissionDenied) as why:
            if not self.problem:
                _log.warning("VIID: subordinate platform not reachable", device=desired.device, reason=str(why))
            self.problem = str(why)
            metrics.RESTARTS.labels("viid subordinate").inc()
            return self._uniform(0.5, 1.5)
        if result.code != OK:
            self.problem = f"the platform refuses the subscription: status code {result.code}"
            _log.warning("VIID: subscription refused", device=desired.device, code=result.code)
            return self._uniform(20.0, 40.0)
        is_new = self._confirmed != desired
        self.problem, self._confirmed = "", desired
        if is_new and not desired.cancelled:
            await self._read_catalogues()
        return _RENEW_S

    async def _send(self, desired: DesiredSubscription) -> ObjectResult:
        if desired.cancelled:
            body: dict[str, Any] = {"SubscribeID": desired.id, "OperateType": 1, "SubscribeStatus": 1}
        else:
            body = {
                "SubscribeID": desired.id,
                "Title": desired.id,
                "SubscribeDetail": self.config.details,
                "ResourceURI": self.config.resource,
                "ApplicantName": self._client.code,
                "ApplicantOrg": self._client.code,
                "BeginTime": format_beijing(desired.since),
                "EndTime": FOREVER,
                "ReceiveAddr": f"{self._receive()}/VIID/SubscribeNotifications",
                "ReportInterval": self.config.report_interval_s,
                "Reason": "",
                "OperateType": 0,
                "SubscribeStatus": 0,
                "ResourceClass": 4,
                "ResultImageDeclare": "-1",
                "ResultFeatureDeclare": -1,
            }
        results = await self._client.send(
            "PUT" if desired.cancelled else "POST", PATH, {"SubscribeListObject": {"SubscribeObject": [body]}}
        )
        return combine_results(results)

    async def _read_catalogues(self) -> None:
        """Read its cameras, tollgates and lanes; many platforms send them unrequested instead."""
        for path in ("/VIID/APEs", "/VIID/Tollgates", "/VIID/Lanes"):
            try:
                await self._adopt(await self._client.get(path))
            except (Rejected, PermissionDenied, Unavailable, Overloaded) as why:
                _log.debug("VIID: catalogue not available", device=self.config.device, path=path, reason=str(why))

    async def _load(self) -> DesiredSubscription:
        try:
            return await self._read()
        except StoreFull as why:
            raise Unavailable(str(why)) from why  # the task is restarted

    async def _read(self) -> DesiredSubscription:
        row = await self._bucket.get(f"{_PREFIX}{self.config.device}")
        if row is not None and row.value is not None:
            return msgspec.json.decode(row.value, type=DesiredSubscription)
        now = self._clock.now()
        name = ids.make_order_id(
            self._client.code[:6], ids.SUBSCRIPTION, format_beijing(now), int(self.config.device[-5:])
        )
        return await self._write(DesiredSubscription(self.config.device, name, now))

    async def _write(self, desired: DesiredSubscription) -> DesiredSubscription:
        await self._bucket.put(f"{_PREFIX}{desired.device}", msgspec.json.encode(desired))
        return desired

    async def cancel(self) -> DesiredSubscription:
        """Cancel the subscription; return when the platform was notified, or is not reachable.

        Raises:
            NotFound: there is no subscription yet.
        """
        return await self._set(cancelled=True)

    async def renew(self) -> DesiredSubscription:
        """Renew a cancelled subscription; objects in between are not sent. Raises `NotFound`."""
        return await self._set(cancelled=False)

    async def _set(self, *, cancelled: bool) -> DesiredSubscription:
        if self.desired is None:
            raise NotFound(f"there is no subscription at {self.config.device} yet")
        self.desired = await self._write(msgspec.structs.replace(self.desired, cancelled=cancelled))
        try:
            result = await self._send(self.desired)
            self.problem = "" if result.code == OK else f"status code {result.code}"
            self._confirmed = self.desired if result.code == OK else None
        except SensegateError as why:
            self.problem = str(why)
            self._wake.set()
        return self.desired
