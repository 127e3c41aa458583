"""Redact video metadata to what may be stored, before any other part writes or publishes it.

Redaction runs between the sources and the rest of the pipeline: its result is what goes into the log, to quarantine, to
the decoder, and to anyone who watches. A message that cannot be redacted is replaced by a body that says so.

The topic is part of the message: levels that are not a word of the profiles, a device, or a short identifier are
replaced by pseudonyms.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec
import numpy as np

from sensegate.decode.decode import Decoder
from sensegate.decode.routes import PUSHED, VIDEO, Routes, TopicRoute
from sensegate.errors import Rejected
from sensegate.model import Message, MessageBatch, QuarantineReason, RemovedField, is_slug
from sensegate.video import stored
from sensegate.video.format import Pseudonymiser, VideoFormat

TOPIC: Final = "topic"
"""Field name under which redacted topics are counted."""
_TOPICS_MAX: Final = 100_000
"""Most topics remembered with their redacted form."""


class MessageRedactor:
    """Redact the messages of spans, by the routes of a decoder."""

    def __init__(self, formats: Mapping[str, VideoFormat], pseudonymiser: Pseudonymiser, *, bytes_max: int) -> None:
        """`bytes_max`: a longer message is not parsed."""
        self._formats = formats
        self._pseudonymiser = pseudonymiser
        self._bytes_max = bytes_max
        self._topics: dict[str, str] = {}
        self._routes: Routes | None = None

    def pending(
        self, span: MessageBatch, decoder: Decoder, strict: AbstractSet[int] = frozenset()
    ) -> dict[int, TopicRoute]:
        """Return the messages of a span that are video metadata and not redacted yet, with their routes.

        `strict`: messages from cameras only, for which messages without a profile count as video metadata too.
        """
        if not decoder.profiles.video and not strict:
            return {}
        routes = decoder.current_routes()
        if routes is not self._routes:
            # With another registry or other profiles, another level may be the name of a device.
            self._routes, self._topics = routes, {}
        numbers = routes.numbers_of(span)
        indices = set(np.flatnonzero(routes.video[numbers]).tolist())
        indices |= {index for index in strict if routes.routes[int(numbers[index])].refusal is not None}
        return {index: routes.routes[int(numbers[index])] for index in sorted(indices) if not span[index].cut}

    def redact(self, message: Message, route: TopicRoute, decoder: Decoder) -> Message:
        """Return a message redacted to what may be stored."""
        payload, names = message.payload, route.video or (VIDEO,)
        topic = self._topic(message.topic, route, decoder)
        first_error: Rejected | None = None
        if len(payload) > self._bytes_max:
            first_error = Rejected(QuarantineReason.TOO_LARGE, f"more than {self._bytes_max} bytes")
        for name in names if first_error is None else ():
            form = self._formats.get(name)
            if form is None:
                continue
            try:
                redacted = form.redact(payload, message.topic, message.received, self._pseudonymiser)
            except Rejected as error:
                first_error = first_error or error
                continue
            if topic != message.topic:
                redacted = msgspec.structs.replace(redacted, removed={**redacted.removed, TOPIC: 1})
            return msgspec.structs.replace(
                message, topic=topic, payload=stored.encode_redacted(name, redacted), cut=True
            )
        reason = first_error or Rejected(
            QuarantineReason.NO_PROFILE, "no video format accepts it; nothing of it is stored"
        )
        return msgspec.structs.replace(
            message,
            topic=topic,
            payload=stored.encode_withheld(names[0], payload, reason, self._pseudonymiser),
            cut=True,
        )

    def replace_crashed(self, message: Message, route: TopicRoute, decoder: Decoder, where: str) -> Message:
        """Return the replacement of a message on which a format crashed; `where` holds places in our code only."""
        rejection = Rejected(QuarantineReason.CRASHED, where)
        payload = stored.encode_withheld((route.video or (VIDEO,))[0], message.payload, rejection, self._pseudonymiser)
        return msgspec.structs.replace(
            message, topic=self._topic(message.topic, route, decoder), payload=payload, cut=True
        )

    def _topic(self, topic: str, route: TopicRoute, decoder: Decoder) -> str:
        if topic.startswith(PUSHED):
            return topic  # the listener made it from the device's own name
        known = self._topics.get(topic)
        if known is None:
            if len(self._topics) >= _TOPICS_MAX:
                self._topics.clear()
            known = self._topics[topic] = self._redacted_topic(topic, route, decoder)
        return known

    def _redacted_topic(self, topic: str, route: TopicRoute, decoder: Decoder) -> str:
        names = set(decoder.profiles.camera_words)
        for index in {route.device, route.gateway}:
            if index >= 0:
                record = decoder.devices.record(index)
                names.update(part for name in (record.id, record.alias) for part in name.lower().split("/"))
        return "/".join(
            level if _may_be_shown(level, names, decoder) else self._pseudonymiser.identifier(level)
            for level in topic.split("/")
        )


def _may_be_shown(level: str, names: AbstractSet[str], decoder: Decoder) -> bool:
    parts = level.removeprefix("&")
    short = parts.isascii() and parts.isdecimal() and len(parts) <= 4
    return not parts or short or level.lower() in names or is_slug(parts) or decoder.devices.find(level) >= 0


def removed_of(span: MessageBatch) -> list[RemovedField]:
    """Return the fields that redaction removed from the messages of a span."""
    removed: list[RemovedField] = []
    for index in np.flatnonzero(span.is_cut).tolist():
        if (opened := stored.decode_stored(span[index].payload)) is not None:
            removed += [RemovedField(index, opened.video, field, count) for field, count in opened.removed.items()]
    return removed
