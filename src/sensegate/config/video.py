"""The configuration of video metadata: what of people and vehicles may pass, and for how long it can be told apart.

A part of `config.py`, by which it is read.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from sensegate.config.setting import Record, told


class BasisConfig(Record, frozen=True):
    """A written legal basis for fields that do not pass otherwise. Faces, features, names, ID numbers never do."""

    purpose: Annotated[str, told("what the fields are needed for; stands in the audit trail at each start")]
    law: Annotated[str, told("the law or decision that allows it, with article or number")]
    kinds: Annotated[
        tuple[Literal["person", "face", "vehicle", "nonmotor", "plate"], ...], told("kinds of object that it is about")
    ]
    fields: Annotated[
        tuple[Literal["plate.number", "age_band"], ...], told("fields of observations that may pass for these kinds")
    ]
    expires: Annotated[str, told("day (2026-12-31, UTC+8) after which nothing passes by it any more")]

    def __post_init__(self) -> None:
        """Refuse a basis that names nothing; the decoder makes a `ConfigError` of it."""
        for name in ("purpose", "law", "kinds", "fields"):
            if not getattr(self, name):
                raise ValueError(f"{name}: is empty; a basis names its purpose, law, kinds, fields and expiry")
        date.fromisoformat(self.expires)


class VideoConfig(Record, frozen=True):
    """Metadata of cameras."""

    plate_key_days: Annotated[
        int, told("so many days after its day the key by which number plates are hidden is destroyed (UTC+8)")
    ] = 1
    keys_file: Annotated[
        str, told("file of the keys by which plates and free ids are hidden, 0600; empty: <directory>/video.keys")
    ] = ""
    basis: Annotated[tuple[BasisConfig, ...], told("written legal bases for what does not pass otherwise")] = ()

    def __post_init__(self) -> None:
        """Refuse lives under which a vehicle could be followed for long."""
        if not 0 <= self.plate_key_days <= 31:
            raise ValueError(f"plate_key_days: {self.plate_key_days} is not 0 to 31")
