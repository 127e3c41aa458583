"""What a centre decides for its nodes, handed down: versions of profiles in force, and digests of the common tables.

    centre: Offers ─▶ Base (of one node) ─▶ node: Taking ─▶ checked there ─▶ `Releases.apply_from_centre` ─▶ in force

A node compares digests with each report, asks for what differs, and so catches up however long it was away. What it
cannot take (an example that does not come out there, a number that has another content) is left, with an alarm; what
was in force stays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files

import msgspec
import structlog

from sensegate.authority.scope import Principal, Role, Scope
from sensegate.authority.trail import Trail
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied, Unavailable
from sensegate.lifecycle.contents import Content, ContentStore, digest_of
from sensegate.lifecycle.history import ProfileVersion, VersionInForce, VersionState
from sensegate.lifecycle.releases import Releases

_log = structlog.get_logger("tiers")

TABLES = {
    "properties": ("quantities", "properties.csv"),
    "codes": ("quantities", "codes.csv"),
    "divisions": ("authority", "divisions.csv"),
}
"""Tables that centre and nodes must have alike: name -> where it is."""


class DistributedProfile(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the centre decided about one profile for one node."""

    profile: str
    force: tuple[VersionInForce, ...]
    versions: tuple[ProfileVersion, ...]
    """Those of `force`."""
    standard: bool = False
    from_folder: bool = False
    """Of the centre's folder: for nodes whose folder is older."""


