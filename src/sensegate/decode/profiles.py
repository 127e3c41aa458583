"""The profiles in force: loaded from folders, found by id, matched by topic; for some devices versions of the store.

A set never changes. `reload` and `choose` give a new one whose table of specs begins with the old one's, so that
indices handed out before stay true; a profile whose file has become wrong stays in force as it was.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sensegate.decode import topics
from sensegate.decode.choice import Choice
from sensegate.decode.compiler import Compiler
from sensegate.decode.device_names import heard
from sensegate.decode.frame import BatchParse
from sensegate.decode.grammar import parse
from sensegate.decode.profile import Profile, Rule, Whom
from sensegate.errors import ProfileError
from sensegate.model import Device, Spec


class Chosen(NamedTuple):
    """A decision of the store, and where the version is laid out."""

    choice: Choice
    file: Path


class Arm(NamedTuple):
    """A version that some devices have."""

    choice: Choice
    profile: Profile


class Stock(NamedTuple):
    """What a set was made of, for the next one."""

    shelf: dict[str, Profile]
    """The folder's profiles by id."""
    compiled: dict[str, Profile]
    """Versions of the store by digest."""
    unfit: tuple[ProfileError, ...] = ()
    """What is wrong with versions of the store."""


class ProfileSet:
    """Profiles by id, their rules by topic, and the table of their specs."""

    def __init__(
        self,
        profiles: Iterable[Profile],
        specs: Sequence[Spec],
        problems: Sequence[ProfileError] = (),
        *,
        arms: Mapping[str, tuple[Arm, ...]] | None = None,
        stock: Stock | None = None,
    ) -> None:
        self.specs: list[Spec] = list(specs)
        self.problems = tuple(problems)
        """Profiles that could not be taken at the last `reload`; their last good versions stay in force."""
        self._by_id = {profile.id: profile for profile in profiles}
        self._arms = dict(arms or {})
        self._stock = stock or Stock(dict(self._by_id), {})
        tried = (arm.profile for arms in self._arms.values() for arm in arms)
        self._rules: list[Rule] = [rule for profile in (*self._by_id.values(), *tried) for rule in profile.rules]
        self._cameras = frozenset(rule.profile for rule in self._rules if rule.video)
        self._camera_words = _words_of(
            [pattern for rule in self._rules if rule.video for pattern in rule.patterns],
            [pattern for rule in self._rules if not rule.video for pattern in rule.patterns],
        )
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

    def reload(self, places: Iterable[Path | str], unchanged: Collection[str] = ()) -> ProfileSet:
        """Read the folders again; what is wrong is in `problems` of the new set, its last good version in force.

        Files named in `unchanged` are not read where they were good. The versions of the store must be chosen anew.
        """
        specs = list(self.specs)
        kept = {profile.file: profile for profile in self._stock.shelf.values()}
        broken = {why.file for why in self.problems}
        profiles: dict[str, Profile] = {}
        problems: list[ProfileError] = []
        for file in files(places):
            old = kept.get(str(file))
            if old is not None and str(file) in unchanged and str(file) not in broken:
                profiles[old.id] = old
                continue
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
            if old is not None and new.source == old.source and _beside(new) == _beside(old):
                del specs[length:]
                new = old
            profiles[new.id] = new
        return ProfileSet(profiles.values(), specs, problems, stock=Stock(profiles, self._stock.compiled))

    def choose(self, chosen: Iterable[Chosen], before: ProfileSet | None = None) -> ProfileSet:
        """Return the set with versions of the store in place of the folder's, for all devices or for some.

        Args:
            chosen: of a profile's choices the first that picks a device holds for it.
            before: the set whose version stays in force where one cannot be compiled; None: it is left out, so that
                its devices' messages wait in quarantine for a repaired one.
        """
        specs = list(self.specs)
        shelf, compiled = self._stock.shelf, dict(self._stock.compiled)
        in_force, arms = dict(shelf), dict[str, tuple[Arm, ...]]()
        problems = [why for why in self.problems if why not in self._stock.unfit]
        unfit: list[ProfileError] = []
        for choice, file in chosen:
            shelved = shelf.get(choice.profile)
            if choice.whole and shelved is not None and shelved.version > choice.known:
                continue  # the folder has a newer one than was ever decided about
            length = len(specs)
            try:
                profile = compiled.get(choice.digest) or compile_file(file, specs)
            except ProfileError as why:
                del specs[length:]
                unfit.append(why)
                last = before.find(choice.profile) if before else None
                if choice.whole and last is not None:
                    in_force[choice.profile] = last
                elif choice.whole:
                    in_force.pop(choice.profile, None)
                continue
            compiled[choice.digest] = profile
            if choice.whole:
                in_force[choice.profile] = profile
            else:
                arms[choice.profile] = (*arms.get(choice.profile, ()), Arm(choice, profile))
        stock = Stock(shelf, compiled, tuple(unfit))
        return ProfileSet(in_force.values(), specs, [*problems, *unfit], arms=arms, stock=stock)

    def trying(self, name: str, file: Path) -> ProfileSet:
        """Return the set with the version of a profile in a file in force for all of its devices.

        Raises:
            ProfileError: it is wrong, or of another profile.
        """
        specs = list(self.specs)
        known = {str(profile.file): profile for profile in (*self._by_id.values(), *self._stock.compiled.values())}
        profile = known.get(str(file)) or compile_file(file, specs)
        if profile.id != name:
            raise ProfileError(f"is '{profile.id}'", file=str(file), line=1, key="profile", remedy=f"give {name}")
        others = [one for one in self._by_id.values() if one.id != name]
        arms = {other: found for other, found in self._arms.items() if other != name}
        return ProfileSet([*others, profile], specs, arms=arms, stock=self._stock)

    @property
    def video(self) -> bool:
        """Whether any of them takes video metadata."""
        return bool(self._cameras)

    def of_cameras(self, name: str) -> bool:
        """Return whether a profile (``vendor/model``) takes video metadata."""
        return name in self._cameras

    def near_cameras(self, topic: str) -> bool:
        """Return whether a topic begins as those of cameras do, or holds a word of theirs."""
        levels = topic.lower().split("/")
        return levels[0].startswith(self._camera_words.first) or not self._camera_words.anywhere.isdisjoint(levels)

    @property
    def camera_words(self) -> frozenset[str]:
        """Return the literal levels of the topics of cameras, in lower case."""
        return self._camera_words.every

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(name.partition("@")[0] in known for known in (self._by_id, self._arms))

    def find(self, name: str) -> Profile | None:
        """Return a profile by ``vendor/model`` (a version is cut off), or None."""
        return self._by_id.get(name.partition("@")[0])

    def shelved(self, name: str) -> Profile | None:
        """Return the folder's version of a profile, in force or not."""
        return self._stock.shelf.get(name)

    def rights(self, name: str) -> frozenset[object]:
        """Return what the topics of a profile's devices are made of; equal sets mean equal rights for all of them."""
        versions = [self.find(name), *(arm.profile for arm in self._arms.get(name, ()))]
        return frozenset(
            (
                tuple((pattern.text, rule.names) for rule in one.rules for pattern in rule.patterns),
                one.hears,
                one.carried,
            )
            for one in versions
            if one
        )

    def of(self, device: Device) -> Profile | None:
        """Return the version of its profile that is in force for a device, or None."""
        name = device.profile.partition("@")[0]
        for choice, profile in self._arms.get(name, ()):
            if choice.picks(device):
                return profile
        return self._by_id.get(name)

    def speaks(self, rule: Rule, speaker: Device | None) -> bool:
        """Return whether a rule is of the version in force for the device (for messages of many: for their gateway)."""
        arms = self._arms.get(rule.profile)
        if arms is None:
            return True
        for choice, profile in arms:
            if choice.picks(speaker):
                return rule.version == profile.version
        found = self._by_id.get(rule.profile)
        return found is not None and found.version == rule.version

    @property
    def arms(self) -> Mapping[str, tuple[Arm, ...]]:
        """Return the versions that only some devices have, by ``vendor/model``, in their order."""
        return self._arms

    @property
    def ids(self) -> list[str]:
        """Return ``vendor/model`` of all, sorted."""
        return sorted({*self._by_id, *self._arms})

    @property
    def versions(self) -> dict[str, int]:
        """Return the version in force by ``vendor/model``; of those that only some devices have, none."""
        return {name: self._by_id[name].version for name in sorted(self._by_id)}

    def topics_of(
        self,
        profile: str,
        names: Sequence[str],
        gateways: Sequence[str] | None = None,
        *,
        device: Device | None = None,
        carrier: str = "",
    ) -> list[str]:
        """Return the MQTT topic filters under which a device with these names (id, alias) may publish.

        Captures other than the device become wildcards. Topics that name only a {gateway} are those of the gateway's
        own connection: they stand with its names (`gateways`; by default `names`, for the gateway itself), and are left
        out where it has none. `device`: by the version in force for it; behind a gateway by every one, as the gateway
        may have another than it. `carrier`: the gateway's profile, whose envelopes bring a device's frames.
        """
        found = [self.of(device)] if device and not device.gateway else self._versions(profile)
        rules = [rule for one in found if one for rule in one.rules]
        if any(one.carried for one in found if one):
            brought = (rule for one in self._versions(carrier) if one for rule in one.rules)
            rules += [rule for rule in brought if rule.whom is not Whom.OWN]
        filters: dict[str, None] = {}
        for rule in rules:
            for pattern in rule.patterns:
                known = _filters(rule, pattern, names, names if gateways is None else gateways)
                filters.update(dict.fromkeys(known))
        return list(filters)

    def _versions(self, name: str) -> list[Profile | None]:
        """Return the versions of a profile that are in force for any device."""
        return [self.find(name), *(arm.profile for arm in self._arms.get(name.partition("@")[0], ()))]

    def publish_topics(
        self, device: Device, names: Sequence[str], gateways: Sequence[str] | None, carrier: str = ""
    ) -> list[str]:
        """Return `topics_of` the version in force for a device, for the wiring."""
        return self.topics_of(device.profile, names, gateways, device=device, carrier=carrier)

    def heard_topics(self, device: Device, names: Sequence[str]) -> list[str]:
        """Return the topics that a device with these names (id, alias) listens to (`hears` of its profile)."""
        found = self.of(device)
        return heard(found.hears, [rule.names for rule in found.rules], names) if found else []

    def topics_at_qos0(self) -> list[str]:
        """Return the MQTT topic filters of the profiles that say `qos: 0`."""
        tried = (arm.profile for arms in self._arms.values() for arm in arms)
        chosen = [profile for profile in (*self._by_id.values(), *tried) if profile.source.qos == 0]
        patterns = [pattern for profile in chosen for rule in profile.rules for pattern in rule.patterns]
        return list(dict.fromkeys(text for pattern in patterns for text in topics.filters(pattern, ["+"])))

    def match(self, topic: str) -> list[tuple[Rule, dict[str, str]]]:
        """Return the rules whose topics match, the most literal first, with what they capture."""
        return [(self._rules[number], captured) for number, captured in self._index.match(topic)]


