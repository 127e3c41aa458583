"""The interpreter of messages: a decoder and a normaliser, which work by the same profiles."""

from __future__ import annotations

from typing import Protocol

import msgspec

from sensegate.decode.decode import Decoder
from sensegate.decode.profiles import ProfileSet
from sensegate.ingest.batches import DecodedBatch
from sensegate.model import BOOL, Delivery, MessageBatch
from sensegate.normalise.normalise import Normaliser


class Interpreter(msgspec.Struct, frozen=True, eq=False):
    """A decoder and a normaliser by the same profiles; live messages and reprocessed ones have one each."""

    decoder: Decoder
    normaliser: Normaliser

    def apply_profiles(self, profiles: ProfileSet, changed: BOOL) -> None:
        """Use other profiles from the next batch on; `changed`: devices that have another version now."""
        self.decoder.set_profiles(profiles)
        self.normaliser.apply_specs(profiles.specs)
        self.normaliser.forget(changed)


class Reprocessor(Protocol):
    """Interprets recorded messages once more, for the devices of an order."""

    interpreter: Interpreter

    def select(self, span: MessageBatch, batch: DecodedBatch) -> tuple[MessageBatch, DecodedBatch]:
        """Return the messages, and the part of what was decoded of them, that the order is for."""

    def apply_profiles(self, profiles: ProfileSet, changed: BOOL) -> None:
        """Use other profiles from the next batch on; `changed`: devices that have another version now."""


def delivery_of(delivery: Delivery, span: MessageBatch) -> Delivery:
    """Return a delivery with some of its messages; its position is that of all."""
    return msgspec.structs.replace(delivery, messages=list(span))
