"""Records to a subscriber's own HTTP address, signed, as Standard Webhooks describes.

webhook-id         the delivery: the same at each attempt, never that of another
webhook-timestamp  when it was signed, Unix seconds: refuse what is old
webhook-signature  ``v1,<base64>`` HMAC-SHA256, or ``v1sm3,<base64>`` HMAC-SM3, of ``<id>.<timestamp>.<body>``
"""

from __future__ import annotations

import base64
import ssl
from types import TracebackType
from typing import Self

import aiohttp
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC

from sensegate.clock import Clock
from sensegate.errors import ConfigError
from sensegate.ports import DeliveryResult, OutboundDelivery
from sensegate.publish.egress import Egress, EgressDenied, EgressResolver

TIMEOUT_S = 10.0
CONNECTIONS_MAX = 200
CONNECTIONS_PER_HOST_MAX = 20
_HASHES: dict[str, tuple[str, type[hashes.SHA256 | hashes.SM3]]] = {
    "hmac-sha256": ("v1", hashes.SHA256),
    "hmac-sm3": ("v1sm3", hashes.SM3),
}
_RETRY_AFTER_MAX_S = 3_600.0


def sign(letter: OutboundDelivery, timestamp: int) -> str:
    """Return the signature of a letter as of a time (Unix seconds)."""
    version, kind = _HASHES[letter.algorithm]
    code = HMAC(letter.secret, kind())
    code.update(f"{letter.id}.{timestamp}.".encode() + letter.body)
    return f"{version},{base64.b64encode(code.finalize()).decode()}"


class WebhookPublisher:
    """Sends letters; a `ports.Post`. Use it as a context."""

    def __init__(self, egress: Egress, clock: Clock, *, timeout_s: float = TIMEOUT_S) -> None:
        self._egress = egress
        self._clock = clock
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=EgressResolver(self._egress),
            use_dns_cache=False,
            limit=CONNECTIONS_MAX,
            limit_per_host=CONNECTIONS_PER_HOST_MAX,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            headers={"User-Agent": "sensegate"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def check(self, to: str) -> None:
        self._egress.check(to)

    async def send(self, letter: OutboundDelivery) -> DeliveryResult:
        assert self._session is not None  # noqa: S101 - used as a context
        timestamp = self._clock.now() // 1_000_000
        headers = {
            **dict(letter.headers),
            "Content-Type": letter.media,
            "webhook-id": letter.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(letter, timestamp),
        }
        try:
            # A literal address is not resolved: it is judged here, each time anew.
            self._egress.check(letter.target)
            async with self._session.post(
                letter.target, data=letter.body, headers=headers, allow_redirects=False
            ) as response:
                return _receipt(response)
        except ConfigError as why:
            return DeliveryResult(accepted=False, reason=str(why))
        except TimeoutError:
            return DeliveryResult(accepted=False, reason=f"no answer within {self._timeout_s:g} s")
        except (aiohttp.ClientError, ssl.SSLError, OSError) as why:
            return DeliveryResult(accepted=False, reason=_said(why))


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


def _said(why: Exception) -> str:
    """Return a word for what kept us from connecting: nothing of what another service may have answered."""
    inner: BaseException | None = why
    while inner is not None:
        if isinstance(inner, EgressDenied):
            return str(inner)
        inner = inner.__cause__ or inner.__context__
    match why:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            return "its certificate is not trusted, or TLS failed"
        case aiohttp.ClientConnectorDNSError():
            return "its name cannot be resolved"
        case aiohttp.ClientConnectorError() | OSError():
            return "cannot be connected to"
        case _:
            return "closed the connection, or is no HTTP server"
