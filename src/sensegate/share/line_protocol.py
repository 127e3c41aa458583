"""Encoder of rows of a batch as InfluxDB line protocol, a line a record; times are µs.

``reading,device=gz-1,division=440106 air_temperature=21.5 1767225600000000``

Tags `channel`, `quality` (unless it is good), `revision` (from the first on) and `correction` (``withdrawn`` or
``annotated``, of a revision that an operator ordered) stand only where they tell something:
what a store holds under the same tags and time is thus the same reading, so that writing it twice changes nothing, and
a revision replaces nothing. A record without a value is a comment.
"""

from __future__ import annotations

from sensegate.bus.columns import Batch
from sensegate.model import I64
from sensegate.quantities.properties import ValueKind
from sensegate.quantities.quality import Flag, quality_word
from sensegate.share import records

MEASUREMENT = "reading"
_CORRECTIONS = int(Flag.WITHDRAWN | Flag.CORRECTED)
_TAG = str.maketrans({",": "\\,", "=": "\\=", " ": "\\ ", "\n": "_", "\r": "_", "\t": "_"})
_TEXT = str.maketrans({'"': '\\"', "\\": "\\\\"})


def lines(batch: Batch, rows: I64) -> list[str]:
    """Return the line of each row, without its end."""
    origins, properties = batch.origin[rows].tolist(), batch.property[rows].tolist()
    devices = {index: f"device={_tag(batch.origins.device[index])}" for index in set(origins)}
    divisions = {
        index: f",division={_tag(division)}" if (division := batch.origins.division[index]) else "" for index in devices
    }
    channels = [
        f"channel={_tag(channel)}," if (channel := records.channel_of(name)) else "" for name in batch.properties
    ]
    fields = [_tag(records.base_name(name)) for name in batch.properties]
    is_text = [kind not in {ValueKind.NUMBER, ValueKind.BOOLEAN} for kind in records.kinds_of(batch.properties)]
    values = records.json_values(batch, rows, properties)
    encoded = []
    for row, origin, prop, value, time, quality, revision, flags in zip(
        rows.tolist(),
        origins,
        properties,
        values,
        batch.time[rows].tolist(),
        batch.quality[rows].tolist(),
        batch.revision[rows].tolist(),
        batch.flags[rows].tolist(),
        strict=True,
    ):
        text = batch.text.get(row)
        if text is None and (value == "null" or is_text[prop]):
            encoded.append(f"# {devices[origin]} {fields[prop]}: no value")
            continue
        written = value if text is None else f'"{text.translate(_TEXT)}"'
        tags = f",quality={quality_word(quality)}" if quality else ""
        tags += f",revision={revision}" if revision else ""
        if flags & _CORRECTIONS:
            tags += f",correction={'withdrawn' if flags & Flag.WITHDRAWN else 'annotated'}"
        encoded.append(
            f"{MEASUREMENT},{channels[prop]}{devices[origin]}{divisions[origin]}{tags} {fields[prop]}={written} {time}"
        )
    return encoded


def _tag(text: str) -> str:
    """Return a tag's value or a name, escaped; what none may hold becomes an underscore."""
    escaped = text.translate(_TAG)
    return f"{escaped[:-1]}_" if escaped.endswith("\\") else escaped or "_"
