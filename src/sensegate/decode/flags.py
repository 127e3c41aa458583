"""What a device's own flag says of a value: its quality, or that it is no measurement at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from sensegate.decode.paths import Place
from sensegate.model import RejectReason
from sensegate.quantities.quality import Quality, from_hj212, from_opcua, from_wmo

REJECT: Final = "reject"
"""In place of a quality: the value becomes no reading (`flagged`)."""
_QUALITIES: Final = {code.name.lower(): code for code in Quality}
WORDS: Final = (*_QUALITIES, REJECT)
"""What a flag may mean."""

Verdict = int | RejectReason
"""A code of `Quality`, or why the value is no reading."""


def verdict(word: str) -> Verdict:
    """Return what a word of `WORDS` stands for. Raises KeyError where it is none of them."""
    return RejectReason.FLAGGED if word == REJECT else _QUALITIES[word]


def key(flag: Any) -> Any:
    """Return what a flag is looked up by: true and 1 are two flags; None for what can be none."""
    return (bool, flag) if isinstance(flag, bool) else flag if isinstance(flag, (str, int, float)) else None


def _hj212(raw: Any) -> Verdict | None:
    return from_hj212(raw) if isinstance(raw, str) else None


def _opcua(raw: Any) -> Verdict | None:
    return from_opcua(raw) if isinstance(raw, int) and 0 <= raw < 2**32 else None


def _wmo(raw: Any) -> Verdict | None:
    return from_wmo(raw) if isinstance(raw, int) else None


TABLES: Final[dict[str, Callable[[Any], Verdict | None]]] = {"hj212": _hj212, "opcua": _opcua, "wmo": _wmo}
"""Tables of flags by name; None where a value is no flag of that kind."""


class Flags(msgspec.Struct, frozen=True, eq=False):
    """The `quality` of a rule, compiled."""

    place: Place | None
    """Where the flag stands; None: each reading says where its own does."""
    words: Mapping[Any, Verdict] | Callable[[Any], Verdict | None]
    """By `key` of the flag, or a table."""
    absent: Verdict
    other: Verdict
    doubt: Place | None

    def judge(self, raw: Any, doubt: Any) -> Verdict:
        """Return what a flag (as sent; None: there is none) means, given what makes for doubt in it (as sent)."""
        found: Verdict | None = self.absent
        if raw is not None and raw != "":
            found = self.words(raw) if callable(self.words) else self.words.get(key(raw))
        if found is None:
            found = self.other
        return Quality.UNCERTAIN if found == Quality.GOOD and doubt else found


def meant(words: Mapping[Any, str]) -> dict[Any, Verdict]:
    """Return the words of a profile, compiled. Raises KeyError with the first that is none of `WORDS`."""
    return {key(flag): verdict(word) for flag, word in words.items()}
