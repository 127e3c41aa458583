"""Binary layouts: bytes by a declarative description (`layout/steps.py`), compiled once."""

from __future__ import annotations

from sensegate.decode.frame import Format, Parse, Setting
from sensegate.decode.layout.layout import Layout
from sensegate.decode.layout.steps import BinaryPart


def _compile(part: BinaryPart, setting: Setting) -> Parse:
    return Layout(part, setting.error)


FORMAT = Format(_compile, BinaryPart, required=True)
