from __future__ import annotations

import re
from collections.abc import Callable

import segno

from sensegate.authority.label import label_path, label_text
from sensegate.model import Device


def test_a_label(make: Callable[..., Device]) -> None:
    """The code names division and id; its path is the dark modules, run by run."""
    device = make("air-1", name="<b>屋顶 & 1</b>")
    assert label_text(device) == "sensegate:440106:air-1"
    width, path = label_path(device)
    drawn = [[0] * width for _ in range(width)]
    for column, row, length in re.findall(r"M(\d+) (\d+)h(\d+)v1H\1z", path):
        drawn[int(row)][int(column) : int(column) + int(length)] = [1] * int(length)
    expected = segno.make(label_text(device), error="m", micro=False).matrix_iter(border=2)
    assert drawn == [list(row) for row in expected]
