"""Messages of video metadata are cut down to what may be kept, before anything of ours writes or tells them.

The step stands between the sources and the rest of the walk: what it returns is what goes into the log, to quarantine,
to the eyes that decode, and to whoever looks on. A message that cannot be cut is replaced by a body that says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from sensegate.decode.decode import Decoder
from sensegate.decode.routes import Route
from sensegate.errors import Rejected
from sensegate.model import Message, QuarantineReason, Removed, Span
from sensegate.video import body
from sensegate.video.form import Veil, VideoFormat


class Clean(NamedTuple):
    """A span that holds only what may be kept."""

    span: Span
    removed: list[Removed]


class Cutting:
    """Cuts spans by the routes of a decoder."""

    def __init__(self, formats: Mapping[str, VideoFormat], veil: Veil, *, bytes_max: int) -> None:
        """`bytes_max`: a longer message is not looked into."""
        self._formats = formats
        self._veil = veil
        self._bytes_max = bytes_max

    def places(self, span: Span, decoder: Decoder) -> dict[int, Route]:
        """Return the messages of a span that are video metadata and not cut yet, with their routes."""
        routes = decoder.known_routes()
        if not decoder.profiles.video:
            return {}
        topics = span.topics
        if any(span.principals):
            topics = [m.topic if not m.principal else f"{m.topic}\0{m.principal}" for m in span]
        numbers = np.array(list(map(routes.number, topics)), np.int32)
        found = np.flatnonzero(routes.video[numbers]).tolist() if len(numbers) else []
        return {at: routes.routes[int(numbers[at])] for at in found if not span[at].cut}

    def one(self, message: Message, route: Route) -> tuple[bytes, Mapping[str, int]]:
        """Return (what is kept of a message, how often which field was taken out)."""
        payload = message.payload
        first: Rejected | None = None
        if len(payload) > self._bytes_max:
            first = Rejected(QuarantineReason.TOO_LARGE, "")
        for name in route.video if first is None else ():
            form = self._formats.get(name)
            if form is None:
                continue
            try:
                kept = body.kept(name, form.cut(payload, message.topic, message.received, self._veil))
            except Rejected as why:
                first = first or why
                continue
            found = body.opened(kept)
            return kept, found.removed if found else {}
        reason = first or Rejected(QuarantineReason.NO_PROFILE, "its profile is not loaded")
        return body.instead(route.video[0], payload, reason), {}

    @staticmethod
    def crashed(message: Message, route: Route, where: str) -> bytes:
        """Return what stands in place of a message on which a format crashed; `where` holds places in our code only."""
        return body.instead(route.video[0], message.payload, Rejected(QuarantineReason.CRASHED, where))


def replaced(span: Span, bodies: Mapping[int, bytes]) -> Span:
    """Return a span with other payloads at some places."""
    if not bodies:
        return span
    return Span(
        msgspec.structs.replace(message, payload=bodies[at], cut=True) if at in bodies else message
        for at, message in enumerate(span)
    )
