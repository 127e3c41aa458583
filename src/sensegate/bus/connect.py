"""Connections to nats-server, with settings under which nats-py neither drops nor buffers messages silently."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate import metrics
from sensegate.bus import trust
from sensegate.bus.inventory import AccountStreams
from sensegate.config import EngineConfig
from sensegate.errors import PermissionDenied, Unavailable, Untrusted

_log = structlog.get_logger("bus")
CLOSE_S = 1.0
CANCEL_S = 0.2
FLUSH_S = 5.0
"""Longest time for flushing the send buffer when a connection is closed."""
_HARMLESS = ("permissions violation", "maximum subscriptions exceeded")
"""Errors after which the server keeps the connection."""
_HEADERS_BEGIN = b"NATS/1.0\r\n"
_UNEXPECTED = (RuntimeError, ValueError, LookupError, AttributeError, AssertionError, asyncio.InvalidStateError)
"""Errors at which the reconnection of nats-py ends, such as a write to a transport that uvloop has closed."""


def trust_certificate(cert_file: str) -> ssl.SSLContext:
    """Return a TLS context that trusts exactly this certificate (of our own server), whatever host names it has."""
    context = ssl.create_default_context(cafile=cert_file)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def engine_context(config: EngineConfig) -> ssl.SSLContext | None:
    """Return the TLS context of own connections to the engine; None: they use no TLS. Raises `ConfigError`."""
    if config.url:
        if "tls://" not in config.url:
            return None
        return trust.client_context(
            "engine", ca_file=config.ca_file, cert_file=config.tls.cert_file, key_file=config.tls.key_file
        )
    if not config.tls.cert_file:
        return None
    context = trust_certificate(config.tls.cert_file)
    if config.link_ca_file:
        context.load_cert_chain(config.tls.cert_file, config.tls.key_file or None)
    return context


@contextmanager
def _raising_swallowed_cancellation() -> Iterator[None]:
    """Raise `CancelledError` on exit if the task was cancelled meanwhile and the cancellation was swallowed.

    nats-py swallows it in its flush, and its `wait_for` (Python 3.11) when it arrives together with the response: the
    task would continue, and whoever cancelled it would wait for ever.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel a task of nats-py until it has ended: it swallows a cancellation that comes while it closes."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_S)


class Login(msgspec.Struct, frozen=True):
    """Name and password of a user of the server, and the subjects of its replies."""

    user: str
    password: str
    inbox_prefix: str = "_INBOX"


MessageHandler = Callable[[bytes, bytes, bytes], None]
"""Is called with the subject, the header (empty: none) and the payload of a message."""


class LinkEvents(msgspec.Struct, frozen=True, eq=False):
    """Callbacks of a connection."""

    on_slow: Callable[[], None] | None = None
    """Called when the client dropped a message because its reader was too slow: treat it as a gap."""
    on_reconnect: Callable[[], None] | None = None
    on_disconnect: Callable[[], None] | None = None
    on_closed: Callable[[], None] | None = None
    """Called when the client gave up for good (its credentials were refused) or was closed."""


class LinkOptions(msgspec.Struct, frozen=True):
    """Times and kinds of a connection."""

    timeout_s: float = 10.0
    """Time in which a server must answer."""
    reconnect_wait_s: float = 0.1
    reconnect_timeout_s: float = 5.0
    ping_s: float = 10.0
    raw_subjects: bool = False
    """True if subjects are sent unchecked, as the client's own are valid."""
    answering: bool = False
    """True if it is a `ServiceClient`, for requests of untrusted peers."""


NO_EVENTS, USUAL = LinkEvents(), LinkOptions()


