"""The profiles in force: loaded from folders, found by id, matched by topic; for some devices, versions of the store.

A set never changes. `reload` and `choose` return a new one whose table of specs begins with the old one's, so that
indices handed out earlier remain valid; a profile whose file has become invalid stays in force as it was.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from sensegate.decode import topics
from sensegate.decode.choice import VersionChoice
from sensegate.decode.compiler import Compiler
from sensegate.decode.device_names import subscribe_filters
from sensegate.decode.frame import BatchParse
from sensegate.decode.grammar import AlarmPart, parse
from sensegate.decode.profile import AppliesTo, CompiledProfile, CompiledRule
from sensegate.decode.reshape import Reshape
from sensegate.errors import ProfileError
from sensegate.model import Device, Spec

Examine = Callable[[CompiledProfile], ProfileError | None]
"""Returns why a profile of a folder must not be in force; None: it may."""


class Chosen(NamedTuple):
    """A decision of the store, and the file of the chosen version."""

    choice: VersionChoice
    file: Path


class VersionArm(NamedTuple):
    """A version that applies to some devices only."""

    choice: VersionChoice
    profile: CompiledProfile


class CompiledVersions(NamedTuple):
    """The compiled versions from which the next set can be built."""

    from_folder: dict[str, CompiledProfile]
    """The folder's profiles by id."""
    from_store: dict[str, CompiledProfile]
    """Versions of the store by digest."""
    unfit: tuple[ProfileError, ...] = ()
    """Problems of versions of the store."""


