"""Payload formats: bytes to a tree of dicts, lists and scalars. One file each, one contract.

A format of the next kind (CBOR, binary layout, text frame) is one more file with such a function and its row here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sensegate.decode import json, senml, text

Parse = Callable[[bytes, int], Any]
"""(payload, greatest nesting) -> tree. Raises `Rejected` with a quarantine reason, and nothing else, on any bytes."""

FORMATS: dict[str, Parse] = {"json": json.parse, "senml": senml.parse, "text": text.parse}
