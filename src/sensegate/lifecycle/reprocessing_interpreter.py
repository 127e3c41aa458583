"""Interpreter of recorded messages: its own decoder and normaliser, a selection of devices, previous readings.

Its decoder's memory starts as a copy of that of live traffic (with a birth message that a quarantined message lacked).
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
from sensegate.persist.commit import Committer
from sensegate.persist.previous_readings import PreviousReadings
from sensegate.quantities.series import SeriesIndex


class ReprocessingInterpreter:
    """Interprets the messages of a reprocessing order and selects what concerns its devices."""

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
        # Messages that exceeded the rate limit then must not exceed it again.
        limits = msgspec.structs.replace(self._config.ingest, rate_per_device_s=1e9)
        return Interpreter(
            Decoder(profiles, self._devices, limits, self._memory.copy(hindsight=True)),
            Normaliser(
                profiles.specs,
                series=self._series,
                clock=self._clock,
                time=self._config.time,
                places=self._devices,
            ),
        )

    # ── for the order ───────────────────────────────────────────────────────────────────────────────

    def begin(self, order: ReprocessingOrder) -> PreviousReadings:
        devices = self._devices
        ids = frozenset(devices.ids_of(order.profile, order.target))
        self._order, self._selected_ids = order, ids & frozenset(order.devices) if order.devices else ids
        self._selected_devices = {}
        self.interpreter = self._open()
        self._is_relevant = ProfileFilter(self.interpreter.decoder, devices, order.profile)
        previous = PreviousReadings(self._selected_ids.__contains__, devices.id)
        self._committer.track_previous(previous)
        return previous

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

    # ── for the pipeline ────────────────────────────────────────────────────────────────────────────

    def apply_profiles(self, profiles: ProfileSet, changed: BOOL) -> None:
        """Use other profiles from the next batch on while an order is in progress; `changed`: devices concerned."""
        if self._order is not None:
            self.interpreter.apply_profiles(profiles, changed)

    def select(self, span: MessageBatch, batch: DecodedBatch) -> tuple[MessageBatch, DecodedBatch]:
        """Return the messages and the part of the decoded batch that the order is for."""
        order, table = self._order, self.interpreter.normaliser.table
        of_profile = np.array(
            [spec.profile.partition("@")[0] == (order.profile if order else "") for spec in table.specs]
        )
        fields, readings = batch.fields, batch.readings
        of_fields = of_profile[fields.spec] & self._are_selected(fields.device)
        of_readings = of_profile[readings.spec] & self._are_selected(readings.device)

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
        selected = MessageBatch(message for message, wanted in zip(span, messages.tolist(), strict=True) if wanted)
        return selected, select(batch, BatchSelection(messages, of_fields, of_readings))

    def _is_selected(self, device: int) -> bool:
        is_selected = self._selected_devices.get(device)
        if is_selected is None:
            is_selected = self._selected_devices[device] = (
                device >= 0 and self._devices.id(device) in self._selected_ids
            )
        return is_selected

    def _are_selected(self, device: I32) -> BOOL:
        different, place = np.unique(device, return_inverse=True)
        return np.array([self._is_selected(device) for device in different.tolist()], np.bool_)[place]
