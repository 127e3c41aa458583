"""Answers of GA/T 1400.4: a status for an object, a list for a list; all five keys always, codes as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from sensegate.video.formats.viid_codes import STATUS_WORDS

OK, OTHER_ERROR, BUSY, DEVICE_ERROR, INVALID_OPERATION = range(5)
BAD_JSON, BAD_CONTENT = 7, 8
MEDIA: Final = "application/VIID+JSON"
_LAST_US: Final = 253_402_271_999_000_000
"""9999-12-31T23:59:59 in Beijing: some write an end without end in UTC."""
RETRYABLE: Final = frozenset({BUSY})
"""Codes after which the same object may be sent once more; all others of an object are final."""


class ObjectResult(NamedTuple):
    """What became of one object."""

    id: str
    """As its sender wrote it."""
    code: int = OK
    text: str = ""
    """For people; empty: the word of the code."""


class ResponseStatus(msgspec.Struct, frozen=True, rename="pascal"):
    """One `ResponseStatusObject`."""

    request_url: str = msgspec.field(name="RequestURL")
    status_code: int
    status_string: str
    id: str
    local_time: str


def format_beijing(at: int) -> str:
    """Return a time (µs UTC) as the standard writes it: ``YYYYMMDDhhmmss``, Beijing time; at most the year 9999."""
    at = min(at, _LAST_US)
    return (datetime.fromtimestamp(at // 1_000_000, UTC) + timedelta(hours=8)).strftime("%Y%m%d%H%M%S")


def response_status(url: str, answer: ObjectResult, now: int) -> ResponseStatus:
    """Return the answer for one object to a request to `url`, given at `now` (µs)."""
    text = answer.text or STATUS_WORDS.get(answer.code, "OtherError")
    return ResponseStatus(_encodable(url), answer.code, _encodable(text), _encodable(answer.id), format_beijing(now))


def _encodable(text: str) -> str:
    """Return a text as JSON can hold it: headers and paths may bring bytes that are no text."""
    return text.encode("utf-8", "replace").decode()


def encode_status(url: str, answer: ObjectResult, now: int) -> bytes:
    """Return ``{"ResponseStatusObject": {…}}``."""
    return msgspec.json.encode({"ResponseStatusObject": response_status(url, answer, now)})


def encode_status_list(url: str, answers: Sequence[ObjectResult], now: int) -> bytes:
    """Return ``{"ResponseStatusListObject": {"ResponseStatusObject": […]}}``."""
    return msgspec.json.encode(
        {"ResponseStatusListObject": {"ResponseStatusObject": [response_status(url, one, now) for one in answers]}}
    )


def combine_results(answers: Sequence[ObjectResult]) -> ObjectResult:
    """Return one answer for many objects, for clients that know no list: the first that is not good, else the first."""
    bad = [one for one in answers if one.code != OK]
    if not bad:
        return answers[0] if answers else ObjectResult("")
    text = f"{len(bad)} of {len(answers)} objects are refused; the first: {bad[0].text or STATUS_WORDS[bad[0].code]}"
    return ObjectResult(bad[0].id, bad[0].code, text)


def parse_response(payload: bytes) -> list[ObjectResult] | None:
    """Return the statuses of an answer, whatever its spelling; None where it is none."""
    try:
        tree = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    tree = _lower_keys(tree)
    for name in ("responsestatuslistobject", "responsestatuslist"):
        if name in tree:
            inner = tree[name]
            tree = {"responsestatusobject": inner} if isinstance(inner, list) else _lower_keys(inner)
    found = tree.get("responsestatusobject", tree.get("responsestatus"))
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list):
        return None
    answers: list[ObjectResult] = []
    for one in map(_lower_keys, found):
        code = str(one.get("statuscode", ""))
        answers.append(
            ObjectResult(
                str(one.get("id") or ""),
                int(code) if code.isascii() and code.isdigit() and len(code) < 10 else OTHER_ERROR,
            )
        )
    return answers


def _lower_keys(value: Any) -> dict[str, Any]:
    return {name.lower(): one for name, one in value.items()} if isinstance(value, dict) else {}
