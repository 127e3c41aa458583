"""Payload formats: bytes to a tree of dicts, lists and scalars. One file each, one contract (`frame.PayloadFormat`).

To add a format, add a file with its `FORMAT`, its row here, and, if it has options, their key in `grammar.MessageRule`
under the format's name.
"""

from __future__ import annotations

from typing import Final

from sensegate.decode.formats import (
    binary,
    cbor,
    csv,
    gbt26875,
    hj212,
    influx,
    json,
    jsonlines,
    jtt808,
    keyvalue,
    messagepack,
    number,
    script,
    senml,
    senml_cbor,
    sl651,
    sparkplug,
    text,
    text_frame,
    urlencoded,
    video,
    xml,
)
from sensegate.decode.frame import PayloadFormat

FORMATS: Final[dict[str, PayloadFormat]] = {
    "json": json.FORMAT,
    "jsonlines": jsonlines.FORMAT,
    "binary": binary.FORMAT,
    "script": script.FORMAT,
    "senml": senml.FORMAT,
    "senml_cbor": senml_cbor.FORMAT,
    "cbor": cbor.FORMAT,
    "messagepack": messagepack.FORMAT,
    "csv": csv.FORMAT,
    "keyvalue": keyvalue.FORMAT,
    "urlencoded": urlencoded.FORMAT,
    "influx": influx.FORMAT,
    "xml": xml.FORMAT,
    "number": number.FORMAT,
    "text": text.FORMAT,
    "text_frame": text_frame.FORMAT,
    "hj212": hj212.FORMAT,
    "sl651": sl651.FORMAT,
    "gbt26875": gbt26875.FORMAT,
    "jtt808": jtt808.FORMAT,
    "sparkplug": sparkplug.FORMAT,
    "video": video.FORMAT,
}
"""Formats by the name that profiles use."""
