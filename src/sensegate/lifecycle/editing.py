"""Help for authors of profiles: findings with line and column, trial of a message, expectations of examples.

Nothing is stored. Each takes about 10 ms to a second: run it in a thread.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sensegate.authoring.accept import accept
from sensegate.authoring.explain import ExplainedStage, explain
from sensegate.authoring.lint import review_profile
from sensegate.authoring.positions import position_of
from sensegate.clock import Clock
from sensegate.decode.grammar import parse, read_tree
from sensegate.errors import ConfigError, ProfileError, ProfileWarning
from sensegate.lifecycle.contents import Content, validate, write

_UNNAMED = "unnamed/profile"
"""Name of a text that has none yet."""


class ProfileFinding(msgspec.Struct, frozen=True):
    """Error, probable mistake or remark on the text of a profile."""

    severity: str
    """``error``, ``warning`` or ``note``."""
    line: int
    """Line number from 1; 0: the whole text."""
    column: int
    length: int
    key: str
    problem: str
    remedy: str


class LintedProfile(msgspec.Struct, frozen=True):
    """Findings on the text of a profile."""

    profile: str
    """vendor/model; empty: the text names none."""
    version: int
    """0: the text names none."""
    findings: list[ProfileFinding]


class TriedMessage(msgspec.Struct, frozen=True):
    """Message with which a profile is tried."""

    payload: bytes
    topic: str = ""
    """Empty: a frame as a network server delivers it."""
    device: str = ""
    port: int | None = None


class AcceptedText(msgspec.Struct, frozen=True):
    """Text of a profile whose examples expect their present results."""

    text: str
    labels: list[str]
    """Examples whose expectations changed."""


def lint(content: Content) -> LintedProfile:
    """Return the findings on a content. Raises `ConfigError`: it is too large."""
    with _written(content) as (file, profile, version):
        findings = [_finding(content, error) for error in review_profile(file).findings]
    return LintedProfile("" if profile == _UNNAMED else profile, version, findings)


def try_message(content: Content, tried: TriedMessage, clock: Clock) -> list[ExplainedStage]:
    """Return the stages in which a profile decodes a message. Raises `ConfigError`: it does not compile."""
    with _written(content) as (file, profile, _):
        try:
            return explain(
                [file], tried.topic, tried.payload, device=tried.device, profile=profile, port=tried.port, clock=clock
            )
        except ProfileError as error:
            raise _without_folder(error, profile) from error


def accept_seen(content: Content) -> AcceptedText:
    """Return the text with updated expectations of its examples. Raises `ConfigError`: it does not compile."""
    with _written(content) as (file, profile, _):
        try:
            labels = accept(file)
        except ProfileError as error:
            raise _without_folder(error, profile) from error
        return AcceptedText(file.read_text(encoding="utf-8"), labels)


@contextlib.contextmanager
def _written(content: Content) -> Iterator[tuple[Path, str, int]]:
    """Write a content into a folder of its own; yield its file, its name and its version."""
    validate(content)
    profile, version = _named(content.text)
    with tempfile.TemporaryDirectory(prefix="sensegate-edit-") as folder:
        place = Path(folder) / "version"
        try:
            file = write(content, profile, place)
        except ConfigError:  # the name is none that a file can have
            profile = _UNNAMED
            file = write(content, profile, place)
        yield file, profile, version


def _named(text: str) -> tuple[str, int]:
    """Return the profile and version that a text names, however wrong the rest is."""
    try:
        source, _ = parse(text, file="profile")
    except ConfigError:
        pass
    else:
        return source.profile, source.version
    try:
        tree, _ = read_tree(text, file="profile")
    except ConfigError:
        return _UNNAMED, 0
    profile, version = (tree.get("profile"), tree.get("version")) if isinstance(tree, dict) else (None, None)
    return profile if isinstance(profile, str) and profile else _UNNAMED, version if isinstance(version, int) else 0


def _finding(content: Content, error: ProfileError) -> ProfileFinding:
    severity = "error"
    if isinstance(error, ProfileWarning):
        severity = "note" if error.note else "warning"
    column, length = position_of(content.text.splitlines(), error)
    return ProfileFinding(severity, error.line, column, length, error.key, error.problem, error.remedy)


def _without_folder(error: ProfileError, profile: str) -> ProfileError:
    """Return an error that names the profile instead of the temporary file."""
    return ProfileError(error.problem, file=f"{profile}.yaml", line=error.line, key=error.key, remedy=error.remedy)
