"""Examine a version of a profile that was submitted: whether it compiles, and whether its examples pass."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sensegate.authoring.examples import check_profile
from sensegate.decode.grammar import parse
from sensegate.decode.profiles import ProfileSet, compile_file
from sensegate.errors import ConfigError, ProfileError
from sensegate.lifecycle.contents import Content, read_from_folder, validate, write
from sensegate.lifecycle.release_registry import Examination


def examine(content: Content) -> Examination:
    """Return which profile and version a content is, and its problems. Takes about 10 ms: run it in a thread.

    Raises:
        ConfigError: it is not a profile; the error names the line.
    """
    validate(content)
    source, lines = parse(content.text, file="profile")
    with tempfile.TemporaryDirectory(prefix="sensegate-examine-") as folder:
        file = write(content, source.profile, Path(folder) / "version")
        try:
            compile_file(file, [])
        except ProfileError as error:
            raise _named_after_profile(error, source.profile) from error
        problems = tuple(str(_named_after_profile(error, source.profile)) for error in check_profile(file))
        if source.draft:
            problem = ProfileError(
                "is true",
                file=f"{source.profile}.yaml",
                line=lines.get(("draft",), 1),
                key="draft",
                remedy="remove the line",
            )
            problems = (str(problem), *problems)
    return Examination(source.profile, source.version, problems)


def _named_after_profile(error: ProfileError, profile: str) -> ProfileError:
    """Return an error that names the profile instead of the temporary file."""
    return ProfileError(error.problem, file=f"{profile}.yaml", line=error.line, key=error.key, remedy=error.remedy)


def folder_version(profiles: ProfileSet, name: str) -> tuple[int, Content] | None:
    """Return version and content of a profile in the profile folders; None if it is absent or changing right now."""
    profile = profiles.folder_version(name)
    if profile is None:
        return None
    try:
        content = read_from_folder(Path(profile.file))
        source, _ = parse(content.text, file=profile.file)
    except ConfigError:
        return None
    return (profile.version, content) if source == profile.source else None
