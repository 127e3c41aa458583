"""The interpreter of recorded messages: a decoder and a normaliser of its own, a selection of devices, prior readings.

Its decoder's memory begins with what live traffic has established by then (a birth message that a quarantined message
lacked).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from sensegate.authority.devices import Devices
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.decode.decode import Decoder
from sensegate.decode.memory import DecoderMemory
from sensegate.decode.profiles import ProfileSet
from sensegate.decode.relevance import ProfileFilter
from sensegate.decode.watch import ProfileWatcher
from sensegate.ingest.batches import BatchSelection, DecodedBatch, select
from sensegate.ingest.interpreter import Interpreter
from sensegate.lifecycle.reprocessing_orders import ReprocessingOrder
from sensegate.model import BOOL, I32, Message, MessageBatch
from sensegate.normalise.normalise import Normaliser
from sensegate.normalise.series import SeriesIndex
from sensegate.persist.commit import Committer
from sensegate.persist.previous_readings import PreviousReadings


class ReprocessingInterpreter:
    """The way of messages that are on the log: eyes of their own, priors, and a filter.

    Their memory begins with what live traffic has told by then (the birth that a quarantined message lacked).
    """

    def __init__(
        self,
        config: Config,
        clock: Clock,
        profiles: ProfileWatcher,
        devices: Devices,
        committer: Committer,
        *,
        series: SeriesIndex,
        memory: DecoderMemory,
    ) -> None:
        self._config = config
        self._clock = clock
        self._profiles = profiles
        self._devices = devices
        self._memory = memory
        self._committer = committer
        self._series = series
        self._order: ReprocessingOrder | None = None
        self._selected_ids: frozenset[str] = frozenset()
        self._selected_devices: dict[int, bool] = {}
        self.interpreter = self._open()

    def _open(self) -> Interpreter:
        profiles = self._profiles.set
        # What was too much for a minute then is not refused once more.
        limits = msgspec.structs.replace(self._config.ingest, rate_per_device_s=1e9)
        return Interpreter(
            Decoder(profiles, self._devices, limits, self._memory.copy(hindsight=True)),
            Normaliser(profiles.specs, series=self._series, clock=self._clock, time=self._config.time),
        )

    # ── for the desk ────────────────────────────────────────────────────────────────────────────────

    def begin(self, order: ReprocessingOrder) -> PreviousReadings:
        here = self._devices
        ids = frozenset(here.ids_of(order.profile, order.target))
        self._order, self._selected_ids = order, ids & frozenset(order.devices) if order.devices else ids
        self._selected_devices = {}
        self.interpreter = self._open()
        self._is_relevant = ProfileFilter(self.interpreter.decoder, here, order.profile)
        priors = PreviousReadings(self._selected_ids.__contains__, here.id)
        self._committer.track_previous(priors)
        return priors

    @property
    def tracked_after(self) -> int | None:
        return self._committer.tracked_after

    def relevant(self, messages: Sequence[Message]) -> Sequence[Message]:
        if self._order is None:
            return []
        return [message for message in messages if self._is_relevant(message)]

    def end(self) -> None:
        self._order = None
        self._committer.track_previous(None)

    # ── for the walk ────────────────────────────────────────────────────────────────────────────────

    def apply_profiles(self, profiles: ProfileSet, changed: BOOL) -> None:
        """Put other profiles in force where an order is at work; the next one begins with those of its time."""
        if self._order is not None:
            self.interpreter.apply_profiles(profiles, changed)

    def select(self, span: MessageBatch, batch: DecodedBatch) -> tuple[MessageBatch, DecodedBatch]:
        """Return what the order means of messages and of what was understood of them."""
        order, table = self._order, self.interpreter.normaliser.table
        mine = np.array([spec.profile.partition("@")[0] == (order.profile if order else "") for spec in table.specs])
        fields, readings = batch.fields, batch.readings
        of_fields = mine[fields.spec] & self._are_selected(fields.device)
        of_readings = mine[readings.spec] & self._are_selected(readings.device)

        def ours(name: str, device: int) -> bool:
            return order is not None and name.partition("@")[0] == order.profile and self._is_selected(device)

        quarantined = [message for message in fields.quarantined if ours(message.profile, message.device)]
        lost = [value for value in fields.rejected if ours(value.profile, value.device)]
        rejected = [value for value in batch.rejected if ours(value.profile, value.device)]
        messages = np.zeros(len(span), np.bool_)
        messages[fields.message[of_fields]] = True
        messages[[message.message for message in quarantined]] = True
        messages[[value.message for value in (*lost, *rejected)]] = True
        whole = msgspec.structs.replace(fields, quarantined=quarantined, rejected=lost, ignored=0)
        batch = DecodedBatch(batch.received, whole, readings, rejected)
        kept = MessageBatch(message for message, wanted in zip(span, messages.tolist(), strict=True) if wanted)
        return kept, select(batch, BatchSelection(messages, of_fields, of_readings))

    def _is_selected(self, device: int) -> bool:
        found = self._selected_devices.get(device)
        if found is None:
            found = self._selected_devices[device] = device >= 0 and self._devices.id(device) in self._selected_ids
        return found

    def _are_selected(self, device: I32) -> BOOL:
        different, place = np.unique(device, return_inverse=True)
        return np.array([self._is_selected(device) for device in different.tolist()], np.bool_)[place]
