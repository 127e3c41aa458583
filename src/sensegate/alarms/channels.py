"""Channels: where events of alarms are delivered; a webhook, a robot of 企业微信 or 钉钉, or mail.

A channel names a place and the least severity. Its position on the log is stored beside it, so that no event is lost
through a restart; one whose delivery has an unknown outcome is sent again under the same id.
"""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

from sensegate.alarms.rules import Severity
from sensegate.authority.bucket import Bucket
from sensegate.authority.egress import Egress
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, Scope, allows, demand
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import Clock
from sensegate.config import MailConfig
from sensegate.errors import ConfigError, Conflict, NotFound

CHANNELS_MAX = 200
RECIPIENTS_MAX = 20
URL_MAX = 2_000
SECRET_MIN = 16
ON_CALL_MAX = 300
EVENTS = ("opened", "acknowledged", "silenced", "closed")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_ADDRESS = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")


class ChannelKind(StrEnum):
    """Kind of delivery of a channel."""

    WEBHOOK = "webhook"
    """A JSON document, signed as Standard Webhooks describes."""
    WECOM = "wecom"
    """A group robot of 企业微信."""
    DINGTALK = "dingtalk"
    """A group robot of 钉钉, signed where it has a secret."""
    MAIL = "mail"


class AlarmChannel(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Channel to which the alarm events of a place are delivered."""

    name: str
    kind: ChannelKind
    place: Scope = Scope("")
    severity: Severity = Severity.WARNING
    """Events of a lower severity are not delivered."""
    events: tuple[str, ...] = ("opened", "closed")
    url: str = ""
    secret: str = ""
    """Key of the signatures of a webhook or a 钉钉 robot."""
    recipients: tuple[str, ...] = ()
    """Mail addresses."""
    on_call: str = ""
    """Person on call, named in the last line of each message."""
    language: str = "zh"
    """``zh`` or ``en``."""
    enabled: bool = True
    written_by: str = ""
    revision: int = 0
    format: int = 1


class ChannelState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Delivery state of a channel: its position, and the outcome of the last attempt. Times are µs UTC."""

    position: int
    """Sequence of the last entry of the log whose events are settled."""
    delivered: int = 0
    skipped: int = 0
    """Events that became too old before they could be delivered."""
    failures: int = 0
    """Attempts that failed since the last success."""
    reason: str = ""
    last: int = 0
    """Time of the last success."""
    revision: int = 0
    format: int = 1


class AlarmChannels:
    """The channels of a gateway with their positions."""

    def __init__(self, bucket: Bucket, trail: Trail, clock: Clock, egress: Egress, mail: MailConfig) -> None:
        """`mail`: the mail server and the domains to which mail may go."""
        self._store = RecordStore(bucket, clock)
        self._trail = trail
        self._egress = egress
        self._mail = mail
        self.records: RecordTable[AlarmChannel] = RecordTable(self._store, "channel", AlarmChannel)
        self.states: RecordTable[ChannelState] = RecordTable(self._store, "position", ChannelState)

    async def open(self) -> None:
        """Load channels and positions. Raises `Unavailable`."""
        await self._store.open()

    async def run(self) -> None:
        """Follow changes until cancelled."""
        await self._store.run()

    def visible(self, by: Principal) -> list[AlarmChannel]:
        """Return the channels whose place lies in the caller's scope, by name."""
        return [channel for channel in self.records if _sees(by, channel)]

    def get(self, name: str, by: Principal) -> AlarmChannel:
        """Return a channel. Raises `NotFound` where there is none that the caller may see."""
        channel = self.records.find(name)
        if channel is None or not _sees(by, channel):
            raise NotFound(f"there is no alarm channel {name[:64]} in your scope; see `sensegate alarm channel list`")
        return channel

    async def put(self, channel: AlarmChannel, *, revision: int, start: int, by: Principal) -> AlarmChannel:
        """Write a channel as of a revision (0: a new one, which delivers events after the entry `start`).

        An empty secret or address keeps that of the replaced channel. Raises `ConfigError`, `PermissionDenied`,
        `Conflict`.
        """
        if not _NAME.fullmatch(channel.name):
            raise ConfigError(f"'{channel.name[:64]}' is not a name", key="name", remedy="use a-z, 0-9, _ and -")
        demand(by, Action.CHANGE_ALARMS, channel.place.division, channel.place.department)
        before = self.records.find(channel.name)
        if before and not _sees(by, before):
            raise Conflict(f"alarm channel {channel.name} exists in another scope; choose another name")
        if before and before.kind is channel.kind:
            kept = {"url": channel.url or before.url, "secret": channel.secret or before.secret}
            channel = msgspec.structs.replace(channel, **kept)
        self._check(channel)
        if before is None and len(self.records) >= CHANNELS_MAX:
            raise Conflict(f"there are {CHANNELS_MAX} alarm channels already; delete some first")
        channel = msgspec.structs.replace(channel, written_by=by.id, revision=0)
        facts_before = _facts(before) if before else None
        await self._trail.record(by, "alarm.channel.put", channel.name, before=facts_before, after=_facts(channel))
        if before is None:  # the position first, so that the channel never starts anywhere else
            state = self.states.find(channel.name)
            await self.states.put(channel.name, ChannelState(start), expected=state.revision if state else 0)
        return await self.records.put(channel.name, channel, expected=revision)

    def _check(self, channel: AlarmChannel) -> None:
        """Return if a channel is valid and its destination allowed. Raises `ConfigError`."""
        unknown = [event for event in channel.events if event not in EVENTS]
        if unknown or not channel.events:
            remedy = f"give some of {', '.join(EVENTS)}"
            raise ConfigError(f"'{', '.join(unknown)[:40]}' is unknown", key="events", remedy=remedy)
        if len(channel.on_call) > ON_CALL_MAX:
            raise ConfigError("the note is too long", key="on_call", remedy=f"use at most {ON_CALL_MAX} characters")
        if channel.language not in {"zh", "en"}:
            raise ConfigError(f"'{channel.language[:20]}' is unknown", key="language", remedy="use zh or en")
        if channel.kind is ChannelKind.MAIL:
            if not self._mail.host:
                remedy = "set alarms.mail.host in the configuration, or choose another kind"
                raise ConfigError("this gateway has no mail server", key="kind", remedy=remedy)
            self._check_recipients(channel.recipients)
            return
        if not 0 < len(channel.url) <= URL_MAX:
            raise ConfigError("the address is missing or too long", key="url", remedy="give https://HOST/PATH")
        if channel.kind is ChannelKind.WEBHOOK and len(channel.secret) < SECRET_MIN:
            problem = f"the secret has {len(channel.secret)} characters"
            raise ConfigError(problem, key="secret", remedy=f"give {SECRET_MIN} or more; they sign each delivery")
        self._egress.check(channel.url)

    def _check_recipients(self, recipients: tuple[str, ...]) -> None:
        if not 0 < len(recipients) <= RECIPIENTS_MAX:
            problem = f"{len(recipients)} recipients"
            raise ConfigError(problem, key="recipients", remedy=f"give 1 to {RECIPIENTS_MAX} mail addresses")
        for address in recipients:
            if not _ADDRESS.fullmatch(address):
                raise ConfigError(f"'{address[:80]}' is no mail address", key="recipients", remedy="give NAME@DOMAIN")
            domain = address.rpartition("@")[2].lower()
            allowed = self._mail.domains
            if allowed and not any(domain == name or domain.endswith(f".{name}") for name in allowed):
                remedy = "add it to alarms.mail.domains in the configuration"
                raise ConfigError(f"mail to {domain[:80]} is not allowed", key="recipients", remedy=remedy)

    async def delete(self, name: str, *, by: Principal) -> None:
        """Delete a channel; nothing more is delivered to it. Raises `NotFound`, `PermissionDenied`, `Conflict`."""
        channel = self.get(name, by)
        demand(by, Action.CHANGE_ALARMS, channel.place.division, channel.place.department)
        await self._trail.record(by, "alarm.channel.delete", name, before=_facts(channel))
        await self.records.delete(name, expected=channel.revision)
        await self.states.delete(name, expected=None)

    def state(self, name: str) -> ChannelState:
        """Return the position of a channel."""
        return self.states.find(name) or ChannelState(0)

    async def settle(self, name: str, state: ChannelState) -> None:
        """Write the position of a channel, unless it was deleted. Raises `Conflict`, `Unavailable`, `StoreFull`."""
        if self.records.find(name) is not None:
            present = self.states.find(name)
            await self.states.put(name, state, expected=present.revision if present else 0)


def _sees(by: Principal, channel: AlarmChannel) -> bool:
    return allows(by, Action.READ_ALARMS, channel.place.division, channel.place.department)


def shown_url(channel: AlarmChannel) -> str:
    """Return the address without its query, in which robots have their key."""
    head, separator, _ = channel.url.partition("?")
    return head + ("?…" if separator else "")


def _facts(channel: AlarmChannel) -> Facts:
    shown = msgspec.structs.replace(channel, url=shown_url(channel), secret="…" if channel.secret else "", revision=0)
    facts: Facts = msgspec.to_builtins(shown)
    return facts
