"""The build information embedded in a nats-server binary, compared with the facts that the package ships.

Go writes its build information into each program: toolchain, revision of the source, and the modules with their
checksums (those of Go's checksum database). `engine_facts.json` holds them, with the digest of the file, for the
release with which this package is tested.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from importlib.resources import files
from pathlib import Path

import msgspec

from sensegate.errors import EngineError

_MAGIC = b"\xff Go buildinf:"
_MODULES = re.compile(rb"path\t[^\x00]*?\nbuild\tvcs\.modified=(?:true|false)\n")
_MODULES_BYTES_MAX = 65_536


class BuildInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The build information of a Go program."""

    toolchain: str
    module: str
    version: str
    revision: str
    """Commit of the source."""
    is_modified: bool
    """True if the source had changes that were not committed."""
    modules: dict[str, str]
    """``path@version`` of each dependency -> its checksum."""


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The recorded facts of a release of nats-server."""

    build: BuildInfo
    sha256: dict[str, str]
    """Machine (``x86_64``) -> digest of the file."""


def engine_facts() -> EngineFacts:
    """Return the facts that the package ships."""
    raw = files("sensegate.bus").joinpath("engine_facts.json").read_bytes()
    return msgspec.json.decode(raw, type=EngineFacts)


def read_build_info(path: Path) -> BuildInfo:
    """Return the build information of a program. Raises `EngineError`: it has none."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.find(_MAGIC)
        match = _MODULES.search(data[start : start + _MODULES_BYTES_MAX]) if start >= 0 else None
        head = data[start + 32 : start + 64] if start >= 0 else b""
    toolchain = re.search(rb"go[0-9][0-9a-z.]*", head)
    if match is None or toolchain is None:
        raise EngineError(f"{path} has no build information of Go")
    rows = [line.split("\t") for line in match[0].decode().splitlines()]
    settings = dict(row[1].split("=", 1) for row in rows if row[0] == "build")
    module = next((row for row in rows if row[0] == "mod"), ["", "", ""])
    return BuildInfo(
        toolchain=toolchain[0].decode(),
        module=module[1],
        version=module[2],
        revision=settings.get("vcs.revision", ""),
        is_modified=settings["vcs.modified"] == "true",
        modules={f"{row[1]}@{row[2]}": row[3] for row in rows if row[0] == "dep"},
    )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(path: Path, facts: EngineFacts, machine: str = "") -> list[str]:
    """Return how a program of the known release differs from the facts, a clause each; `machine`: empty: this one.

    Raises:
        EngineError: it is no program of Go, or another release, of which nothing is known.
    """
    build, known = read_build_info(path), facts.build
    if build.version != known.version:
        raise EngineError(f"nothing is known of nats-server {build.version or '(unnamed)'}, only of {known.version}")
    deviations = [
        f"{name} is {getattr(build, name)!r} instead of {getattr(known, name)!r}"
        for name in ("toolchain", "module", "revision", "is_modified")
        if getattr(build, name) != getattr(known, name)
    ]
    changed = sorted(build.modules.items() ^ known.modules.items())
    if changed:
        deviations.append(f"modules differ: {', '.join(dict.fromkeys(name for name, _ in changed))}")
    expected = facts.sha256.get(machine or os.uname().machine, "")
    if expected and sha256_of(path) != expected:
        deviations.append("the file has another digest")
    return deviations
