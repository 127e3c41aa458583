"""Control messages of subscribers by MQTT and NATS: the cursor after which delivery is to start.

A message on ``sg/control/<grant>/<delivery>`` (NATS: ``sg.control.…``) is empty (continue at the committed offset), a
cursor, or ``{"after": CURSOR, "form": FORM, "tag": TAG, "home_assistant": true}``, all optional: `after` is a cursor or
``first``; `tag` becomes the last level of the topic, so that no delivery to an earlier connection reaches this one. It
belongs to the connection; null takes it back. `home_assistant` has configurations published for Home Assistant's MQTT
discovery until false takes them back. Errors are sent in the reply, or published under ``problem`` beside the records.
"""

from __future__ import annotations

import re

import msgspec

from sensegate.authority.record_store import RecordTable
from sensegate.authority.scope import Principal
from sensegate.errors import ConfigError, Gone, NotFound, SensegateError
from sensegate.share.broker_clients import MQTT, record_subject, subscription_id
from sensegate.share.grants import Grants
from sensegate.share.reader import LogReader
from sensegate.share.subscriptions import (
    MEDIA_TYPES,
    PROBLEM_TAG,
    CommittedOffset,
    CurrentPrincipal,
    PushSubscriptions,
    SubscriptionState,
    change_offset,
)

CONTROL_BYTES_MAX = 1_000
FIRST = "first"
_TAG = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ControlMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of a control message."""

    after: str = ""
    form: str = ""
    tag: str | msgspec.UnsetType | None = msgspec.UNSET
    """None: none any more."""
    home_assistant: bool | None = None
    """None: as it was."""


class ControlReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """Reply to a control message."""

    after: str = ""
    """Cursor after which delivery continues."""
    problem: str = ""
    first: str = ""
    """Oldest valid cursor, where the given one is not valid."""


class SubscriptionControl:
    """Handles control messages of subscribers."""

    def __init__(
        self,
        grants: Grants,
        reader: LogReader,
        offsets: RecordTable[CommittedOffset],
        subscriptions: dict[str, PushSubscriptions],
        current_principal: CurrentPrincipal,
    ) -> None:
        self._grants = grants
        self._reader = reader
        self._offsets = offsets
        self._subscriptions = subscriptions
        self._current_principal = current_principal

    async def handle(self, subject: str, payload: bytes) -> ControlReply:
        """Start the subscription of a grant where its subscriber asks; return the reply.

        The broker lets only the subscriber of a grant publish on its subject.
        """
        _, _, rest = subject.partition("sg.control.")
        grant_id, _, delivery = rest.partition(".")
        try:
            return ControlReply(await self._reposition(grant_id, delivery, payload))
        except Gone as why:
            return ControlReply(problem=str(why), first=why.first)
        except SensegateError as why:
            return ControlReply(problem=str(why))

    def reply_of(self, subject: str, reply: str) -> str:
        """Return the reply subject of a message; empty: the sender gave none of its own inbox."""
        grant = self._grants.find(subject.removeprefix("sg.control.").partition(".")[0])
        return reply_of(reply, grant.subscriber) if grant else ""

    def _discovery(self, grant_id: str, delivery: str, control: ControlMessage) -> bool:
        """Return whether configurations are wanted for Home Assistant. Raises `ConfigError`."""
        known = self._offsets.find(subscription_id(grant_id, delivery)) or CommittedOffset()
        if not (known.home_assistant if control.home_assistant is None else control.home_assistant):
            return False
        form = control.form or known.form or "json"
        if delivery != MQTT or form != "json":
            raise ConfigError(
                f"Home Assistant reads JSON by MQTT, not {form} by {delivery}",
                key="home_assistant",
                remedy='choose the form json, or send {"home_assistant": false} too',
            )
        return True

    async def _reposition(self, grant_id: str, delivery: str, payload: bytes) -> str:
        grant, subscriptions = self._grants.find(grant_id), self._subscriptions.get(delivery)
        if grant is None or subscriptions is None:
            raise NotFound(f"there is no grant {grant_id[:40]} for delivery {delivery[:20]}")
        control = parse_control(payload)
        principal: Principal = self._current_principal(grant.subscriber)
        self._grants.admit(principal, grant.feed, delivery=delivery, form=control.form)
        changes: dict[str, object] = {"state": SubscriptionState.ACTIVE, "reason": ""}
        if control.after:
            cursor = await (self._reader.first() if control.after == FIRST else self._reader.resume(control.after))
            changes |= {"after": str(cursor), "in_flight": 0}
        if control.form:
            changes["form"] = control.form
        changes["home_assistant"] = self._discovery(grant_id, delivery, control)
        offset = await change_offset(self._offsets, subscription_id(grant_id, delivery), changes)
        if control.tag is not msgspec.UNSET:
            subscriptions.set_tag(subscription_id(grant_id, delivery), control.tag or "")
        subscriptions.start(subscription_id(grant_id, delivery))
        return offset.after


def reply_of(reply: str, subscriber: str) -> str:
    """Return the reply subject if it is in the inbox of the subscriber; else empty.

    The server does not check reply subjects, and the gateway may publish anywhere in the account: a reply to
    ``$JS.API.STREAM.DELETE.…`` would be a request of the gateway, one to another subject a forged delivery.
    """
    return reply if reply.startswith(f"_INBOX_{subscriber}.") else ""


def problem_subject(subject: str) -> str:
    """Return the subject on which to publish the problem of a control message without a reply subject."""
    grant_id, _, delivery = subject.removeprefix("sg.control.").partition(".")
    return f"{record_subject(grant_id, delivery)}.{PROBLEM_TAG}"


def parse_control(payload: bytes) -> ControlMessage:
    """Return the content of a control message. Raises `ConfigError`."""
    if len(payload) > CONTROL_BYTES_MAX:
        raise ConfigError(
            "the message is too long", key="control", remedy='send a cursor, or {"after": …, "form": …, "tag": …}'
        )
    text = payload.strip()
    try:
        control = (
            msgspec.json.decode(text, type=ControlMessage)
            if text.startswith(b"{")
            else ControlMessage(text.decode("ascii"))
        )
    except (msgspec.DecodeError, UnicodeDecodeError) as why:
        raise ConfigError(str(why)[:200], key="control", remedy="send a cursor, or JSON") from None
    if control.form and control.form not in MEDIA_TYPES:
        raise ConfigError(
            f"'{control.form[:20]}' is unknown", key="form", remedy=f"use one of {', '.join(MEDIA_TYPES)}"
        )
    if control.tag == PROBLEM_TAG:
        raise ConfigError(f"'{PROBLEM_TAG}' is reserved for problems", key="tag", remedy="choose another word")
    if control.tag and not _TAG.fullmatch(control.tag):
        raise ConfigError(
            f"'{control.tag[:64]}' is not a tag", key="tag", remedy="use 1 to 64 of A-Z, a-z, 0-9, _ and -"
        )
    return control
