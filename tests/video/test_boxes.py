"""Boxes: every vector of the conventions, there and back again, and what is no box."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.video import boxes
from sensegate.video.boxes import IDENTITY, Box, Transform
from sensegate.video.observation import BoxQuality

PIXELS = Transform(0.003125, 0.00416667, -1, -1)
FLIPPED = Transform(0.0002, -0.0002, -1, 1)


@pytest.mark.parametrize(
    ("given_box", "transform", "size", "expected", "quality"),
    [
        ((20, 80, 100, 30), PIXELS, 0, (0.03125, 0.83333, 0.15625, 0.9375), BoxQuality.EXPLICIT),
        ((1000, 2500, 6000, 5000), FLIPPED, 0, (0.1, 0.25, 0.6, 0.5), BoxQuality.EXPLICIT),
        ((-0.8, 0.8, -0.4, 0.0), IDENTITY, 0, (0.1, 0.1, 0.3, 0.5), BoxQuality.EXPLICIT),
        ((-0.0625, 0.16667, 0.5625, -0.66667), IDENTITY, 0, (0.46875, 0.41667, 0.78125, 0.83333), BoxQuality.EXPLICIT),
        ((2048, 1024, 6144, 7168), IDENTITY, 8192, (0.25, 0.125, 0.75, 0.875), BoxQuality.CAMERA),
        ((2048, 1024, 6144, 7168), IDENTITY, 0, None, BoxQuality.UNRESOLVED),
        ((1000, 2500, 6000, 5000), IDENTITY, 10_000, (0.1, 0.25, 0.6, 0.5), BoxQuality.CAMERA),
        ((1000, 2500, 10_100, 5000), IDENTITY, 10_000, None, BoxQuality.UNRESOLVED),
        ((20, 80, 900, 30), PIXELS, 8192, None, BoxQuality.UNRESOLVED),
        ((-1.0005, 1.0005, 1.0005, -1.0005), IDENTITY, 0, (0, 0, 1, 1), BoxQuality.EXPLICIT),
        ((-1.002, 1, 1, -1), IDENTITY, 0, None, BoxQuality.UNRESOLVED),
    ],
)
def test_the_vectors_of_onvif(
    given_box: Box, transform: Transform, size: int, expected: Box | None, quality: BoxQuality
) -> None:
    box, wanted = boxes.from_onvif(*given_box, transform, size)
    assert wanted is quality
    assert box == (None if expected is None else pytest.approx(expected, abs=1e-5))


def test_pixels_grids_and_fractions_name_the_same_box() -> None:
    expected = ((0.25, 0.125, 0.75, 0.875), BoxQuality.EXPLICIT)
    assert boxes.from_pixels(480, 135, 1440, 945, 1920, 1080) == expected
    assert boxes.from_grid(2048, 1024, 6144, 7168, 8192) == expected
    assert boxes.from_grid(250, 125, 750, 875, 1000) == expected
    assert boxes.from_fractions(0.25, 0.125, 0.75, 0.875) == expected
    assert boxes.from_fractions(0.75, 0.875, 0.25, 0.125) == expected


def test_what_lies_beyond_the_image_is_no_box_and_is_not_cut_to_fit() -> None:
    nothing = (None, BoxQuality.UNRESOLVED)
    assert boxes.from_fractions(0.5, 0.5, 1.01, 0.6) == nothing
    assert boxes.from_fractions(-0.01, 0.5, 1, 0.6) == nothing
    assert boxes.from_pixels(0, 0, 2000, 100, 1920, 1080) == nothing
    assert boxes.from_pixels(0, 0, 10, 10, 0, 1080) == nothing
    assert boxes.from_pixels(0, 0, 10, 10, math.inf, 1080) == nothing
    for odd in (math.nan, math.inf, -math.inf):
        assert boxes.from_fractions(odd, 0, 1, 1) == nothing
        assert boxes.from_onvif(odd, 0, 1, 1, size=8192) == nothing
        assert boxes.from_onvif(0, 0, 1, 1, Transform(odd)) == nothing


fractions = st.floats(0, 1, allow_subnormal=False)
corners = st.tuples(fractions, fractions, fractions, fractions)
scales = st.floats(1e-4, 1e4) | st.floats(-1e4, -1e-4)
transforms = st.builds(Transform, scales, scales, st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))


def as_sent(box: Box, transform: Transform) -> Box:
    """The ONVIF numbers of a box under a transformation: the way back."""

    def x(value: float) -> float:
        return (value * 2 - 1 - transform.translate_x) / transform.scale_x

    def y(value: float) -> float:
        return (1 - value * 2 - transform.translate_y) / transform.scale_y

    return x(box[0]), y(box[1]), x(box[2]), y(box[3])


def upright(box: Box) -> Box:
    return min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])


@given(corners, transforms)
def test_an_onvif_box_comes_back_through_any_transformation(box: Box, transform: Transform) -> None:
    result, expected = boxes.from_onvif(*as_sent(box, transform), transform)
    assert expected is BoxQuality.EXPLICIT
    assert result == pytest.approx(upright(box), abs=1e-5)


@given(corners, transforms, transforms)
def test_transformations_compose_through_the_tree(box: Box, outer: Transform, inner: Transform) -> None:
    both = inner.within(outer)
    for point in (box[:2], box[2:]):
        assert both.point(*point) == pytest.approx(outer.point(*inner.point(*point)), rel=1e-9, abs=1e-6)
    assert inner.within(IDENTITY) == inner
    assert IDENTITY.within(outer) == outer


@given(corners, st.integers(1, 20_000), st.integers(1, 20_000))
def test_a_box_in_pixels_comes_back(box: Box, width: int, height: int) -> None:
    left, top, right, bottom = box
    result, _ = boxes.from_pixels(left * width, top * height, right * width, bottom * height, width, height)
    assert result == pytest.approx(upright(box), abs=1e-6)


@given(st.tuples(st.floats(), st.floats(), st.floats(), st.floats()), st.sampled_from([0, 1000, 8192, 10_000]))
def test_whatever_is_sent_a_box_is_upright_and_in_its_image_or_is_none(numbers: Box, size: int) -> None:
    for box, quality in (
        boxes.from_fractions(*numbers),
        boxes.from_grid(*numbers, size),
        boxes.from_onvif(*numbers, size=size),
    ):
        if box is None:
            assert quality is BoxQuality.UNRESOLVED
        else:
            assert 0 <= box[0] <= box[2] <= 1
            assert 0 <= box[1] <= box[3] <= 1
