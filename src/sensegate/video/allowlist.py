"""Allow-list redaction of a JSON tree: what no rule names or no check accepts is removed and counted.

A rule is a check of one value, a `dict` of rules for the members of an object, or a `ListOf` a rule. Removed fields are
counted by their path without indices (``after.sub_label``); a null or empty field is not counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason, is_slug
from sensegate.video.format import Pseudonymiser, Redacted
from sensegate.video.values import clear_plate, field_name

REMOVED: Final = object()
"""Returned by a check for a value that must be removed; None omits a value without counting it."""
UNTRACKED: Final = "18446744073709551615"
"""Track id that means "none" (2^64 - 1)."""
PAYLOAD_MAX: Final = 8_000_000
"""Greatest size of a message in bytes."""

Check = Callable[[Any, "AllowListRedactor"], Any]
"""(value, redactor) -> the value to keep, or `REMOVED`."""
Rule: TypeAlias = "Check | ObjectRule | ListOf"
ObjectRule: TypeAlias = "Mapping[str, Rule]"

T = TypeVar("T")


class ListOf(NamedTuple):
    """A list of values under one rule; a single value counts as a list of one."""

    rule: Rule
    limit: int = 10_000


class AllowListRedactor:
    """Redaction of one message."""

    def __init__(self, pseudonymiser: Pseudonymiser, at: int) -> None:
        self.pseudonymiser = pseudonymiser
        self.seen_at = at
        """Phenomenon time (µs UTC) whose day selects the key for plates."""
        self.removed: dict[str, int] = {}

    def apply(self, value: Any, rule: Rule, path: str = "") -> Any:
        """Apply a rule to a value; return what is kept, or `REMOVED`; count what is removed."""
        if isinstance(rule, ListOf):
            return self._apply_list(value, rule, path)
        if callable(rule):
            passed = rule(value, self)
            if passed is REMOVED:
                self.count_removed(path, value)
            return passed
        if not isinstance(value, dict):
            self.count_removed(path, value)
            return REMOVED
        return self.apply_object(value, rule, path)

    def apply_object(self, value: dict[str, Any], shape: ObjectRule, path: str = "") -> dict[str, Any]:
        """Return the members of an object that are kept."""
        members: dict[str, Any] = {}
        for name, member in value.items():
            where = f"{path}.{name}" if path else name
            rule = shape.get(name)
            if rule is None:
                self.count_removed(where, member)
            elif (
                member is not None and (passed := self.apply(member, rule, where)) is not REMOVED and passed is not None
            ):
                members[name] = passed
        return members

    def _apply_list(self, value: Any, rule: ListOf, path: str) -> Any:
        members = value if isinstance(value, list) else [value]
        if len(members) > rule.limit:
            raise Rejected(QuarantineReason.SCHEMA, f"more than {rule.limit} members in one list")
        passed = [self.apply(member, rule.rule, path) for member in members if member is not None]
        return [value for value in passed if value is not REMOVED and value is not None]

    def count_removed(self, path: str, value: Any) -> None:
        """Count a removed field, if it had a value."""
        if value is not None and value not in ("", [], {}):
            name = field_name(path)
            self.removed[name] = self.removed.get(name, 0) + 1

    def result(self, tree: Any) -> Redacted:
        """Return the redacted message."""
        return Redacted(msgspec.json.encode(tree), dict(sorted(self.removed.items())))


def decode_object(payload: bytes) -> dict[str, Any]:
    """Decode a JSON object.

    Raises:
        Rejected: `NOT_UTF8`, `MALFORMED`, `TOO_DEEP`, `TOO_LARGE` or `SCHEMA`; the detail quotes nothing of the
            payload.
    """
    tree = decode_json(payload)
    if not isinstance(tree, dict):
        raise Rejected(QuarantineReason.SCHEMA, "the message is JSON, but not an object")
    return tree


def decode_json(payload: bytes) -> Any:
    """Decode a JSON value; raises as `decode_object` does."""
    if len(payload) > PAYLOAD_MAX:
        raise Rejected(QuarantineReason.TOO_LARGE, f"{len(payload)} bytes; at most {PAYLOAD_MAX}")
    try:
        payload.decode()
        return msgspec.json.decode(payload)
    except UnicodeDecodeError as why:
        raise Rejected(QuarantineReason.NOT_UTF8, f"byte {why.start} is not UTF-8") from None
    except msgspec.DecodeError:
        raise Rejected(QuarantineReason.MALFORMED, "the message is not a complete JSON document") from None
    except RecursionError:
        raise Rejected(QuarantineReason.TOO_DEEP, "the message is nested too deeply") from None


def decode_record(payload: bytes, kind: type[T]) -> T:
    """Decode a redacted message as its record.

    Raises:
        Rejected: if it is not one; the detail names the location and no value.
    """
    try:
        return msgspec.json.decode(payload, type=kind)
    except msgspec.ValidationError as why:
        place = re.search(r"at `(\$[\w.\[\]…]*)`", str(why))
        raise Rejected(
            QuarantineReason.SCHEMA, f"the message is not of this format at {place[1] if place else '$'}"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Rejected(QuarantineReason.MALFORMED, "the message is not a complete JSON document") from None


# ── checks ───────────────────────────────────────────────────────────────────────────────────────────

"""Words followed by short numbers: neither a plate (``AB12CDE``) nor a document number has this form."""
_NUMBERS = re.compile(r"\d{1,10}", re.ASCII)
"""Longer numbers may identify a telephone, a document or a card."""
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:[.,]\d{1,9})?(?:Z| ?[+-]\d{2}:?\d{2})?", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?", re.ASCII)


def allow_number(low: float, high: float) -> Check:
    """Return a check that accepts numbers within limits, also as strings."""

    def check(value: Any, redactor: AllowListRedactor) -> Any:  # noqa: ARG001
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            value = float(value) if "." in value else int(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return REMOVED
        return value if low <= value <= high and isfinite(value) else REMOVED  # an int may exceed the range of floats

    return check


def allow_boolean(value: Any, redactor: AllowListRedactor) -> Any:  # noqa: ARG001
    """Accept booleans."""
    return value if isinstance(value, bool) else REMOVED


def allow_words(*words: str) -> Check:
    """Return a check that accepts these words."""
    known = frozenset(words)

    def check(value: Any, redactor: AllowListRedactor) -> Any:  # noqa: ARG001
        return value if isinstance(value, str) and value in known else REMOVED

    return check


def allow_slug(value: Any, redactor: AllowListRedactor) -> Any:
    """Accept an identifier as used by programs (``front_door``); pseudonymise any other text."""
    if not isinstance(value, str) or not value:
        return REMOVED
    return value if is_slug(value) else redactor.pseudonymiser.identifier(value)


def allow_id(value: Any, redactor: AllowListRedactor) -> Any:
    """Accept a number of up to 10 digits or a UUID; pseudonymise any other id."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        return REMOVED
    plain = _NUMBERS.fullmatch(value) or _UUID.fullmatch(value) or value == UNTRACKED
    return value if plain else redactor.pseudonymiser.identifier(value)


def allow_time(value: Any, redactor: AllowListRedactor) -> Any:  # noqa: ARG001
    """Accept the text of a time."""
    return value if isinstance(value, str) and _TIME.fullmatch(value) else REMOVED


def pseudonymise_plate(value: Any, redactor: AllowListRedactor) -> Any:
    """Replace a number plate by its pseudonym and region: ``{"token": …, "region": …}``."""
    if not isinstance(value, str) or not value.strip() or len(value) > 64:
        return REMOVED
    hidden = {"token": redactor.pseudonymiser.plate(value, redactor.seen_at), "region": region_of(value)}
    clear = clear_plate(value, redactor.pseudonymiser)
    return {**hidden, "number": clear} if clear else hidden


_REGION = re.compile(r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-Z]", re.ASCII)


def region_of(number_plate: str) -> str:
    """Return province and authority letter of a mainland plate (``粤B``), empty for any other."""
    form = number_plate.strip().upper()
    return form[:2] if 7 <= len(form.replace("·", "").replace(" ", "")) <= 8 and _REGION.match(form) else ""
