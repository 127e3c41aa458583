"""Stub profiles that complete a chain of which only one half is examined: for examples, `check` and `explain`."""

from __future__ import annotations

from functools import cache

import msgspec

from sensegate.decode.compiler import Compiler
from sensegate.decode.grammar import parse
from sensegate.decode.profile import CompiledProfile

CARRIER = """
profile: standin/carrier
version: 1
label: {zh: 示例中的承载, en: the carrier of an example}
source: authoring/stubs.py
messages:
  - topics: ["carrier/{device}"]
    payload: {field: data, encoding: hex, port: port}
    sequence: n
  - topics: ["carrier/{device}"]
    payload: {field: data, encoding: hex}
    sequence: n
"""
"""Delivers frames to the profile of a device. Its payload: ``{"data": hex, "port": number, if there is one}``."""

DEVICE = """
profile: standin/device
version: 1
label: {zh: 示例中的设备, en: the device of an example}
source: authoring/stubs.py
messages:
  - frames: {}
    ignore: true
"""
"""Takes any frame and makes no readings of it, so that a carrier's profile can be examined alone."""


def carrier_payload(data: bytes, port: int | None) -> bytes:
    """Return the message in which `CARRIER` delivers a frame."""
    return msgspec.json.encode({"data": data.hex()} if port is None else {"data": data.hex(), "port": port})


@cache
def compile_stub(text: str) -> CompiledProfile:
    """Return one of the stub profiles, compiled once: it has no readings, hence no specs, and fits any profile set."""
    source, lines = parse(text)
    return Compiler(source, lines, source.profile, []).compile()
