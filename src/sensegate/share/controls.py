"""What subscribers by MQTT and NATS say: from which cursor on they want their records.

A message on ``sg/control/<grant>/<delivery>`` (NATS: ``sg.control.…``) holds nothing: go on where it stood; a cursor;
or ``{"after": CURSOR, "form": FORM, "tag": TAG}``, all optional: `after` is a cursor or ``first``; `tag` is the last
level of the topic from then on, so that nothing meant for an earlier connection reaches this one. What is wrong with
it is answered, or told under ``problem`` beside the records.
"""

from __future__ import annotations

import re

import msgspec

from sensegate.authority.record_store import RecordTable
from sensegate.authority.scope import Principal
from sensegate.errors import ConfigError, Gone, NotFound, SensegateError
from sensegate.share.grants import Grants
from sensegate.share.guests import hears, line_id
from sensegate.share.lines import MEDIA, PROBLEM, Lines, Mark, State, Still, moved
from sensegate.share.reader import Reader

BYTES_MAX = 1_000
FIRST = "first"
_TAG = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a control message says."""

    after: str = ""
    form: str = ""
    tag: str = ""


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is answered, where the asker listens to answers."""

    after: str = ""
    """Cursor after which it goes on."""
    problem: str = ""
    first: str = ""
    """The oldest cursor that is valid, where the one given is not."""


class Controls:
    """Takes what they say."""

    def __init__(
        self, grants: Grants, reader: Reader, marks: RecordTable[Mark], lines: dict[str, Lines], still: Still
    ) -> None:
        self._grants = grants
        self._reader = reader
        self._marks = marks
        self._lines = lines
        self._still = still

    async def take(self, subject: str, payload: bytes) -> Answer:
        """Move the line of a grant to where its subscriber says; return what is answered.

        The server lets only the subscriber of a grant publish on its subject.
        """
        _, _, rest = subject.partition("sg.control.")
        grant_id, _, delivery = rest.partition(".")
        try:
            return Answer(await self._moved(grant_id, delivery, payload))
        except Gone as why:
            return Answer(problem=str(why), first=why.first)
        except SensegateError as why:
            return Answer(problem=str(why))

    def reply_of(self, subject: str, reply: str) -> str:
        """Return where the answer to a message on this subject goes; empty: the sender named no inbox of its own."""
        grant = self._grants.find(subject.removeprefix("sg.control.").partition(".")[0])
        return reply_of(reply, grant.subscriber) if grant else ""

    async def _moved(self, grant_id: str, delivery: str, payload: bytes) -> str:
        grant, lines = self._grants.find(grant_id), self._lines.get(delivery)
        if grant is None or lines is None:
            raise NotFound(f"no grant {grant_id[:40]} by {delivery[:20]}")
        said = parsed(payload)
        principal: Principal = self._still(grant.subscriber)
        self._grants.admitted(principal, grant.feed, delivery=delivery, form=said.form)
        changes: dict[str, object] = {"state": State.ON, "why": ""}
        if said.after:
            place = await (self._reader.first() if said.after == FIRST else self._reader.resume(said.after))
            changes |= {"after": str(place), "sending": 0}
        if said.form:
            changes["form"] = said.form
        if said.tag:
            changes["tag"] = said.tag
        mark = await moved(self._marks, line_id(grant_id, delivery), changes)
        lines.begin(line_id(grant_id, delivery))
        return mark.after


def reply_of(reply: str, subscriber: str) -> str:
    """Return where the answer to a control message goes: the subscriber's own inbox; empty: nowhere.

    The server checks no reply subject, and our own connection may publish everywhere in the account: an answer to
    ``$JS.API.STREAM.DELETE.…`` would be a request of ours, one to another's feed a letter of ours.
    """
    return reply if reply.startswith(f"_INBOX_{subscriber}.") else ""


def told_at(subject: str) -> str:
    """Return where to tell the problem of a control message whose sender named no place for answers."""
    grant_id, _, delivery = subject.removeprefix("sg.control.").partition(".")
    return f"{hears(grant_id, delivery)}.{PROBLEM}"


def parsed(payload: bytes) -> Said:
    """Return what a message says. Raises `ConfigError`."""
    if len(payload) > BYTES_MAX:
        raise ConfigError("too long", key="control", remedy='send a cursor, or {"after": …, "form": …, "tag": …}')
    text = payload.strip()
    try:
        said = msgspec.json.decode(text, type=Said) if text.startswith(b"{") else Said(text.decode("ascii"))
    except (msgspec.DecodeError, UnicodeDecodeError) as why:
        raise ConfigError(str(why)[:200], key="control", remedy="send a cursor, or JSON") from None
    if said.form and said.form not in MEDIA:
        raise ConfigError(f"'{said.form[:20]}'", key="form", remedy=f"one of {', '.join(MEDIA)}")
    if said.tag == PROBLEM:
        raise ConfigError(f"'{PROBLEM}'", key="tag", remedy="another word: that is where problems are told")
    if said.tag and not _TAG.fullmatch(said.tag):
        raise ConfigError(f"'{said.tag[:64]}'", key="tag", remedy="1 to 64 of A-Z, a-z, 0-9, _ and -")
    return said
