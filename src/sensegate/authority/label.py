"""The printable label of a device: a QR code with id, name and profile, as SVG."""

from __future__ import annotations

import io
from xml.sax.saxutils import escape

import segno

from sensegate.model import Device

_TEXT_MAX = 40


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


def label_svg(device: Device) -> str:
    """Return a label of 60 by 80 units: the QR code above id, name and profile."""
    code = io.BytesIO()
    segno.make(label_text(device), error="m", micro=False).save(
        code, kind="svg", xmldecl=False, svgns=False, nl=False, scale=1, border=2, omitsize=True
    )
    lines = [text for text in (device.id, device.name, f"{device.division} {device.profile}") if text]
    rows = "".join(
        f'<text x="30" y="{66 + 5 * at}" font-size="4" text-anchor="middle" font-family="sans-serif">'
        f"{escape(text[:_TEXT_MAX])}</text>"
        for at, text in enumerate(lines)
    )
    inner = code.getvalue().decode().replace("<svg ", '<svg x="0" y="0" width="60" height="60" ', 1)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 60 80">'
        f'<rect width="60" height="80" fill="#fff"/>{inner}{rows}</svg>'
    )
