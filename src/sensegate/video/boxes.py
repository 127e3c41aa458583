"""Bounding boxes of every convention as fractions of the upright image: left, top, right, bottom; y points down.

Sorted, so that left <= right and top <= bottom. A box that exceeds its image is `UNRESOLVED` and not clipped, because
numbers beyond the image indicate another convention. An excess of up to 0.001 is treated as rounding.
"""

from __future__ import annotations

from math import isfinite
from typing import Final, NamedTuple

from sensegate.video.observation import BoxQuality

Box = tuple[float, float, float, float]
"""left, top, right, bottom, each 0 to 1"""
ResolvedBox = tuple[Box | None, BoxQuality]
"""The box and its quality; None with `UNRESOLVED`."""

ROUNDING: Final = 0.001
_DIGITS: Final = 6
_UNRESOLVED: Final[ResolvedBox] = (None, BoxQuality.UNRESOLVED)


class Transform(NamedTuple):
    """ONVIF transformation: q = p * scale + translate, on each axis."""

    scale_x: float = 1.0
    scale_y: float = 1.0
    translate_x: float = 0.0
    translate_y: float = 0.0

    def within(self, outer: Transform) -> Transform:
        """Compose with an outer transformation: this one is applied first."""
        return Transform(
            self.scale_x * outer.scale_x,
            self.scale_y * outer.scale_y,
            self.translate_x * outer.scale_x + outer.translate_x,
            self.translate_y * outer.scale_y + outer.translate_y,
        )

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Transform a point."""
        return x * self.scale_x + self.translate_x, y * self.scale_y + self.translate_y


IDENTITY: Final = Transform()


def from_fractions(
    left: float, top: float, right: float, bottom: float, *, quality: BoxQuality = BoxQuality.EXPLICIT
) -> ResolvedBox:
    """Return a box given in fractions, y down; `quality` tells where the convention is stated."""
    for side in (left, top, right, bottom):
        if not -ROUNDING <= side <= 1 + ROUNDING:  # also rejects NaN
            return _UNRESOLVED
    box = (_within(left), _within(top), _within(right), _within(bottom))
    if box[0] > box[2] or box[1] > box[3]:
        box = (min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3]))
    return box, quality


def _within(side: float) -> float:
    return 0.0 if side <= 0 else 1.0 if side >= 1 else round(side, _DIGITS)


def from_pixels(
    left: float,
    top: float,
    right: float,
    bottom: float,
    width: float,
    height: float,
    *,
    quality: BoxQuality = BoxQuality.EXPLICIT,
) -> ResolvedBox:
    """Return a box given in pixels, y down; unresolved if the image size is unknown."""
    if not (width > 0 and height > 0 and isfinite(width) and isfinite(height)):
        return _UNRESOLVED
    return from_fractions(left / width, top / height, right / width, bottom / height, quality=quality)


def from_grid(
    left: float, top: float, right: float, bottom: float, size: float, *, quality: BoxQuality = BoxQuality.EXPLICIT
) -> ResolvedBox:
    """Return a box whose coordinates run from 0 to `size` on both axes (8192, 10000, 1000), y down."""
    return from_pixels(left, top, right, bottom, size, size, quality=quality)


def from_onvif(
    left: float, top: float, right: float, bottom: float, transform: Transform = IDENTITY, size: int = 0
) -> ResolvedBox:
    """Return an ONVIF box: after its transformations -1 to 1, origin in the centre, y up.

    Senders without a transformation that count from 0 to 8191 or 10000 (y down) are recognised by numbers beyond 1:
    `size` is that grid from the camera's profile, 0 if it names none.
    """
    x1, y1 = transform.point(left, top)
    x2, y2 = transform.point(right, bottom)
    if max(abs(x1), abs(y1), abs(x2), abs(y2)) <= 1 + ROUNDING:
        return from_fractions((x1 + 1) / 2, (1 - y1) / 2, (x2 + 1) / 2, (1 - y2) / 2)
    if size > 0 and transform == IDENTITY:
        return from_grid(left, top, right, bottom, size, quality=BoxQuality.CAMERA)
    return _UNRESOLVED
