"""An office that proposes, approves and releases versions of profiles, for tests."""

from __future__ import annotations

from pathlib import Path

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.scope import Principal, Role, Scope, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.clock import FakeClock
from sensegate.errors import ConfigError
from sensegate.lifecycle.contents import Content, ContentStore
from sensegate.lifecycle.release_registry import Examination, ReleaseInputs
from sensegate.lifecycle.releases import Releases
from sensegate.model import Device

NAME = "acme/th"
COUNTY = Principal("county", Role.COUNTY_OPERATOR, scope("440106"))
CITY = Principal("city", Role.CITY_OPERATOR, scope("4401"))
PROVINCE = Principal("province", Role.PROVINCE_OPERATOR, scope("44"))
DEVICES = {f"d{number}": Device(f"d{number}", "440106" if number < 20 else "440103", NAME) for number in range(40)}


def text(version: int, word: str = "good", profile: str = NAME) -> Content:
    """Return a content; the examiner of these tests reads `profile version word`."""
    return Content(f"{profile} {version} {word}")


async def examine(content: Content) -> Examination:
    """Look into such a content: `bad` fails its examples, `nonsense` is no profile."""
    profile, version, word = content.text.split(" ")
    if word == "nonsense":
        raise ConfigError("no profile", file="profile", line=3)
    return Examination(profile, int(version), ("example 'one': saw 21",) if word == "bad" else ())


class Office:
    """Releases of a gateway, on a store that several may share."""

    trail: MemoryTrail
    bucket: MemoryBucket
    kept: MemoryBucket

    def __init__(self, folder: Path, home: str = "4401", like: Office | None = None) -> None:
        self.trail = like.trail if like else MemoryTrail()
        self.bucket = like.bucket if like else MemoryBucket()
        self.kept = like.kept if like else MemoryBucket()
        self.clock = FakeClock()
        self.library: dict[str, tuple[int, Content]] = {}
        self.releases = Releases(
            self.bucket,
            ContentStore(self.kept, folder),
            self.trail,
            self.clock,
            home=home,
            inputs=ReleaseInputs(
                examine,
                self.library.get,
                lambda name, part: [
                    device.id
                    for device in DEVICES.values()
                    if device.profile == name and part.covers(device.division, device.department)
                ],
            ),
            standard=("sensegate",),
        )

    async def proposed(self, version: int, *, by: Principal = COUNTY) -> int:
        """Hand in and propose a version."""
        await self.releases.draft(text(version), by=by)
        await self.releases.propose(NAME, version, by=by)
        return version

    async def released(self, version: int, target: Scope | None = None) -> int:
        """Bring a version to its release by the city."""
        await self.proposed(version)
        await self.releases.release(NAME, version, by=CITY, target=target)
        return version

    def of(self, device: str) -> int:
        """Return the version in force for a device; 0: the folder's."""
        for choice in self.releases.choices():
            if choice.picks(DEVICES[device]):
                return choice.number
        return 0

    def states(self) -> dict[int, str]:
        """Return version -> state."""
        return {version.number: version.state.value for version in self.releases.history(NAME).versions}

    def steps(self) -> list[tuple[str, str, str]]:
        """Return (who, what, on what) of the trail."""
        return [(who, record, whom) for who, record, whom, _, _ in self.trail.records]