class _Words(NamedTuple):
    """The literal levels of the topics of cameras, in lower case."""

    first: tuple[str, ...]
    """With which they begin."""
    anywhere: frozenset[str]
    """Of topics that begin with a name: only these tell them, where nobody else uses them."""
    every: frozenset[str]


_PREFIX_LEAST = 4
"""Letters before the capture in a topic's first level that are enough to tell it."""


def _words_of(cameras: Iterable[topics.Pattern], others: Iterable[topics.Pattern]) -> _Words:
    first: set[str] = set()
    anywhere: set[str] = set()
    every: set[str] = set()
    for pattern in cameras:
        words = {level.literal.lower() for level in pattern.levels if level.literal}
        every |= words
        begin = pattern.levels[0].literal or pattern.levels[0].before
        if len(begin) >= _PREFIX_LEAST or pattern.levels[0].literal:
            first.add(begin.lower())
        else:
            anywhere |= words
    if anywhere:
        anywhere -= {level.literal.lower() for pattern in others for level in pattern.levels}
    return _Words(tuple(sorted(first)), frozenset(anywhere), frozenset(every))


def _filters(rule: Rule, pattern: topics.Pattern, names: Sequence[str], gateways: Sequence[str]) -> Iterable[str]:
    """Return the topic filters of a pattern for a device of these names behind a gateway of these."""
    if rule.names.own:
        return rule.names.filters(pattern, names if rule.names.device is not None else gateways)
    # A network server that is named in its topics speaks there for all devices behind it.
    own = "device" in pattern.captures and not (rule.whom is not Whom.OWN and "gateway" in pattern.captures)
    if not own:
        return topics.filters(pattern, gateways, capture="gateway")
    spelled = [name for one in names for name in ((one, one.upper(), one.lower()) if rule.device_case else (one,))]
    return topics.filters(pattern, spelled)


_VIDEO = re.compile(r"""(?m)^(?![ ]*#).*\bformat:\s*["']?video\b""")


def take_video(places: Iterable[Path | str]) -> bool:
    """Return whether a profile of some folders takes video metadata, as far as their text tells it before any is read.

    A file that cannot be read does not: why is said when the profiles are.
    """

    def text(file: Path) -> str:
        with contextlib.suppress(OSError):
            return file.read_text(encoding="utf-8", errors="replace")
        return ""

    return any(_VIDEO.search(text(file)) for file in files(places))


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


def _beside(profile: Profile) -> list[str]:
    """Return what tells of the files beside a profile."""
    return [rule.parse.key for rule in profile.rules if isinstance(rule.parse, BatchParse)]


def _check_ids(profiles: Sequence[Profile]) -> None:
    seen: dict[str, Profile] = {}
    for profile in profiles:
        if (other := seen.get(profile.id)) is not None:
            raise ProfileError(
                f"'{profile.id}' is also in {other.file}", file=profile.file, line=1, key="profile", remedy="keep one"
            )
        seen[profile.id] = profile