class NodeConfiguration(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that one node should have of the centre."""

    profiles: tuple[DistributedProfile, ...] = ()
    tables: dict[str, str] = {}
    format: int = 1


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(NodeConfiguration).decode
_content = msgspec.msgpack.Decoder(Content).decode


@cache
def table_digests() -> dict[str, str]:
    """Return name -> digest of the common tables of this release."""
    found = {}
    for name, (folder, file) in TABLES.items():
        place = files("sensegate") / folder / file if folder else files("sensegate") / file
        found[name] = sha256(place.read_bytes()).hexdigest()[:16]
    return found


def tables_note(mine: dict[str, str], theirs: dict[str, str]) -> str:
    """Return which tables a node has otherwise than we; empty: none that both know."""
    differing = sorted(name for name in mine if theirs.get(name, mine[name]) != mine[name])
    return f"other tables than the centre's: {', '.join(differing)}; update the older of the two" if differing else ""


class ConfigPublisher:
    """The centre's side: what each node should have."""

    def __init__(
        self, releases: Releases, names: Callable[[], Sequence[str]], *, home: str, standard: Sequence[str]
    ) -> None:
        """`names`: of all profiles in force here; `standard`: vendors whose profiles are the province's."""
        self._releases = releases
        self._names = names
        self._home = home
        self._standard = frozenset(standard)
        self._tables = table_digests()
        self._cache: dict[str, tuple[bytes, str]] = {}
        releases.on_change.append(lambda _profile: self.invalidate())

    def invalidate(self) -> None:
        """Make everything anew: something has changed."""
        self._cache.clear()

    def digest(self, division: str) -> str:
        """Return the digest of what a node should have."""
        return self._of(division)[1]

    async def answer_base(self, division: str, _payload: bytes) -> bytes:
        """Answer a node that asks what it should have."""
        return self._of(division)[0]

    async def answer_content(self, _division: str, payload: bytes) -> bytes:
        """Answer a node that asks for the content of a digest."""
        digest = payload.decode("ascii", "replace")
        for name in self._names():
            shelved = self._releases.shelved(name)
            if shelved and digest_of(shelved[1]) == digest:
                return msgspec.msgpack.encode(shelved[1])
        return msgspec.msgpack.encode(await self._releases.contents.read(digest))

    def _of(self, division: str) -> tuple[bytes, str]:
        made = self._cache.get(division)
        if made is None:
            found = [one for name in self._known() if (one := self._distributed(name, division))]
            encoded = _encode(NodeConfiguration(tuple(found), self._tables))
            made = self._cache[division] = encoded, sha256(encoded).hexdigest()[:32]
        return made

    def _known(self) -> list[str]:
        return sorted({*self._names(), *self._releases.profiles()})

    def _distributed(self, profile: str, division: str) -> DistributedProfile | None:
        life = self._releases.history(profile)
        force = tuple(
            entry
            for entry in life.force
            if division.startswith(entry.target.division) or entry.target.division.startswith(division)
        )
        versions = tuple(
            version for version in life.versions if any(version.number == decided.number for decided in force)
        )
        if force:
            return DistributedProfile(profile, force, versions, standard=life.standard)
        shelved = self._releases.shelved(profile)
        if shelved is None or profile.partition("/")[0] not in self._standard:
            return None
        number, content = shelved
        home = Scope(self._home)
        version = ProfileVersion(
            number, digest_of(content), VersionState.RELEASED, home, 0, "folder", 0, used=True, library=True
        )
        return DistributedProfile(
            profile, (VersionInForce(home, number, 0, "folder"),), (version,), standard=True, from_folder=True
        )


class ConfigReceiver:
    """The node's side: asks for what differs, and takes what is sound."""

    def __init__(
        self,
        releases: Releases,
        contents: ContentStore,
        trail: Trail,
        ask: Callable[[str, bytes], Awaitable[bytes]],
        *,
        centre: str,
    ) -> None:
        """`ask`: (what, payload) -> the centre's answer; `centre`: its division."""
        self._releases = releases
        self._contents = contents
        self._trail = trail
        self._ask = ask
        self.by = Principal("centre", Role.PROVINCE_OPERATOR, Scope(centre), name="handed down by the centre")
        self.applied_digest = ""
        """Digest of the base data that were last taken, as far as they could be."""
        self.refused: dict[str, str] = {}
        """Profile -> why what the centre handed down is not in force."""
        self.tables: dict[str, str] = {}
        """The centre's."""

    def problems(self) -> list[str]:
        """Return what was not taken, a sentence each."""
        note = tables_note(table_digests(), self.tables) if self.tables else ""
        found = [f"profile {name} of the centre is not in force here: {why}" for name, why in self.refused.items()]
        return [*found, *([note] if note else [])]

    async def apply(self, digest: str) -> None:
        """Bring this node to what the centre has, if it is not there.

        Raises `Unavailable`, `PermissionDenied` (asked later again).
        """
        if digest == self.applied_digest:
            return
        base = _decode(await self._ask("base", b""))
        self.tables = base.tables
        refused: dict[str, str] = {}
        for handed in base.profiles:
            try:
                await self._apply_profile(handed)
            except (ConfigError, Conflict, NotFound) as why:
                refused[handed.profile] = str(why)
                if self.refused.get(handed.profile) != str(why):
                    _log.error("what the centre handed down is refused", profile=handed.profile, reason=str(why))
                    facts = {"why": str(why)[:500], "versions": [version.number for version in handed.versions]}
                    await self._trail.record(
                        self.by, "profile.apply_from_centre.refused", handed.profile, after=dict(facts)
                    )
        self.refused = refused
        self.applied_digest = digest

    async def _apply_profile(self, handed: DistributedProfile) -> None:
        if handed.from_folder and self._is_up_to_date(handed):
            return
        contents: dict[str, Content] = {}
        for version in handed.versions:
            contents[version.digest] = await self._read(version.digest)
        await self._releases.apply_from_centre(
            handed.profile,
            handed.force,
            {version: contents[version.digest] for version in handed.versions},
            by=self.by,
            standard=handed.standard,
        )

    def _is_up_to_date(self, handed: DistributedProfile) -> bool:
        """Tell whether our own folder, or what was decided here, is as new as the centre's folder."""
        shelved = self._releases.shelved(handed.profile)
        number = handed.versions[0].number
        known = [version.number for version in self._releases.history(handed.profile).versions if version.used]
        return max([*known, shelved[0] if shelved else 0], default=0) >= number

    async def _read(self, digest: str) -> Content:
        try:
            return await self._contents.read(digest)
        except NotFound:
            pass
        try:
            content = _content(await self._ask("content", digest.encode()))
        except PermissionDenied as why:
            raise NotFound(f"the centre does not give the content {digest[:12]}: {why}") from why
        if digest_of(content) != digest:
            raise Unavailable(f"the content {digest[:12]} came otherwise than it was asked for")
        return content
