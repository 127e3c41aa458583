"""REST: messages that no profile decodes, grouped by shape, and profile drafts for them."""

from __future__ import annotations

from typing import Annotated

import msgspec

from sensegate.authority.scope import Action, demand
from sensegate.clock import HOUR_US
from sensegate.errors import NotFound
from sensegate.lifecycle.unexplained import UnexplainedMessages
from sensegate.web import listing
from sensegate.web.bodies import Body
from sensegate.web.parts import PartKey
from sensegate.web.problems import BadRequest
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, QueryParam, Route, iso

_NAME = r"^$|^[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*$"
_SINCE = QueryParam("since", "start of the time of arrival, or how far back (30m, 1h, 7d); default 1h")


class ShapeRow(msgspec.Struct, frozen=True):
    """Shape of messages that no profile decodes."""

    id: str
    """Id, determined by topic, format and port."""
    name: str
    """Suggested name of a profile."""
    pattern: str
    """Topic pattern; empty: frames of a network server."""
    format: str
    messages: int
    topics: list[str]
    """Some of the topics."""
    reasons: dict[str, int]
    """Reason of quarantine -> number of messages."""
    first: str
    last: str
    interval_s: float
    recognised: list[str]
    """Properties recognised in its members."""
    unrecognised: int
    """Number of members that were not recognised."""
    port: int | None = None
    maker: str = ""
    """First six digits of the DevEUIs."""


class NewDraft(Body, frozen=True):
    """Messages from which a draft is learned."""

    topic: Annotated[str, msgspec.Meta(max_length=500, description="MQTT filter; decoded messages count too")] = ""
    shape: Annotated[str, msgspec.Meta(max_length=40, description="`id` of a shape: only its messages")] = ""
    profile: Annotated[
        str, msgspec.Meta(max_length=128, pattern=_NAME, description="vendor/model; empty: suggested")
    ] = ""


class GuessRow(msgspec.Struct, frozen=True):
    """Member of a message and the property that it may be."""

    field: str
    property: str = ""
    unit: str = ""
    scale: float = 1.0
    reason: str = ""
    sure: bool = False


class DraftText(msgspec.Struct, frozen=True):
    """Draft of a profile. It is not stored: create a version from it once it is right."""

    profile: str
    text: str
    """The profile, YAML with the reasons as comments."""
    messages: int
    topics: list[str]
    recognised: list[GuessRow]
    unrecognised: list[GuessRow]
    """Members that give no reading, and why."""
    problem: str
    """Reason why it cannot be loaded; empty: it can."""


UNKNOWN = PartKey[UnexplainedMessages]("unknown", absent="this gateway receives no messages of devices")


def _unknown(call: Call) -> UnexplainedMessages:
    """Return what reads the log for it.

    Raises `NotFound`, and `PermissionDenied`: such messages belong to the node alone.
    """
    unknown = call.part(UNKNOWN)
    demand(call.principal, Action.READ_QUARANTINE, call.deps.division)
    return unknown


def _since(call: Call) -> int:
    return call.time("since") or call.deps.clock.now() - HOUR_US


async def _shapes(call: Call) -> listing.RowPage[ShapeRow]:
    """List quarantined messages that no profile decodes, by shape."""
    shapes = await _unknown(call).shapes(_since(call))
    rows = [
        ShapeRow(
            shape.id,
            shape.name,
            shape.pattern,
            shape.format,
            shape.messages,
            shape.topics,
            shape.reasons,
            iso(shape.first),
            iso(shape.last),
            shape.interval_s,
            shape.recognised,
            shape.unrecognised,
            shape.port,
            shape.maker,
        )
        for shape in shapes
    ]
    return listing.RowPage(rows)


async def _learn(call: Call) -> DraftText:
    """Learn a profile draft, with its reasons, from recorded messages."""
    wanted = await call.body(NewDraft)
    if not wanted.topic and not wanted.shape:
        raise BadRequest("body: give `topic` or `shape`")
    draft = await _unknown(call).draft(_since(call), topic=wanted.topic, shape=wanted.shape, profile=wanted.profile)
    if draft is None:
        raise NotFound("there is no such message in this time; give an earlier `since`")
    return DraftText(
        draft.profile,
        draft.text,
        draft.messages,
        draft.topics[:1_000],
        [
            GuessRow(field, guess.property, guess.unit, guess.scale, guess.reason, guess.sure)
            for field, guess in draft.recognised
        ],
        [GuessRow(field, reason=why) for field, why in draft.unrecognised],
        draft.problem,
    )


ROUTES = tagged(
    "profiles",
    Route("GET", f"{API}/profiles/unknown", _shapes, action=Action.READ_QUARANTINE, query=(_SINCE,), errors=(404,)),
    Route(
        "POST",
        f"{API}/profiles/learn",
        _learn,
        action=Action.READ_QUARANTINE,
        query=(_SINCE,),
        body=NewDraft,
        errors=(404, 415),
    ),
)
