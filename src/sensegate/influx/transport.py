"""Requests to a store that takes line protocol, by the write path of `influxdb-client`, in threads."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

from sensegate.config.influx import InfluxOutletConfig
from sensegate.errors import ConfigError
from sensegate.share.transports.contract import DeliveryResult, OutboundDelivery

AWAY_S = 2.0
"""Wait after a store that does not answer, or has no room."""
REFUSED_S = 30.0
"""Wait after a store that refuses: only its operator or ours can change that."""


class InfluxTransport:
    """Writes deliveries into one store; a `PushTransport`.

    No failure ends the delivery: the cursor stays until the store has taken the readings.
    """

    def __init__(self, outlet: InfluxOutletConfig, token: str) -> None:
        """`token`: that of the store; empty: none.

        Raises:
            ConfigError: the extra is not installed.
        """
        try:
            module: Any = importlib.import_module("influxdb_client")
            self._rest: Any = importlib.import_module("influxdb_client.rest")
            self._urllib3: Any = importlib.import_module("urllib3")
            options: Any = importlib.import_module("influxdb_client.client.write_api")
        except ImportError:
            raise ConfigError(
                "outlets need influxdb-client, which is not installed",
                key="influx.outlets",
                remedy="install sensegate[influx], or remove the outlets",
            ) from None
        self._outlet = outlet
        self._client = module.InfluxDBClient(
            url=outlet.url, token=token or None, org=outlet.org or "-", timeout=round(outlet.timeout_s * 1_000)
        )
        self._writer = self._client.write_api(write_options=options.SYNCHRONOUS)
        self.problem = ""
        """Reason why the store accepts nothing now; empty: it accepts writes."""

    def check(self, target: str) -> None:
        """Accept the address: it is that of the configuration."""

    async def send(self, delivery: OutboundDelivery) -> DeliveryResult:
        running = asyncio.ensure_future(asyncio.to_thread(self._write, delivery.body))
        try:
            result = await asyncio.shield(running)
        except asyncio.CancelledError:
            # The request goes on in its thread; what it writes is written again, which changes nothing.
            await asyncio.wait((running,), timeout=self._outlet.timeout_s)
            raise
        self.problem = "" if result.accepted or result.too_large else result.reason
        return result

    def _write(self, body: bytes) -> DeliveryResult:
        outlet = self._outlet
        try:
            self._writer.write(bucket=outlet.bucket or "-", org=outlet.org or "-", record=body, write_precision="us")
        except self._rest.ApiException as error:
            return _refusal(error.status or 0, (error.headers or {}).get("Retry-After", ""))
        except (self._urllib3.exceptions.HTTPError, OSError) as error:
            return DeliveryResult(
                accepted=False,
                reason=f"the store does not answer: {type(error).__name__}",
                unavailable=True,
                retry_after_s=AWAY_S,
            )
        return DeliveryResult(accepted=True)

    def close(self) -> None:
        """Close the connections."""
        self._writer.close()
        self._client.close()


def _refusal(status: int, retry_after: str) -> DeliveryResult:
    """Return the result for an error status."""
    reason = f"the store answers {status}"
    if status == 413:
        return DeliveryResult(accepted=False, reason=reason, too_large=True)
    wait_s = AWAY_S if status == 429 or status >= 500 else REFUSED_S
    if retry_after.isdecimal():
        wait_s = min(float(retry_after), 300.0)
    return DeliveryResult(accepted=False, reason=reason, unavailable=True, retry_after_s=wait_s)