class BusClient(Client):
    """A nats-py client that reconnects until it is closed, and whose pending requests fail with the connection.

    nats-py itself lets a request wait for its whole time-out, although the response can no longer come. After some
    errors it stays closed, or never connects again; a message that it cannot decode, and an answer to a flush that was
    given up, make it deaf until its pings fail.
    """

    def __init__(self, name: str, events: LinkEvents = NO_EVENTS) -> None:
        super().__init__()
        self.response_futures: set[asyncio.Future[Any]] = set()
        """Futures of pending responses other than those of `request`; they fail when the connection is lost."""
        self.credentials_refused = asyncio.Event()
        """Set when the server refused the credentials or the TLS handshake failed."""
        self.tls_failure = ""
        """Reason why a TLS handshake failed; empty: none failed."""
        self.known_streams: AccountStreams | None = None
        """Inventory of the streams of the account; None: they are not recorded."""
        self.replicas = 1
        """Copies of each stream that is created over this connection."""
        self._handlers: dict[int, MessageHandler] = {}
        """Number of a subscription -> function that is called with each of its messages at once."""
        self._log = _log.bind(connection=name)
        self._on_slow = events.on_slow
        self._on_reconnect = events.on_reconnect
        self._on_disconnect = events.on_disconnect
        self._on_closed = events.on_closed

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        old_style: bool = False,  # noqa: FBT001, FBT002 - nats-py's signature
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        """Send a request; raise at once without a connection (nats-py would leak the pending response)."""
        if not self.is_connected:
            raise nats.errors.ConnectionReconnectingError
        with _raising_swallowed_cancellation():
            return await super().request(subject, payload, timeout, old_style, headers)

    def publish_at_once(self, subject: str, reply: str, header: bytes, payload: bytes) -> None:
        """Write a message to the socket, behind everything that is pending, without a task in between.

        Args:
            subject: valid as it is.
            reply: subject of the answer, valid as it is.
            header: header block of the message, from ``NATS/1.0`` to the empty line.
            payload: the message.

        Raises:
            nats.errors.Error: there is no connection, or the message is larger than the server takes.
        """
        size, transport = len(header) + len(payload), self._transport
        if transport is None or not self.is_connected:
            raise nats.errors.ConnectionReconnectingError
        if size > self._max_payload:
            raise nats.errors.MaxPayloadError
        line = f"HPUB {subject} {reply} {len(header)} {size}\r\n".encode()
        pending, self._pending, self._pending_data_size = self._pending, [], 0
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += len(payload)
        try:
            transport.write(b"".join((*pending, line, header, payload, b"\r\n")))
        except RuntimeError as why:  # uvloop's for a closed socket, of which the client has not yet heard
            raise nats.errors.ConnectionClosedError from why

    async def subscribe_at_once(self, subject: str, handler: MessageHandler) -> None:
        """Call a function with each message of a subject as soon as it is read, without a queue and a task in between.

        `handler` must not raise anything but `ValueError`, which drops the message.
        """
        subscription = await self.subscribe(subject)
        self._handlers[subscription._id] = handler  # noqa: SLF001 - nats-py gives no other name to what it dispatches by

    async def flush(self, timeout: int = 10) -> None:
        """Wait until the server has received everything that was sent."""
        with _raising_swallowed_cancellation():
            await super().flush(timeout)

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        """Write a PING behind everything that is pending.

        nats-py writes it before: the PONG, and with it `flush`, would come before the server has read the rest.
        """
        if self._pending and self._transport is not None and self.is_connected:
            pending, self._pending, self._pending_data_size = self._pending, [], 0
            self._transport.write(b"".join(pending))
        await super()._send_ping(future)

    async def _flush_pending(self, force_flush: bool = False) -> Any:  # noqa: FBT001, FBT002 - nats-py's signature
        with _raising_swallowed_cancellation():
            return await super()._flush_pending(force_flush)

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:  # noqa: FBT001, FBT002 - nats-py's
        """Buffer a command; without a connection drop it: the reconnect repeats what is subscribed then.

        nats-py would send every subscription of the time without a connection, also those that have ended since.
        """
        if self.is_connected:
            await super()._send_command(cmd, priority)

    async def _process_op_err(self, e: Exception) -> None:
        """Drop a failed connection together with its unsent data.

        nats-py would close it gracefully, which takes a quarter of an hour with a peer that swallows packets.
        """
        if not (self.is_closed or self.is_reconnecting):
            self.drop()
        await super()._process_op_err(e)

    async def _process_err(self, err_msg: str) -> None:
        """Reconnect after an error with which the server ends the connection: nats-py would stay closed."""
        why = nats.errors.Error(f"nats: {err_msg}")
        if any(text in err_msg for text in _HARMLESS):
            await self.on_error(why)
        else:
            await self._process_op_err(why)

    async def _attempt_reconnect(self) -> None:
        """Reconnect until it succeeds or the client is closed."""
        while True:
            try:
                await super()._attempt_reconnect()
            except _UNEXPECTED as why:
                await self.on_error(why)
                if self.is_closed or self.is_connected:
                    return
                self._status = Client.RECONNECTING
                # Its end is not waited for: after a failed TLS handshake asyncio never reports it.
                self.drop()
                self._transport = None
                await asyncio.sleep(self.options["reconnect_time_wait"])
            else:
                return

    async def _read_loop(self) -> None:
        """Read until the connection ends; reconnect where nats-py stops at an error that it only logs."""
        await super()._read_loop()
        task = asyncio.current_task()
        if self.is_connected and task is self._reading_task and not (task and task.cancelling()):
            await self._process_op_err(nats.errors.Error("the connection is not read any more"))

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """Take a message; drop one whose subjects or headers cannot be decoded, which anybody may publish."""
        try:
            if handler := self._handlers.get(sid):
                handler(subject, headers or b"", data)
            else:
                await super()._process_msg(sid, subject, reply, data, headers)
        except (ValueError, IndexError) as why:
            metrics.LIMIT_HITS.labels("bus_undecodable").inc()
            self._log.warning("message dropped: its subject or header cannot be decoded", reason=str(why))

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        """Parse headers; those in the form of the server, which nearly all have, in a quarter of the time."""
        if headers and headers.startswith(_HEADERS_BEGIN):
            try:
                lines = headers[len(_HEADERS_BEGIN) : -4].decode().split("\r\n")
                return {name: value for name, value in (line.split(": ", 1) for line in lines)}  # noqa: C416 - typed
            except ValueError:
                pass
        parsed: dict[str, str] | None = await super()._process_headers(headers)
        return parsed

    async def _process_pong(self) -> None:
        """Take the answer to a ping, also to one for which nobody waits any more."""
        if self._pongs and self._pongs[0].done():
            del self._pongs[0]
            self._pongs_received += 1
            self._pings_outstanding = 0
        else:
            await super()._process_pong()

    async def _connect_to_server(self, s: Any) -> None:
        """Connect; drop the socket that an earlier attempt left open when its handshake failed."""
        self.drop()
        await super()._connect_to_server(s)

    def drop(self) -> None:
        """Abort the socket at once, without sending buffered data."""
        for writer in (getattr(self._transport, name, None) for name in ("_io_writer", "_bare_io_writer")):
            if writer is not None:
                writer.transport.abort()

    async def close(self) -> None:
        """Close the connection; abort it where that takes too long.

        The peer may not read what is still to be sent, and after a failed TLS handshake asyncio never reports the end.
        nats-py swallows some cancellations: what goes on would connect again and hold a place of its account.
        """
        closing = asyncio.create_task(super().close(), name="close connection")
        try:
            await asyncio.wait({closing}, timeout=CLOSE_S if self.tls_failure else FLUSH_S)
        finally:
            if not closing.done():
                self.drop()
                await _end(closing)
            if self._reconnection_task is not None and self._reconnection_task is not asyncio.current_task():
                await _end(self._reconnection_task)
                self.drop()  # an attempt may have connected after nats-py had closed the socket before
        if not closing.cancelled():
            closing.result()

    async def on_error(self, why: Exception) -> None:
        """Handle an error that nats-py met in the background."""
        if isinstance(why, nats.errors.SlowConsumerError):
            self._log.warning("slow reader: client dropped messages; they are read again", subject=why.subject)
            if self._on_slow:
                self._on_slow()
        elif isinstance(why, nats.errors.AuthorizationError) or "authorization violation" in str(why).lower():
            self.credentials_refused.set()
            self._log.warning("credentials refused")
        elif isinstance(why, ssl.SSLError) and _is_certificate_error(why):
            self.tls_failure = getattr(why, "verify_message", "") or str(why.args[-1])
            self.credentials_refused.set()
            self._log.warning("TLS handshake failed", reason=self.tls_failure)
        else:
            self._log.debug("connection error", reason=str(why) or type(why).__name__)

    async def on_disconnected(self) -> None:
        """Fail all pending requests, and drop unsent commands: they would arrive after the callers gave up."""
        self._pending.clear()
        self._pending_data_size = 0
        for future in (*self._resp_map.values(), *self.response_futures):
            if not future.done():
                future.set_exception(nats.errors.UnexpectedEOF())
        if not self.is_closed:
            self._log.info("disconnected; reconnecting")
        if self._on_disconnect:
            self._on_disconnect()

    async def on_reconnected(self) -> None:
        """Log that the connection is established again, and call the callback."""
        self._log.info("reconnected")
        if self._on_reconnect:
            self._on_reconnect()

    async def on_client_closed(self) -> None:
        """Call the callback when the client gave up or was closed."""
        if self._on_closed:
            self._on_closed()