class ProfileSet:
    """Profiles by id, their rules by topic, and the table of their specs."""

    def __init__(
        self,
        profiles: Iterable[CompiledProfile],
        specs: Sequence[Spec],
        problems: Sequence[ProfileError] = (),
        *,
        arms: Mapping[str, tuple[VersionArm, ...]] | None = None,
        stock: CompiledVersions | None = None,
    ) -> None:
        self.specs: list[Spec] = list(specs)
        self.problems = tuple(problems)
        """Profiles that failed to load at the last `reload`; their last good versions stay in force."""
        self._by_id = {profile.id: profile for profile in profiles}
        self._arms = dict(arms or {})
        self._compiled = stock or CompiledVersions(dict(self._by_id), {})
        arm_profiles = (arm.profile for arms in self._arms.values() for arm in arms)
        self._rules: list[CompiledRule] = [
            rule for profile in (*self._by_id.values(), *arm_profiles) for rule in profile.rules
        ]
        self._reads_metadata = any(rule.metadata for rule in self._rules)
        self._cameras = frozenset(rule.profile for rule in self._rules if rule.video)
        self._camera_words = _words_of(
            [pattern for rule in self._rules if rule.video for pattern in rule.patterns],
            [pattern for rule in self._rules if not rule.video for pattern in rule.patterns],
        )
        self._index = topics.TopicIndex()
        for number, rule in enumerate(self._rules):
            for pattern in rule.patterns:
                self._index.add(pattern, number)

    @classmethod
    def load(cls, places: Iterable[Path | str]) -> ProfileSet:
        """Load all profiles of some folders (or files).

        Raises:
            ProfileError: for the first one that is invalid.
        """
        specs: list[Spec] = []
        profiles = [compile_file(file, specs) for file in files(places)]
        check_ids(profiles)
        return cls(profiles, specs)

    def reload(
        self, folders: Iterable[Path | str], unchanged: Collection[str] = (), examine: Examine = lambda _profile: None
    ) -> ProfileSet:
        """Read the folders again; invalid files are in the new set's `problems`, with their last good version in force.

        So are drafts, and profiles of which `examine` returns a problem. Files in `unchanged` are not read again if
        they were good. The versions of the store must be chosen again.
        """
        specs = list(self.specs)
        loaded = {profile.file: profile for profile in self._compiled.from_folder.values()}
        broken = {problem.file for problem in self.problems}
        profiles: dict[str, CompiledProfile] = {}
        problems: list[ProfileError] = []
        for file in files(folders):
            old = loaded.get(str(file))
            if old is not None and str(file) in unchanged and str(file) not in broken:
                profiles[old.id] = old
                continue
            length = len(specs)
            try:
                new = compile_file(file, specs)
                if problem := _draft_problem(new) or examine(new):
                    raise problem
                if new.id in profiles:
                    raise ProfileError(f"'{new.id}' occurs twice", file=str(file), line=1, key="profile")  # noqa: TRY301
            except ProfileError as error:
                del specs[length:]
                problems.append(error)
                new = old  # type: ignore[assignment]
            if new is None:
                continue
            if old is not None and new.source == old.source and _script_keys(new) == _script_keys(old):
                del specs[length:]
                new = old
            profiles[new.id] = new
        return ProfileSet(
            profiles.values(), specs, problems, stock=CompiledVersions(profiles, self._compiled.from_store)
        )

    def choose(self, chosen: Iterable[Chosen], before: ProfileSet | None = None) -> ProfileSet:
        """Return the set with versions of the store replacing the folder's, for all devices or for some.

        Args:
            chosen: for each profile, the first choice that picks a device applies to it.
            before: the set whose version stays in force if a version does not compile; None: the profile is left out,
                and messages of its devices wait in quarantine for a repaired version.
        """
        specs = list(self.specs)
        from_folder, from_store = self._compiled.from_folder, dict(self._compiled.from_store)
        in_force, arms = dict(from_folder), dict[str, tuple[VersionArm, ...]]()
        problems = [problem for problem in self.problems if problem not in self._compiled.unfit]
        unfit: list[ProfileError] = []
        for choice, file in chosen:
            length = len(specs)
            try:
                profile = from_store.get(choice.digest) or compile_file(file, specs)
            except ProfileError as error:
                del specs[length:]
                unfit.append(error)
                last = before.find(choice.profile) if before else None
                if choice.whole and last is not None:
                    in_force[choice.profile] = last
                elif choice.whole:
                    in_force.pop(choice.profile, None)
                continue
            from_store[choice.digest] = profile
            if choice.whole:
                in_force[choice.profile] = profile
            else:
                arms[choice.profile] = (*arms.get(choice.profile, ()), VersionArm(choice, profile))
        stock = CompiledVersions(from_folder, from_store, tuple(unfit))
        return ProfileSet(in_force.values(), specs, [*problems, *unfit], arms=arms, stock=stock)

    def with_version(self, name: str, file: Path) -> ProfileSet:
        """Return the set in which the version in a file is in force for all devices of a profile.

        Raises:
            ProfileError: it is invalid, or of another profile.
        """
        specs = list(self.specs)
        known = {str(profile.file): profile for profile in (*self._by_id.values(), *self._compiled.from_store.values())}
        profile = known.get(str(file)) or compile_file(file, specs)
        if profile.id != name:
            raise ProfileError(
                f"is profile '{profile.id}'", file=str(file), line=1, key="profile", remedy=f"give {name}"
            )
        others = [other for other in self._by_id.values() if other.id != name]
        arms = {other: variants for other, variants in self._arms.items() if other != name}
        return ProfileSet([*others, profile], specs, arms=arms, stock=self._compiled)

    def superseded(self) -> list[str]:
        """Return the newer versions of folders that are not in force, because a release decided otherwise."""
        held = ((self._compiled.from_folder.get(name), profile) for name, profile in sorted(self._by_id.items()))
        return [
            f"{newer.id}@{newer.version} of the folder is not in force: {newer.id}@{profile.version} was released; "
            f"`sensegate profile propose {newer.file}` submits it"
            for newer, profile in held
            if newer is not None and newer.version > profile.version
        ]

    @property
    def video(self) -> bool:
        """Return whether any of the profiles decodes video metadata."""
        return bool(self._cameras)

    def is_video(self, name: str) -> bool:
        """Return whether a profile (``vendor/model``) decodes video metadata."""
        return name in self._cameras

    def resembles_video_topic(self, topic: str) -> bool:
        """Return whether a topic starts like those of cameras, or contains a word of theirs."""
        levels = topic.lower().split("/")
        return levels[0].startswith(self._camera_words.first) or not self._camera_words.anywhere.isdisjoint(levels)

    @property
    def camera_words(self) -> frozenset[str]:
        """Literal levels of camera topics, in lower case."""
        return self._camera_words.every

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(name.partition("@")[0] in known for known in (self._by_id, self._arms))

    def find(self, name: str) -> CompiledProfile | None:
        """Return a profile by ``vendor/model`` (a version suffix is ignored), or None."""
        return self._by_id.get(name.partition("@")[0])

    def folder_version(self, name: str) -> CompiledProfile | None:
        """Return the folder's version of a profile, in force or not."""
        return self._compiled.from_folder.get(name)

    def topic_rights(self, name: str) -> frozenset[object]:
        """Return what the topics of a profile's devices derive from; equal sets mean equal rights for all of them."""
        versions = [self.find(name), *(arm.profile for arm in self._arms.get(name, ()))]
        return frozenset(
            (
                tuple((pattern.text, rule.names) for rule in version.rules for pattern in rule.patterns),
                version.hears,
                version.carried,
            )
            for version in versions
            if version
        )

    def of(self, device: Device) -> CompiledProfile | None:
        """Return the version of its profile that is in force for a device, or None."""
        name = device.profile.partition("@")[0]
        for choice, profile in self._arms.get(name, ()):
            if choice.picks(device):
                return profile
        return self._by_id.get(name)

    def is_rule_in_force(self, rule: CompiledRule, device: Device | None) -> bool:
        """Return whether a rule is of the version in force for a device (for messages of several: their gateway)."""
        arms = self._arms.get(rule.profile)
        if arms is None:
            return True
        for choice, profile in arms:
            if choice.picks(device):
                return rule.version == profile.version
        version = self._by_id.get(rule.profile)
        return version is not None and version.version == rule.version

    @property
    def arms(self) -> Mapping[str, tuple[VersionArm, ...]]:
        """Versions that apply to some devices only, by ``vendor/model``, in order of precedence."""
        return self._arms

    @cached_property
    def alarms(self) -> tuple[tuple[str, AlarmPart], ...]:
        """(``vendor/model``, alarm rule) of all profiles, in their order."""
        profiles = [(name, self.find(name)) for name in self.ids]
        return tuple((name, alarm) for name, profile in profiles if profile for alarm in profile.source.alarms)

    @property
    def ids(self) -> list[str]:
        """``vendor/model`` of all profiles, sorted."""
        return sorted({*self._by_id, *self._arms})

    @property
    def versions(self) -> dict[str, int]:
        """Version in force by ``vendor/model``, without versions that apply to some devices only."""
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

        Captures other than the device become wildcards. Topics that name only a {gateway} belong to the gateway's own
        connection: they contain its names (`gateways`; by default `names`, for the gateway itself), and are omitted
        if it has none. `device`: use the version in force for it; behind a gateway use every version, as the gateway
        may have another one. `carrier`: the gateway's profile, whose envelopes bring a device's frames.
        """
        versions = [self.of(device)] if device and not device.gateway else self._versions(profile)
        rules = [rule for version in versions if version for rule in version.rules]
        if any(version.carried for version in versions if version):
            carrier_rules = (rule for version in self._versions(carrier) if version for rule in version.rules)
            rules += [rule for rule in carrier_rules if rule.applies_to is not AppliesTo.OWN]
        filters: dict[str, None] = {}
        for rule in rules:
            for pattern in rule.patterns:
                topic_filters = _filters(rule, pattern, names, names if gateways is None else gateways)
                filters.update(dict.fromkeys(topic_filters))
        return list(filters)

    def _versions(self, name: str) -> list[CompiledProfile | None]:
        """Return the versions of a profile that are in force for any device."""
        return [self.find(name), *(arm.profile for arm in self._arms.get(name.partition("@")[0], ()))]

    def publish_topics(
        self, device: Device, names: Sequence[str], gateways: Sequence[str] | None, carrier: str = ""
    ) -> list[str]:
        """Return `topics_of` for the version in force for a device."""
        return self.topics_of(device.profile, names, gateways, device=device, carrier=carrier)

    def subscribe_topics(self, device: Device, names: Sequence[str]) -> list[str]:
        """Return the topics to which a device with these names (id, alias) subscribes (`hears` of its profile)."""
        profile = self.of(device)
        return subscribe_filters(profile.hears, [rule.names for rule in profile.rules], names) if profile else []

    def topics_at_qos0(self) -> list[str]:
        """Return the MQTT topic filters of the profiles with `qos: 0`."""
        arm_profiles = (arm.profile for arms in self._arms.values() for arm in arms)
        chosen = [profile for profile in (*self._by_id.values(), *arm_profiles) if profile.source.qos == 0]
        patterns = [pattern for profile in chosen for rule in profile.rules for pattern in rule.patterns]
        return list(dict.fromkeys(text for pattern in patterns for text in topics.filters(pattern, ["+"])))

    @property
    def reads_metadata(self) -> bool:
        """Return whether any rule reads what MQTT states beside the payload."""
        return self._reads_metadata

    def match(self, topic: str) -> list[tuple[CompiledRule, dict[str, str]]]:
        """Return the rules whose topics match, the most literal first, with their captures."""
        return [(self._rules[number], captured) for number, captured in self._index.match(topic)]


def _draft_problem(profile: CompiledProfile) -> ProfileError | None:
    if not profile.source.draft:
        return None
    remedy = "complete it and remove `draft: true`; `sensegate profile propose --draft` uploads it as it is"
    return ProfileError("is a draft and not in force", file=profile.file, line=1, key="draft", remedy=remedy)


class _CameraWords(NamedTuple):
    """The literal levels of camera topics, in lower case."""

    first: tuple[str, ...]
    """Prefixes of the topics."""
    anywhere: frozenset[str]
    """Words of topics that begin with a capture, if no other profile uses them."""
    every: frozenset[str]


_PREFIX_LEAST = 4
"""Letters before the capture in a topic's first level that suffice to recognise it."""


