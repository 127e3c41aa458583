"""Responses of GA/T 1400.4: one status per object, a list for a list; always all five keys, codes as numbers."""

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
"""9999-12-31T23:59:59 in Beijing: the latest time that can be written, for unlimited ends."""
RETRYABLE: Final = frozenset({BUSY})
"""Codes after which the same object may be sent again; all others are final."""


class ObjectResult(NamedTuple):
    """Result of one object."""

    id: str
    """Id as its sender wrote it."""
    code: int = OK
    text: str = ""
    """Description for people; empty: the word of the code."""


class ResponseStatus(msgspec.Struct, frozen=True, rename="pascal"):
    """`ResponseStatusObject` of an object."""

    request_url: str = msgspec.field(name="RequestURL")
    status_code: int
    status_string: str
    id: str
    local_time: str


def format_beijing(at: int) -> str:
    """Format a time (µs UTC) as in the standard: ``YYYYMMDDhhmmss``, Beijing time; at most the year 9999."""
    at = min(at, _LAST_US)
    return (datetime.fromtimestamp(at // 1_000_000, UTC) + timedelta(hours=8)).strftime("%Y%m%d%H%M%S")


def response_status(url: str, answer: ObjectResult, now: int) -> ResponseStatus:
    """Return the status of one object in response to a request to `url` at `now` (µs)."""
    text = answer.text or STATUS_WORDS.get(answer.code, "OtherError")
    return ResponseStatus(_encodable(url), answer.code, _encodable(text), _encodable(answer.id), format_beijing(now))


def _encodable(text: str) -> str:
    """Replace what JSON cannot encode: headers and paths may contain bytes that are not text."""
    return text.encode("utf-8", "replace").decode()


def encode_status(url: str, answer: ObjectResult, now: int) -> bytes:
    """Encode ``{"ResponseStatusObject": {…}}``."""
    return msgspec.json.encode({"ResponseStatusObject": response_status(url, answer, now)})


def encode_status_list(url: str, answers: Sequence[ObjectResult], now: int) -> bytes:
    """Encode ``{"ResponseStatusListObject": {"ResponseStatusObject": […]}}``."""
    return msgspec.json.encode(
        {
            "ResponseStatusListObject": {
                "ResponseStatusObject": [response_status(url, result, now) for result in answers]
            }
        }
    )


def combine_results(answers: Sequence[ObjectResult]) -> ObjectResult:
    """Combine results for clients that expect a single one: the first failure, otherwise the first."""
    bad = [result for result in answers if result.code != OK]
    if not bad:
        return answers[0] if answers else ObjectResult("")
    text = f"{len(bad)} of {len(answers)} objects were rejected; the first: {bad[0].text or STATUS_WORDS[bad[0].code]}"
    return ObjectResult(bad[0].id, bad[0].code, text)


def parse_response(payload: bytes) -> list[ObjectResult] | None:
    """Parse the statuses of a response in any spelling; None if it is not one."""
    try:
        tree = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    tree = _lower_keys(tree)
    for name in ("responsestatuslistobject", "responsestatuslist"):
        if name in tree:
            inner = tree[name]
            tree = {"responsestatusobject": inner} if isinstance(inner, list) else _lower_keys(inner)
    statuses = tree.get("responsestatusobject", tree.get("responsestatus"))
    if isinstance(statuses, dict):
        statuses = [statuses]
    if not isinstance(statuses, list):
        return None
    answers: list[ObjectResult] = []
    for status_ in map(_lower_keys, statuses):
        code = str(status_.get("statuscode", ""))
        answers.append(
            ObjectResult(
                str(status_.get("id") or ""),
                int(code) if code.isascii() and code.isdigit() and len(code) < 10 else OTHER_ERROR,
            )
        )
    return answers


def _lower_keys(value: Any) -> dict[str, Any]:
    return {name.lower(): member for name, member in value.items()} if isinstance(value, dict) else {}