class ServiceClient(BusClient):
    """A client that answers requests of untrusted peers: it receives no headers.

    nats-py parses headers in its read loop, and an error there ends the loop; a client that declares no support for
    headers gets messages without them.
    """

    def _connect_command(self) -> bytes:
        line: bytes = super()._connect_command()
        options = json.loads(line.removeprefix(b"CONNECT "))
        return b"CONNECT %s\r\n" % json.dumps(options | {"headers": False, "no_responders": False}).encode()

    def _build_message(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> Any:
        # A reply subject that is not ASCII would end the read loop, too; such a request is not answered.
        return super()._build_message(sid, subject, reply if reply.isascii() else b"", data, headers)


async def connect(
    url: str | list[str],
    login: Login | None = None,
    *,
    name: str = "sensegate",
    tls: ssl.SSLContext | None = None,
    events: LinkEvents = NO_EVENTS,
    link_options: LinkOptions = USUAL,
) -> BusClient:
    """Return a connected client that reconnects for ever and buffers nothing while disconnected (publishing raises).

    Raises:
        Unavailable: no server answered in time.
        PermissionDenied: the server refused the credentials.
        Untrusted: its certificate is not trusted, or it wants another one of ours.
    """
    timeout_s = link_options.timeout_s
    login = login or Login("", "")
    link = (ServiceClient if link_options.answering else BusClient)(name, events)
    options: dict[str, Any] = {"tls": tls} if tls else {}
    if login.user:
        options |= {"user": login.user, "password": login.password}
    attempt = asyncio.create_task(
        link.connect(
            url,
            name=name,
            error_cb=link.on_error,
            disconnected_cb=link.on_disconnected,
            reconnected_cb=link.on_reconnected,
            closed_cb=link.on_client_closed,
            max_reconnect_attempts=-1,
            # Annotated int, used as seconds.
            reconnect_time_wait=link_options.reconnect_wait_s,  # type: ignore[arg-type]
            connect_timeout=link_options.reconnect_timeout_s,  # type: ignore[arg-type]
            ping_interval=link_options.ping_s,  # type: ignore[arg-type]
            max_outstanding_pings=2,
            inbox_prefix=login.inbox_prefix,
            # 0: publishing while disconnected raises. Buffered data would arrive after the caller had given it up.
            pending_size=0,
            skip_subject_validation=link_options.raw_subjects,
            **options,
        ),
        name=f"connect {name}",
    )
    refusal = asyncio.create_task(link.credentials_refused.wait())
    is_taken = False
    try:
        await asyncio.wait({attempt, refusal}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if attempt.done():
            attempt.result()
            is_taken = True
            return link
    except (OSError, nats.errors.Error, TimeoutError) as why:
        raise Unavailable(f"no connection to {_without_credentials(url)}: {why}") from why
    finally:
        refusal.cancel()
        await _end(attempt)
        if not link.is_connected:
            link.drop()  # nats-py leaves the socket open when an attempt is cancelled while it closes
        elif not is_taken:
            await link.close()  # the caller was cancelled just when the connection was made
    await link.close()
    if link.tls_failure:
        raise Untrusted(f"no TLS with {_without_credentials(url)}: {link.tls_failure}")
    if link.credentials_refused.is_set():
        raise PermissionDenied(
            f"{_without_credentials(url)} refused the credentials of {login.user!r}", authenticated=False
        )
    raise Unavailable(f"no answer from {_without_credentials(url)} within {timeout_s} s")


def _is_certificate_error(why: ssl.SSLError) -> bool:
    """Return whether a handshake failed because of a certificate, not because the peer closed the connection."""
    return isinstance(why, ssl.SSLCertVerificationError) or any(
        word in (why.reason or "") for word in ("CERTIFICATE", "UNKNOWN_CA")
    )


def _without_credentials(url: str | list[str]) -> str:
    return ", ".join(part.rsplit("@", 1)[-1] for part in ([url] if isinstance(url, str) else url))
