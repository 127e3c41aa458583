"""Names of NGSI-LD for properties of the property table, and UN/CEFACT codes for their units."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sensegate.ngsi_ld.contexts import LdContexts
from sensegate.quantities.properties import PROPERTIES, Property

_CORE = LdContexts().core
UNKNOWN_TYPE = "DeviceMeasurement"
"""Type of the entity that has a property which the table lacks."""
DEVICE_TYPE = "Device"
UNIT_CODES: Mapping[str, str] = {
    "%": "P1",
    "/cm3": "H50",
    "/h": "H10",
    "/L": "K63",
    "/m": "C92",
    "/m2": "C93",
    "/m3": "C86",
    "/min": "C94",
    "1": "C62",
    "A": "AMP",
    "A.h": "AMH",
    "Bq/m3": "A19",
    "By": "AD",
    "Cel": "CEL",
    "Hz": "HTZ",
    "K": "KEL",
    "L": "LTR",
    "L/h": "E32",
    "L/s": "G51",
    "MPa": "MPA",
    "N.m": "NU",
    "Pa": "PAL",
    "V": "VLT",
    "V.A": "D46",
    "V/m": "D50",
    "W": "WTT",
    "W/m2": "D54",
    "[pH]": "Q30",
    "[ppb]": "61",
    "[ppm]": "59",
    "cm": "CMT",
    "dB": "2N",
    "dB/m": "H51",
    "deg": "DD",
    "g/L": "GL",
    "g/m3": "A93",
    "h": "HUR",
    "hPa": "A97",
    "kN": "B47",
    "kOhm": "B49",
    "kPa": "KPA",
    "kV.A.h": "C79",
    "kW": "KWT",
    "kW.h": "KWH",
    "kg": "KGM",
    "kg/m3": "KMQ",
    "km": "KMT",
    "km/h": "KMH",
    "lx": "LUX",
    "m": "MTR",
    "m/s": "MTS",
    "m/s2": "MSK",
    "m2": "MTK",
    "m3": "MTQ",
    "m3/h": "MQH",
    "m3/s": "MQS",
    "mA": "4K",
    "mA.h": "E09",
    "mOhm": "E45",
    "mPa.s": "C24",
    "mV": "2Z",
    "mg/L": "M1",
    "mg/kg": "NA",
    "mg/m3": "GP",
    "mm": "MMT",
    "mm/a": "H66",
    "mm/h": "H67",
    "mm/s": "C16",
    "s": "SEC",
    "t": "TNE",
    "t/h": "E18",
    "uS/cm": "G42",
    "uSv/h": "P72",
    "uT": "D81",
    "ug/L": "H29",
    "ug/m3": "GQ",
    "um": "4H",
}
"""UCUM code of a canonical unit -> code of UN/CEFACT recommendation 20, where it has one."""


class AttributeName(msgspec.Struct, frozen=True):
    """Entity type, attribute and unit for the readings of a property."""

    type: str
    """Short name of the entity type."""
    attribute: str
    """IRI of the attribute."""
    unit: str
    """UN/CEFACT code; empty: none is known."""


def iri(name: str) -> str:
    """Return the IRI of a short name that this gateway gives to a type or attribute."""
    return _CORE.expand(name)


def _attribute_names() -> dict[str, AttributeName]:
    names = {}
    for row in PROPERTIES.rows:
        kind, _, attribute = row.ngsi.partition(".")
        if attribute:
            names[row.name] = AttributeName(kind, iri(attribute), UNIT_CODES.get(row.unit, ""))
    return names


_NAMES = _attribute_names()


def attribute_of(name: str) -> AttributeName:
    """Return the type and attribute of a property by its standard name."""
    return _NAMES.get(name) or AttributeName(UNKNOWN_TYPE, iri(name), "")


def properties_of(kind: str) -> Mapping[str, Property]:
    """Return the standard properties whose readings stand in entities of a type: IRI of the attribute -> property."""
    return _BY_TYPE.get(kind, {})


def _by_type() -> dict[str, dict[str, Property]]:
    by_type: dict[str, dict[str, Property]] = {}
    for row in PROPERTIES.rows:
        name = attribute_of(row.name)
        by_type.setdefault(name.type, {}).setdefault(name.attribute, row)
    return by_type


_BY_TYPE = _by_type()
