"""A node's choice of the active centre: it follows the one of the highest term, and grants a term where it may."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import structlog

from sensegate.clock import Clock
from sensegate.errors import Overloaded, PermissionDenied, Unavailable
from sensegate.failover import terms
from sensegate.failover.terms import LONG_POLL_S, CentreChoice, decode_state, encode
from sensegate.tiers.link import CentreLink

ANSWER_S = 2.0
"""A centre that does not answer for so long says nothing."""
_ROUNDS = 3
"""Asks how the centre is, then grants it a term or confirms what it said."""

_log = structlog.get_logger("failover")


class DurableChoice:
    """A node's choice, on the disk before anybody hears of it; implements `tiers.node_side.ActiveCentreChoice`."""

    def __init__(self, directory: Path, clock: Clock, *, lease_s: float, name: str) -> None:
        """Load the stored state of the node. Raises `ConfigError`."""
        self._directory = directory
        self._clock = clock
        self._choice = CentreChoice(lease_s, terms.read(directory), name=name)

    @property
    def term(self) -> int:
        """The highest term that this node has met."""
        return self._choice.term.number

    @property
    def remembered(self) -> terms.Term:
        """Terms and centres as this node remembers them."""
        return self._choice.term

    def is_granted(self, url: str) -> bool:
        """Return whether this node grants a centre its term at the moment."""
        return self._choice.is_granting(url, self._clock.monotonic())

    async def is_active(self, link: CentreLink, url: str, *, generation: int, wait: bool = False) -> bool:
        """Return whether a centre is active, of no lower term than this node has met; grant it a term where allowed.

        `wait`: it may answer a moment later, when there is something new.
        """
        choice, grant, active = self._choice, 0, False
        try:
            for _ in range(_ROUNDS):
                request = choice.lease_request(url, grant=grant, wait=wait and not active, generation=generation)
                before = choice.term
                answer = await link.ask("lease", encode(request), ANSWER_S + LONG_POLL_S * request.long_poll)
                state, now_s, grant = decode_state(answer), self._clock.monotonic(), 0
                if active := choice.follows(state):
                    more = choice.note_active(url, state, now_s)
                elif more := choice.grant(url, state, now_s):
                    grant = state.proposed_term
                if choice.term != before:
                    await asyncio.to_thread(terms.write, self._directory, choice.term)
                if not more:
                    break
        except (Unavailable, PermissionDenied, Overloaded, msgspec.DecodeError) as why:
            _log.info("centre does not say whether it is active", url=url, reason=str(why))
            active = False
        return active