def _words_of(cameras: Iterable[topics.TopicPattern], others: Iterable[topics.TopicPattern]) -> _CameraWords:
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
    return _CameraWords(tuple(sorted(first)), frozenset(anywhere), frozenset(every))


def _filters(
    rule: CompiledRule, pattern: topics.TopicPattern, names: Sequence[str], gateways: Sequence[str]
) -> Iterable[str]:
    """Return the topic filters of a pattern for a device with these names, behind a gateway with those."""
    if rule.names.has_templates:
        return rule.names.filters(pattern, names if rule.names.device is not None else gateways)
    # A network server that is named in its topics publishes there for all devices behind it.
    own = "device" in pattern.captures and not (rule.applies_to is not AppliesTo.OWN and "gateway" in pattern.captures)
    if not own:
        return topics.filters(pattern, gateways, capture="gateway")
    spelled = [form for name in names for form in ((name, name.upper(), name.lower()) if rule.device_case else (name,))]
    return topics.filters(pattern, spelled)


_VIDEO = re.compile(r"""(?m)^(?![ ]*#).*\bformat:\s*["']?video\b""")


def any_video_profile(folders: Iterable[Path | str]) -> bool:
    """Return whether a profile of some folders decodes video metadata, judged by its text, before any is parsed.

    A file that cannot be read counts as not; the error is reported when the profiles are loaded.
    """

    def text(file: Path) -> str:
        with contextlib.suppress(OSError):
            return file.read_text(encoding="utf-8", errors="replace")
        return ""

    return any(_VIDEO.search(text(file)) for file in files(folders))


