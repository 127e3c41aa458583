"""REST: a pack for the maker of a device: its profile, redacted messages that it could not read, and their stages."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections import Counter

import msgspec
from aiohttp import web

from sensegate import __version__
from sensegate.authoring.payload_redaction import Redactor
from sensegate.authority.scope import Action
from sensegate.bus.raw import StoredMessage
from sensegate.clock import DAY_US, Clock
from sensegate.errors import ConfigError, NotFound
from sensegate.lifecycle.contents import Content
from sensegate.lifecycle.editing import TriedMessage, try_message
from sensegate.web.profiles import name_of, releases_of
from sensegate.web.quarantine import QuarantineScan
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, QueryParam, Route, iso, payload_text

SAMPLES_MAX = 12
SAMPLES_OF_A_KIND = 3
"""Most samples of one reason and topic."""
_README = """\
设备接入问题资料包 / Pack for the maker of a device

物模型 Profile:        {profile}@{version}
平台版本 Gateway:      sensegate {release}
统计自 Since:          {since}
隔离消息 Quarantined:  {total}
样本 Samples:          {samples}

profile/    当前生效的物模型文本 / the profile in force
samples/    样本消息及解析过程 / sample messages, and what the profile makes of them, stage by stage
counts.json 各原因的消息数 / messages by reason

样本已脱敏：设备编号改为 device-N，物模型之外的文本只留长度，坐标取整到 0.1 度，11 位及以上的非时间数字改为 9。
解析过程由脱敏后的内容重新得出，因此个别取值与原始消息不同。
The samples are redacted: ids of devices are device-N; of texts that the profile does not contain only the length is
left; coordinates are rounded to 0.1 degrees; numbers of 11 digits and more that are no times are nines. The stages are
those of the redacted message, so single values may differ from the original.
"""


class PackSample(msgspec.Struct, frozen=True):
    """Sample of a message that could not be read."""

    received: str
    """Time of arrival, to the hour."""
    device: str
    """Pseudonym."""
    topic: str
    reason: str
    detail: str
    bytes: int
    """Size of the original payload."""
    payload: str
    """Redacted: text, or ``base64:`` and base64."""


async def _content(call: Call, name: str) -> tuple[int, Content]:
    """Return (number, content) of the version in force, as far as the caller may see it. Raises `NotFound`."""
    releases = releases_of(call)
    number = next((row.version for row in call.deps.profiles() if row.id == name), 0)
    try:
        return number, await releases.content(name, number, call.principal)
    except NotFound:
        if (in_folder := releases.folder_version(name)) is None:
            raise
        return in_folder


async def _messages(call: Call, name: str, since: int) -> tuple[list[StoredMessage], Counter[str]]:
    """Return samples of the quarantined messages of a profile, and the number of messages by reason."""
    samples: list[StoredMessage] = []
    kinds: Counter[tuple[str, str]] = Counter()
    reasons: Counter[str] = Counter()
    async for _, message in QuarantineScan(call, since).messages():
        if message.profile.partition("@")[0] != name or message.message.received < since:
            continue
        reasons[str(message.reason)] += 1
        kind = (str(message.reason), message.message.topic.rpartition("/")[2])
        if kinds[kind] < SAMPLES_OF_A_KIND and len(samples) < SAMPLES_MAX:
            kinds[kind] += 1
            samples.append(message)
    return samples, reasons


def _stages(content: Content, message: TriedMessage, clock: Clock) -> str:
    try:
        stages = try_message(content, message, clock)
    except ConfigError as why:
        return f"the profile does not compile: {why}\n"
    return "\n".join("\n".join([f"── {stage['stage']}", *stage["lines"]]) for stage in stages) + "\n"


def _packed(
    name: str, version: int, content: Content, samples: list[StoredMessage], clock: Clock
) -> list[tuple[str, str]]:
    """Return (name, text) of the files of the profile and of the samples."""
    redactor = Redactor("\n".join([content.text, *content.files.values()]))
    model = name.rpartition("/")[2]
    files = [(f"profile/{model}@{version}.yaml", content.text)]
    files += [(f"profile/{file}", text) for file, text in content.files.items()]
    for message in samples:
        redactor.pseudonym(message.device, message.message.principal)
    for number, message in enumerate(samples, 1):
        device = redactor.pseudonym(message.device, message.message.principal)
        payload, topic = redactor.payload(message.message.payload), redactor.topic(message.message.topic)
        sample = PackSample(
            iso(message.message.received)[:13] + ":00Z",
            device,
            topic,
            str(message.reason),
            redactor.text(message.detail[:2_000]),
            len(message.message.payload),
            payload_text(payload, 65_536),
        )
        stem = f"samples/{number:02d}-{message.reason}"
        files.append((f"{stem}.json", msgspec.json.format(msgspec.json.encode(sample), indent=2).decode()))
        files.append((f"{stem}.txt", _stages(content, TriedMessage(payload, topic, device), clock)))
    return files


def _zip(files: list[tuple[str, str]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files:
            # A fixed time: the same content makes the same archive.
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


async def _pack(call: Call) -> web.Response:
    """Download a pack for the maker: profile, redacted samples of what it could not read, stages. Audited."""
    name, clock = name_of(call), call.deps.clock
    version, content = await _content(call, name)
    since = call.time("since") or clock.now() - DAY_US
    samples, reasons = await _messages(call, name, since)
    files = await asyncio.to_thread(_packed, name, version, content, samples, clock)
    readme = _README.format(
        profile=name,
        version=version,
        release=__version__,
        since=iso(since),
        total=reasons.total(),
        samples=len(samples),
    )
    counts = msgspec.json.format(msgspec.json.encode(dict(reasons)), indent=2).decode()
    body = await asyncio.to_thread(_zip, [("README.txt", readme), ("counts.json", counts), *files])
    await call.deps.audit.record(
        call.principal,
        "profile.pack",
        f"{name}@{version}",
        after={"samples": len(samples), "messages": reasons.total()},
    )
    file = f"{name.replace('/', '-')}-{version}.zip"
    headers = {"Content-Disposition": f'attachment; filename="{file}"'}
    return web.Response(body=body, content_type="application/zip", headers=headers)


ROUTES = tagged(
    "profiles",
    Route(
        "GET",
        f"{API}/profiles/{{vendor}}/{{model}}/pack",
        _pack,
        action=Action.READ_QUARANTINE,
        query=(
            QueryParam("since", "start time, or how far back (30m, 1h, 7d); default 24h"),
            QueryParam("reason", "filter by reason"),
            QueryParam("device", "filter by device"),
        ),
        media=("application/zip",),
        errors=(404,),
    ),
)
