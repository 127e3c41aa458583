"""The printable label of a device: its QR code."""

from __future__ import annotations

import segno

from sensegate.model import Device


def label_text(device: Device) -> str:
    """Return the content of the QR code: division and id, nothing secret."""
    return f"sensegate:{device.division}:{device.id}"


def label_path(device: Device) -> tuple[int, str]:
    """Return the QR code of a label as (width in modules with its margin, SVG path of the dark modules)."""
    code = segno.make(label_text(device), error="m", micro=False)
    rows = list(code.matrix_iter(border=2))
    parts: list[str] = []
    for line, row in enumerate(rows):
        start = -1
        for column, dark in enumerate((*row, 0)):
            if dark and start < 0:
                start = column
            elif not dark and start >= 0:
                parts.append(f"M{start} {line}h{column - start}v1H{start}z")
                start = -1
    return len(rows), "".join(parts)
