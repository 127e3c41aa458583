"""Binary layouts: bytes decoded by a declarative description (`layout/steps.py`), compiled once."""

from __future__ import annotations

from sensegate.decode.frame import FormatContext, Parse, PayloadFormat
from sensegate.decode.layout.layout import Layout
from sensegate.decode.layout.steps import BinaryPart


def _compile(part: BinaryPart, context: FormatContext) -> Parse:
    return Layout(part, context.error)


FORMAT = PayloadFormat(_compile, BinaryPart, required=True)
