"""Secrets are random, kept as salted hashes, and good for a grace time after a rotation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sensegate.authority import credentials
from sensegate.authority.credentials import Credentials, hash_secret, issue, make_secret, matches, rotate, verify


def test_secrets_have_at_least_128_random_bits() -> None:
    """Each is different, 24 bytes in 32 characters that need no quoting anywhere."""
    many = {make_secret() for _ in range(2_000)}
    assert len(many) == 2_000
    assert all(len(secret) == 32 and secret.replace("-", "").replace("_", "").isalnum() for secret in many)
    assert credentials.PASSWORD_BYTES * 8 >= 128


def test_one_secret_is_never_sealed_alike_twice() -> None:
    """The salt makes equal secrets differ, and the secret cannot be seen in its seal."""
    first, second = hash_secret("same"), hash_secret("same")
    assert first.salt != second.salt
    assert first.digest != second.digest
    assert b"same" not in first.digest + first.salt


@given(st.text(max_size=200), st.text(max_size=200))
def test_a_seal_opens_with_its_secret_only(secret: str, other: str) -> None:
    """Whatever is typed, also what is no valid Unicode."""
    assert matches(hash_secret(secret), secret)
    assert matches(hash_secret(secret), other) == (secret == other)
    assert not matches(hash_secret(secret), secret + "\ud800")


def test_grace_ends() -> None:
    """The secret before the last is good till its time, and the one before that no longer."""
    first, kept = issue()
    second, kept = rotate(kept, now=1_000_000, grace_s=10)
    third, kept = rotate(kept, now=2_000_000, grace_s=10)
    assert verify(kept, first, 2_000_001) is None
    proof = verify(kept, second, 11_999_999)
    assert proof
    assert proof.until == 12_000_000
    assert verify(kept, second, 12_000_000) is None
    assert verify(kept, third, 99_000_000)


def test_nobody_has_no_secret() -> None:
    """An unknown device, and one without credentials, is refused whatever it says."""
    assert verify(None, "", 0) is None
    assert verify(Credentials(), "", 0) is None
