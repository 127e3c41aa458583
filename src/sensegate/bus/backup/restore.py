"""Restore of a backup into the directory that a configuration names.

checksums right? ─▶ original dead? no store in the way? ─▶ copy ─▶ move into place

What follows is the business of the first start: it begins a new timeline at the end of the copy, so that cursors of
later entries are refused with 410 and `first`, and, at a node, claims the lanes at the centre anew.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from sensegate.bus import process, restores
from sensegate.bus.backup import contents, manifest, secret_file
from sensegate.bus.backup.manifest import BackupManifest, Progress
from sensegate.bus.encryption import KEY_FILE
from sensegate.bus.files import sync_names, sync_path, write_private
from sensegate.bus.restores import Restore
from sensegate.bus.server_conf import KEY_VARIABLE
from sensegate.config import Config, files
from sensegate.errors import ConfigError, Conflict, EngineError

STAGING: Final = ".restoring"
_DIRECTORY: Final = "directory/"
_STORE_KEY: Final = f"{_DIRECTORY}engine/{KEY_FILE}"
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
ALIVE_S: Final = 2.0
_OPPOSITE: Final = {"engine": "log.life", "log.life": "engine"}


class RestoreResult(msgspec.Struct, frozen=True):
    """The outcome of a restore."""

    manifest: BackupManifest
    directory: str
    aside: str = ""
    """Directory to which the previous store was moved; empty: there was none."""
    taken_over: tuple[str, ...] = ()
    """Secrets that the backup does not hold, taken from the store that was there before."""
    missing: tuple[str, ...] = ()
    """Secrets that are nowhere: who has them puts them back, or does without."""
    kept: tuple[str, ...] = ()
    """Files that the configuration names and that differ from the backup; they were left as they are."""


def restore(
    source: Path,
    config: Config,
    *,
    passphrase: bytes = b"",
    replace: bool = False,
    beside_original: bool = False,
    progress: Progress = lambda _: None,
) -> RestoreResult:
    """Restore a backup into the directory of a configuration.

    Args:
        source: directory of the backup.
        config: of the gateway that is to go on.
        passphrase: under which its secrets are encrypted; empty: they are not read.
        replace: a store in the way is set aside.
        beside_original: the original may be alive, elsewhere.
        progress: told how many bytes were read or copied; each file counts twice.

    Raises:
        ConfigError: the backup is damaged, is of another gateway, or there is a store in the way.
        Conflict: the original is alive.
    """
    directory = Path(config.directory).resolve()
    backup = manifest.read(source)
    _demand_same(backup, config)
    _demand_alone(backup, directory, beside_original=beside_original)
    store_exists = (directory / contents.STORE).exists() or (directory / "log.life").exists()
    if store_exists and not replace:
        raise ConfigError(
            "holds a store",
            file=str(directory),
            key="directory",
            remedy="with --replace it is set aside, nothing of it is deleted; or name another directory",
        )
    manifest.verify(source, backup, progress)
    secrets = secret_file.unseal(source / manifest.SECRETS, passphrase) if passphrase and backup.secrets else {}
    return _placed(source, config, backup, secrets, progress)


def _demand_same(backup: BackupManifest, config: Config) -> None:
    if (backup.role, backup.member) != (config.role, config.member_id):
        raise ConfigError(
            f"the backup is of {backup.role} {backup.member}, the configuration of {config.role} {config.member_id}",
            key="division",
            remedy="give the configuration of the gateway that was backed up; one lies in the backup, config.yaml",
        )
    if config.engine.url:
        raise ConfigError(
            "the store belongs to an external nats-server", key="engine.url", remedy="restore it where the server runs"
        )


def _demand_alone(backup: BackupManifest, directory: Path, *, beside_original: bool) -> None:
    """See that neither the gateway of the target nor the original is alive. Raises `Conflict`."""
    if _is_alive(directory):
        raise Conflict(f"the gateway of {directory} runs; stop it first")
    if beside_original:
        return
    original = Path(backup.directory)
    remedy = "stop it for good, or give --beside-original: the centre then takes only one of the two"
    if backup.host == socket.gethostname() and original != directory and _is_alive(original):
        raise Conflict(f"the original in {original} is alive; {remedy}")
    host = urlsplit(backup.url).hostname or ""
    if host and host not in _LOOPBACK and backup.host != socket.gethostname() and _answers(backup.url):
        raise Conflict(f"a gateway answers at {backup.url}, the original's address; {remedy}")


def _is_alive(directory: Path) -> bool:
    """Return whether a gateway or its server has a directory in use."""
    engine = directory / "engine"
    for name in ("gateway.lock", "store.lock"):
        if (engine / name).exists():
            try:
                os.close(process.lock(engine / name, ""))
            except EngineError:
                return True
    return False


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), ALIVE_S).close()
    except OSError:
        return False
    return True


def _placed(
    source: Path, config: Config, backup: BackupManifest, secrets: Mapping[str, bytes], progress: Progress
) -> RestoreResult:
    directory = Path(config.directory).resolve()
    now = time.time_ns() // 1_000
    staging = directory / STAGING
    aside = directory / f"aside-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now / 1e6))}"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        before = sorted(directory.iterdir()) if directory.exists() else []
        before = [place for place in before if not place.name.startswith("aside")]
        staging.mkdir(parents=True, mode=0o700)
        _copy(source, backup, secrets, staging, progress)
        taken_over = tuple(_taken_over(backup, directory, staging))
        _demand_key(config, backup, staging)
        made = Restore(
            backup.made,
            now,
            pwd.getpwuid(os.getuid()).pw_name,
            str(source.resolve()),
            f"{backup.host}:{backup.directory}",
            str(aside) if before else "",
        )
        restores.write(staging, restores.read(staging).with_restore(made))
        kept = tuple(_named(config, secrets))
        sync_names(staging)
        _exchange(before, aside, staging, directory)
        _own(directory)
    except OSError as why:
        raise ConfigError(
            f"not restored: {why}", file=str(directory), remedy="make room, or give another directory"
        ) from why
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    given = {*secrets, *taken_over}
    missing = tuple(
        name for name in (*backup.secrets, *backup.left_out) if name not in given and not _is_there(config, name)
    )
    return RestoreResult(backup, str(directory), made.aside, taken_over, missing, kept)


def _copy(
    source: Path, backup: BackupManifest, secrets: Mapping[str, bytes], staging: Path, progress: Progress
) -> None:
    """Copy the files of a backup into the staging directory. Raises `OSError`, `ConfigError`."""
    for entry in backup.files:
        if entry.path.startswith(_DIRECTORY):
            copied = manifest.copy(source / entry.path, staging / entry.path.removeprefix(_DIRECTORY), progress)
            if copied != (entry.size, entry.digest):
                raise ConfigError(f"{entry.path} has changed", file=str(source), remedy="restore it again")
    for name, content in secrets.items():
        if name.startswith(_DIRECTORY):
            place = staging / name.removeprefix(_DIRECTORY)
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(place, content)


def _exchange(before: Sequence[Path], aside: Path, staging: Path, directory: Path) -> None:
    """Set aside what was there before, and move what is staged into place.

    Raises:
        OSError: nothing was there before, or nothing of it was moved.
        ConfigError: it says where the store that was there before lies now.
    """
    if before:
        aside.mkdir(mode=0o700)
    try:
        if before:
            _move(before, aside, last="log.life")
        _move(sorted(staging.iterdir()), directory, last="engine")
    except OSError as why:
        if not before or not any(aside.iterdir()):
            raise
        raise ConfigError(
            f"not restored: {why}; what was there before lies in {aside}, and what is missing there still in its place",
            file=str(directory),
            remedy="remove the cause, then restore with --replace: nothing is deleted",
        ) from why


def _move(places: Sequence[Path], target: Path, *, last: str) -> None:
    """Move files and directories; what is moved last keeps a gateway from starting on a part of them.

    Without `engine` and with `log.life` it stops, because the streams that it knows of are missing.
    """
    for place in sorted(places, key=lambda place: (place.name == last, place.name != _OPPOSITE[last])):
        place.rename(target / place.name)
    sync_path(target)


def _own(directory: Path) -> None:
    """Give all files to the owner of the directory, where root restores for the gateway's user."""
    owner = directory.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for place in (*directory.rglob("*"),):
            os.chown(place, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _taken_over(backup: BackupManifest, before: Path, staging: Path) -> Iterator[str]:
    """Copy the secrets of the store that was there before and that this backup does not bring; yield their names."""
    for name in (*backup.left_out, *backup.secrets):
        path = name.removeprefix(_DIRECTORY)
        if name.startswith(_DIRECTORY) and (before / path).is_file() and not (staging / path).exists():
            (staging / path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(staging / path, (before / path).read_bytes())
            yield name


def _demand_key(config: Config, backup: BackupManifest, staging: Path) -> None:
    """See that the key of an encrypted store is at hand. Raises `ConfigError`."""
    own = Path(config.engine.store_key_file) if config.engine.store_key_file else staging / "engine" / KEY_FILE
    if backup.encrypted and not own.is_file() and not os.environ.get(KEY_VARIABLE):
        raise ConfigError(
            "the store of this backup is encrypted and its key is not at hand",
            key="engine.store_key_file",
            remedy=f"give --secrets with the passphrase of the backup, or the key in ${KEY_VARIABLE}",
        )


def _named(config: Config, secrets: Mapping[str, bytes]) -> Iterator[str]:
    """Write the files that the configuration names and that are missing; yield those that are there and differ."""
    named = {".".join(path): Path(name) for path, name in files.named_files(config)}
    for name, content in secrets.items():
        if (place := named.get(name.removeprefix("config/"))) is None or not name.startswith("config/"):
            continue
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(place, content)
        elif place.read_bytes() != content:
            yield str(place)


def _is_there(config: Config, name: str) -> bool:
    """Return whether a file that the configuration names, or its key, exists without the backup."""
    if name == _STORE_KEY:
        return bool(config.engine.store_key_file or os.environ.get(KEY_VARIABLE))
    named = {f"config/{'.'.join(path)}": Path(file) for path, file in files.named_files(config)}
    return name in named and named[name].exists()
