"""Our subscriptions at platforms below by GA/T 1400: made when such a platform has registered here, kept in force.

A wish has an id of its own that outlives the process, so that the platform below goes on where it was. Pictures and
features are not asked for.
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
_AGAIN_S: Final = 300.0
"""So often a subscription in force is said again: whoever lost it takes it up."""
_log = structlog.get_logger("viid")


class Wish(msgspec.Struct, frozen=True):
    """What is to be subscribed to at one platform."""

    device: str
    id: str
    """SubscribeID, 33 digits."""
    since: int
    """µs UTC."""
    cancelled: bool = False
    format: int = 1


class Subordinate:
    """One platform below; `run` until cancelled."""

    def __init__(
        self,
        config: ViidSubordinateConfig,
        client: ViidClient,
        bucket: Bucket,
        clock: Clock,
        *,
        receive: Callable[[], str],
        adopt: Callable[[bytes], Awaitable[None]],
        roll: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Make the way to a platform.

        Args:
            config: of the platform.
            client: to it.
            bucket: where the wish is kept.
            clock: for the pauses.
            receive: returns the address of our own listener.
            adopt: takes a catalogue of the platform, as it sent it.
            roll: gives a random number between two, for the jitter.
        """
        self._adopt = adopt
        self.config = config
        self._client = client
        self._bucket = bucket
        self._clock = clock
        self._receive = receive
        self._roll = roll
        self._wake = asyncio.Event()
        self.wish: Wish | None = None
        self._said: Wish | None = None
        self.trouble = "it has not registered here yet"

    @property
    def in_force(self) -> bool:
        """Whether the platform below has confirmed what we want."""
        return self.wish is not None and self._said == self.wish and not self.wish.cancelled

    def registered(self) -> None:
        """Say that the platform has registered here."""
        self._wake.set()

    async def run(self) -> None:
        """Keep the subscription in force."""
        try:
            self.wish = await self._kept()
            await self._wake.wait()
            while True:
                self._wake.clear()
                wait_s = await self._say()
                try:
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            await self._client.close()

    async def _say(self) -> float:
        """Say what we want; return after how long to say it again."""
        wish = self.wish
        if wish is None or (wish.cancelled and self._said == wish):
            return _AGAIN_S
        try:
            one = await self._ask(wish)
        except (Unavailable, PermissionDenied) as why:
            if not self.trouble:
                _log.warning("VIID: a platform below is not reached", device=wish.device, why=str(why))
            self.trouble = str(why)
            metrics.RESTARTS.labels("viid subordinate").inc()
            return self._roll(0.5, 1.5)
        if one.code != OK:
            self.trouble = f"it refuses the subscription: status code {one.code}"
            _log.warning("VIID: a subscription is refused", device=wish.device, code=one.code)
            return self._roll(20.0, 40.0)
        fresh = self._said != wish
        self.trouble, self._said = "", wish
        if fresh and not wish.cancelled:
            await self._read_catalogues()
        return _AGAIN_S

    async def _ask(self, wish: Wish) -> ObjectResult:
        if wish.cancelled:
            body: dict[str, Any] = {"SubscribeID": wish.id, "OperateType": 1, "SubscribeStatus": 1}
        else:
            body = {
                "SubscribeID": wish.id,
                "Title": wish.id,
                "SubscribeDetail": self.config.details,
                "ResourceURI": self.config.resource,
                "ApplicantName": self._client.code,
                "ApplicantOrg": self._client.code,
                "BeginTime": format_beijing(wish.since),
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
        told = await self._client.send(
            "PUT" if wish.cancelled else "POST", PATH, {"SubscribeListObject": {"SubscribeObject": [body]}}
        )
        return combine_results(told)

    async def _read_catalogues(self) -> None:
        """Read its cameras and tollgates; a platform need not give them: many send them by themselves."""
        for path in ("/VIID/APEs", "/VIID/Tollgates", "/VIID/Lanes"):
            try:
                await self._adopt(await self._client.get(path))
            except (Rejected, PermissionDenied, Unavailable, Overloaded) as why:
                _log.debug("VIID: a catalogue is not given", device=self.config.device, path=path, why=str(why))

    async def _kept(self) -> Wish:
        try:
            return await self._read()
        except StoreFull as why:
            raise Unavailable(str(why)) from why  # tried again

    async def _read(self) -> Wish:
        row = await self._bucket.get(f"{_PREFIX}{self.config.device}")
        if row is not None and row.value is not None:
            return msgspec.json.decode(row.value, type=Wish)
        now = self._clock.now()
        name = ids.make_order_id(
            self._client.code[:6], ids.SUBSCRIPTION, format_beijing(now), int(self.config.device[-5:])
        )
        return await self._write(Wish(self.config.device, name, now))

    async def _write(self, wish: Wish) -> Wish:
        await self._bucket.put(f"{_PREFIX}{wish.device}", msgspec.json.encode(wish))
        return wish

    async def cancel(self) -> Wish:
        """Cancel the subscription; return when the platform below was told, or cannot be reached.

        Raises:
            NotFound: there is none yet.
        """
        return await self._set(cancelled=True)

    async def renew(self) -> Wish:
        """Subscribe again after a cancellation: what was seen meanwhile is not sent. Raises `NotFound`."""
        return await self._set(cancelled=False)

    async def _set(self, *, cancelled: bool) -> Wish:
        if self.wish is None:
            raise NotFound(f"no subscription at {self.config.device} yet")
        self.wish = await self._write(msgspec.structs.replace(self.wish, cancelled=cancelled))
        try:
            one = await self._ask(self.wish)
            self.trouble = "" if one.code == OK else f"status code {one.code}"
            self._said = self.wish if one.code == OK else None
        except SensegateError as why:
            self.trouble = str(why)
            self._wake.set()
        return self.wish
