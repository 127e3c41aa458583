"""The keys of video metadata: they outlive the process, do not outlive their time, and are nobody else's."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from sensegate.cameras.keyring import Keyring
from sensegate.clock import DAY_US, HOUR_US, FakeClock
from sensegate.config import Config, parse
from sensegate.config.video import BasisConfig
from sensegate.errors import ConfigError, StoreFull
from sensegate.video.pseudonyms import day_of

PLATE = "粤B12345"


def basis(expires: str = "2026-01-01") -> BasisConfig:
    return BasisConfig(
        purpose="stolen vehicles", law="decision 12/2026", kinds=("vehicle",), fields=("plate.number",), expires=expires
    )


def test_a_day_has_one_key_and_the_next_another(tmp_path: Path, fake_clock: FakeClock) -> None:
    """From 00:00 to 24:00 in UTC+8 a plate has one pseudonym, also after a start; other spellings are the same."""
    keys = Keyring(tmp_path / "keys", fake_clock)
    now = fake_clock.now()  # 08:00 in China
    first = keys.plate(PLATE, now)
    assert keys.plate("粤b·123 45", now + 15 * HOUR_US) == first
    assert keys.plate(PLATE, now + 16 * HOUR_US) != first
    assert keys.plate(PLATE, now - 8 * HOUR_US) == first
    assert keys.plate(PLATE, now - 8 * HOUR_US - 1) != first
    assert keys.plate("粤B12346", now) != first
    reopened = Keyring(tmp_path / "keys", fake_clock)
    assert reopened.plate(PLATE, now) == first
    assert reopened.identifier(PLATE) == keys.identifier(PLATE) != first
    assert (tmp_path / "keys").stat().st_mode & 0o077 == 0


async def test_a_key_is_destroyed_in_time(tmp_path: Path, fake_clock: FakeClock) -> None:
    """A day after its day it is in no file; what is seen of then has a pseudonym that nothing else has."""
    file = tmp_path / "keys"
    keys = Keyring(file, fake_clock, days=1)
    then = fake_clock.now()
    pseudonym = keys.plate(PLATE, then)
    held = file.read_bytes()
    await fake_clock.advance(86_400)
    assert keys.plate(PLATE, then) == pseudonym
    await fake_clock.advance(86_400)
    keys.expire_keys()
    late = keys.plate(PLATE, then)
    assert late != pseudonym
    assert late != keys.plate(PLATE, fake_clock.now())
    assert late == Keyring(file, fake_clock, days=1).plate(PLATE, then)
    key = held.partition(f'"{day_of(then)}":"'.encode())[2][:64]
    assert len(key) == 64
    assert not [path for path in tmp_path.iterdir() if key in path.read_bytes()]


def test_former_keys_that_a_crash_left_are_destroyed(tmp_path: Path, fake_clock: FakeClock) -> None:
    """The crash came after the file was replaced: the blocks of the former one are overwritten, not only released."""
    file, block = tmp_path / "video.keys", tmp_path / "block"
    Keyring(file, fake_clock)
    former = file.with_suffix(".old")
    former.write_bytes(b"former keys")
    block.hardlink_to(former)
    Keyring(file, fake_clock)
    assert not former.exists()
    assert block.read_bytes() == bytes(len(b"former keys"))


def test_present_keys_outlive_a_crash(tmp_path: Path, fake_clock: FakeClock) -> None:
    """The crash came before the file was replaced: it has a second name, whose removal leaves the keys."""
    file = tmp_path / "video.keys"
    before = Keyring(file, fake_clock).identifier(PLATE)
    file.with_suffix(".old").hardlink_to(file)
    assert Keyring(file, fake_clock).identifier(PLATE) == before
    assert [path.name for path in tmp_path.iterdir()] == ["video.keys"]


def test_a_clock_that_is_wrong_makes_no_keys(tmp_path: Path, fake_clock: FakeClock) -> None:
    """Days far ahead or behind share today's key, and are told apart: nobody can have a file of keys made."""
    keys = Keyring(tmp_path / "keys", fake_clock)
    now = fake_clock.now()
    pseudonyms = {keys.plate(PLATE, now + day * DAY_US) for day in range(-400, 400)}
    assert len(pseudonyms) == 800
    assert len((tmp_path / "keys").read_bytes()) < 600


def test_names_of_registered_devices_are_not_hidden(tmp_path: Path, fake_clock: FakeClock) -> None:
    """A camera that people call 前门 is known by this name where the registry has it, and nowhere else."""
    keys = Keyring(tmp_path / "keys", fake_clock, known={"前门"}.__contains__)
    assert keys.identifier("前门") == "前门"
    assert keys.identifier("后门") != "后门"


async def test_a_legal_basis_ends(tmp_path: Path, fake_clock: FakeClock) -> None:
    """It opens its fields for its kinds up to the end of its last day; without one nothing passes."""
    assert not Keyring(tmp_path / "a", fake_clock).permits("vehicle", "plate.number")
    keys = Keyring(tmp_path / "b", fake_clock, basis=[basis()])
    assert keys.permits("vehicle", "plate.number")
    assert not keys.permits("person", "plate.number")
    assert not keys.permits("vehicle", "age_band")
    await fake_clock.advance(16 * 3_600 - 1)
    assert keys.permits("vehicle", "plate.number")
    await fake_clock.advance(1)
    assert not keys.permits("vehicle", "plate.number")
    assert date.fromisoformat(basis().expires) == date(2026, 1, 1)


def test_files_that_are_no_keys(tmp_path: Path, fake_clock: FakeClock) -> None:
    """A broken file or one that others may read is refused, and is not told; a full disk holds the walk back."""
    file = tmp_path / "keys"
    file.write_text("secret-that-is-no-key")
    with pytest.raises(ConfigError, match="restore the file") as refusal:
        Keyring(file, fake_clock)
    assert "secret-that" not in str(refusal.value)
    file.unlink()
    Keyring(file, fake_clock)
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        Keyring(file, fake_clock)
    with pytest.raises(StoreFull):
        Keyring(tmp_path / "no" / "such" / "folder", fake_clock)
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("purpose: ''", "purpose"),
        ("law: ''", "law"),
        ("kinds: []", "kinds"),
        ("fields: [face]", "face"),
        ("kinds: [child]", "child"),
        ("expires: for ever", "expires|isoformat"),
    ],
)
def test_a_basis_that_is_none(text: str, wrong: str) -> None:
    """A legal basis without purpose, law, kinds, fields or end, or for what never passes, is refused."""
    given = {"purpose": "p", "law": "l", "kinds": "[vehicle]", "fields": "[plate.number]", "expires": "'2026-12-31'"}
    name, _, value = text.partition(": ")
    lines = [f"      {key}: {value if key == name else original}" for key, original in given.items()]
    body = "\n".join(["role: node", "division: '4401'", "directory: x", "video:", "  basis:", "    -", *lines])
    with pytest.raises(ConfigError, match=wrong):
        parse(body)
    good = "\n".join(f"      {key}: {original}" for key, original in given.items())
    parsed: Config = parse(f"role: node\ndivision: '4401'\ndirectory: x\nvideo:\n  basis:\n    -\n{good}")
    assert parsed.video.basis[0].kinds == ("vehicle",)
