"""Formats of video metadata, video_format module each. A new format is a module with its `FORMAT`, listed here."""

from __future__ import annotations

from typing import Final

from sensegate.video.format import VideoFormat
from sensegate.video.formats import axis, dahua, deepstream, dlstreamer, frigate, gb28181, hikvision, onvif, viid

FORMATS: Final[dict[str, VideoFormat]] = {
    video_format.name: video_format
    for video_format in (
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
"""Format by the name that profiles use."""
