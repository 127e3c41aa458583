"""Quality flags of devices: the quality of a value, or that it is not a measurement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from sensegate.decode.paths import MemberPath
from sensegate.model import RejectReason
from sensegate.quantities.quality import Quality, from_hj212, from_opcua, from_wmo

REJECT: Final = "reject"
"""Verdict instead of a quality: the value becomes no reading (`flagged`)."""
_QUALITIES: Final = {code.name.lower(): code for code in Quality}
WORDS: Final = (*_QUALITIES, REJECT)
"""Words for the meaning of a flag."""

Verdict = int | RejectReason
"""A code of `Quality`, or the reason why the value is no reading."""


def verdict(word: str) -> Verdict:
    """Return the verdict that a word of `WORDS` stands for. Raises KeyError for other words."""
    return RejectReason.FLAGGED if word == REJECT else _QUALITIES[word]


def key(flag: Any) -> Any:
    """Return the dictionary key of a flag (true and 1 are different flags); None if the value cannot be a flag."""
    return (bool, flag) if isinstance(flag, bool) else flag if isinstance(flag, (str, int, float)) else None


def _hj212(raw: Any) -> Verdict | None:
    return from_hj212(raw) if isinstance(raw, str) else None


def _opcua(raw: Any) -> Verdict | None:
    return from_opcua(raw) if isinstance(raw, int) and 0 <= raw < 2**32 else None


def _wmo(raw: Any) -> Verdict | None:
    return from_wmo(raw) if isinstance(raw, int) else None


TABLES: Final[dict[str, Callable[[Any], Verdict | None]]] = {"hj212": _hj212, "opcua": _opcua, "wmo": _wmo}
"""Named tables of flags; they return None for a value that is not such a flag."""


class QualityFlags(msgspec.Struct, frozen=True, eq=False):
    """The `quality` of a rule, compiled."""

    place: MemberPath | None
    """Place of the flag; None: each reading has its own."""
    words: Mapping[Any, Verdict] | Callable[[Any], Verdict | None]
    """Verdicts by `key` of the flag, or a table."""
    absent: Verdict
    other: Verdict
    doubt: MemberPath | None

    def judge(self, raw: Any, doubt: Any) -> Verdict:
        """Return the verdict of a flag as sent (None: absent), given the member that makes it doubtful (as sent)."""
        verdict_: Verdict | None = self.absent
        if raw is not None and raw != "":
            verdict_ = self.words(raw) if callable(self.words) else self.words.get(key(raw))
        if verdict_ is None:
            verdict_ = self.other
        return Quality.UNCERTAIN if verdict_ == Quality.GOOD and doubt else verdict_


def compile_words(words: Mapping[Any, str]) -> dict[Any, Verdict]:
    """Compile the words of a profile. Raises KeyError with the first that is not in `WORDS`."""
    return {key(flag): verdict(word) for flag, word in words.items()}
