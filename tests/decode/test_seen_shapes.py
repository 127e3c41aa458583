"""Shapes of payloads are counted to be planned: neither the count nor the plans hold texts of any length."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import cbor2
import pytest

from sensegate.decode import Decoder
from sensegate.model import Message
from tests.decode.decoding import NOW

Make = Callable[..., Decoder]
RULE = '  - topics: ["acme/{{device}}"]\n    format: {}\n    readings: [{{field: {}, property: air_temperature}}]\n'
NAME = 100_000
PAYLOADS: dict[str, tuple[str, Callable[[str], bytes]]] = {
    "json": ("t", lambda name: b'{"t":1,"%b":2}' % name.encode()),
    "cbor": ("t", lambda name: cbor2.dumps({"t": 1, name: 2})),
    "keyvalue": ("t", lambda name: b"t=1;%b=2" % name.encode()),
    "xml": ("a.t", lambda name: b"<a><t>1</t><%b>2</%b></a>" % (name.encode(), name.encode())),
}


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("form", PAYLOADS)
def test_long_names_are_not_kept(make: Make, form: str, times: int) -> None:
    """A device that makes up names as long as a message, each once or often enough for a plan, fills no memory."""
    field, payload = PAYLOADS[form]
    decoder = make(RULE.format(form, field))

    def decode(number: int) -> None:
        made: list[Any] = [Message("acme/d1", payload(f"n{number:0{NAME}}"), NOW, 1)] * times
        assert len(decoder.decode(made)) == times

    decode(0)
    gc.collect()
    tracemalloc.start()
    for number in range(1, 13):
        decode(number)
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 3 * NAME
