"""The configuration of video metadata: which personal fields may pass, and how long pseudonyms are linkable.

Part of `config.gateway`, which reads it.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from sensegate.config.setting import ConfigRecord, doc


class BasisConfig(ConfigRecord, frozen=True):
    """A written legal basis for fields that are otherwise removed. Faces, features, names, ID numbers never pass."""

    purpose: Annotated[str, doc("what the fields are needed for; recorded in the audit trail at each start")]
    law: Annotated[str, doc("the law or decision that allows it, with article or number")]
    kinds: Annotated[
        tuple[Literal["person", "face", "vehicle", "nonmotor", "plate"], ...],
        doc("kinds of objects that it covers"),
    ]
    fields: Annotated[
        tuple[Literal["plate.number", "age_band"], ...],
        doc("fields of observations that may pass for these kinds"),
    ]
    expires: Annotated[str, doc("last day (2026-12-31, UTC+8) on which the fields pass")]

    def __post_init__(self) -> None:
        """Reject an incomplete basis; the decoder turns the error into a `ConfigError`."""
        for name in ("purpose", "law", "kinds", "fields"):
            if not getattr(self, name):
                raise ValueError(
                    f"{name}: the value is empty; a basis names its purpose, law, kinds, fields and expiry"
                )
        date.fromisoformat(self.expires)


class VideoConfig(ConfigRecord, frozen=True):
    """Limits of the metadata of cameras."""

    plate_key_days: Annotated[
        int,
        doc("days after which the daily key that pseudonymises number plates is destroyed (UTC+8)", least=0, most=31),
    ] = 1
    keys_file: Annotated[
        str, doc("file of the keys that pseudonymise plates and free ids, 0600; empty: <directory>/video.keys")
    ] = ""
    basis: Annotated[tuple[BasisConfig, ...], doc("written legal bases for fields that are otherwise removed")] = ()
