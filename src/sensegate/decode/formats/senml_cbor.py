"""SenML CBOR packs (RFC 8428, section 6): integer labels, then the same resolved records as `senml`."""

from __future__ import annotations

import base64
from typing import Any, Final

from sensegate.decode.formats import cbor, senml
from sensegate.decode.frame import PayloadFrame, plain
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

_LABELS: Final = {
    "-6": "bs", "-5": "bv", "-4": "bu", "-3": "bt", "-2": "bn", "-1": "bver",
    "0": "n", "1": "u", "2": "v", "3": "vs", "4": "vb", "5": "s", "6": "t", "7": "ut", "8": "vd",
}  # fmt: skip
"""RFC 8428, table 6."""


def parse(payload: bytes, nesting_max: int) -> list[dict[str, Any]]:
    """Return the resolved records. Raises `Rejected` if the payload is not a pack."""
    pack = cbor.load(payload, nesting_max, _base64)
    if isinstance(pack, list):
        pack = [_named(record, index) if isinstance(record, dict) else record for index, record in enumerate(pack)]
    return senml.records(pack)


def _base64(raw: bytes) -> str:
    """Return data as in the JSON form: base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _named(record: dict[str, Any], index: int) -> dict[str, Any]:
    members = {_LABELS.get(label, label): value for label, value in record.items()}
    if len(members) < len(record):
        raise Rejected(QuarantineReason.MALFORMED, f"record {index} has a label both as a number and as text")
    return members


def _parse(frame: PayloadFrame) -> Any:
    return parse(frame.payload, frame.nesting_max)


FORMAT = plain(_parse)
