"""REST: corrections of readings of a span."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from sensegate.authority.scope import Action
from sensegate.lifecycle.corrections import Correction, CorrectionAction, Corrections
from sensegate.quantities.quality import Quality, quality_word
from sensegate.web import listing
from sensegate.web.bodies import Body, DeviceId
from sensegate.web.parts import PartKey
from sensegate.web.problems import BadRequest
from sensegate.web.registry import unknown_property
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route, iso

CORRECTIONS = PartKey[Corrections]("corrections", absent="this gateway corrects no readings")


class NewCorrection(Body, frozen=True):
    """An order to withdraw or annotate the readings of devices in a span of phenomenon time."""

    action: CorrectionAction
    devices: Annotated[list[DeviceId], msgspec.Meta(min_length=1, max_length=500)]
    begin: Annotated[str, msgspec.Meta(description="ISO 8601 with zone")]
    end: Annotated[str, msgspec.Meta(description="ISO 8601 with zone, exclusive")]
    note: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    """Reason, for the audit trail."""
    properties: list[str] = msgspec.field(default_factory=list)
    """Standard names, of all channels; `name#channel`: of one; `name#`: of the sensor without one. Empty: all."""
    quality: str = ""
    """Of `annotate`: quality of the readings from now on, e.g. ``uncertain_calibration``, ``bad_maintenance``."""


class CorrectionRow(msgspec.Struct, frozen=True):
    """A correction and its outcome."""

    id: str
    action: CorrectionAction
    devices: list[str]
    properties: list[str]
    begin: str
    end: str
    quality: str
    note: str
    by: str
    created: str
    state: str
    """``waiting``, ``done`` or ``failed``."""
    corrected: int
    """Number of readings written again; 0 once it is done: all were so already, or there were none."""
    ended: str
    problem: str


def _row(correction: Correction) -> CorrectionRow:
    return CorrectionRow(
        correction.id,
        correction.action,
        list(correction.devices),
        list(correction.properties),
        iso(correction.begin),
        iso(correction.end),
        quality_word(correction.quality),
        correction.note,
        correction.by,
        iso(correction.created),
        correction.state,
        correction.corrected,
        iso(correction.ended),
        correction.problem,
    )


def _time(key: str, text: str) -> int:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise BadRequest(f"body: {key}: '{text[:40]}' is no time with a zone; use the form 2026-01-01T00:00:00Z")
    return round(when.timestamp() * 1e6)


def _quality(body: NewCorrection) -> int:
    if body.action is CorrectionAction.WITHDRAW:
        if body.quality:
            raise BadRequest("body: quality: a withdrawn reading has the quality bad; leave it out")
        return int(Quality.BAD)
    words = {quality.name.lower(): int(quality) for quality in Quality}
    if body.quality not in words:
        raise BadRequest(f"body: quality: '{body.quality[:40]}' is unknown; use one of {', '.join(words)}")
    return words[body.quality]


async def _create(call: Call) -> CorrectionRow:
    """Withdraw readings of a span, or set their quality, as revisions of them."""
    body = await call.body(NewCorrection)
    for name in body.properties:
        if problem := unknown_property(name.partition("#")[0]):
            raise BadRequest(f"body: properties: {problem}")
    return await order(call, body)


async def order(call: Call, body: NewCorrection) -> CorrectionRow:
    """Order a correction on behalf of the caller. Raises `BadRequest`, and as `Corrections.order`."""
    wanted = Correction(
        action=body.action,
        devices=tuple(dict.fromkeys(body.devices)),
        properties=tuple(body.properties),
        begin=_time("begin", body.begin),
        end=_time("end", body.end),
        quality=_quality(body),
        note=body.note,
    )
    return _row(await call.part(CORRECTIONS).order(wanted, by=call.principal))


async def _list(call: Call) -> listing.RowPage[CorrectionRow]:
    """List corrections of readings; sort=-id gives the newest first."""
    return listing.page_of(call, map(_row, call.part(CORRECTIONS).list(call.principal)), CorrectionRow, "id")


async def _get(call: Call) -> CorrectionRow:
    """Get a correction with its outcome."""
    return _row(call.part(CORRECTIONS).get(call.path("correction"), call.principal))


ROUTES = tagged(
    "corrections",
    Route(
        "POST",
        f"{API}/corrections",
        _create,
        action=Action.CORRECT_READINGS,
        body=NewCorrection,
        status=202,
        errors=(404,),
    ),
    Route("GET", f"{API}/corrections", _list, action=Action.CORRECT_READINGS, query=listing.params(CorrectionRow)),
    Route("GET", f"{API}/corrections/{{correction}}", _get, action=Action.CORRECT_READINGS, errors=(404,)),
)
