"""REST: messages that no profile explains, by shape, and drafts of profiles for them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from sensegate.authoring.unknown import UnexplainedMessages
from sensegate.authority.scope import Action, demand
from sensegate.clock import HOUR_US
from sensegate.errors import NotFound
from sensegate.web.bodies import Body
from sensegate.web.deps import Part
from sensegate.web.problems import BadRequest
from sensegate.web.routing import API, Call, Param, Route, iso

_NAME = r"^$|^[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*$"
_SINCE = Param("since", "from this time of arrival on, or how far back (30m, 1h, 7d); default 1h")


class ShapeRow(msgspec.Struct, frozen=True):
    """Messages of one shape that no profile explains."""

    id: str
    """Stays the same as long as topic, format and port do."""
    name: str
    """A name for its profile."""
    pattern: str
    """Topic pattern; empty: frames that a network server brings."""
    format: str
    messages: int
    topics: list[str]
    """Some of them."""
    reasons: dict[str, int]
    """Reason of quarantine -> messages."""
    first: str
    last: str
    interval_s: float
    recognised: list[str]
    """Properties that its members were recognised as."""
    unrecognised: int
    """Number of members that were not recognised."""
    port: int | None = None
    maker: str = ""
    """First six digits of the DevEUIs."""


class NewDraft(Body, frozen=True):
    """What a draft is to be learned from."""

    topic: Annotated[str, msgspec.Meta(max_length=500, description="MQTT filter; good messages under it count too")] = (
        ""
    )
    shape: Annotated[str, msgspec.Meta(max_length=40, description="`id` of a shape: only its messages")] = ""
    profile: Annotated[str, msgspec.Meta(max_length=128, pattern=_NAME, description="vendor/model; empty: made up")] = (
        ""
    )


class GuessRow(msgspec.Struct, frozen=True):
    """One member and what it may be."""

    field: str
    property: str = ""
    unit: str = ""
    scale: float = 1.0
    reason: str = ""
    sure: bool = False


class DraftText(msgspec.Struct, frozen=True):
    """A draft. It is kept nowhere: hand it in as a version when it is right."""

    profile: str
    text: str
    """The profile, YAML with the reasons as comments."""
    messages: int
    topics: list[str]
    recognised: list[GuessRow]
    unrecognised: list[GuessRow]
    """Members that became no reading, and why."""
    problem: str
    """Why it does not load; empty: it does."""


UNKNOWN = Part[UnexplainedMessages]("unknown", absent="this gateway receives no messages of devices")


def _unknown(call: Call) -> UnexplainedMessages:
    """Return what reads the log for it.

    Raises `NotFound`, and `PermissionDenied`: such messages belong to the node alone.
    """
    unknown = call.part(UNKNOWN)
    demand(call.principal, Action.READ_QUARANTINE, call.deps.division)
    return unknown


def _since(call: Call) -> int:
    return call.time("since") or call.deps.clock.now() - HOUR_US


async def _shapes(call: Call) -> Any:
    found = await _unknown(call).shapes(_since(call))
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
        for shape in found
    ]
    return {"rows": rows}


async def _learn(call: Call) -> Any:
    wanted = await call.body(NewDraft)
    if not wanted.topic and not wanted.shape:
        raise BadRequest("body: give `topic` or `shape`")
    found = await _unknown(call).draft(_since(call), topic=wanted.topic, shape=wanted.shape, profile=wanted.profile)
    if found is None:
        raise NotFound("no such message is recorded; look further back with `since`")
    return DraftText(
        found.profile,
        found.text,
        found.messages,
        found.topics[:1_000],
        [GuessRow(field, one.property, one.unit, one.scale, one.reason, one.sure) for field, one in found.recognised],
        [GuessRow(field, reason=why) for field, why in found.unrecognised],
        found.problem,
    )


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/profiles/unknown",
        call=_shapes,
        what="Messages in quarantine that no profile explains, by shape.",
        tag="profiles",
        action=Action.READ_QUARANTINE,
        query=(_SINCE,),
        answer=list[ShapeRow],
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{API}/profiles/learn",
        call=_learn,
        what="A draft of a profile, learned from recorded messages, with its reasons.",
        tag="profiles",
        action=Action.READ_QUARANTINE,
        query=(_SINCE,),
        body=NewDraft,
        answer=DraftText,
        errors=(404, 415),
    ),
)
