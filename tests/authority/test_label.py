"""Labels are well-formed SVG with the id, and escape what people wrote."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree as ET

from sensegate.authority.label import label_svg, label_text
from sensegate.model import Device


def test_a_label(make: Callable[..., Device]) -> None:
    """The code names division and id; names of people are text, not markup."""
    device = make("air-1", name="<b>屋顶 & 1</b>")
    drawn = ET.fromstring(label_svg(device))  # noqa: S314 - of our own making
    texts = ["".join(node.itertext()) for node in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["air-1", "<b>屋顶 & 1</b>", "440106 sensegate/plain"]
    assert label_text(device) == "sensegate:440106:air-1"
