"""Boxes of every convention as fractions of the upright image: left, top, right, bottom, origin top left, y down.

Sorted, so that left <= right and top <= bottom. A box that does not lie in its image is no box (`UNRESOLVED`): it is
not cut to fit, for numbers beyond the image say that the convention is another one. Up to 0.001 beyond is rounding.
"""

from __future__ import annotations

from math import isfinite
from typing import Final, NamedTuple

from sensegate.video.observation import BoxQuality

Box = tuple[float, float, float, float]
"""left, top, right, bottom, each 0 to 1"""
Found = tuple[Box | None, BoxQuality]
"""The box and how sure it is; None with `UNRESOLVED`."""

ROUNDING: Final = 0.001
_DIGITS: Final = 6
_NOTHING: Final[Found] = (None, BoxQuality.UNRESOLVED)


class Transform(NamedTuple):
    """ONVIF: q = p * scale + translate, on each axis."""

    scale_x: float = 1.0
    scale_y: float = 1.0
    translate_x: float = 0.0
    translate_y: float = 0.0

    def inside(self, outer: Transform) -> Transform:
        """Return what this one does within an outer one: first this, then the outer."""
        return Transform(
            self.scale_x * outer.scale_x,
            self.scale_y * outer.scale_y,
            self.translate_x * outer.scale_x + outer.translate_x,
            self.translate_y * outer.scale_y + outer.translate_y,
        )

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Return the point in the outer system."""
        return x * self.scale_x + self.translate_x, y * self.scale_y + self.translate_y


IDENTITY: Final = Transform()


def unit(left: float, top: float, right: float, bottom: float, *, said: BoxQuality = BoxQuality.EXPLICIT) -> Found:
    """Return a box given in fractions, y down; `said`: who says that it is (the message, or the camera's profile)."""
    for one in (left, top, right, bottom):
        if not -ROUNDING <= one <= 1 + ROUNDING:  # also what is not a number
            return _NOTHING
    box = (_within(left), _within(top), _within(right), _within(bottom))
    if box[0] > box[2] or box[1] > box[3]:
        box = (min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3]))
    return box, said


def _within(one: float) -> float:
    return 0.0 if one <= 0 else 1.0 if one >= 1 else round(one, _DIGITS)


def pixels(  # noqa: PLR0917 - a box is four numbers in a known order
    left: float,
    top: float,
    right: float,
    bottom: float,
    width: float,
    height: float,
    *,
    said: BoxQuality = BoxQuality.EXPLICIT,
) -> Found:
    """Return a box given in pixels, y down; of an image without size it is unresolved."""
    if not (width > 0 and height > 0 and isfinite(width) and isfinite(height)):
        return _NOTHING
    return unit(left / width, top / height, right / width, bottom / height, said=said)


def grid(
    left: float, top: float, right: float, bottom: float, size: float, *, said: BoxQuality = BoxQuality.EXPLICIT
) -> Found:
    """Return a box whose coordinates count from 0 to `size` on both axes (8192, 10000, 1000), y down."""
    return pixels(left, top, right, bottom, size, size, said=said)


def onvif(  # noqa: PLR0917 - the same
    left: float, top: float, right: float, bottom: float, transform: Transform = IDENTITY, size: int = 0
) -> Found:
    """Return an ONVIF box: after its transformations -1 to 1, origin in the centre, y up.

    Senders that give none and count from 0 to 8191 or 10000 (y down) are told by numbers beyond 1: `size` is that grid
    from the camera's profile, 0 where it names none.
    """
    x1, y1 = transform.point(left, top)
    x2, y2 = transform.point(right, bottom)
    if max(abs(x1), abs(y1), abs(x2), abs(y2)) <= 1 + ROUNDING:
        return unit((x1 + 1) / 2, (1 - y1) / 2, (x2 + 1) / 2, (1 - y2) / 2)
    if size > 0 and transform == IDENTITY:
        return grid(left, top, right, bottom, size, said=BoxQuality.CAMERA)
    return _NOTHING
