"""A city of two centres, one of them active, as real processes; its nodes know both, and there is a hostile one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from sensegate.demo.city import CENTRE, City, CityMember, CityOptions, merged
from sensegate.demo.link import FaultyLink
from sensegate.demo.processes import processes_of
from sensegate.failover import terms
from sensegate.failover.standby_status import PROMOTE, STATUS, StandbyStatus
from tests.border.lies import SENDER
from tests.conftest import eventually
from tests.ledger.kills import PROFILES, SIMULATED

COPIED_S = 180.0
"""A centre that was fenced copies the whole log anew."""
USED = sorted({"sensegate/viid", *SIMULATED})
"""Profiles of the simulated devices, and one of cameras, for which every store is encrypted."""
STANDBY_TIMEOUT_S = 180.0
"""Far longer than a standby needs to come back: no record may be delivered that only one centre has."""


class ActiveLink(FaultyLink):
    """A proxy to whichever of several ports is listened to: of two centres the active one serves HTTP."""

    def __init__(self, ports: Callable[[], Sequence[int]]) -> None:
        super().__init__("127.0.0.1", 0)
        self._ports = ports

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for port in self._ports():
            with contextlib.suppress(OSError):
                _, probe = await asyncio.open_connection("127.0.0.1", port)
                probe.close()
                self.target = ("127.0.0.1", port)
                break
        await super()._connect(reader, writer)


class PairedCity(City):
    """A city with a place for a hostile node, and a standby beside its centre unless there is to be none."""

    def __init__(
        self,
        directory: Path,
        nodes: Sequence[str],
        *,
        paired: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(directory, nodes, options=CityOptions(PROFILES, only=USED, environment=environment or {}))
        self.paired = paired
        self.standby = self._member(f"{CENTRE}-second")
        self.standby.division = CENTRE
        self.front = ActiveLink(lambda: [self.centre.http_port, self.standby.http_port])
        """Where subscribers of the province connect."""
        self.second_links = {division: FaultyLink("127.0.0.1", self.standby.nats_port) for division in nodes}
        """Links of the nodes to the centre that stands by at first."""
        self.fail_overs = 0
        self._peer_secret = self.directory / "peer.secret"

    # ── configuration ────────────────────────────────────────────────────────────────────────────────────

    def _prepare(self, member: CityMember, document: Mapping[str, object]) -> None:
        added: dict[str, object] = {}
        if member.division == CENTRE:
            hostile = {"division": SENDER, "secret_file": str(self._secret(SENDER))}
            divisions = [{"division": node, "secret_file": str(self._secret(node))} for node in self.nodes]
            added["nodes"] = [*divisions, hostile]
            if self.paired:
                other = self.standby if member is self.centre else self.centre
                added["peer"] = {
                    "url": f"nats://127.0.0.1:{other.nats_port}",
                    "secret_file": str(self._peer_secret),
                    "initially_active": member is self.centre,
                    "standby_timeout_s": STANDBY_TIMEOUT_S,
                }
        elif self.paired:
            added["uplink"] = {
                "other_centres": [{"url": f"nats://127.0.0.1:{self.second_links[member.division].port}"}]
            }
        super()._prepare(member, merged(document, added))

    def configure(self) -> None:
        """Write the configurations; links must have their ports."""
        self._peer_secret.write_text(secrets.token_urlsafe(32), encoding="utf-8")
        super().configure()
        if self.paired:
            self._configure(self.standby)

    # ── start and stop ───────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Start everything; return when all members are ready and the standby has copied."""
        await self.front.start()
        for link in self.second_links.values():
            await link.start()
        await super().start()
        if self.paired:
            self.standby.token = self.centre.token
            await self.standby.process.start()
            await self.copied()

    async def stop(self) -> list[int]:
        """Stop everything in order, nodes first; return the ids of processes that had to be killed."""
        if self.paired and self._configured:
            await self.standby.process.stop()
        swept = await super().stop()
        for link in (self.front, *self.second_links.values()):
            await link.stop()
        return swept

    # ── two centres ──────────────────────────────────────────────────────────────────────────────────────

    def standing(self) -> StandbyStatus | None:
        """Return the status of the standby; None where it does not stand by."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            file = self.standby.directory / "store" / STATUS
            status = msgspec.json.decode(file.read_bytes(), type=StandbyStatus)
            return status if status.pid == self.standby.process.pid else None
        return None

    async def copied(self) -> None:
        """Return once the standby has all, and the active centre delivers only what it has."""

        def together() -> bool:
            status = self.standing()
            known = terms.read(self.centre.directory / "store")
            level = status is not None and status.reached and 0 <= status.behind < 50 and not status.missing
            return level and not known.unreplicated

        await eventually(together, COPIED_S)

    def server_pid(self, member: CityMember) -> int:
        """Return the process id of a member's nats-server, 0 where there is none."""
        gateway = member.process.pid
        return next((pid for pid in processes_of(member.directory / "store") if pid != gateway), 0)

    async def promote(self) -> None:
        """Order the standby to become active, and wait until it serves; it is the city's centre from then on."""
        store = self.standby.directory / "store"
        (store / STATUS).unlink(missing_ok=True)
        (store / PROMOTE).touch()
        await self.wait_ready(self.standby)
        self.centre, self.standby = self.standby, self.centre
        self.fail_overs += 1

    async def cut(self, node: str) -> None:
        """Cut a node off from both centres."""
        await self.links[node].cut()
        await self.second_links[node].cut()

    def restore(self, node: str) -> None:
        """Mend both links of a node."""
        self.links[node].restore()
        self.second_links[node].restore()


def kill(pid: int) -> None:
    """Kill a process that may have ended."""
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
