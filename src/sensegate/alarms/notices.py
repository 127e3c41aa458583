"""Notices: events of alarms as they are delivered, read from the log, and their form for each kind of channel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from email.message import EmailMessage

import msgspec

from sensegate.alarms.channels import AlarmChannel, ChannelKind
from sensegate.alarms.rules import Severity
from sensegate.bus.batch import Batch
from sensegate.web.routing import iso

SEVERITIES = tuple(Severity)
TEXT_BYTES_MAX = {ChannelKind.WECOM: 4_000, ChannelKind.DINGTALK: 18_000}
"""Largest text of a robot's message: 4,096 bytes at 企业微信, 20,000 at 钉钉."""
LINE_MAX = 500
_WORDS: Mapping[str, Mapping[str, str]] = {
    "zh": {
        "opened": "告警发生", "acknowledged": "告警已确认", "silenced": "告警已静默", "closed": "告警恢复",
        "info": "提示", "warning": "一般", "major": "重要", "critical": "紧急", "value": "值", "on_call": "值班",
        "reason": "原因", "note": "备注", "subject": "感知网关告警", "more": "另有 {} 条，见控制台",
    },
    "en": {
        "opened": "alarm opened", "acknowledged": "alarm acknowledged", "silenced": "alarm silenced",
        "closed": "alarm closed", "info": "info", "warning": "warning", "major": "major", "critical": "critical",
        "value": "value", "on_call": "on call", "reason": "reason", "note": "note", "subject": "sensing gateway alarm",
        "more": "and {} more, see the console",
    },
}  # fmt: skip


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """An event of an alarm, as it is delivered."""

    id: str
    """The same at each attempt."""
    time: str
    event: str
    alarm: str
    rule: str
    kind: str
    severity: Severity
    title: str
    device: str
    division: str
    department: str
    property: str = ""
    channel: str = ""
    value: float | str | None = None
    note: str = ""
    reason: str = ""
    silenced_until: str = ""


class _EventText(msgspec.Struct, frozen=True):
    """The record of an event on the log."""

    alarm: str
    event: str
    rule: str
    kind: str
    severity: Severity
    title: str = ""
    property: str = ""
    channel: str = ""
    value: float | str | None = None
    note: str = ""
    reason: str = ""
    silenced_until: str = ""


_decode = msgspec.json.Decoder(_EventText).decode


def notices_of(batch: Batch) -> Iterator[Notice]:
    """Yield the alarm events of an entry of the log."""
    for row, text in sorted(batch.text.items()):
        try:
            event = _decode(text)
        except msgspec.MsgspecError:
            continue
        origin = int(batch.origin[row])
        time = iso(int(batch.time[row]))
        yield Notice(
            id=f"{event.alarm}-{event.event}-{int(batch.time[row]):x}",
            time=time,
            event=event.event,
            alarm=event.alarm,
            rule=event.rule,
            kind=event.kind,
            severity=event.severity,
            title=event.title,
            device=batch.origins.device[origin],
            division=batch.origins.division[origin],
            department=batch.origins.department[origin],
            property=event.property,
            channel=event.channel,
            value=None if isinstance(event.value, float) and not math.isfinite(event.value) else event.value,
            note=event.note,
            reason=event.reason,
            silenced_until=event.silenced_until,
        )


def is_wanted(channel: AlarmChannel, notice: Notice) -> bool:
    """Return whether a channel delivers an event: its place, severity and kind of event, and no silence."""
    if notice.event not in channel.events or SEVERITIES.index(notice.severity) < SEVERITIES.index(channel.severity):
        return False
    is_silenced = notice.event in {"opened", "closed"} and notice.silenced_until > notice.time
    return not is_silenced and channel.place.covers(notice.division, notice.department)


def line(notice: Notice, language: str) -> str:
    """Return an event in one line."""
    words = _WORDS[language]
    subject = " ".join(filter(None, (notice.device, notice.property, notice.channel)))
    parts = [f"[{words[notice.severity]}] {words[notice.event]}: {notice.title or notice.rule}", subject]
    if notice.value is not None:
        shown = f"{notice.value:g}" if isinstance(notice.value, float) else str(notice.value)
        parts.append(f"{words['value']} {shown}")
    parts += [f"{words[key]}: {text}" for key in ("reason", "note") if (text := getattr(notice, key))]
    parts += [notice.division, notice.time]
    # A line of its own: no event may add lines, headings or links to a message.
    # All that separates lines, also U+2028 and its like: the subject of a mail is refused with any of them.
    flat = " ".join(" · ".join(filter(None, parts)).splitlines())
    return flat[:LINE_MAX]


def text_of(channel: AlarmChannel, notices: Sequence[Notice], *, bytes_max: int = 0) -> str:
    """Return events as lines with the on-call note; `bytes_max`: the last ones are counted instead of shown."""
    words = _WORDS[channel.language]
    tail = f"\n{words['on_call']}: {channel.on_call}" if channel.on_call else ""
    lines = [line(notice, channel.language) for notice in notices]
    text = "\n".join(lines) + tail
    shown = len(lines)
    while bytes_max and shown > 1 and len(text.encode()) > bytes_max:
        shown -= 1
        text = "\n".join([*lines[:shown], words["more"].format(len(lines) - shown)]) + tail
    return text


def _markdown(text: str) -> str:
    """Return a text whose characters mean nothing in Markdown, a line a paragraph."""
    escaped = "".join(f"\\{mark}" if mark in "\\`*_[]()#<>!|" else mark for mark in text)
    return escaped.replace("\n", "\n\n")


def webhook_body(channel: AlarmChannel, notices: Sequence[Notice]) -> bytes:
    """Return the JSON document of a webhook."""
    return msgspec.json.encode({"channel": channel.name, "on_call": channel.on_call, "alarms": list(notices)})


def robot_body(channel: AlarmChannel, notices: Sequence[Notice]) -> bytes:
    """Return the message of a group robot: text at 企业微信, Markdown at 钉钉."""
    text = text_of(channel, notices, bytes_max=TEXT_BYTES_MAX[channel.kind])
    if channel.kind is ChannelKind.WECOM:
        return msgspec.json.encode({"msgtype": "text", "text": {"content": text}})
    title = _WORDS[channel.language]["subject"]
    return msgspec.json.encode({"msgtype": "markdown", "markdown": {"title": title, "text": _markdown(text)}})


def mail_of(channel: AlarmChannel, notices: Sequence[Notice], *, sender: str) -> EmailMessage:
    """Return events as a mail, whose id is that of the first event."""
    message = EmailMessage()
    first = line(notices[0], channel.language)[:120]
    more = f" (+{len(notices) - 1})" if len(notices) > 1 else ""
    message["Subject"] = f"{_WORDS[channel.language]['subject']}: {first}{more}"
    message["From"] = sender
    message["To"] = ", ".join(channel.recipients)
    message["Message-ID"] = f"<{notices[0].id}.{channel.name}@sensegate>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text_of(channel, notices))
    return message
