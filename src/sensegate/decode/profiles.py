"""The profiles in force: loaded from folders, found by id, matched by topic.

A set never changes. `reload` gives a new one whose table of specs begins with the old one's, so that indices handed
out before stay true; a profile whose file has become wrong stays in force as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sensegate.decode import topics
from sensegate.decode.grammar import parse
from sensegate.decode.names import heard
from sensegate.decode.profile import Compiler, Profile, Rule
from sensegate.errors import ProfileError
from sensegate.model import Spec


class ProfileSet:
    """Profiles by id, their rules by topic, and the table of their specs."""

    def __init__(
        self, profiles: Iterable[Profile], specs: Sequence[Spec], problems: Sequence[ProfileError] = ()
    ) -> None:
        self.specs: list[Spec] = list(specs)
        self.problems = tuple(problems)
        """Profiles that could not be taken at the last `reload`; their last good versions stay in force."""
        self._by_id = {profile.id: profile for profile in profiles}
        self._rules: list[Rule] = [rule for profile in self._by_id.values() for rule in profile.rules]
        self._index = topics.Index()
        for number, rule in enumerate(self._rules):
            for pattern in rule.patterns:
                self._index.add(pattern, number)

    @classmethod
    def load(cls, places: Iterable[Path | str]) -> ProfileSet:
        """Read all profiles of some folders (or files).

        Raises:
            ProfileError: for the first that is wrong.
        """
        specs: list[Spec] = []
        profiles = [compile_file(file, specs) for file in files(places)]
        _check_ids(profiles)
        return cls(profiles, specs)

    def reload(self, places: Iterable[Path | str]) -> ProfileSet:
        """Read all profiles again; what is wrong is in `problems` of the new set, its last good version in force."""
        specs = list(self.specs)
        kept = {profile.file: profile for profile in self._by_id.values()}
        profiles: dict[str, Profile] = {}
        problems: list[ProfileError] = []
        for file in files(places):
            old = kept.get(str(file))
            length = len(specs)
            try:
                new = compile_file(file, specs)
                if new.id in profiles:
                    raise ProfileError(f"'{new.id}' occurs twice", file=str(file), line=1, key="profile")  # noqa: TRY301
            except ProfileError as why:
                del specs[length:]
                problems.append(why)
                new = old  # type: ignore[assignment]
            if new is None:
                continue
            if old is not None and new.source == old.source:
                del specs[length:]
                new = old
            profiles[new.id] = new
        return ProfileSet(profiles.values(), specs, problems)

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.partition("@")[0] in self._by_id

    def find(self, name: str) -> Profile | None:
        """Return a profile by ``vendor/model`` (a version is cut off), or None."""
        return self._by_id.get(name.partition("@")[0])

    @property
    def ids(self) -> list[str]:
        """Return ``vendor/model`` of all, sorted."""
        return sorted(self._by_id)

    @property
    def versions(self) -> dict[str, int]:
        """Return the version in force by ``vendor/model``."""
        return {name: self._by_id[name].version for name in self.ids}

    def topics_of(self, profile: str, names: Sequence[str], gateways: Sequence[str] | None = None) -> list[str]:
        """Return the MQTT topic filters under which a device with these names (id, alias) may publish.

        Captures other than the device become wildcards. Topics that name only a {gateway} are those of the gateway's
        own connection: they stand with its names (`gateways`; by default `names`, for the gateway itself), and are left
        out where it has none.
        """
        found = self.find(profile)
        gateways = names if gateways is None else gateways
        filters: dict[str, None] = {}
        pairs = [(rule, pattern) for rule in found.rules for pattern in rule.patterns] if found else []
        for rule, pattern in pairs:
            if rule.names.own:
                whose = names if rule.names.device is not None else gateways
                filters.update(dict.fromkeys(rule.names.filters(pattern, whose)))
                continue
            own = "device" in pattern.captures
            known = topics.filters(pattern, names if own else gateways, capture="device" if own else "gateway")
            filters.update(dict.fromkeys(known))
        return list(filters)

    def heard_by(self, profile: str, names: Sequence[str]) -> list[str]:
        """Return the topics that a device with these names (id, alias) listens to (`hears` of its profile)."""
        found = self.find(profile)
        return heard(found.hears, [rule.names for rule in found.rules], names) if found else []

    def topics_at_qos0(self) -> list[str]:
        """Return the MQTT topic filters of the profiles that say `qos: 0`."""
        chosen = [profile for profile in self._by_id.values() if profile.source.qos == 0]
        patterns = [pattern for profile in chosen for rule in profile.rules for pattern in rule.patterns]
        return list(dict.fromkeys(text for pattern in patterns for text in topics.filters(pattern, ["+"])))

    def match(self, topic: str) -> list[tuple[Rule, dict[str, str]]]:
        """Return the rules whose topics match, the most literal first, with what they capture."""
        return [(self._rules[number], captured) for number, captured in self._index.match(topic)]


def files(places: Iterable[Path | str]) -> list[Path]:
    """Return the profile files of some folders (or files), sorted; names with a leading underscore are no profiles."""
    found: set[Path] = set()
    for place in map(Path, places):
        if place.is_dir():
            found.update(file for file in place.rglob("*.yaml") if not file.name.startswith("_"))
        else:
            found.add(place)
    return sorted(found)


def compile_file(file: Path, specs: list[Spec]) -> Profile:
    """Read and compile one profile, appending its specs.

    Raises:
        ProfileError: with file, line and key of what is wrong.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as why:
        raise ProfileError("cannot be read", file=str(file), remedy=str(why)) from why
    source, lines = parse(text, file=str(file))
    place = f"{file.parent.name}/{file.stem}"
    if not file.name.startswith("_") and source.profile != place:
        raise ProfileError(
            f"is '{source.profile}'", file=str(file), line=lines.get(("profile",), 1), key="profile",
            remedy=f"folder and file say '{place}'",
        )  # fmt: skip
    return Compiler(source, lines, str(file), specs).compile()


def _check_ids(profiles: Sequence[Profile]) -> None:
    seen: dict[str, Profile] = {}
    for profile in profiles:
        if (other := seen.get(profile.id)) is not None:
            raise ProfileError(
                f"'{profile.id}' is also in {other.file}", file=profile.file, line=1, key="profile", remedy="keep one"
            )
        seen[profile.id] = profile
