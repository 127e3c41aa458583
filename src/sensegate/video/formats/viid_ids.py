"""Ids of GA/T 1400.1 chapter 7: their forms, and what an id contains. Pure.

An id of no standard form is accepted, as devices send any, but replaced by a pseudonym: only an id of a standard form
cannot be somebody's name or number.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from sensegate.video.format import Pseudonymiser
from sensegate.video.formats.viid_codes import BASIC, SUBTYPES
from sensegate.video.times import derived

DEVICE: Final = 20
BASIC_ID: Final = 41
CONTENT_ID: Final = 48
ORDER_ID: Final = 33
"""Dispositions, alarms, subscriptions and notifications."""
SUBSCRIPTION, NOTIFICATION = "03", "04"
_DEVICE = re.compile(r"[1-9]\d{19,23}", re.ASCII)
"""20 digits; some senders append up to 4 digits for a channel."""
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}", re.ASCII)
_TOLLGATE = re.compile(r"\d{1,9}|[1-9]\d{19}(?:\d{2})?", re.ASCII)


class ObjectId(NamedTuple):
    """A parsed id."""

    text: str
    """The id as it may be stored."""
    unique: bool = False
    """True if its form is unique per object, so that it alone identifies duplicates."""
    camera: str = ""
    time: int | None = None
    """The time that it contains, µs UTC."""
    deviations: tuple[str, ...] = ()
    """Deviations from the standard, a word each."""


def is_device(text: str) -> bool:
    """Return whether a text is a device code (GB/T 28181), with or without a channel."""
    return _DEVICE.fullmatch(text) is not None


def is_tollgate(text: str) -> bool:
    """Return whether a text is a tollgate code, or the short number often used instead."""
    return _TOLLGATE.fullmatch(text) is not None


def _time(digits: str) -> int | None:
    parsed = derived(digits)
    return None if parsed is None else parsed[0]


def basic_id_time(text: str) -> int | None:
    """Return the time in the id of an image, video slice, file or source (41 digits); None if it is not such an id."""
    if len(text) != BASIC_ID or not (text.isascii() and text.isdigit()) or not is_device(text[:DEVICE]):
        return None
    return _time(text[22:36])


def parse_id(kind: str, text: str, pseudonymiser: Pseudonymiser) -> ObjectId:
    """Parse the id of an object of a kind."""
    if not text:
        return ObjectId("", deviations=("no_id",))
    if len(text) in {BASIC_ID, CONTENT_ID} and (at := basic_id_time(text[:BASIC_ID])) is not None and _digits(text):
        wanted = BASIC.get(kind) if kind in BASIC else SUBTYPES.get(kind)
        actual = text[20:22] if kind in BASIC else text[41:43]
        right = len(text) == (BASIC_ID if kind in BASIC else CONTENT_ID)
        deviations = (
            () if right and (wanted is None or actual in {wanted, "99"}) else ("id_kind" if right else "id_length",)
        )
        return ObjectId(text, unique=True, camera=text[:DEVICE], time=at, deviations=deviations)
    if _UUID.fullmatch(text):
        return ObjectId(text, unique=True, deviations=("id_form",))
    if is_device(text):
        return ObjectId(text, camera=text[:DEVICE], deviations=("id_form",))
    return ObjectId(pseudonymiser.identifier(text), deviations=("id_form",))


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def is_order_id(text: str, subtype: str) -> bool:
    """Return whether a text is the id of a subscription, notification, alarm or disposition (33 digits)."""
    return len(text) == ORDER_ID and _digits(text) and text[12:14] in {subtype, "99"}


def make_order_id(organisation: str, subtype: str, local: str, sequence: int) -> str:
    """Build an id of 33 digits; `local`: Beijing time as ``YYYYMMDDhhmmss``."""
    return f"{organisation[:12]:0<12}{subtype}{local}{sequence % 100_000:05d}"


def make_content_id(camera: str, kind: str, local: str, number: int) -> str:
    """Build an id of 48 digits for an object without one; `number` is spread over both sequences."""
    return (
        f"{camera[:DEVICE]}02{local}{number // 100_000 % 100_000:05d}{SUBTYPES.get(kind, '99')}{number % 100_000:05d}"
    )
