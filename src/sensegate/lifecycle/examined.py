"""Profiles of the folders whose examples have passed, remembered over restarts in the gateway's own directory.

The examples of 160 profiles are half of a start. A profile is remembered by a digest of everything that its examples
depend on: its content, and the code and the libraries that would run them. One that was edited, and every one after an
upgrade, is examined anew; so are all where the file is missing or damaged. Only the gateway writes to its directory
(mode 0700): a file beside the profiles says nothing.
"""

from __future__ import annotations

import contextlib
import re
import sys
from functools import cache
from hashlib import blake2b
from importlib import metadata
from pathlib import Path

import msgspec
import structlog

from sensegate.bus.files import write_private
from sensegate.decode.profile import CompiledProfile
from sensegate.decode.profiles import Examine
from sensegate.errors import ProfileError

FILE = "examined.json"
"""Name of the file in the gateway's directory."""
ROOMS = (
    "authoring", "clock", "config", "decode", "errors", "frames", "metrics", "model", "quantities", "scripts", "video",
    "wording",
)  # fmt: skip
"""Parts of the package that running examples imports; a test compares them with the imports."""
SUFFIXES = frozenset({".py", ".csv", ".js", ".json"})
_PACKAGE = Path(__file__).parents[1]
_DIGEST_BYTES = 32
_REQUIREMENT = re.compile(r"[\w.-]+")

_log = structlog.get_logger("lifecycle")


class _ExaminedFile(msgspec.Struct, frozen=True):
    code: str
    """Digest of code and libraries."""
    passed: tuple[str, ...]
    """Digests of profiles whose examples have passed."""


class ExaminedProfiles:
    """Examine profiles, except those that have passed before with the same content and code."""

    def __init__(self, directory: Path, examine: Examine, code: str | None = None) -> None:
        """Load the remembered results.

        Args:
            directory: of the gateway.
            examine: runs the examples of a profile.
            code: digest of code and libraries; None: that of this process.
        """
        self._file = directory / FILE
        self._examine = examine
        self._code = code_digest() if code is None else code
        self._remembered = self._read()
        self._passed: set[str] = set()

    def __call__(self, profile: CompiledProfile) -> ProfileError | None:
        """Return why a profile must not be in force; None: it may."""
        if reads_files(profile):
            return self._examine(profile)
        digest = digest_of(profile)
        if digest not in self._remembered and digest not in self._passed:
            problem = self._examine(profile)
            if problem is not None:
                return problem
        self._passed.add(digest)
        return None

    def save(self) -> None:
        """Remember the profiles that have passed since the start, and only those."""
        if self._passed == self._remembered:
            return
        content = msgspec.json.encode(_ExaminedFile(self._code, tuple(sorted(self._passed))))
        try:
            write_private(self._file, content, durable=False)
        except OSError as why:
            _log.warning("examined profiles not remembered; the next start examines them again", reason=str(why))

    def _read(self) -> set[str]:
        with contextlib.suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
            remembered = msgspec.json.decode(self._file.read_bytes(), type=_ExaminedFile)
            if remembered.code == self._code:
                return set(remembered.passed)
        return set()


def reads_files(profile: CompiledProfile) -> bool:
    """Return whether a profile depends on files beside it, a codec script or keys: it is examined at each start."""
    return any(
        rule.script is not None or (rule.hj212 is not None and bool(rule.hj212.keys_file))
        for rule in profile.source.messages
    )


def digest_of(profile: CompiledProfile) -> str:
    """Return the digest of a profile's content, its examples included."""
    return blake2b(msgspec.msgpack.encode(profile.source), digest_size=_DIGEST_BYTES).hexdigest()


@cache
def code_digest() -> str:
    """Return the digest of what runs examples: these parts of the package, its libraries, Python."""
    digest = blake2b(sys.version.encode(), digest_size=_DIGEST_BYTES)
    for name in sorted(_REQUIREMENT.match(line)[0] for line in metadata.requires("sensegate") or ()):  # type: ignore[index] # each begins with a name
        with contextlib.suppress(metadata.PackageNotFoundError):  # of a feature that is not installed
            digest.update(f"{name} {metadata.version(name)}\n".encode())
    for room in ROOMS:
        place = _PACKAGE / room
        files = sorted(place.rglob("*")) if place.is_dir() else [place.with_suffix(".py")]
        for file in files:
            if file.suffix in SUFFIXES:
                content = file.read_bytes()
                digest.update(f"{file.relative_to(_PACKAGE)} {len(content)}\n".encode())
                digest.update(content)
    return digest.hexdigest()
