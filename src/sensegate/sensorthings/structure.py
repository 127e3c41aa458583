"""Which Things and Datastreams a selection of a feed contains: one structure for all callers of equal selections.

It changes when a series appears or leaves the selection, not with each value. Names are those that the caller sees:
under a mask that pseudonymises devices, ids too are derived from the pseudonym.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Callable

import msgspec
import numpy as np

from sensegate.sensorthings.ids import entity_id, free_id
from sensegate.share.feeds import FeedSelection
from sensegate.share.last_values import LastValues
from sensegate.share.latest import LatestReader
from sensegate.share.masks import DEVICE, Masks, hidden_properties
from sensegate.share.records import base_name, channel_of

_STRUCTURES_MAX = 16
"""Selections whose structures are kept."""


class SeenThing:
    """A device as a caller sees it."""

    __slots__ = ("datastreams", "device", "feature_id", "id", "location_id", "word")

    def __init__(self, number: int, word: str, device: str, location_id: int, feature_id: int) -> None:
        """`word`: the name that the caller sees; `device`: the id of the device, empty where it is hidden."""
        self.id = number
        self.word = word
        self.device = device
        self.location_id = location_id
        self.feature_id = feature_id
        self.datastreams: list[SeenDatastream] = []


class SeenDatastream:
    """A series as a caller sees it; of a device that moved, the series of each of its nodes."""

    __slots__ = ("channel", "id", "measured", "numbers", "thing")

    def __init__(self, number: int, thing: SeenThing, name: str) -> None:
        """`name`: property name of feeds, ``name`` or ``name#channel``."""
        self.id = number
        self.thing = thing
        self.measured = base_name(name)
        self.channel = channel_of(name)
        self.numbers: list[int] = []
        """Numbers of its series among the last values; empty: nothing was observed yet."""

    @property
    def name(self) -> str:
        """Property name of feeds."""
        return f"{self.measured}#{self.channel}" if self.channel else self.measured


class SeenStructure:
    """Things and Datastreams of one selection."""

    def __init__(self) -> None:
        self.series = np.zeros(0, np.int64)
        self.things: dict[int, SeenThing] = {}
        self.by_word: dict[str, SeenThing] = {}
        self.by_pair: dict[tuple[str, str], SeenDatastream] = {}
        """(name of the device, property name of feeds) -> Datastream."""
        self.datastreams: dict[int, SeenDatastream] = {}
        self.thing_ids: list[int] = []
        self.datastream_ids: list[int] = []
        self.locations: dict[int, SeenThing] = {}
        self.features: dict[int, SeenThing] = {}

    def thing(self, word: str, device: str) -> SeenThing:
        """Return the Thing of a name, made if it is new."""
        known = self.by_word.get(word)
        if known is not None:
            return known
        thing = SeenThing(
            free_id(self.things, "Thing", word),
            word,
            device,
            free_id(self.locations, "Location", word),
            free_id(self.features, "FeatureOfInterest", word),
        )
        self.by_word[word] = self.things[thing.id] = thing
        self.locations[thing.location_id] = self.features[thing.feature_id] = thing
        bisect.insort(self.thing_ids, thing.id)
        return thing

    def datastream(self, thing: SeenThing, name: str) -> SeenDatastream:
        """Return the Datastream of a Thing and property, made if it is new."""
        known = self.by_pair.get((thing.word, name))
        if known is not None:
            return known
        datastream = SeenDatastream(free_id(self.datastreams, "Datastream", thing.word, name), thing, name)
        self.by_pair[thing.word, name] = self.datastreams[datastream.id] = datastream
        bisect.insort(self.datastream_ids, datastream.id)
        bisect.insort(thing.datastreams, datastream, key=lambda stream: stream.id)
        return datastream


class LeftOut(msgspec.Struct, frozen=True, eq=False):
    """What a caller does not see although it has readings."""

    is_retired: Callable[[str], bool]
    """Whether a device is retired here: then it is no Thing."""
    removed: frozenset[int] = frozenset()
    """Datastreams that were deleted."""


class Structures:
    """Structures by selection, brought up to date when they are asked for."""

    def __init__(self, values: LastValues, latest: LatestReader, masks: Masks) -> None:
        self._values = values
        self._latest = latest
        self._masks = masks
        self._known: OrderedDict[tuple[FeedSelection, int, int], SeenStructure] = OrderedDict()

    def of(
        self,
        selection: FeedSelection | None,
        *,
        version: tuple[int, int],
        left_out: LeftOut,
        complete: Callable[[SeenStructure], None],
    ) -> SeenStructure:
        """Return the structure of a selection.

        Args:
            selection: what the caller gets; None: nothing.
            version: of the registry and of the stored entities, as far as the caller sees them.
            left_out: devices and series that are not shown.
            complete: adds what has no series.
        """
        if selection is None:
            return SeenStructure()
        key = (selection, *version)
        structure = self._known.get(key)
        numbers = self._visible(selection)
        if structure is None or not _starts_with(numbers, structure.series):
            structure = SeenStructure()
            self._extend(structure, selection, numbers, left_out)
            complete(structure)
            # Of an older version of the registry nothing will be asked any more.
            for old in [old for old in self._known if old[0] == selection]:
                del self._known[old]
            self._known[key] = structure
            while len(self._known) > _STRUCTURES_MAX:
                self._known.popitem(last=False)
        elif len(numbers) > len(structure.series):
            self._extend(structure, selection, numbers[len(structure.series) :], left_out)
        structure.series = numbers
        self._known.move_to_end(key)
        return structure

    def _visible(self, selection: FeedSelection) -> np.ndarray:
        numbers = self._latest.matching_series(selection, np.arange(len(self._values)))
        if selection.mask:
            hidden = hidden_properties(self._values.properties, selection.mask)
            numbers = numbers[~hidden[self._values.view().property[numbers]]]
        return numbers

    def _extend(
        self,
        structure: SeenStructure,
        selection: FeedSelection,
        numbers: np.ndarray,
        left_out: LeftOut,
    ) -> None:
        view, names, devices = self._values.view(), self._values.properties, self._values.devices
        is_hidden = DEVICE in selection.mask.hash
        word_of = self._masks.pseudonyms(selection.mask.key) if is_hidden else str
        things: dict[int, SeenThing | None] = {}
        for number, device, variable in zip(
            numbers.tolist(), view.device[numbers].tolist(), view.property[numbers].tolist(), strict=True
        ):
            if device not in things:
                name = devices[device][1]
                things[device] = (
                    None if left_out.is_retired(name) else structure.thing(word_of(name), "" if is_hidden else name)
                )
            thing = things[device]
            if thing is None:
                continue
            name = names[variable]
            if not left_out.removed or entity_id("Datastream", thing.word, name) not in left_out.removed:
                structure.datastream(thing, name).numbers.append(number)


def _starts_with(numbers: np.ndarray, beginning: np.ndarray) -> bool:
    return len(numbers) >= len(beginning) and bool(np.array_equal(numbers[: len(beginning)], beginning))
