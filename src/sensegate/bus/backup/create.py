"""Creation of a backup: a consistent copy of all that a gateway owns, while it runs or stands still."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import structlog

from sensegate import __version__
from sensegate.bus import addresses, process
from sensegate.bus.addresses import GatewayAddresses
from sensegate.bus.backup import contents, manifest, secret_file, standstill
from sensegate.bus.backup.contents import FileKind
from sensegate.bus.backup.manifest import BackupManifest, Progress
from sensegate.bus.backup.standstill import StagedFile, StoreView
from sensegate.bus.files import sync_names, sync_path
from sensegate.config import Config, files
from sensegate.errors import ConfigError, Unavailable

TRIES: Final = 3
"""A backup is made again so often when the server rewrote a block in place meanwhile."""
ROOM: Final = 1.05
PARTIAL: Final = ".partial"
_SEAL: Final = "engine/store.json"

_log = structlog.get_logger("backup")


class FinishedBackup(msgspec.Struct, frozen=True):
    """A finished backup."""

    manifest: BackupManifest
    standstill_s: float
    """Seconds for which the server was stopped."""


def create(
    config: Config, config_file: Path, target: Path, *, passphrase: bytes = b"", progress: Progress = lambda _: None
) -> FinishedBackup:
    """Write a backup of a gateway into a new directory.

    Args:
        config: of the gateway.
        config_file: file of that configuration; it becomes part of the backup.
        target: made; it must not exist yet.
        passphrase: under which secrets are encrypted; empty: they are left out.
        progress: told how many bytes were copied.

    Raises:
        ConfigError: there is nothing to back up, or the target cannot be used.
        Conflict: another backup of this gateway runs.
        Unavailable: the store could not be held still; try again.
    """
    directory = Path(config.directory).resolve()
    _demand(config, directory, target)
    partial = target.with_name(f"{target.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for _ in range(TRIES):
            partial.mkdir(parents=True, mode=0o700)
            with standstill.view(directory) as view:
                if _copied(view, partial, progress):
                    made = _described(config, config_file, view, partial, passphrase)
                    break
            shutil.rmtree(partial)
        else:
            raise Unavailable(f"the server rewrote blocks during {TRIES} copies; try again, or stop the gateway")
        manifest.write(partial, made)
        # The files are on the disk; without their names a power failure would take a backup that was called finished.
        sync_names(partial)
        partial.rename(target)
        sync_path(target.parent)
    except OSError as why:
        raise ConfigError(f"the backup was not finished: {why}", file=str(target), remedy="make room there") from why
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return FinishedBackup(made, view.standstill_s)


def _demand(config: Config, directory: Path, target: Path) -> None:
    if config.engine.url:
        raise ConfigError(
            "the store belongs to an external nats-server",
            key="engine.url",
            remedy="back that store up where the server runs, with the server stopped, and this directory with it",
        )
    if not (directory / contents.STORE).is_dir():
        raise ConfigError("holds no store yet", file=str(directory), key="directory", remedy="start the gateway first")
    if target.exists():
        raise ConfigError("exists already", file=str(target), key="--to", remedy="give a directory that does not exist")
    if directory == target.resolve() or directory in target.resolve().parents:
        raise ConfigError("lies within the gateway's directory", file=str(target), key="--to", remedy="give another")
    target.parent.mkdir(parents=True, exist_ok=True)
    size = size_of(config)
    if shutil.disk_usage(target.parent).free < size * ROOM:
        raise ConfigError(
            f"has no room for {size / 1e6:,.0f} MB", file=str(target.parent), key="--to", remedy="give another disk"
        )


def size_of(config: Config) -> int:
    """Return about how many bytes a backup of a gateway has."""
    directory, total = Path(config.directory), 0
    for path in contents.files(directory):
        try:
            total += (directory / path).stat().st_size if contents.kind_of(path) is not FileKind.OMITTED else 0
        except FileNotFoundError:
            continue
    return total


def _copied(view: StoreView, target: Path, progress: Progress) -> bool:
    """Copy the staged files; return False if a block was rewritten in place since. Raises `OSError`."""
    for file in _open(view):
        manifest.copy(view.staging / file.path, target / "directory" / file.path, progress)
        if not standstill.is_unchanged(view.staging, file):
            _log.warning("a block was rewritten in place while it was copied; the backup begins again", file=file.path)
            return False
    return True


def _open(view: StoreView) -> Iterator[StagedFile]:
    return (file for file in view.files if contents.kind_of(file.path) is not FileKind.SECRET)


def _described(config: Config, config_file: Path, view: StoreView, target: Path, passphrase: bytes) -> BackupManifest:
    """Add configuration and secrets; return the manifest. Raises `OSError`, `ConfigError`."""
    directory = Path(config.directory).resolve()
    manifest.copy(config_file, target / "config.yaml", lambda _: None)
    secrets = dict(_secrets(config, view))
    if passphrase:
        secret_file.seal(target / manifest.SECRETS, secrets, passphrase)
    # Read back from where it was written: what the checksums say is what the disk returns.
    entries = [manifest.entry_of(target, path, lambda _: None) for path in sorted(contents.files(target))]
    state = target / "directory"
    epoch = state / "log.life"
    return BackupManifest(
        view.at,
        __version__,
        process.binary_version(process.binary()),
        config.role,
        config.member_id,
        epoch.read_text(encoding="ascii").strip() if epoch.exists() else "",
        (state / _SEAL).exists(),
        socket.gethostname(),
        str(directory),
        _url(directory),
        tuple(entries),
        tuple(sorted(secrets)) if passphrase else (),
        () if passphrase else tuple(sorted(secrets)),
    )


def _secrets(config: Config, view: StoreView) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each secret: of the gateway's directory, and of files that the configuration names."""
    directory = Path(config.directory).resolve()
    for file in view.files:
        if contents.kind_of(file.path) is FileKind.SECRET:
            yield f"directory/{file.path}", (view.staging / file.path).read_bytes()
    for path, name in files.named_files(config):
        place = Path(name)
        if place.is_file() and directory not in place.resolve().parents and os.access(place, os.R_OK):
            yield f"config/{'.'.join(path)}", place.read_bytes()


def _url(directory: Path) -> str:
    try:
        return msgspec.json.decode((directory / addresses.FILE).read_bytes(), type=GatewayAddresses).http
    except (OSError, msgspec.DecodeError):
        return ""
