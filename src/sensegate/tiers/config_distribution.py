"""Distribution of a centre's configuration to its nodes: profile versions in force, digests of the common tables.

    centre: ConfigPublisher ─▶ NodeConfiguration ─▶ node: ConfigReceiver ─▶ checked there ─▶
    `Releases.apply_from_centre` ─▶ in force

A node compares digests with each report and asks for what differs, so it catches up however long it was away. A version
that it cannot apply (an example fails there, or the number exists with another content) raises a problem, and the
version before it stays in force.
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
"""Tables that must be the same at the centre and its nodes: name -> (package, file)."""


class DistributedProfile(msgspec.Struct, frozen=True, omit_defaults=True):
    """The versions of one profile that the centre has put in force for one node."""

    profile: str
    force: tuple[VersionInForce, ...]
    versions: tuple[ProfileVersion, ...]
    """The versions named by `force`."""
    standard: bool = False
    from_folder: bool = False
    """The version comes from the centre's profile folder; nodes with a newer folder ignore it."""


class NodeConfiguration(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything that the centre distributes to one node."""

    profiles: tuple[DistributedProfile, ...] = ()
    tables: dict[str, str] = {}
    format: int = 1


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(NodeConfiguration).decode
_content = msgspec.msgpack.Decoder(Content).decode


@cache
def table_digests() -> dict[str, str]:
    """Return the digests of this release's common tables, by name."""
    return {
        name: sha256((files("sensegate") / folder / file).read_bytes()).hexdigest()[:16]
        for name, (folder, file) in TABLES.items()
    }


def tables_note(own: dict[str, str], other: dict[str, str]) -> str:
    """Return a note on the common tables that differ; empty: none does."""
    differing = sorted(name for name in own if other.get(name, own[name]) != own[name])
    return f"tables differ from the centre's: {', '.join(differing)}; update the older of the two" if differing else ""


class ConfigPublisher:
    """The centre's side: what each node should have in force."""

    def __init__(
        self, releases: Releases, names: Callable[[], Sequence[str]], *, home: str, standard: Sequence[str]
    ) -> None:
        """Publish the releases of a centre.

        Args:
            releases: of profiles.
            names: returns the names of all profiles in force here.
            home: division of the centre.
            standard: vendors whose profiles the province maintains.
        """
        self._releases = releases
        self._names = names
        self._home = home
        self._standard = frozenset(standard)
        self._tables = table_digests()
        self._cache: dict[str, tuple[bytes, str]] = {}
        releases.on_change.append(lambda _profile: self.invalidate())

    def invalidate(self) -> None:
        """Drop the cached configurations after a change."""
        self._cache.clear()

    def digest(self, division: str) -> str:
        """Return the digest of a node's configuration."""
        return self._of(division)[1]

    async def answer_base(self, division: str, _payload: bytes) -> bytes:
        """Answer a node that asks for its configuration."""
        return self._of(division)[0]

    async def answer_content(self, _division: str, payload: bytes) -> bytes:
        """Answer a node that asks for a profile content by its digest."""
        digest = payload.decode("ascii", "replace")
        for name in self._names():
            shelved = self._releases.shelved(name)
            if shelved and digest_of(shelved[1]) == digest:
                return msgspec.msgpack.encode(shelved[1])
        return msgspec.msgpack.encode(await self._releases.contents.read(digest))

    def _of(self, division: str) -> tuple[bytes, str]:
        """Return (encoded configuration, digest) of a node."""
        cached = self._cache.get(division)
        if cached is None:
            profiles = [profile for name in self._known() if (profile := self._distributed(name, division))]
            encoded = _encode(NodeConfiguration(tuple(profiles), self._tables))
            cached = self._cache[division] = encoded, sha256(encoded).hexdigest()[:32]
        return cached

    def _known(self) -> list[str]:
        return sorted({*self._names(), *self._releases.profiles()})

    def _distributed(self, profile: str, division: str) -> DistributedProfile | None:
        history = self._releases.history(profile)
        force = tuple(
            entry
            for entry in history.force
            if division.startswith(entry.target.division) or entry.target.division.startswith(division)
        )
        versions = tuple(
            version for version in history.versions if any(version.number == entry.number for entry in force)
        )
        if force:
            return DistributedProfile(profile, force, versions, standard=history.standard)
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
    """The node's side: asks for what differs, and applies what passes the checks."""

    def __init__(
        self,
        releases: Releases,
        contents: ContentStore,
        trail: Trail,
        ask: Callable[[str, bytes], Awaitable[bytes]],
        *,
        centre: str,
    ) -> None:
        """Receive for a node.

        Args:
            releases: of profiles here.
            contents: of profiles here.
            trail: records refusals.
            ask: sends a question to the centre.
            centre: division of the centre.
        """
        self._releases = releases
        self._contents = contents
        self._trail = trail
        self._ask = ask
        self.by = Principal("centre", Role.PROVINCE_OPERATOR, Scope(centre), name="distributed by the centre")
        self.applied_digest = ""
        """Digest of the last configuration that was applied, as far as possible."""
        self.refused: dict[str, str] = {}
        """Profile -> why the centre's version is not in force here."""
        self.tables: dict[str, str] = {}
        """Digests of the centre's common tables."""

    def problems(self) -> list[str]:
        """Return what could not be applied, one sentence each."""
        note = tables_note(table_digests(), self.tables) if self.tables else ""
        refusals = [
            f"profile {name} of the centre is not in force here: {reason}" for name, reason in self.refused.items()
        ]
        return [*refusals, *([note] if note else [])]

    async def apply(self, digest: str) -> None:
        """Apply the centre's configuration of this digest, unless it is applied already.

        Raises `Unavailable`, `PermissionDenied`: try again later.
        """
        if digest == self.applied_digest:
            return
        base = _decode(await self._ask("base", b""))
        self.tables = base.tables
        refused: dict[str, str] = {}
        for distributed in base.profiles:
            try:
                await self._apply_profile(distributed)
            except (ConfigError, Conflict, NotFound) as why:
                refused[distributed.profile] = str(why)
                if self.refused.get(distributed.profile) != str(why):
                    _log.error("profile of the centre not applied", profile=distributed.profile, reason=str(why))
                    facts = {"reason": str(why)[:500], "versions": [version.number for version in distributed.versions]}
                    await self._trail.record(
                        self.by, "profile.apply_from_centre.refused", distributed.profile, after=dict(facts)
                    )
        self.refused = refused
        self.applied_digest = digest

    async def _apply_profile(self, distributed: DistributedProfile) -> None:
        if distributed.from_folder and self._is_up_to_date(distributed):
            return
        contents: dict[str, Content] = {}
        for version in distributed.versions:
            contents[version.digest] = await self._read(version.digest)
        await self._releases.apply_from_centre(
            distributed.profile,
            distributed.force,
            {version: contents[version.digest] for version in distributed.versions},
            by=self.by,
            standard=distributed.standard,
        )

    def _is_up_to_date(self, distributed: DistributedProfile) -> bool:
        """Return whether our own folder, or a version used here, is as new as the centre's folder."""
        shelved = self._releases.shelved(distributed.profile)
        number = distributed.versions[0].number
        known = [version.number for version in self._releases.history(distributed.profile).versions if version.used]
        return max([*known, shelved[0] if shelved else 0], default=0) >= number

    async def _read(self, digest: str) -> Content:
        try:
            return await self._contents.read(digest)
        except NotFound:
            pass
        try:
            content = _content(await self._ask("content", digest.encode()))
        except PermissionDenied as why:
            raise NotFound(f"the centre does not have the content {digest[:12]}: {why}") from why
        if digest_of(content) != digest:
            raise Unavailable(f"the content that came does not have the digest {digest[:12]}; asking again")
        return content
