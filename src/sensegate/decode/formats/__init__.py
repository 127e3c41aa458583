"""Payload formats: bytes to a tree of dicts, lists and scalars. One file each, one contract (`frame.Format`).

A format of the next kind is one more file with its `FORMAT`, its row here, and, if it has options, their key in
`grammar.MessageRule` under the format's name.
"""

from __future__ import annotations

from typing import Final

from sensegate.decode.formats import json, senml, text
from sensegate.decode.frame import Format

FORMATS: Final[dict[str, Format]] = {"json": json.FORMAT, "senml": senml.FORMAT, "text": text.FORMAT}
"""By the name that profiles use."""
