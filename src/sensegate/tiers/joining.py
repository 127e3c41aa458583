"""The centre's answer to a node that joins with a code: its credential, its slot, and where it connects."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from sensegate import __version__
from sensegate.bus.opening import Core
from sensegate.tiers.members import MEMBER_ID, JoinAnswer, LaneProgress, LinkAddress, Members
from sensegate.tiers.node_states import lane_records


class Joining:
    """Admits nodes; `join` answers `POST /api/v1/nodes/join`."""

    def __init__(self, core: Core, members: Members) -> None:
        self._core = core
        self._members = members

    async def join(self, code: str, version: str, log_epoch: str) -> JoinAnswer:
        """Admit a node. Raises as `Members.join`."""
        invited = code.split("_")[1] if code.count("_") > 1 else ""
        records = await lane_records(self._core.log, invited) if MEMBER_ID.fullmatch(invited) else []
        progress = LaneProgress(
            max((record.position for record in records), default=0),
            max((record.committed_at for record in records), default=0),
            next((record.log_epoch for record in records), ""),
            sum(until - after for record in records for after, until in record.ranges),
            max((record.reached for record in records), default=0),
        )
        joined = await self._members.join(code, version=version, log_epoch=log_epoch, progress=progress)
        member = joined.member
        return JoinAnswer(
            member.id,
            member.division,
            member.slot,
            joined.secret,
            member.generation,
            member.log_first,
            self._address(),
            __version__,
        )

    def _address(self) -> LinkAddress:
        """Return the address to which the node connects."""
        settings = self._core.config.engine
        if settings.url:
            url = urlsplit(settings.url.partition(",")[0])
            return LinkAddress(url.scheme, url.hostname or "", url.port or 4222, _pem(settings.ca_file))
        certificate = _pem(settings.tls.cert_file)
        open_to_all = settings.host in {"127.0.0.1", "::1", "localhost", "0.0.0.0", "::"}  # noqa: S104 - read, not bound
        host = "" if open_to_all else settings.host
        return LinkAddress("tls" if certificate else "nats", host, self._core.engine.info.port, certificate)


def _pem(file: str) -> str:
    return Path(file).read_text(encoding="ascii") if file else ""
