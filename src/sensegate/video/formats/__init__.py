"""Formats of video metadata, one file each. The next one is one more file with its `FORMAT`, and its row here."""

from __future__ import annotations

from typing import Final

from sensegate.video.form import VideoFormat
from sensegate.video.formats import frigate, viid

FORMATS: Final[dict[str, VideoFormat]] = {
    frigate.NAME: frigate.FORMAT,
    viid.FORMAT.name: viid.FORMAT,
}
"""By the name that profiles use."""
