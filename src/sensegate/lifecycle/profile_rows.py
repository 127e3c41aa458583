"""Rows of the list of device profiles."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sensegate.decode.profile import CompiledProfile
from sensegate.decode.profiles import ProfileSet


class ProfileRow(msgspec.Struct, frozen=True):
    """Device profile in force."""

    id: str
    """``vendor/model``."""
    version: int
    title: str = ""
    topics: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    format: str = "json"
    problem: str = ""
    """Reason why its newest file cannot be loaded; the last valid version stays in force."""
    folder: int = 0
    """Version in the folder of profiles; 0: none."""
    trial_versions: tuple[int, ...] = ()
    """Versions in force for some devices only."""
    title_zh: str = ""


def profile_rows(profiles: ProfileSet) -> list[ProfileRow]:
    """Return the profiles in force, and those that are not with the reason."""
    problems = {why.file: str(why) for why in profiles.problems}
    rows = []
    for name in profiles.ids:
        in_folder, profile = profiles.folder_version(name), profiles.find(name)
        problem = problems.pop(in_folder.file, "") if in_folder else ""
        row = _row_of(profile, problem) if profile else ProfileRow(name, 0)
        trial_versions = tuple(arm.profile.version for arm in profiles.arms.get(name, ()))
        rows.append(
            msgspec.structs.replace(row, folder=in_folder.version if in_folder else 0, trial_versions=trial_versions)
        )
    # What was never good has no version in force.
    rows += [ProfileRow(f"{Path(file).parent.name}/{Path(file).stem}", 0, problem=problems[file]) for file in problems]
    return rows


def _row_of(profile: CompiledProfile, problem: str) -> ProfileRow:
    return ProfileRow(
        id=profile.id,
        version=profile.version,
        title=profile.source.label.en,
        topics=tuple(dict.fromkeys(pattern.text for rule in profile.rules for pattern in rule.patterns)),
        format=profile.rules[0].format if profile.rules else "",
        problem=problem,
        title_zh=profile.source.label.zh,
    )


def example_payload(profiles: ProfileSet, profile: str) -> str:
    """Return the payload of the first example of a profile that gives readings and is text; empty: there is none."""
    compiled = profiles.find(profile)
    for example in compiled.source.examples if compiled else ():
        if example.expect and example.payload:
            payload = example.payload
            return payload if isinstance(payload, str) else msgspec.json.encode(payload).decode()
    return ""
