"""Deliveries to a subscriber's own HTTP address, signed as Standard Webhooks describes.

webhook-id         id of the delivery: the same at each attempt, and never that of another delivery
webhook-timestamp  time of the signature in Unix seconds: a receiver refuses old ones
webhook-signature  ``v1,<base64>`` HMAC-SHA256, or ``v1sm3,<base64>`` HMAC-SM3, of ``<id>.<timestamp>.<body>``
"""

from __future__ import annotations

import base64
import contextlib
import ssl
from collections.abc import AsyncIterator

import aiohttp
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC

from sensegate.authority.egress import Egress, EgressDenied, outbound_session
from sensegate.clock import Clock
from sensegate.errors import ConfigError
from sensegate.share.transports.contract import DeliveryResult, OutboundDelivery

TIMEOUT_S = 10.0
CONNECTIONS_MAX = 200
CONNECTIONS_PER_HOST_MAX = 20
_HASHES: dict[str, tuple[str, type[hashes.SHA256 | hashes.SM3]]] = {
    "hmac-sha256": ("v1", hashes.SHA256),
    "hmac-sm3": ("v1sm3", hashes.SM3),
}
_RETRY_AFTER_MAX_S = 3_600.0


def sign(delivery: OutboundDelivery, timestamp: int) -> str:
    """Return the signature of a delivery at a time (Unix seconds)."""
    version, kind = _HASHES[delivery.algorithm]
    code = HMAC(delivery.secret, kind())
    code.update(f"{delivery.id}.{timestamp}.".encode() + delivery.body)
    return f"{version},{base64.b64encode(code.finalize()).decode()}"


class WebhookPublisher:
    """Sends deliveries; a `PushTransport`. `open_webhooks` makes one."""

    def __init__(self, session: aiohttp.ClientSession, egress: Egress, clock: Clock, timeout_s: float) -> None:
        self._session = session
        self._egress = egress
        self._clock = clock
        self._timeout_s = timeout_s

    def check(self, target: str) -> None:
        self._egress.check(target)

    async def send(self, delivery: OutboundDelivery) -> DeliveryResult:
        timestamp = self._clock.now() // 1_000_000
        headers = {
            **dict(delivery.headers),
            "Content-Type": delivery.media,
            "webhook-id": delivery.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(delivery, timestamp),
        }
        try:
            # For an error that names what to do; the connector judges what is dialled.
            self._egress.check(delivery.target)
            async with self._session.post(
                delivery.target, data=delivery.body, headers=headers, allow_redirects=False
            ) as response:
                return _receipt(response)
        except ConfigError as why:
            return DeliveryResult(accepted=False, reason=str(why))
        except TimeoutError:
            return DeliveryResult(accepted=False, reason=f"no answer within {self._timeout_s:g} s")
        except (aiohttp.ClientError, ssl.SSLError, OSError) as why:
            return DeliveryResult(accepted=False, reason=_reason_of(why))


@contextlib.asynccontextmanager
async def open_webhooks(
    egress: Egress, clock: Clock, *, timeout_s: float = TIMEOUT_S
) -> AsyncIterator[WebhookPublisher]:
    """Yield a publisher with a pool of connections, which are closed at the end.

    Args:
        egress: judges each address before it is dialled.
        clock: the time of signatures.
        timeout_s: most seconds of one attempt.
    """
    async with outbound_session(
        egress, timeout_s=timeout_s, connections_max=CONNECTIONS_MAX, per_host_max=CONNECTIONS_PER_HOST_MAX
    ) as session:
        yield WebhookPublisher(session, egress, clock, timeout_s)


def _receipt(response: aiohttp.ClientResponse) -> DeliveryResult:
    status = response.status
    if 200 <= status < 300:
        return DeliveryResult(accepted=True)
    if 300 <= status < 400:
        return DeliveryResult(accepted=False, reason=f"{status}: redirects are not followed; give the final address")
    wait = response.headers.get("Retry-After", "")
    wait_s = min(float(wait), _RETRY_AFTER_MAX_S) if wait.isascii() and wait.isdigit() else 0.0
    return DeliveryResult(
        accepted=False, reason=f"answered {status}", retry_after_s=wait_s, gone=status == 410, too_large=status == 413
    )


def _reason_of(why: Exception) -> str:
    """Return why no connection was made, without anything that another service may have answered."""
    inner: BaseException | None = why
    while inner is not None:
        if isinstance(inner, EgressDenied):
            return str(inner)
        inner = inner.__cause__ or inner.__context__
    match why:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            return "the certificate is not trusted, or TLS failed"
        case aiohttp.ClientConnectorDNSError():
            return "the name cannot be resolved"
        case aiohttp.ClientConnectorError() | OSError():
            return "the connection failed"
        case _:
            return "the server closed the connection, or is not an HTTP server"
