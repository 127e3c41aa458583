"""Metadata of MQTT messages: read from their stored batches for the topics whose profiles ask for it, no others."""

from __future__ import annotations

import msgspec

from sensegate.collect.intake.source import INDEX_BITS
from sensegate.decode.profiles import ProfileSet
from sensegate.model import Delivery, Message, MessageBatch

INDEX_MASK = (1 << INDEX_BITS) - 1
TOPICS_MAX = 100_000
"""Most topics of which it is remembered whether a profile reads their metadata."""


class MetadataReader:
    """Adds metadata to messages before anything else sees them, so that it is kept with them on the log."""

    def __init__(self) -> None:
        self._profiles: ProfileSet | None = None
        self._wanted: dict[str, bool] = {}

    def complete(self, delivery: Delivery, profiles: ProfileSet) -> Delivery:
        """Return a delivery whose messages have the metadata that their profiles read."""
        messages = delivery.messages
        if not (profiles.reads_metadata and isinstance(messages, MessageBatch) and "stored_in" in vars(messages)):
            return delivery
        if profiles is not self._profiles or len(self._wanted) > TOPICS_MAX:
            self._profiles, self._wanted = profiles, {}
        for topic in set(messages.topics) - self._wanted.keys():
            self._wanted[topic] = any(rule.metadata for rule, _ in profiles.match(topic))
        if not any(map(self._wanted.__getitem__, messages.topics)):
            return delivery
        completed = MessageBatch(
            self._completed(message, messages, place) if self._wanted[message.topic] else message
            for place, message in enumerate(messages)
        )
        vars(completed).update(vars(messages))
        return msgspec.structs.replace(delivery, messages=completed)

    @staticmethod
    def _completed(message: Message, messages: MessageBatch, place: int) -> Message:
        stored = messages.stored_in[place]
        if stored is None:
            return message
        # The index in the batch is the low part of the sequence, by which a message is found in the stream.
        return msgspec.structs.replace(message, metadata=stored.metadata(message.sequence & INDEX_MASK))
