"""Matching of rows: which rows of a batch a selection contains, and the predicates of a request on masked columns.

The predicates of a request (`FeedFilter`) run on what the caller sees: a binary search over the bounds of a window or
the radius of a circle then finds the masked value, never the one that the mask hides.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sensegate.bus.columns import Batch, Origins, WordColumn
from sensegate.model import BOOL, F64, I64
from sensegate.quantities.quality import Flag
from sensegate.share import records
from sensegate.share.feeds import BoundingBox, Circle, FeedFilter, FeedSelection
from sensegate.share.masks import hidden_rows

SECONDARY = np.uint32(Flag.SECONDARY)
EARTH_RADIUS_M = 6_371_008.8
"""Mean radius of the Earth (IUGG)."""


def matches(batch: Batch, selection: FeedSelection) -> I64:
    """Return the rows of a batch that match a selection, ascending, without regard to its masked filter."""
    origins = batch.origins
    wanted = origins.grade <= selection.grade_max
    if selection.divisions:
        wanted &= _matching_words(origins.division, lambda code: code.startswith(selection.divisions))
    if selection.domains:
        wanted &= _matching_words(origins.domain, selection.domains.__contains__)
    if selection.departments:
        wanted &= _matching_words(origins.department, selection.departments.__contains__)
    if selection.devices:
        wanted &= np.fromiter((device in selection.devices for device in origins.device), np.bool_, len(origins))
    mask = wanted[batch.origin]
    if selection.properties:
        named = np.fromiter((records.base_name(name) in selection.properties for name in batch.properties), np.bool_)
        mask &= named[batch.property]
    if not selection.secondary_sources:
        mask &= (batch.flags & SECONDARY) == 0
    if selection.mask:
        mask &= ~hidden_rows(batch, selection.mask)
    return np.flatnonzero(mask).astype(np.int64)


def filtered_rows(masked: Batch, rows: I64, wanted: FeedFilter) -> I64:
    """Return those of the rows of a masked batch that the filter of a request admits."""
    rows = rows[admitted_origins(masked.origins, wanted)[masked.origin[rows]]]
    if wanted.begin is not None:
        rows = rows[masked.time[rows] >= wanted.begin]
    if wanted.end is not None:
        rows = rows[masked.time[rows] < wanted.end]
    if wanted.channels:
        named = np.fromiter((records.channel_of(name) in wanted.channels for name in masked.properties), np.bool_)
        rows = rows[named[masked.property[rows]]]
    return rows


def admitted_origins(origins: Origins, wanted: FeedFilter) -> BOOL:
    """Return which masked origins the divisions, devices and area of a filter admit."""
    admitted = np.ones(len(origins), np.bool_)
    if wanted.divisions:
        admitted &= _matching_words(origins.division, lambda code: code.startswith(wanted.divisions))
    if wanted.devices:
        admitted &= np.fromiter((device in wanted.devices for device in origins.device), np.bool_, len(origins))
    if wanted.bbox is not None:
        admitted &= is_inside(origins.lon, origins.lat, wanted.bbox)
    if wanted.near is not None:
        admitted &= distance_m(origins.lon, origins.lat, wanted.near) <= wanted.near.metres
    return admitted


def is_inside(lon: F64, lat: F64, box: BoundingBox) -> BOOL:
    """Return whether each position lies in an area; False where one is unknown."""
    inside: BOOL = (lon >= box.west) & (lon <= box.east) & (lat >= box.south) & (lat <= box.north)
    return inside


def distance_m(lon: F64, lat: F64, circle: Circle) -> F64:
    """Return the great-circle distance of each position from the centre of a circle; NaN where one is unknown."""
    across, up = np.radians(lon - circle.lon), np.radians(lat - circle.lat)
    chord = np.sin(up / 2) ** 2 + np.cos(np.radians(lat)) * np.cos(np.radians(circle.lat)) * np.sin(across / 2) ** 2
    distance: F64 = 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(chord, 0.0, 1.0)))
    return distance


def _matching_words(words: WordColumn, admits: Callable[[str], bool]) -> BOOL:
    """Return for each element of a column of words whether its word is admitted."""
    admitted: BOOL = np.fromiter(map(admits, words.table), np.bool_)[words.index]
    return admitted
