"""A node's connection to its centre, as the other parts of the node see it."""

from __future__ import annotations

from sensegate.clock import Clock
from sensegate.errors import Conflict, Unavailable
from sensegate.ports import PartKey
from sensegate.tiers.link import CentreLink
from sensegate.tiers.uplink import Uplink


class CentreConnection:
    """The present connection; `tiers.node_side` opens and closes it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._link: CentreLink | None = None
        self._uplink: Uplink | None = None
        self.generation = 0
        """Generation of this node's membership by which it is connected."""
        self.problem = ""
        """Why there is no connection, unless the centre is merely unreachable."""

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
        return await self._link.ask_with_retries(question, payload, clock=self._clock)

    def uplink(self) -> Uplink:
        """Return the uplink. Raises `Conflict` where there is no connection."""
        if self._uplink is None or self._link is None:
            raise Conflict("this node is not connected to its centre; try again when it is")
        return self._uplink

    @property
    def is_forwarding(self) -> bool:
        """Whether the uplink is connected."""
        return self._uplink is not None and self._uplink.connected

    def totals(self) -> dict[str, int]:
        """Return the ledger of both lanes since the node's log began: kind -> count."""
        return self._uplink.totals if self._uplink else {}

    def clock_offset_s(self) -> float | None:
        """Return by how much the centre's clock is ahead of ours; None: unknown."""
        return self._uplink.clock_offset_s if self._uplink else None

    def problems(self) -> list[str]:
        """Return what keeps readings from going up although the centre is reached, a sentence each."""
        return self._uplink.problems if self._uplink else []


CONNECTION = PartKey[CentreConnection]("centre_connection", absent="this gateway is no node: it has no centre")