def files(folders: Iterable[Path | str]) -> list[Path]:
    """Return the profile files of some folders (or files), sorted; names with a leading underscore are skipped."""
    paths: set[Path] = set()
    for place in map(Path, folders):
        if place.is_dir():
            paths.update(file for file in place.rglob("*.yaml") if not file.name.startswith("_"))
        else:
            paths.add(place)
    return sorted(paths)


def compile_file(file: Path, specs: list[Spec]) -> CompiledProfile:
    """Read and compile one profile, appending its specs.

    Raises:
        ProfileError: with file, line and key of the problem.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError("cannot be read", file=str(file), remedy=str(error)) from error
    source, lines = parse(text, file=str(file))
    place = f"{file.parent.name}/{file.stem}"
    if not file.name.startswith("_") and source.profile != place:
        raise ProfileError(
            f"is '{source.profile}'", file=str(file), line=lines.get(("profile",), 1), key="profile",
            remedy=f"must be '{place}', as folder and file are named",
        )  # fmt: skip
    return Compiler(source, lines, str(file), specs).compile()


def _script_keys(profile: CompiledProfile) -> list[str]:
    """Return keys that change when a script beside the profile changes."""
    parses = [rule.parse.parse if isinstance(rule.parse, Reshape) else rule.parse for rule in profile.rules]
    return [parse.key for parse in parses if isinstance(parse, BatchParse)]


def check_ids(profiles: Sequence[CompiledProfile]) -> None:
    """Raise `ProfileError` if two profiles have the same id."""
    seen: dict[str, CompiledProfile] = {}
    for profile in profiles:
        if (other := seen.get(profile.id)) is not None:
            raise ProfileError(
                f"'{profile.id}' is also in {other.file}", file=profile.file, line=1, key="profile", remedy="keep one"
            )
        seen[profile.id] = profile
