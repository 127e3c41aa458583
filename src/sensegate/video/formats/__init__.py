"""Formats of video metadata, one file each. The next one is one more file with its `FORMAT`, and its row here."""

from __future__ import annotations

from typing import Final

from sensegate.video.format import VideoFormat
from sensegate.video.formats import axis, dahua, deepstream, dlstreamer, frigate, gb28181, hikvision, onvif, viid

FORMATS: Final[dict[str, VideoFormat]] = {
    one.name: one
    for one in (
        viid.FORMAT,
        *onvif.FORMATS,
        hikvision.FORMAT,
        dahua.FORMAT,
        frigate.FORMAT,
        deepstream.FORMAT,
        dlstreamer.FORMAT,
        axis.FORMAT,
        gb28181.FORMAT,
    )
}
"""By the name that profiles use."""
