"""Transports of notices: webhooks, group robots and SMTP; each attempt returns its outcome."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import smtplib
import ssl
from collections.abc import AsyncIterator, Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Protocol
from urllib.parse import quote_plus

import aiohttp

from sensegate.alarms.channels import AlarmChannel, ChannelKind
from sensegate.alarms.notices import Notice, mail_of, robot_body, webhook_body
from sensegate.authority.egress import Egress, EgressDenied, outbound_session
from sensegate.authority.http_bodies import read_body
from sensegate.clock import Clock
from sensegate.config import MailConfig
from sensegate.errors import ConfigError
from sensegate.share.transports.contract import DeliveryResult, OutboundDelivery, PushTransport

ANSWER_BYTES_MAX = 16_384
CONNECTIONS_MAX = 20


class NoticeTransport(Protocol):
    """Delivers notices by one kind of channel."""

    async def send(self, channel: AlarmChannel, notices: Sequence[Notice]) -> DeliveryResult:
        """Attempt one delivery within a time limit; never raises for what the receiver does."""
        ...


class WebhookTransport:
    """Signed JSON by the publisher of webhooks."""

    def __init__(self, transport: PushTransport) -> None:
        self._transport = transport

    async def send(self, channel: AlarmChannel, notices: Sequence[Notice]) -> DeliveryResult:
        delivery = OutboundDelivery(
            target=channel.url,
            id=notices[0].id,
            body=webhook_body(channel, notices),
            media="application/json",
            secret=channel.secret.encode(),
        )
        return await self._transport.send(delivery)


class RobotTransport:
    """Messages to group robots, which answer 200 also where they refuse. `open_robots` makes one."""

    def __init__(self, session: aiohttp.ClientSession, egress: Egress, clock: Clock, timeout_s: float) -> None:
        self._session = session
        self._egress = egress
        self._clock = clock
        self._timeout_s = timeout_s

    async def send(self, channel: AlarmChannel, notices: Sequence[Notice]) -> DeliveryResult:
        url = signed_url(channel, self._clock.now() // 1_000)
        try:
            self._egress.check(channel.url)
            async with self._session.post(
                url,
                data=robot_body(channel, notices),
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    return DeliveryResult(accepted=False, reason=f"answered {response.status}")
                return _robot_result(await read_body(response.content, ANSWER_BYTES_MAX))
        except ConfigError as why:
            return DeliveryResult(accepted=False, reason=str(why))
        except TimeoutError:
            return DeliveryResult(accepted=False, reason=f"no answer within {self._timeout_s:g} s")
        except EgressDenied as why:
            return DeliveryResult(accepted=False, reason=str(why))
        except (aiohttp.ClientError, ssl.SSLError, OSError):
            # Not the text of the error: it may quote the address with the robot's key.
            return DeliveryResult(accepted=False, reason="the connection failed, or its address is not allowed")


@contextlib.asynccontextmanager
async def open_robots(egress: Egress, clock: Clock, *, timeout_s: float) -> AsyncIterator[RobotTransport]:
    """Yield a transport with a pool of connections, which are closed at the end; each attempt has `timeout_s`."""
    async with outbound_session(egress, timeout_s=timeout_s, connections_max=CONNECTIONS_MAX) as session:
        yield RobotTransport(session, egress, clock, timeout_s)


def signed_url(channel: AlarmChannel, now_ms: int) -> str:
    """Return the address of a robot; that of 钉钉 with its signature where the channel has a secret."""
    if channel.kind is not ChannelKind.DINGTALK or not channel.secret:
        return channel.url
    signed = f"{now_ms}\n{channel.secret}".encode()
    code = base64.b64encode(hmac.new(channel.secret.encode(), signed, hashlib.sha256).digest()).decode()
    separator = "&" if "?" in channel.url else "?"
    return f"{channel.url}{separator}timestamp={now_ms}&sign={quote_plus(code)}"


def _robot_result(answer: bytes) -> DeliveryResult:
    try:
        code = json.loads(answer)["errcode"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return DeliveryResult(accepted=False, reason="the answer is not that of a robot")
    if code == 0:
        return DeliveryResult(accepted=True)
    return DeliveryResult(accepted=False, reason=f"the robot refused: errcode {str(code)[:20]}")


class MailTransport:
    """Mail by the SMTP server of the configuration, sent in a thread."""

    def __init__(self, config: MailConfig, *, timeout_s: float) -> None:
        self._config = config
        self._timeout_s = timeout_s

    async def send(self, channel: AlarmChannel, notices: Sequence[Notice]) -> DeliveryResult:
        if not self._config.host:
            return DeliveryResult(accepted=False, reason="there is no mail server; set alarms.mail.host")
        message = mail_of(channel, notices, sender=self._config.sender)
        try:
            await asyncio.to_thread(self._send, message)
        except smtplib.SMTPRecipientsRefused:
            return DeliveryResult(accepted=False, reason="the mail server refused all recipients")
        except smtplib.SMTPResponseException as why:
            return DeliveryResult(accepted=False, reason=f"the mail server answered {why.smtp_code}")
        except (smtplib.SMTPException, ssl.SSLError, OSError) as why:
            return DeliveryResult(accepted=False, reason=f"the mail server does not answer ({type(why).__name__})")
        return DeliveryResult(accepted=True)

    def _send(self, message: EmailMessage) -> None:
        config, context = self._config, ssl.create_default_context(cafile=self._config.ca_file or None)
        password = Path(config.password_file).read_text(encoding="utf-8").strip() if config.password_file else ""
        server = (
            smtplib.SMTP_SSL(config.host, config.port, timeout=self._timeout_s, context=context)
            if config.security == "tls"
            else smtplib.SMTP(config.host, config.port, timeout=self._timeout_s)
        )
        with server:
            if config.security == "starttls":
                server.starttls(context=context)
            if config.username:
                server.login(config.username, password)
            server.send_message(message)
