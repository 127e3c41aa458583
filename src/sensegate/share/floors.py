"""Grade floors: the least classification level of rows that nodes send, by property and department."""

from __future__ import annotations

from sensegate.share.catalogue import DatasetCatalogue
from sensegate.share.feeds import Feeds

GRADE_MIN = 1


class GradeFloors:
    """Return the grade floor of rows; a cached, cheap call.

    A catalogue entry with a `grade_floor` applies to the properties and departments of its feed; a feed that names none
    applies to all. Entries that nodes offer do not count: a floor applies to the rows of every node.
    """

    def __init__(self, catalogue: DatasetCatalogue, feeds: Feeds) -> None:
        self._catalogue = catalogue
        self._feeds = feeds
        self._known: dict[tuple[str, str], int] = {}
        catalogue.records.on_change.append(lambda _before, _after: self._known.clear())
        feeds.on_change.append(self._known.clear)

    def __call__(self, property_name: str, department: str) -> int:
        """Return the least grade of rows of a property and department."""
        pair = (property_name, department)
        known = self._known.get(pair)
        if known is None:
            if len(self._known) >= _CACHE_MAX:
                self._known.clear()
            known = self._known[pair] = self._floor(property_name, department)
        return known

    def _floor(self, property_name: str, department: str) -> int:
        floors = [GRADE_MIN]
        for entry in self._catalogue.records.all():
            feed = self._feeds.find(entry.feed) if entry.grade_floor and not entry.origin else None
            if feed is None:
                continue
            if property_name in (feed.properties or (property_name,)) and department in (
                feed.departments or (department,)
            ):
                floors.append(entry.grade_floor)
        return max(floors)


_CACHE_MAX = 10_000
"""Most cached pairs: the names come from outside."""
