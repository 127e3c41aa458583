"""An allow-list that a JSON tree falls through: what no rule names or no check lets pass is taken out and counted.

A rule is a check of one value, a `dict` of rules for the members of an object, or `Many` of a rule. What is counted is
the path of the field without places (``after.sub_label``); a field that is null or empty is not counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video.format import Cut, Veil
from sensegate.video.values import clear_plate, field_name

GONE: Final = object()
"""What a check returns for a value that may not pass; None for one that is left out and not counted."""
UNTRACKED: Final = "18446744073709551615"
"""An id that says that there is none (2^64 - 1)."""
PAYLOAD_MAX: Final = 8_000_000
"""Bytes of one message."""

Check = Callable[[Any, "Sieve"], Any]
"""(value, the sieve) -> what passes in its place, or `GONE`."""
Rule: TypeAlias = "Check | Shape | Many"
Shape: TypeAlias = "Mapping[str, Rule]"

T = TypeVar("T")


class Many(NamedTuple):
    """A list of what one rule lets pass; a single one counts as a list."""

    rule: Rule
    limit: int = 10_000


class Sieve:
    """One passage of one message."""

    def __init__(self, veil: Veil, at: int) -> None:
        self.veil = veil
        self.at = at
        """Phenomenon time (µs UTC) under whose day plates are hidden."""
        self.removed: dict[str, int] = {}

    def fall(self, value: Any, rule: Rule, path: str = "") -> Any:
        """Return what of a value passes a rule, or `GONE`; counts what does not."""
        if isinstance(rule, Many):
            return self._many(value, rule, path)
        if callable(rule):
            passed = rule(value, self)
            if passed is GONE:
                self.out(path, value)
            return passed
        if not isinstance(value, dict):
            self.out(path, value)
            return GONE
        return self.object(value, rule, path)

    def object(self, value: dict[str, Any], shape: Shape, path: str = "") -> dict[str, Any]:
        """Return the members of an object that pass."""
        kept: dict[str, Any] = {}
        for name, member in value.items():
            where = f"{path}.{name}" if path else name
            rule = shape.get(name)
            if rule is None:
                self.out(where, member)
            elif member is not None and (passed := self.fall(member, rule, where)) is not GONE and passed is not None:
                kept[name] = passed
        return kept

    def _many(self, value: Any, rule: Many, path: str) -> Any:
        members = value if isinstance(value, list) else [value]
        if len(members) > rule.limit:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {rule.limit} members in one list")
        passed = [self.fall(member, rule.rule, path) for member in members if member is not None]
        return [one for one in passed if one is not GONE and one is not None]

    def out(self, path: str, value: Any) -> None:
        """Count a field that was taken out, if there was anything in it."""
        if value is not None and value not in ("", [], {}):
            told = field_name(path)
            self.removed[told] = self.removed.get(told, 0) + 1

    def cut(self, tree: Any) -> Cut:
        """Return what passed, as the message that may be kept."""
        return Cut(msgspec.json.encode(tree), dict(sorted(self.removed.items())))


def read_object(payload: bytes) -> dict[str, Any]:
    """Return the object that a JSON payload holds.

    Raises:
        Rejected: `NOT_UTF8`, `MALFORMED`, `TOO_DEEP`, `TOO_LARGE` or `SCHEMA`; the detail quotes nothing of it.
    """
    tree = read(payload)
    if not isinstance(tree, dict):
        raise Rejected(QuarantineReason.SCHEMA, "the message is JSON, but no object")
    return tree


def read(payload: bytes) -> Any:
    """Return the value that a JSON payload holds; raises as `read_object` does."""
    if len(payload) > PAYLOAD_MAX:
        raise Rejected(QuarantineReason.TOO_LARGE, f"{len(payload)} bytes; at most {PAYLOAD_MAX}")
    try:
        payload.decode()
        return msgspec.json.decode(payload)
    except UnicodeDecodeError as why:
        raise Rejected(QuarantineReason.NOT_UTF8, f"byte {why.start} is not UTF-8") from None
    except msgspec.DecodeError:
        raise Rejected(QuarantineReason.MALFORMED, "no whole JSON document") from None
    except RecursionError:
        raise Rejected(QuarantineReason.TOO_DEEP, "nested too deep") from None


def typed(payload: bytes, kind: type[T]) -> T:
    """Return a cut message as its record.

    Raises:
        Rejected: if it is none; the detail names the place and no value.
    """
    try:
        return msgspec.json.decode(payload, type=kind)
    except msgspec.ValidationError as why:
        place = re.search(r"at `(\$[\w.\[\]…]*)`", str(why))
        raise Rejected(QuarantineReason.SCHEMA, f"not of this format at {place[1] if place else '$'}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Rejected(QuarantineReason.MALFORMED, "no whole JSON document") from None


# ── checks ───────────────────────────────────────────────────────────────────────────────────────────

_SLUG = re.compile(r"(?=.{1,48}\Z)[A-Za-z]+\d{0,4}(?:[_-](?:[A-Za-z]+\d{0,4}|\d{1,4}))*", re.ASCII)
"""Words with short numbers behind them: neither a plate (``AB12CDE``) nor a number of a document has this form."""
_NUMBERS = re.compile(r"\d{1,10}", re.ASCII)
"""Longer ones may be numbers of phones, documents, cards."""
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:[.,]\d{1,9})?(?:Z| ?[+-]\d{2}:?\d{2})?", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?", re.ASCII)


def number(low: float, high: float) -> Check:
    """Return a check that lets numbers within limits pass; in quotes too."""

    def check(value: Any, sieve: Sieve) -> Any:  # noqa: ARG001
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            value = float(value) if "." in value else int(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return GONE
        return value if low <= value <= high and isfinite(value) else GONE  # a whole number may be beyond all floats

    return check


def flag(value: Any, sieve: Sieve) -> Any:  # noqa: ARG001
    """Let true and false pass."""
    return value if isinstance(value, bool) else GONE


def one_of(*words: str) -> Check:
    """Return a check that lets these words pass."""
    known = frozenset(words)

    def check(value: Any, sieve: Sieve) -> Any:  # noqa: ARG001
        return value if isinstance(value, str) and value in known else GONE

    return check


def table(look_up: Callable[[str], str]) -> Check:
    """Return a check that puts the word of a table in place of a code; what is in no table does not pass."""

    def check(value: Any, sieve: Sieve) -> Any:  # noqa: ARG001
        return (look_up(value) or GONE) if isinstance(value, str) else GONE

    return check


def slug(value: Any, sieve: Sieve) -> Any:
    """Let a name as programs have it pass (``front_door``); hide any other text."""
    if not isinstance(value, str) or not value:
        return GONE
    return value if is_slug(value) else sieve.veil.word(value)


def is_slug(text: str) -> bool:
    """Return whether a text is a name as programs have it."""
    return _SLUG.fullmatch(text) is not None


def identity(value: Any, sieve: Sieve) -> Any:
    """Let a number of up to 10 digits and a UUID pass; hide any other id."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        return GONE
    plain = _NUMBERS.fullmatch(value) or _UUID.fullmatch(value) or value == UNTRACKED
    return value if plain else sieve.veil.word(value)


def moment(value: Any, sieve: Sieve) -> Any:  # noqa: ARG001
    """Let the text of a time pass."""
    return value if isinstance(value, str) and _TIME.fullmatch(value) else GONE


def plate(value: Any, sieve: Sieve) -> Any:
    """Put a pseudonym and the region in place of a number plate: ``{"token": …, "region": …}``."""
    if not isinstance(value, str) or not value.strip() or len(value) > 64:
        return GONE
    hidden = {"token": sieve.veil.plate(value, sieve.at), "region": region_of(value)}
    clear = clear_plate(value, sieve.veil)
    return {**hidden, "number": clear} if clear else hidden


_REGION = re.compile(r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-Z]", re.ASCII)


def region_of(number_plate: str) -> str:
    """Return province and authority letter of a mainland plate (``粤B``), empty for any other."""
    form = number_plate.strip().upper()
    return form[:2] if 7 <= len(form.replace("·", "").replace(" ", "")) <= 8 and _REGION.match(form) else ""
