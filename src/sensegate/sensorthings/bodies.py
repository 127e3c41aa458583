"""Bodies of requests that write: what each entity type takes, checked before anything is written."""

from __future__ import annotations

import difflib
import re
from typing import Any

import msgspec

from sensegate.quantities.properties import PROPERTIES, Property, ValueKind
from sensegate.sensorthings.geometry import from_json
from sensegate.sensorthings.instants import parse_span
from sensegate.sensorthings.kinds import KINDS, EntityKind, FieldKind
from sensegate.sensorthings.view import GEOJSON, OBSERVATION_TYPES
from sensegate.web.problems import BadRequest

TEXT_MAX = 4_096
"""Most characters of a text of an entity."""
JSON_BYTES_MAX = 65_536
"""Most bytes of one JSON value of an entity."""
LINKED_MAX = 100
"""Most entities that one body links or inserts at a link."""
DEPTH_MAX = 5
Body = dict[str, Any]


def decoded(raw: bytes) -> Any:
    """Return a JSON body. Raises `BadRequest`."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise BadRequest(f"body: {why}") from None


def checked(kind: EntityKind, body: object, *, partial: bool = False, where: str = "body", depth: int = 0) -> Body:
    """Return a body of an entity with its known members only, also of entities inside it.

    Args:
        kind: its type.
        body: as decoded.
        partial: whether members that are left out stay as they are.
        where: path to it, for errors.
        depth: how many bodies it lies in.

    Raises:
        BadRequest: naming the member that is wrong.
    """
    if not isinstance(body, dict):
        raise BadRequest(f"{where}: is not a JSON object; give the properties of a {kind.name}")
    if depth > DEPTH_MAX:
        raise BadRequest(f"{where}: is nested more than {DEPTH_MAX} deep; insert the rest apart")
    for name in () if partial else kind.mandatory:
        if name not in body:
            raise BadRequest(f"{where}: {name}: is missing; a {kind.name} has {', '.join(kind.mandatory)}")
    result: Body = {}
    for name, value in body.items():
        here = f"{where}: {name}"
        if name in kind.fields:
            result[name] = _value(kind, name, value, here)
        elif name in kind.links:
            result[name] = _linked(kind, name, value, here, depth)
        elif not name.startswith("@iot.") and "@iot." not in name:
            near = difflib.get_close_matches(name, [*kind.fields, *kind.links], n=1, cutoff=0.5)
            remedy = f"did you mean '{near[0]}'?" if near else f"use {', '.join([*kind.fields, *kind.links])}"
            raise BadRequest(f"{where}: a {kind.name} has no '{name[:40]}'; {remedy}")
    return result


def _value(kind: EntityKind, name: str, value: Any, where: str) -> Any:
    field = kind.fields[name]
    if value is None and name not in kind.mandatory:
        return None
    match field:
        case FieldKind.TEXT:
            _check_text(kind, name, value, where)
        case FieldKind.TIME:
            if not isinstance(value, str) or parse_span(value) is None:
                raise BadRequest(f"{where}: '{str(value)[:60]}' is not a time; give 2026-01-01T00:00:00Z")
        case FieldKind.GEOMETRY:
            if from_json(value) is None:
                raise BadRequest(f"{where}: is not GeoJSON; give a geometry or a Feature with one")
        case FieldKind.JSON:
            if not isinstance(value, dict):
                raise BadRequest(f"{where}: is not a JSON object; give one")
    if not isinstance(value, str) and len(msgspec.json.encode(value)) > JSON_BYTES_MAX:
        raise BadRequest(f"{where}: is larger than {JSON_BYTES_MAX} bytes; give less", status=413)
    return value


def _check_text(kind: EntityKind, name: str, value: Any, where: str) -> None:
    if not isinstance(value, str) or not value or len(value) > TEXT_MAX:
        raise BadRequest(f"{where}: is not a text; give 1 to {TEXT_MAX} characters")
    if name == "observationType" and value not in OBSERVATION_TYPES:
        raise BadRequest(f"{where}: '{value[:80]}' is unknown; use one of {', '.join(sorted(OBSERVATION_TYPES))}")
    is_place = kind.name in {"Location", "FeatureOfInterest"}
    if name == "encodingType" and is_place and value not in {GEOJSON, "application/vnd.geo+json"}:
        raise BadRequest(f"{where}: '{value[:80]}' is not supported; use {GEOJSON}")


def _linked(kind: EntityKind, name: str, value: Any, where: str, depth: int) -> list[Body]:
    """Return what stands at a link as a list: references ``{"@iot.id": n}``, and bodies of new entities."""
    link = kind.links[name]
    entries = value if isinstance(value, list) and link.is_many else [value]
    if len(entries) > LINKED_MAX:
        raise BadRequest(f"{where}: has {len(entries)} entities; give at most {LINKED_MAX}")
    result = []
    for entry in entries:
        number = entry.get("@iot.id", entry.get("id")) if isinstance(entry, dict) else None
        if number is not None:
            if isinstance(number, bool) or not isinstance(number, int):
                raise BadRequest(f"{where}: '{str(number)[:40]}' is not an id; give a whole number")
            result.append({"@iot.id": number})
        else:
            # A new entity inside lacks the link back, which the outer one is.
            result.append(checked(KINDS[link.target], entry, where=where, depth=depth + 1))
    return result


def property_of(body: Body, where: str) -> Property:
    """Return the standard property that an ObservedProperty names by its definition or name. Raises `BadRequest`."""
    name = str(body["name"])
    candidates = (str(body["definition"]).rstrip("/").rpartition("/")[2], name, _snake(name))
    for candidate in candidates:
        if (index := PROPERTIES.find(candidate)) >= 0:
            return PROPERTIES[index]
    folded = name.casefold()
    for row in PROPERTIES.rows:
        if folded in {row.label_en.casefold(), row.label_zh.casefold()}:
            return row
    near = PROPERTIES.nearest(_snake(name)) or PROPERTIES.nearest(candidates[0])
    remedy = f"the nearest is '{near}'" if near else "GET /api/v1/properties lists them"
    raise BadRequest(f"{where}: there is no property '{name[:64]}'; {remedy}")


def _snake(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def check_unit(row: Property, unit: Any, where: str) -> None:
    """Return if a unit of measurement is that of a property. Raises `BadRequest`."""
    words = {str(unit.get(name) or "") for name in ("name", "symbol", "definition")} - {""}
    words |= {word.rpartition("#")[2] for word in words}
    if not row.unit or not words or row.unit in words or words & _SYMBOLS.get(row.unit, frozenset()):
        return
    raise BadRequest(f"{where}: the values of {row.name} are in {row.unit}; give symbol {row.unit}, and such values")


_SYMBOLS = {
    "Cel": frozenset({"°C", "℃", "degC", "C", "degree Celsius", "Degree Celsius"}),
    "%": frozenset({"percent", "Percent"}),
    "deg": frozenset({"°", "degree"}),
    "ug/m3": frozenset({"µg/m³", "μg/m³", "ug/m³"}),
    "m3": frozenset({"m³"}),
    "m3/h": frozenset({"m³/h"}),
    "1": frozenset({"one", "count"}),
}
"""Unit -> other spellings of it."""


def result_of(row: Property, value: Any, where: str) -> Any:
    """Return the result of an Observation as a reading of a property has it. Raises `BadRequest`."""
    match row.kind:
        case ValueKind.NUMBER if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
        case ValueKind.BOOLEAN if isinstance(value, bool):
            return value
        case ValueKind.STRING if isinstance(value, str):
            return value
    raise BadRequest(f"{where}: {row.name} is a {row.kind}; '{str(value)[:40]}' is none")
