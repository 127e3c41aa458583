"""A node's connection to its centre, as the other parts of the node see it."""

from __future__ import annotations

from sensegate.clock import Clock
from sensegate.errors import Conflict, Unavailable
from sensegate.tiers.link import CentreLink
from sensegate.tiers.liveness import Liveness, LogEnd, UplinkLag
from sensegate.tiers.uplink import Uplink
from sensegate.web.parts import PartKey

COMPARED_S = 120.0
"""Time for which a comparison with the centre's clock is valid; each report of the node makes one."""
CENTRE = "centre"
"""Name of the other tier in `Liveness`."""


class CentreConnection:
    """The present connection; `tiers.node_side` opens and closes it."""

    def __init__(self, log: LogEnd, clock: Clock, *, log_end: int = 0) -> None:
        """`log_end`: last sequence of the node's log when this process began."""
        self._clock = clock
        self._liveness = Liveness(clock)
        self.lag = UplinkLag(log, clock, log_end=log_end)
        self._link: CentreLink | None = None
        self._uplink: Uplink | None = None
        self._clock_offset_s = 0.0
        self._compared_at = float("-inf")
        self.generation = 0
        """Generation of this node's membership by which it is connected."""
        self.problem = ""
        """Reason why there is no connection, unless the centre is merely unreachable."""

    def opened(self, link: CentreLink, generation: int) -> None:
        """Let other parts ask over a link from now on."""
        self._link, self.generation, self.problem = link, generation, ""

    def forwards_by(self, uplink: Uplink) -> None:
        """Name the uplink that forwards over the link."""
        self._uplink = uplink

    def closed(self) -> None:
        """Refuse questions until the next connection."""
        self._link = None
        if self._uplink:
            self._uplink.disconnected()

    async def ask(self, question: str, payload: bytes = b"") -> bytes:
        """Return the centre's answer; while this node is over its quota, wait.

        Raises:
            Unavailable: not connected.
            PermissionDenied: the centre refuses.
        """
        if self._link is None:
            raise Unavailable("not connected to the centre")
        answer = await self._link.ask_with_retries(question, payload, clock=self._clock)
        self._liveness.note(CENTRE)
        return answer

    def place_of(self, sequence: int) -> str:
        """Return where an entry of this log stands on its way to the centre, in words."""
        if self._uplink is None:
            return "waits: there was no connection to the centre yet"
        return self._uplink.place_of(sequence)

    def uplink(self) -> Uplink:
        """Return the uplink. Raises `Conflict` where there is no connection."""
        if self._uplink is None or self._link is None:
            raise Conflict("this node is not connected to its centre; try again when it is")
        return self._uplink

    @property
    def is_forwarding(self) -> bool:
        """Return whether the uplink is connected, and the centre has answered a moment ago."""
        return self._uplink is not None and self._uplink.connected and not self._liveness.is_silent(CENTRE)

    def silence(self) -> list[str]:
        """Return a sentence where the centre has not answered for some seconds."""
        if not self._liveness.is_silent(CENTRE):
            return []
        cause = f": {self.problem}" if self.problem else ""
        seconds = self._liveness.silence_s(CENTRE)
        return [f"uplink: the centre has not answered for {seconds:.0f} s, readings wait here{cause}"]

    def totals(self) -> dict[str, int]:
        """Return the ledger of both lanes since the node's log began: kind -> count."""
        return self._uplink.totals if self._uplink else {}

    def clock_offset_s(self) -> float | None:
        """Return the offset of the centre's clock to ours; None: unknown, or not compared recently."""
        if self._clock.monotonic() - self._compared_at > COMPARED_S:
            return None
        return self._clock_offset_s

    def note_clock(self, offset_s: float) -> None:
        """Record the present offset of the centre's clock to ours."""
        self._clock_offset_s, self._compared_at = offset_s, self._clock.monotonic()

    def problems(self) -> list[str]:
        """Return why readings do not go up although the centre is reached, one sentence each."""
        return self._uplink.problems if self._uplink else []


CONNECTION = PartKey[CentreConnection]("centre_connection", absent="this gateway is not a node and has no centre")
