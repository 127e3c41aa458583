"""Encoder of rows of a batch as resolved SenML records (RFC 8428), each independent of the pack that contains it.

`n` is ``urn:sensegate:<device>:<property>[:<channel>]``, `t` the phenomenon time, Unix seconds. `u` is present only
where the registries of RFC 8428 and RFC 8798 have the unit of the property; `ucum` is present always. `id`, `cursor`,
`division` and, unless it is good, `quality` are extension labels, which readers of SenML ignore.
"""

from __future__ import annotations

import re

from sensegate.bus.columns import Batch
from sensegate.model import I64
from sensegate.quantities.properties import ValueKind
from sensegate.quantities.quality import quality_word
from sensegate.share import records
from sensegate.share.cursor import row_text

UNITS = {
    "%": "/100",
    "/min": "1/min",
    "1": "/",
    "A": "A",
    "A.h": "Ah",
    "Cel": "Cel",
    "Hz": "Hz",
    "K": "K",
    "L": "l",
    "L/s": "l/s",
    "Pa": "Pa",
    "V": "V",
    "V.A": "VA",
    "W": "W",
    "W/m2": "W/m2",
    "[pH]": "pH",
    "[ppm]": "ppm",
    "cm": "cm",
    "dB": "dB",
    "deg": "deg",
    "h": "h",
    "hPa": "hPa",
    "kV.A.h": "kVAh",
    "kW": "kW",
    "kW.h": "kWh",
    "kg": "kg",
    "kg/m3": "kg/m3",
    "km": "km",
    "km/h": "km/h",
    "lx": "lx",
    "m": "m",
    "m/s": "m/s",
    "m/s2": "m/s2",
    "m2": "m2",
    "m3": "m3",
    "m3/s": "m3/s",
    "mA": "mA",
    "mV": "mV",
    "mm": "mm",
    "mm/h": "mm/h",
    "s": "s",
    "ug/m3": "ug/m3",
}
"""UCUM -> SenML units. In SenML `%` is a ratio of 0 to 1, so that per cent is ``/100``."""
_UNITS_BY_PROPERTY = {"relative_humidity": "%RH"}
_NAME = re.compile(r"[^A-Za-z0-9:._/-]")
_LABELS = {ValueKind.NUMBER: "v", ValueKind.BOOLEAN: "vb"}


def lines(batch: Batch, rows: I64, entry: int, prefix: str) -> list[str]:
    """Return the SenML record of each row as JSON; `entry` and `prefix` as in `json_records.json_lines`."""
    origins, properties = batch.origin[rows].tolist(), batch.property[rows].tolist()
    names = [_NAME.sub("_", ":".join(filter(None, name.split("#", 1)))) for name in batch.properties]
    units = [
        _units(records.base_name(name), unit)
        for name, unit in zip(batch.properties, records.units_of(batch.properties), strict=True)
    ]
    labels = [_LABELS.get(kind, "vs") for kind in records.kinds_of(batch.properties)]
    used = set(origins)
    heads = {index: f'{{"n":"urn:sensegate:{_NAME.sub("_", batch.origins.device[index])}:' for index in used}
    tails = {index: f',"division":{records.quote(batch.origins.division[index])}' for index in used}
    start = f'"id":"{batch.node}-{batch.partition}-'
    lines = []
    for sequence, index, row, origin, prop, value, time, quality in zip(
        records.sequences_of(batch, rows, entry),
        batch.index[rows].tolist(),
        rows.tolist(),
        origins,
        properties,
        records.json_values(batch, rows, properties),
        batch.time[rows].tolist(),
        batch.quality[rows].tolist(),
        strict=True,
    ):
        label = "vs" if value.startswith('"') else labels[prop]
        bad = f',"quality":"{quality_word(quality)}"' if quality else ""
        lines.append(
            f'{heads[origin]}{names[prop]}"{units[prop]},"t":{time // 1_000_000}.{time % 1_000_000:06d},'
            f'"{label}":{value},{start}{sequence:014d}-{index}","cursor":"{prefix}{row_text(row)}"{tails[origin]}{bad}}}'
        )
    return lines


def _units(name: str, unit: str) -> str:
    if not unit:
        return ""
    senml_unit = _UNITS_BY_PROPERTY.get(name) or UNITS.get(unit)
    return (f',"u":"{senml_unit}"' if senml_unit else "") + f',"ucum":{records.quote(unit)}'
