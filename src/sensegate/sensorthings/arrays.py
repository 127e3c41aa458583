"""Data arrays in: Observations of several Datastreams in one request (`CreateObservations`)."""

from __future__ import annotations

from typing import Any

from sensegate.sensorthings.bodies import Body, checked
from sensegate.sensorthings.ingest import NewReading
from sensegate.sensorthings.kinds import KINDS
from sensegate.sensorthings.observations import FEATURE
from sensegate.sensorthings.view import CallerView
from sensegate.sensorthings.writing import EntityWriter
from sensegate.web.problems import BadRequest

ROWS_MAX = 100_000
_COMPONENTS = frozenset(
    {"phenomenonTime", "resultTime", "result", "resultQuality", "validTime", "parameters", f"{FEATURE}/id"}
)
_OBSERVATION = KINDS["Observation"]


async def data_arrays(view: CallerView, writer: EntityWriter, body: object) -> list[int | None]:
    """Take the Observations of data arrays; return the id of each in their order, None for each that is wrong.

    Raises:
        BadRequest: the body is no list of data arrays, or none of its rows is right.
    """
    if not isinstance(body, list):
        raise BadRequest("body: is not an array of data arrays; see the SensorThings API 1.1, section 12")
    readings: list[tuple[NewReading, Body] | None] = []
    problem = "body: has no rows"
    for number, group in enumerate(body):
        for row in _rows_of(group, f"body[{number}]"):
            if len(readings) >= ROWS_MAX:
                raise BadRequest(f"body: has more than {ROWS_MAX} rows; send several requests", status=413)
            try:
                readings.append(writer.reading(view, checked(_OBSERVATION, row), f"body[{number}]"))
            except BadRequest as why:
                # The standard answers a wrong row in its place, and takes the others.
                problem = str(why)
                readings.append(None)
    taken = [reading for reading in readings if reading is not None]
    if not taken:
        raise BadRequest(problem)
    ids = iter(await writer.observations(view, taken))
    return [None if reading is None else next(ids) for reading in readings]


def _rows_of(group: Any, where: str) -> list[Body]:
    """Return the rows of a data array as bodies of Observations. Raises `BadRequest`."""
    if not isinstance(group, dict):
        raise BadRequest(f"{where}: is not a data array; give Datastream, components and dataArray")
    names, rows = group.get("components"), group.get("dataArray")
    if not isinstance(names, list) or "result" not in names or not set(map(str, names)) <= _COMPONENTS:
        raise BadRequest(f"{where}: components: give result and others of {', '.join(sorted(_COMPONENTS))}")
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == len(names) for row in rows):
        raise BadRequest(f"{where}: dataArray: is not an array of rows of {len(names)} cells; give such")
    bodies = []
    for row in rows:
        body = {name: cell for name, cell in zip(names, row, strict=True) if cell is not None or name == "result"}
        if (feature := body.pop(f"{FEATURE}/id", None)) is not None:
            body[FEATURE] = {"@iot.id": feature}
        bodies.append({**body, "Datastream": group.get("Datastream")})
    return bodies
