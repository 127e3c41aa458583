"""REST: help for authors of profiles: lint, trial of a message, expectations of examples, the schema."""

from __future__ import annotations

import asyncio
import base64
import binascii
from functools import lru_cache
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from sensegate.authoring import schema
from sensegate.authority.scope import Action
from sensegate.errors import ConfigError
from sensegate.lifecycle.contents import Content
from sensegate.lifecycle.editing import AcceptedText, LintedProfile, TriedMessage, accept_seen, lint, try_message
from sensegate.web import encoding
from sensegate.web.bodies import Body
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route

_Text = Annotated[str, msgspec.Meta(max_length=262_144, description="the profile, YAML")]
_Files = Annotated[dict[str, str], msgspec.Meta(description="files that the profile refers to (a codec), name -> text")]


class ProfileText(Body, frozen=True):
    """Text of a profile that is not stored."""

    text: _Text
    files: _Files = msgspec.field(default_factory=dict)


class TrialMessage(Body, frozen=True):
    """Message with which the text of a profile is tried."""

    text: _Text
    payload: Annotated[str, msgspec.Meta(max_length=262_144)]
    files: _Files = msgspec.field(default_factory=dict)
    encoding: Literal["text", "hex", "base64"] = "text"
    """Encoding of the bytes in `payload`."""
    topic: Annotated[str, msgspec.Meta(max_length=500)] = ""
    """Topic of the message; empty: a frame as a network server delivers it."""
    device: Annotated[str, msgspec.Meta(max_length=128)] = ""
    port: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None


class TrialStage(msgspec.Struct, frozen=True):
    """Stage of decoding."""

    stage: str
    lines: list[str]


class TrialReport(msgspec.Struct, frozen=True):
    """Stages of decoding a message."""

    stages: list[TrialStage]


def _bytes(tried: TrialMessage) -> bytes:
    try:
        if tried.encoding == "hex":
            return bytes.fromhex(tried.payload)
        if tried.encoding == "base64":
            return base64.b64decode("".join(tried.payload.split()), validate=True)
        return tried.payload.encode()
    except (ValueError, binascii.Error):
        remedy = f"correct it, or choose another encoding than {tried.encoding}"
        raise ConfigError(f"the payload is not {tried.encoding}", key="payload", remedy=remedy) from None


async def _lint(call: Call) -> LintedProfile:
    """Check the text of a profile: errors and probable mistakes, each with line and column."""
    wanted = await call.body(ProfileText)
    return await asyncio.to_thread(lint, Content(wanted.text, wanted.files))


async def _try(call: Call) -> TrialReport:
    """Decode one message by the text of a profile, stage by stage; nothing is stored."""
    wanted = await call.body(TrialMessage)
    tried = TriedMessage(_bytes(wanted), wanted.topic, wanted.device, wanted.port)
    stages = await asyncio.to_thread(try_message, Content(wanted.text, wanted.files), tried, call.deps.clock)
    return TrialReport([TrialStage(stage["stage"], stage["lines"]) for stage in stages])


async def _accept(call: Call) -> AcceptedText:
    """Return the text of a profile with what its examples give as what they expect; nothing is stored."""
    wanted = await call.body(ProfileText)
    return await asyncio.to_thread(accept_seen, Content(wanted.text, wanted.files))


@lru_cache(maxsize=1)
def _schema_text() -> bytes:
    return schema.text().encode()


async def _schema(call: Call) -> web.Response:
    """Get the JSON Schema of profiles, with a description of every key."""
    body = await asyncio.to_thread(_schema_text)
    return encoding.conditional(call.request, web.Response(body=body, content_type="application/json"))


ROUTES = tagged(
    "profiles",
    Route("POST", f"{API}/profiles/lint", _lint, action=Action.PROPOSE_PROFILES, body=ProfileText, errors=(413, 415)),
    Route("POST", f"{API}/profiles/try", _try, action=Action.PROPOSE_PROFILES, body=TrialMessage, errors=(413, 415)),
    Route(
        "POST", f"{API}/profiles/accept", _accept, action=Action.PROPOSE_PROFILES, body=ProfileText, errors=(413, 415)
    ),
    Route("GET", f"{API}/profiles/schema", _schema, action=Action.READ_REGISTRY, errors=(304,)),
)
