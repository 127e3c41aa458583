"""Texts of devices that are kept because they recur: long ones are not among them."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from sensegate.decode.formats import hj212, senml, sl651, sparkplug
from sensegate.video import values
from sensegate.video.formats import onvif_redaction

LONG = 100_000
READS: dict[str, Callable[[str], Any]] = {
    "time of HJ 212": hj212._time,
    "time of SL 651": sl651._clock,
    "topic of Sparkplug": lambda text: sparkplug._address_of(f"spBv1.0/g/DDATA/n/{text}"),
    "name of SenML": senml.is_name,
    "field of video metadata": values.field_name,
    "class of ONVIF": onvif_redaction.object_class,
}


@pytest.mark.parametrize("name", READS)
def test_long_texts_are_not_kept(name: str) -> None:
    """Thousands of them, each as long as a message may be, would fill the memory of the process."""
    read = READS[name]
    read("a" * LONG)
    gc.collect()
    tracemalloc.start()
    for number in range(50):
        read(f"{number:0{LONG}}")
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < LONG


@pytest.mark.parametrize(("name", "text"), [("time of HJ 212", "20260101080000"), ("time of SL 651", "2601010800")])
def test_short_texts_are_read_once(name: str, text: str) -> None:
    """What recurs in thousands of messages is kept."""
    read = READS[name]
    assert read("".join(list(text))) is read("".join(list(text)))
