"""Connections to nats-server, with the settings that keep nats-py from losing or hoarding in silence."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.bus.inventory import AccountStreams
from sensegate.errors import PermissionDenied, Unavailable, Untrusted

_log = structlog.get_logger("bus")
CLOSE_S = 1.0


def trust(cert_file: str) -> ssl.SSLContext:
    """Return a context that trusts this very certificate (our own server's, whatever names it carries)."""
    context = ssl.create_default_context(cafile=cert_file)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


@contextmanager
def _heeding_cancellation() -> Iterator[None]:
    """Raise a cancellation that came while inside and was swallowed.

    nats-py swallows it when it flushes, and its `wait_for` (Python 3.11) when it comes together with the answer: the
    task then works on, and whoever ended it waits for ever.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


class Link(Client):
    """nats-py's client, but who waits for an answer hears at once that the connection was lost.

    nats-py lets a request wait for its whole time-out, though an answer can no longer come.
    """

    def __init__(
        self,
        name: str,
        *,
        on_slow: Callable[[], None] | None = None,
        on_reconnect: Callable[[], None] | None = None,
        on_disconnect: Callable[[], None] | None = None,
        on_closed: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self.waiting: set[asyncio.Future[Any]] = set()
        """Futures of answers to come, beside those of `request`."""
        self.refused = asyncio.Event()
        """Set when the server refused the credentials."""
        self.untrusted = ""
        """Why a handshake failed; empty: none did."""
        self.streams: AccountStreams | None = None
        """The streams of its account that are known to exist; None: nobody keeps account of them."""
        self._log = _log.bind(connection=name)
        self._on_slow = on_slow
        self._on_reconnect = on_reconnect
        self._on_disconnect = on_disconnect
        self._on_closed = on_closed

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        old_style: bool = False,  # noqa: FBT001, FBT002 - nats-py's signature
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        """Ask; raise at once when there is no connection (nats-py would keep the place of the answer for ever)."""
        if not self.is_connected:
            raise nats.errors.ConnectionReconnectingError
        with _heeding_cancellation():
            return await super().request(subject, payload, timeout, old_style, headers)

    async def flush(self, timeout: int = 10) -> None:
        """Wait until the server has seen all that was sent."""
        with _heeding_cancellation():
            await super().flush(timeout)

    async def _flush_pending(self, force_flush: bool = False) -> Any:  # noqa: FBT001, FBT002 - nats-py's signature
        with _heeding_cancellation():
            return await super()._flush_pending(force_flush)

    async def _process_op_err(self, e: Exception) -> None:
        """Drop a connection that failed with what it still had to send.

        nats-py closes it in order, which takes as long as a peer that swallows packets is silent: a quarter of an hour.
        """
        if not (self.is_closed or self.is_reconnecting):
            self.drop()
        await super()._process_op_err(e)

    async def _connect_to_server(self, s: Any) -> None:
        """Connect; an attempt before that failed in its handshake has left its socket open."""
        self.drop()
        await super()._connect_to_server(s)

    def drop(self) -> None:
        """Let go of the socket at once; nothing that waits to be sent is."""
        for writer in (getattr(self._transport, name, None) for name in ("_io_writer", "_bare_io_writer")):
            if writer is not None:
                writer.transport.abort()

    async def close(self) -> None:
        """Close; after a failed handshake not for ever: asyncio then never tells the end of the plain connection."""
        if not self.untrusted:
            await super().close()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await super().close()

    async def errors_seen(self, why: Exception) -> None:
        """Take an error that nats-py met in the background."""
        if isinstance(why, nats.errors.SlowConsumerError):
            self._log.warning("reader too slow: messages dropped by the client, read again", subject=why.subject)
            if self._on_slow:
                self._on_slow()
        elif isinstance(why, nats.errors.AuthorizationError) or "authorization violation" in str(why).lower():
            self.refused.set()
            self._log.warning("credentials refused")
        elif isinstance(why, ssl.SSLError) and _about_certificates(why):
            self.untrusted = getattr(why, "verify_message", "") or str(why.args[-1])
            self.refused.set()
            self._log.warning("no TLS with the server", why=self.untrusted)
        else:
            self._log.debug("connection", error=str(why) or type(why).__name__)

    async def disconnected(self) -> None:
        """Fail all who wait for an answer."""
        for future in (*self._resp_map.values(), *self.waiting):
            if not future.done():
                future.set_exception(nats.errors.UnexpectedEOF())
        if not self.is_closed:
            self._log.info("disconnected; trying again until it answers")
        if self._on_disconnect:
            self._on_disconnect()

    async def reconnected(self) -> None:
        """Tell that the server answers again."""
        self._log.info("connected again")
        if self._on_reconnect:
            self._on_reconnect()

    async def closed(self) -> None:
        """Tell that the client gave up or was closed."""
        if self._on_closed:
            self._on_closed()


class Answering(Link):
    """A connection that answers strangers: none of their headers reach it, and nothing waits through a loss.

    nats-py parses headers while it reads, and an error there ends its reading; without them the server cuts them off.
    """

    def _connect_command(self) -> bytes:
        line: bytes = super()._connect_command()
        options = json.loads(line.removeprefix(b"CONNECT "))
        return b"CONNECT %s\r\n" % json.dumps(options | {"headers": False, "no_responders": False}).encode()

    def _build_message(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> Any:
        # A reply subject of other bytes than ASCII would end the reading, too; without one nobody is answered.
        return super()._build_message(sid, subject, reply if reply.isascii() else b"", data, headers)

    async def disconnected(self) -> None:
        """Drop what was not sent: subscriptions are sent again by nats-py, and answers may no longer be wanted."""
        self._pending.clear()
        self._pending_data_size = 0
        await super().disconnected()


async def connect(
    url: str | list[str],
    user: str = "",
    password: str = "",
    *,
    inbox_prefix: str = "_INBOX",
    name: str = "sensegate",
    on_slow: Callable[[], None] | None = None,
    on_reconnect: Callable[[], None] | None = None,
    on_disconnect: Callable[[], None] | None = None,
    on_closed: Callable[[], None] | None = None,
    tls: ssl.SSLContext | None = None,
    timeout_s: float = 10.0,
    reconnect_wait_s: float = 0.1,
    reconnect_timeout_s: float = 5.0,
    ping_s: float = 10.0,
    raw_subjects: bool = False,
    answering: bool = False,
) -> Link:
    """Return a client that reconnects for ever and buffers nothing while disconnected (a publish raises instead).

    `on_slow` is called when the client dropped a message because its reader was too slow: treat it as a gap.
    `on_closed` is called when the client gave up for good (its credentials were refused) or was closed.
    `answering` makes it an `Answering`, for what strangers send.

    Raises:
        Unavailable: no server answered within `timeout_s`.
        PermissionDenied: the server refused the credentials.
        Untrusted: its certificate is not trusted, or it wants another one of ours.
    """
    link = (Answering if answering else Link)(
        name, on_slow=on_slow, on_reconnect=on_reconnect, on_disconnect=on_disconnect, on_closed=on_closed
    )
    options: dict[str, Any] = {"tls": tls} if tls else {}
    if user:
        options |= {"user": user, "password": password}
    attempt = asyncio.create_task(
        link.connect(
            url,
            name=name,
            error_cb=link.errors_seen,
            disconnected_cb=link.disconnected,
            reconnected_cb=link.reconnected,
            closed_cb=link.closed,
            max_reconnect_attempts=-1,
            reconnect_time_wait=reconnect_wait_s,  # type: ignore[arg-type] # annotated int, used as seconds
            connect_timeout=reconnect_timeout_s,  # type: ignore[arg-type] # the same
            ping_interval=ping_s,  # type: ignore[arg-type] # the same
            max_outstanding_pings=2,
            inbox_prefix=inbox_prefix,
            # 0: a publish while disconnected raises. What nats-py buffers would arrive after we had given it up.
            pending_size=0,
            skip_subject_validation=raw_subjects,
            **options,
        ),
        name=f"connect {name}",
    )
    refusal = asyncio.create_task(link.refused.wait())
    try:
        await asyncio.wait({attempt, refusal}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if attempt.done():
            attempt.result()
            return link
    except (OSError, nats.errors.Error, TimeoutError) as why:
        raise Unavailable(f"no connection to {_without_secret(url)}: {why}") from why
    finally:
        refusal.cancel()
        attempt.cancel()
        await asyncio.gather(attempt, refusal, return_exceptions=True)
        if not link.is_connected:
            link.drop()  # an attempt that is cancelled while nats-py closes leaves it open
    await link.close()
    if link.untrusted:
        raise Untrusted(f"no TLS with {_without_secret(url)}: {link.untrusted}")
    if link.refused.is_set():
        raise PermissionDenied(f"{_without_secret(url)} refused the credentials of {user!r}", authenticated=False)
    raise Unavailable(f"no answer from {_without_secret(url)} within {timeout_s} s")


def _about_certificates(why: ssl.SSLError) -> bool:
    """Return whether a handshake failed for whom it showed, and not because the other side went away."""
    return isinstance(why, ssl.SSLCertVerificationError) or any(
        word in (why.reason or "") for word in ("CERTIFICATE", "UNKNOWN_CA")
    )


def _without_secret(url: str | list[str]) -> str:
    return ", ".join(part.rsplit("@", 1)[-1] for part in ([url] if isinstance(url, str) else url))
