"""Messages of video metadata are cut down to what may be kept, before anything of ours writes or tells them.

The step stands between the sources and the rest of the walk: what it returns is what goes into the log, to quarantine,
to the eyes that decode, and to whoever looks on. A message that cannot be cut is replaced by a body that says so.

A topic is part of a message: levels that are no word of the profiles, no device and no name as programs have it are
replaced by their pseudonyms.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec
import numpy as np

from sensegate.decode.decode import Decoder
from sensegate.decode.routes import PUSHED, VIDEO, Route, Routes
from sensegate.errors import Rejected
from sensegate.model import Message, QuarantineReason, Removed, Span
from sensegate.video import body
from sensegate.video.form import Veil, VideoFormat
from sensegate.video.sieve import is_slug

TOPIC: Final = "topic"
"""As a field in the count of what was taken out."""
_TOPICS_MAX: Final = 100_000
"""Topics remembered with what stands for them."""


class Cutting:
    """Cuts spans by the routes of a decoder."""

    def __init__(self, formats: Mapping[str, VideoFormat], veil: Veil, *, bytes_max: int) -> None:
        """`bytes_max`: a longer message is not looked into."""
        self._formats = formats
        self._veil = veil
        self._bytes_max = bytes_max
        self._topics: dict[str, str] = {}
        self._routes: Routes | None = None

    def places(self, span: Span, decoder: Decoder, strict: AbstractSet[int] = frozenset()) -> dict[int, Route]:
        """Return the messages of a span that are video metadata and not cut yet, with their routes.

        `strict`: messages that come from cameras alone, so that also those that no profile takes are video metadata.
        """
        if not decoder.profiles.video and not strict:
            return {}
        routes = decoder.known_routes()
        if routes is not self._routes:
            # Another registry or other profiles: another level may be the name of a device.
            self._routes, self._topics = routes, {}
        topics = span.topics
        if any(span.principals):
            topics = [m.topic if not m.principal else f"{m.topic}\0{m.principal}" for m in span]
        known = list(map(routes.numbers.get, topics))
        numbers = np.array(list(map(routes.number, topics)) if None in known else known, np.int32)
        found = set(np.flatnonzero(routes.video[numbers]).tolist()) if len(numbers) else set()
        found |= {at for at in strict if routes.routes[int(numbers[at])].refusal is not None}
        return {at: routes.routes[int(numbers[at])] for at in sorted(found) if not span[at].cut}

    def one(self, message: Message, route: Route, decoder: Decoder) -> Message:
        """Return what is kept of a message."""
        payload, names = message.payload, route.video or (VIDEO,)
        topic = self._topic(message.topic, route, decoder)
        first: Rejected | None = None
        if len(payload) > self._bytes_max:
            first = Rejected(QuarantineReason.TOO_LARGE, f"more than {self._bytes_max} bytes")
        for name in names if first is None else ():
            form = self._formats.get(name)
            if form is None:
                continue
            try:
                cut = form.cut(payload, message.topic, message.received, self._veil)
            except Rejected as why:
                first = first or why
                continue
            if topic != message.topic:
                cut = msgspec.structs.replace(cut, removed={**cut.removed, TOPIC: 1})
            return msgspec.structs.replace(message, topic=topic, payload=body.kept(name, cut), cut=True)
        reason = first or Rejected(QuarantineReason.NO_PROFILE, "no format of video takes it; nothing of it is kept")
        return msgspec.structs.replace(
            message, topic=topic, payload=body.instead(names[0], payload, reason, self._veil), cut=True
        )

    def crashed(self, message: Message, route: Route, decoder: Decoder, where: str) -> Message:
        """Return what stands in place of a message on which a format crashed; `where` holds places in our code only."""
        why = Rejected(QuarantineReason.CRASHED, where)
        payload = body.instead((route.video or (VIDEO,))[0], message.payload, why, self._veil)
        return msgspec.structs.replace(
            message, topic=self._topic(message.topic, route, decoder), payload=payload, cut=True
        )

    def _topic(self, topic: str, route: Route, decoder: Decoder) -> str:
        if topic.startswith(PUSHED):
            return topic  # the listener made it, of the device's own name
        known = self._topics.get(topic)
        if known is None:
            if len(self._topics) >= _TOPICS_MAX:
                self._topics.clear()
            known = self._topics[topic] = self._told(topic, route, decoder)
        return known

    def _told(self, topic: str, route: Route, decoder: Decoder) -> str:
        names = set(decoder.profiles.camera_words)
        for at in {route.device, route.gateway}:
            if at >= 0:
                record = decoder.devices.record(at)
                names.update(part for name in (record.id, record.alias) for part in name.lower().split("/"))
        return "/".join(
            level if _is_told(level, names, decoder) else self._veil.word(level) for level in topic.split("/")
        )


def _is_told(level: str, names: AbstractSet[str], decoder: Decoder) -> bool:
    parts = level.removeprefix("&")
    short = parts.isascii() and parts.isdecimal() and len(parts) <= 4
    return not parts or short or level.lower() in names or is_slug(parts) or decoder.devices.find(level) >= 0


def removed_of(span: Span) -> list[Removed]:
    """Return the fields that were taken out of the messages of a span, told by those that were cut."""
    found: list[Removed] = []
    for at, message in enumerate(span):
        if message.cut and (kept := body.opened(message.payload)) is not None:
            found += [Removed(at, kept.video, field, count) for field, count in kept.removed.items()]
    return found
