"""What a backup holds, what it holds encrypted, and what it refuses to believe."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensegate.authority import audit_opening, break_glass
from sensegate.bus import encryption, inventory, restores, timelines
from sensegate.bus.backup import contents, manifest, secret_file
from sensegate.bus.backup.contents import FileKind
from sensegate.bus.backup.manifest import BackupManifest, FileEntry
from sensegate.bus.restores import Restore, RestoreHistory
from sensegate.errors import ConfigError
from sensegate.failover import terms
from sensegate.persist import extents
from sensegate.tiers import membership, refused_store, writers

KEY = b"a passphrase of the backup"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("engine/store/jetstream/SG/streams/LOG/msgs/7.blk", FileKind.STORE),
        ("engine/store/jetstream/SG/streams/LOG/batches/x/msgs/1.blk", FileKind.STORE),
        ("engine/known/streams.json", FileKind.STATE),
        ("engine/known/SG/LOG/meta.key", FileKind.STATE),
        ("log.timelines", FileKind.STATE),
        ("writer.json", FileKind.STATE),
        ("receipts.pub", FileKind.STATE),
        ("receipts.key", FileKind.SECRET),
        ("masks.key", FileKind.SECRET),
        ("engine/engine.json", FileKind.SECRET),
        ("engine/store.key", FileKind.SECRET),
        ("link.json", FileKind.SECRET),
        ("admin.token", FileKind.SECRET),
        ("auditor.token", FileKind.SECRET),
        ("a file that a later release adds", FileKind.SECRET),
        ("duplicates/run-1", FileKind.OMITTED),
        ("engine/nats-0123456789abcdef.conf", FileKind.OMITTED),
        ("engine/nats.log", FileKind.OMITTED),
        ("engine/.backup-01234567/log.life", FileKind.OMITTED),
        ("aside-20261201T000000Z/masks.key", FileKind.OMITTED),
        ("writer.json.part", FileKind.OMITTED),
        ("run.json", FileKind.OMITTED),
        (break_glass.FILE, FileKind.OMITTED),
        ("history/00000000000000-00000000000099.parquet", FileKind.SEGMENT),
        ("history/00000000000000-00000000000099-812.sums", FileKind.SEGMENT),
        ("history/00000000000000-00000000000099.tmp", FileKind.OMITTED),
        ("history/scratch/duckdb_temp_storage-0.tmp", FileKind.OMITTED),
        ("history/scratch/spill", FileKind.OMITTED),
        ("history/dropped.json", FileKind.STATE),
    ],
)
def test_the_kind_of_a_file(path: str, kind: FileKind) -> None:
    """A file that is not listed counts as secret; the configuration of the server holds passwords and is omitted."""
    assert contents.kind_of(path) is kind


@given(st.dictionaries(st.text("abc/.", min_size=1, max_size=5).map(lambda name: f"config/x{name}x"), st.binary()))
@settings(max_examples=5)
def test_secrets_come_back(tmp_path_factory: pytest.TempPathFactory, contents_before: dict[str, bytes]) -> None:
    """What was sealed is unsealed with the same passphrase, and stands nowhere in clear."""
    file = tmp_path_factory.mktemp("sealed") / "secrets.sealed"
    contents_before = {name: content for name, content in contents_before.items() if ".." not in name.split("/")}
    contents_before["directory/engine/store.key"] = b"the key of the encrypted store"
    secret_file.seal(file, contents_before, KEY)
    assert secret_file.unseal(file, KEY) == contents_before
    assert b"the key of" not in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600


def test_secrets_that_cannot_be_read(tmp_path: Path) -> None:
    """Another passphrase, a flipped bit, a cut file: a sentence each, never a part of the secrets."""
    file = tmp_path / "secrets.sealed"
    secret_file.seal(file, {"directory/masks.key": b"x" * 100}, KEY)
    with pytest.raises(ConfigError, match="another passphrase"):
        secret_file.unseal(file, b"some other passphrase")
    content = file.read_bytes()
    for broken in (content[:-1] + bytes([content[-1] ^ 1]), content[: len(content) // 2], b"", b"\xc1"):
        file.write_bytes(broken)
        with pytest.raises(ConfigError):
            secret_file.unseal(file, KEY)


def test_a_passphrase_file(tmp_path: Path) -> None:
    """It must be there, for our eyes alone, and long enough."""
    file = tmp_path / "passphrase"
    with pytest.raises(ConfigError, match="openssl"):
        secret_file.passphrase(file)
    file.write_text("short")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        secret_file.passphrase(file)
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="less than 16"):
        secret_file.passphrase(file)
    file.write_text("a passphrase of the backup\n")
    assert secret_file.passphrase(file) == KEY


def made(*files: FileEntry, secrets: tuple[str, ...] = ()) -> BackupManifest:
    """Return a manifest of these files."""
    return BackupManifest(
        1, "0.1.0", "2.15.1", "node", "4401", "e", encrypted=False, host="h", directory="/d", url="", files=files,
        secrets=secrets,
    )  # fmt: skip


@pytest.mark.parametrize("path", ["directory/../../outside", "/etc/passwd", "..", "directory//etc/passwd"])
def test_a_backup_writes_nowhere_else(tmp_path: Path, path: str) -> None:
    """A manifest, or a file of secrets, whose names lead out of the directory is refused."""
    manifest.write(tmp_path, made(FileEntry(path, 0, "")))
    with pytest.raises(ConfigError, match="leads out"):
        manifest.read(tmp_path)
    manifest.write(tmp_path, made(secrets=(path,)))
    with pytest.raises(ConfigError, match="leads out"):
        manifest.read(tmp_path)
    secret_file.seal(tmp_path / "sealed", {path: b""}, KEY)
    with pytest.raises(ConfigError, match="leads out"):
        secret_file.unseal(tmp_path / "sealed", KEY)


def test_a_manifest(tmp_path: Path) -> None:
    """It is read back; any flipped bit, a cut, and a format of a later release are refused."""
    manifest.write(tmp_path, made(FileEntry("config.yaml", 3, "d")))
    assert manifest.read(tmp_path) == made(FileEntry("config.yaml", 3, "d"))
    file = tmp_path / manifest.FILE
    content = file.read_bytes()
    for place in range(0, len(content), 37):
        file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(ConfigError):
            manifest.read(tmp_path)
    file.write_bytes(content[:-5])
    with pytest.raises(ConfigError, match="checksum"):
        manifest.read(tmp_path)


def test_restores_are_recorded_once() -> None:
    """The trail is told of each restore once, however often a store is restored; each gives the log another epoch."""
    known = RestoreHistory()
    assert known.epoch("e") == "e"
    for turn in range(1, 130):
        known = known.with_restore(Restore(turn, turn, "root", "/copy", "h:/d"))
        assert known.unrecorded[-1].made == turn
        assert known.epoch("e") == f"e.{turn}"
        if turn % 3 == 0:
            known = RestoreHistory(known.restores, len(known.restores), known.count)
            assert known.unrecorded == ()
    assert len(known.restores) == 100


def test_the_files_of_other_parts_are_known_by_their_names() -> None:
    """A file that is renamed where it is written would silently count as secret."""
    names = [
        membership.LOG_EPOCH_FILE,
        timelines.FILE,
        restores.FILE,
        extents.FILE,
        writers.FILE,
        terms.FILE,
        audit_opening.HEADS,
        f"engine/{encryption.MANIFEST_FILE}",
        f"engine/{inventory.DIRECTORY}/{inventory.FILE}",
    ]
    assert {name: contents.kind_of(name) for name in names} == dict.fromkeys(names, FileKind.STATE)
    assert membership.LOG_EPOCH_FILE == "log.life", "restore moves it first"
    secrets = [membership.FILE, refused_store.FILE, f"engine/{encryption.KEY_FILE}"]
    assert {contents.kind_of(name) for name in secrets} == {FileKind.SECRET}
