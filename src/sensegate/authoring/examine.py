"""A look into a version that is handed in: whether it is a profile at all, and whether its examples come out."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sensegate.authoring.examples import check_profile
from sensegate.decode.grammar import parse
from sensegate.decode.profiles import ProfileSet, compile_file
from sensegate.errors import ConfigError, ProfileError
from sensegate.lifecycle.contents import Content, read_from_folder, validate, write
from sensegate.lifecycle.releases import Examination


def examine(content: Content) -> Examination:
    """Return what a content is a version of, and what is wrong with it. Takes some 10 ms: not for the loop.

    Raises:
        ConfigError: it is no profile; with the line.
    """
    validate(content)
    source, _ = parse(content.text, file="profile")
    with tempfile.TemporaryDirectory(prefix="sensegate-examine-") as folder:
        file = write(content, source.profile, Path(folder) / "version")
        try:
            compile_file(file, [])
        except ProfileError as why:
            raise _shown(why, source.profile) from why
        problems = tuple(str(_shown(why, source.profile)) for why in check_profile(file))
    return Examination(source.profile, source.version, problems)


def _shown(why: ProfileError, profile: str) -> ProfileError:
    """Return an error that names the profile instead of a file that is gone."""
    return ProfileError(why.what, file=f"{profile}.yaml", line=why.line, key=why.key, remedy=why.remedy)


def shelved(profiles: ProfileSet, name: str) -> tuple[int, Content] | None:
    """Return the folder's version of a profile and its content; None where there is none, or it is changing now."""
    found = profiles.shelved(name)
    if found is None:
        return None
    try:
        content = read_from_folder(Path(found.file))
        source, _ = parse(content.text, file=found.file)
    except ConfigError:
        return None
    return (found.version, content) if source == found.source else None
