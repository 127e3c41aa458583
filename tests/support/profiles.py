"""Fixtures around device profiles: the library of the repository, and small profiles written in a test."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from sensegate.authoring.examples import NamedDevices
from sensegate.decode import Decoder, ProfileSet

ROOT = Path(__file__).parents[2] / "device_profiles"

Make = Callable[..., Decoder]


@cache
def library() -> ProfileSet:
    """Return all profiles of the repository, loaded once in a process: that takes most of a second."""
    return ProfileSet.load([ROOT])


@pytest.fixture(scope="session")
def profiles() -> ProfileSet:
    """All profiles of the repository."""
    return library()


@pytest.fixture
def plain(profiles: ProfileSet) -> Decoder:
    """A decoder that knows ten devices, d0 to d9, of the profile ``sensegate/plain``."""
    return Decoder(profiles, NamedDevices([f"d{number}" for number in range(10)], "sensegate/plain"))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Build a decoder from the `messages` of a profile ``acme/x`` and the names of its devices."""

    def build(messages: str, *names: str, gateway: str = "", disabled: tuple[str, ...] = ()) -> Decoder:
        (tmp_path / "acme").mkdir(exist_ok=True)
        head = "profile: acme/x\nversion: 1\nlabel: {zh: x, en: x}\nsource: this test\nmessages:\n"
        (tmp_path / "acme" / "x.yaml").write_text(head + messages, encoding="utf-8")
        devices = NamedDevices(names or ("d1",), "acme/x", gateway=gateway, disabled=disabled)
        return Decoder(ProfileSet.load([tmp_path]), devices)

    return build
