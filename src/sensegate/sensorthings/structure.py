"""Things and Datastreams of a selection of a feed: one structure for all callers of equal selections.

It changes when a series appears or leaves the selection, not with each value. Names are those that the caller sees:
under a mask that pseudonymises devices, ids too are derived from the pseudonym.
"""

from __future__ import annotations

import asyncio
import bisect
from collections import OrderedDict

import msgspec
import numpy as np

from sensegate.sensorthings.ids import entity_id, free_id
from sensegate.share.feeds import FeedSelection
from sensegate.share.last_values import LastValues
from sensegate.share.latest import LatestReader
from sensegate.share.masks import DEVICE, Masks, hidden_properties
from sensegate.share.records import base_name, channel_of

_STEP = 2_000
"""Series that are added at a time; other tasks run between steps."""
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


class ShownEntities(msgspec.Struct, frozen=True):
    """Entities that a caller sees although they have no readings, and those hidden although they have."""

    registered: frozenset[str] = frozenset()
    """Devices of the registry."""
    created: frozenset[tuple[str, str]] = frozenset()
    """(device, property name of feeds) of Datastreams that clients created."""
    retired: frozenset[str] = frozenset()
    """Devices that are retired here: they are no Things."""
    removed: frozenset[int] = frozenset()
    """Datastreams that clients deleted."""

    def contains(self, other: ShownEntities) -> bool:
        """Return whether nothing of another state has gone, so that its structure can be completed."""
        return (
            self.retired == other.retired
            and self.removed == other.removed
            and self.registered >= other.registered
            and self.created >= other.created
        )


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
        self.shown = ShownEntities()

    def complete(self, shown: ShownEntities) -> None:
        """Add the visible entities without Observations."""
        for device in shown.registered - self.shown.registered:
            self.thing(device, device)
        for device, name in shown.created:
            thing = self.by_word.get(device)
            if thing is not None:
                self.datastream(thing, name)
        self.shown = shown

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


class Structures:
    """Structures by selection, brought up to date when they are asked for; one of many series is built in steps."""

    def __init__(self, values: LastValues, latest: LatestReader, masks: Masks) -> None:
        self._values = values
        self._latest = latest
        self._masks = masks
        self._known: OrderedDict[tuple[FeedSelection, str], SeenStructure] = OrderedDict()

    async def of(self, selection: FeedSelection | None, kind: str, shown: ShownEntities) -> SeenStructure:
        """Return the structure of a selection.

        Args:
            selection: what the caller gets; None: nothing.
            kind: distinguishes callers that see the registry and the entities of clients from others.
            shown: what the caller sees beside readings; the same object as long as nothing of it changes.
        """
        if selection is None:
            return SeenStructure()
        key = (selection, kind)
        numbers = self._visible(selection)
        structure = self._known.get(key)
        is_current = structure is not None and (shown is structure.shown or shown.contains(structure.shown))
        if structure is None or not is_current or not _starts_with(numbers, structure.series):
            structure = SeenStructure()
            for start in range(0, len(numbers), _STEP):
                if start:
                    await asyncio.sleep(0)
                self._extend(structure, selection, numbers[start : start + _STEP], shown)
            self._known[key] = structure
            while len(self._known) > _STRUCTURES_MAX:
                self._known.popitem(last=False)
            structure.complete(shown)
        else:
            self._extend(structure, selection, numbers[len(structure.series) :], shown)
            if shown is not structure.shown:
                structure.complete(shown)
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
        self, structure: SeenStructure, selection: FeedSelection, numbers: np.ndarray, shown: ShownEntities
    ) -> None:
        """Add series."""
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
                    None if name in shown.retired else structure.thing(word_of(name), "" if is_hidden else name)
                )
            thing = things[device]
            if thing is None:
                continue
            name = names[variable]
            if not shown.removed or entity_id("Datastream", thing.word, name) not in shown.removed:
                structure.datastream(thing, name).numbers.append(number)


def _starts_with(numbers: np.ndarray, beginning: np.ndarray) -> bool:
    return len(numbers) >= len(beginning) and bool(np.array_equal(numbers[: len(beginning)], beginning))
