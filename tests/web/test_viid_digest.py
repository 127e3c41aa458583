"""HTTP Digest: the vectors of RFC 7616, what clients get wrong, nonces, sessions, lock-outs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.config.viid import ViidConfig
from sensegate.errors import ConfigError, Overloaded
from sensegate.model import Device
from sensegate.viid.digest_auth import DigestError, DigestVerifier, parse_header, same_path
from sensegate.viid.password_digests import MD5, SHA256, PasswordDigests, digest
from sensegate.viid.sessions import LoginLockouts, ViidSession, ViidSessions

USER, PASSWORD, PATH = "33010101001210000001", "a password", "/VIID/System/Register"


def answer(challenge: str, *, user: str = USER, password: str = PASSWORD, uri: str = PATH, **more: str) -> str:
    """Return the header that a client makes of a challenge."""
    parameters = dict(part.strip().split("=", 1) for part in challenge.removeprefix("Digest ").split(","))
    parameters = {name: value.strip('"') for name, value in parameters.items()}
    algorithm = parameters.get("algorithm", MD5)
    given = {"nc": "00000001", "cnonce": "abc", "qop": "auth", "nonce": parameters["nonce"], **more}
    secret = digest(algorithm, f"{user}:viid:{password}")
    middle = f"{given['nc']}:{given['cnonce']}:{given['qop']}:" if given["qop"] else ""
    response = digest(algorithm, f"{secret}:{given['nonce']}:{middle}{digest(algorithm, f'POST:{uri}')}")
    text = f'Digest username="{user}", realm="viid", nonce="{given["nonce"]}", uri="{uri}", response="{response}"'
    if given["qop"]:
        text += f', qop={given["qop"]}, nc={given["nc"]}, cnonce="{given["cnonce"]}"'
    return text if algorithm == MD5 else f"{text}, algorithm={algorithm}"


def known(user: str, algorithm: str) -> list[str]:
    return [digest(algorithm, f"{user}:viid:{PASSWORD}")] if user == USER else ["nobody"]


@pytest.fixture
def verifier() -> DigestVerifier:
    return DigestVerifier("viid", nonce_lifetime_s=60)


def test_vectors_of_rfc_7616() -> None:
    """3.9.1, MD5 and SHA-256."""
    nonce, cnonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    for algorithm, wanted in (
        (MD5, "8ca523f5e9506fed4657c9700eebdbec"),
        (SHA256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ):
        secret = digest(algorithm, "Mufasa:http-auth@example.org:Circle of Life")
        result = digest(algorithm, "GET:/dir/index.html")
        assert digest(algorithm, f"{secret}:{nonce}:00000001:{cnonce}:auth:{result}") == wanted


def test_both_algorithms_pass(verifier: DigestVerifier) -> None:
    lines = verifier.challenges([MD5, SHA256], 0)
    assert lines[0].startswith('Digest realm="viid", qop="auth", nonce="')
    assert "algorithm" not in lines[0]
    assert verifier.verify(answer(lines[0]), "POST", PATH, known, 1) == USER
    assert verifier.verify(answer(lines[1], nc="00000002"), "POST", PATH, known, 1) == USER


def test_a_compact_challenge_has_no_blanks_behind_commas(verifier: DigestVerifier) -> None:
    [line] = verifier.challenges([MD5], 0, compact=True)
    assert ", " not in line


def test_a_replay_is_refused(verifier: DigestVerifier) -> None:
    [line] = verifier.challenges([MD5], 0)
    header = answer(line)
    verifier.verify(header, "POST", PATH, known, 1)
    with pytest.raises(DigestError, match="replay") as why:
        verifier.verify(header, "POST", PATH, known, 1)
    assert not why.value.stale
    assert not why.value.wrong


def test_a_flood_of_challenges_pushes_no_nonce_out(verifier: DigestVerifier) -> None:
    """Control beside it: what is remembered of nonces that were used goes with their age."""
    [line] = verifier.challenges([MD5], 0)
    verifier.verify(answer(line), "POST", PATH, known, 1)
    for _ in range(3_000):
        verifier.challenges([MD5], 2)
    with pytest.raises(DigestError, match="replay"):
        verifier.verify(answer(line), "POST", PATH, known, 3)
    verifier.verify(answer(line, nc="00000002"), "POST", PATH, known, 3)
    [later] = verifier.challenges([MD5], 70)
    verifier.verify(answer(later), "POST", PATH, known, 70)
    assert len(verifier._used) == 1
    with pytest.raises(DigestError) as why:
        verifier.verify(answer(line), "POST", PATH, known, 71)
    assert why.value.stale


def test_a_nonce_ages(verifier: DigestVerifier) -> None:
    [line] = verifier.challenges([MD5], 0)
    with pytest.raises(DigestError) as why:
        verifier.verify(answer(line), "POST", PATH, known, 61)
    assert why.value.stale


def test_a_nonce_that_is_not_ours_is_stale_for_the_right_and_wrong_for_the_other(verifier: DigestVerifier) -> None:
    [line] = verifier.challenges([MD5], 0)
    with pytest.raises(DigestError) as why:
        verifier.verify(answer(line, nonce="00"), "POST", PATH, known, 1)
    assert why.value.stale
    with pytest.raises(DigestError) as why:
        verifier.verify(answer(line, nonce="00", password="other"), "POST", PATH, known, 1)
    assert why.value.wrong
    assert not why.value.stale


@pytest.mark.parametrize("more", [{"password": "wrong"}, {"user": "33010101001210000002"}])
def test_a_wrong_secret_is_refused_and_told_as_such(verifier: DigestVerifier, more: dict[str, str]) -> None:
    [line] = verifier.challenges([MD5], 0)
    with pytest.raises(DigestError) as why:
        verifier.verify(answer(line, **more), "POST", PATH, known, 1)
    assert why.value.wrong
    verifier.verify(answer(line), "POST", PATH, known, 1)  # the nonce is not used up by it


def test_without_qop_a_nonce_serves_once(verifier: DigestVerifier) -> None:
    [line] = verifier.challenges([MD5], 0)
    verifier.verify(answer(line, qop=""), "POST", PATH, known, 1)
    for more in ({"qop": ""}, {"nc": "00000002"}):
        with pytest.raises(DigestError):
            verifier.verify(answer(line, **more), "POST", PATH, known, 1)


@pytest.mark.parametrize(
    ("uri", "path", "same"),
    [
        (PATH, PATH, True),
        (f"http://host:8080{PATH}", PATH, True),
        (PATH, f"{PATH}?a=1", True),
        (f"{PATH}?a=1", f"{PATH}?a=2", False),
        ("/VIID/System/Keepalive", PATH, False),
        ("http://[", PATH, False),
    ],
)
def test_uris(uri: str, path: str, *, same: bool) -> None:
    assert same_path(uri, path) is same


def test_an_absolute_uri_is_hashed_as_sent(verifier: DigestVerifier) -> None:
    [line] = verifier.challenges([MD5], 0)
    header = answer(line, uri=f"http://host:1{PATH}")
    assert verifier.verify(header, "POST", PATH, known, 1) == USER
    with pytest.raises(DigestError, match="uri"):
        verifier.verify(answer(line, uri="/other", nc="00000002"), "POST", PATH, known, 1)


def test_quotes_where_there_should_be_none_and_the_other_way_round() -> None:
    given = parse_header(
        'Digest username="u", opaque="abc, realm=viid, qop="auth",nc="00000001", nonce=n, uri="/a,b", response="r"'
    )
    assert given is not None
    assert (given.user, given.realm, given.qop, given.nc, given.nonce, given.uri) == (
        "u",
        "viid",
        "auth",
        "00000001",
        "n",
        "/a,b",
    )
    last = parse_header('Digest username="u", response="r", opaque="abc')
    assert last is not None
    assert last.response == "r"


@given(st.text(max_size=200))
def test_property_any_header_is_refused(text: str) -> None:
    verifier = DigestVerifier("viid", nonce_lifetime_s=60)
    for header in (text, f"Digest {text}", f'Digest username="{USER}", nonce="n", uri="{PATH}", response="{text}"'):
        with pytest.raises(DigestError):
            verifier.verify(header, "POST", PATH, known, 1)


# ── what is kept of passwords ────────────────────────────────────────────────────────────────────────


def test_digests_are_sealed_to_their_device_and_key(tmp_path: Path) -> None:
    device, other = (Device(code, "4401", "sensegate/viid") for code in (USER, "33010101001210000002"))
    seals = PasswordDigests(tmp_path / "viid.key", "viid")
    sealed = seals.seal(device, PASSWORD)
    wanted = digest(MD5, f"{USER}:viid:{PASSWORD}")
    assert PASSWORD.encode() not in sealed
    assert wanted.encode() not in sealed
    assert seals.open(sealed, device.id, USER, MD5) == wanted
    assert seals.open(sealed, device.id, USER, SHA256) == digest(SHA256, f"{USER}:viid:{PASSWORD}")
    assert seals.open(sealed, other.id, USER, MD5) == seals.nobody(USER)
    assert seals.open(sealed, device.id, other.id, MD5) == seals.nobody(other.id)
    assert seals.open(sealed[:-1], device.id, USER, MD5) == seals.nobody(USER)
    reopened = PasswordDigests(tmp_path / "viid.key", "viid")
    assert reopened.open(sealed, device.id, USER, MD5) == wanted
    assert PasswordDigests(tmp_path / "other.key", "viid").open(sealed, device.id, USER, MD5) != wanted
    assert PasswordDigests(tmp_path / "viid.key", "another").open(sealed, device.id, USER, MD5) != wanted
    assert not seals.seal(Device("th10", "4401", "acme/th10"), PASSWORD)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "viid.key"
    PasswordDigests(file, "viid")
    assert file.stat().st_mode & 0o077 == 0
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        PasswordDigests(file, "viid")


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_session_holds_for_its_address_and_time() -> None:
    sessions = ViidSessions(ViidConfig(session_timeout_s=10))
    sessions.open(ViidSession("a", "10.0.0.1", seen=0))
    assert sessions.find("a", "10.0.0.1", "", 9) is not None
    assert sessions.find("a", "10.0.0.2", "", 9) is None
    assert sessions.find("b", "10.0.0.1", "", 9) is None
    assert sessions.find("a", "10.0.0.1", "", 11) is None
    assert [session.device for session in sessions.lapsed(11)] == ["a"]
    assert not sessions.lapsed(11)
    sessions.open(ViidSession("a", "10.0.0.1", "cert", seen=0))
    assert sessions.find("a", "10.0.0.1", "", 1) is None
    assert sessions.find("a", "10.0.0.9", "cert", 1) is not None
    assert ViidSessions(ViidConfig(session_binding="none")).find("a", "x", "", 0) is None


def test_too_many_requests_of_a_session_are_told_to_wait() -> None:
    sessions = ViidSessions(ViidConfig(requests_per_s=1))
    session = ViidSession("a", "x", began=0.0)
    for _ in range(10):
        sessions.renew(session, 1, 1)
    with pytest.raises(Overloaded):
        sessions.renew(session, 1, 1)
    sessions.renew(session, 12, 1)


def test_a_lock_out_is_of_one_device_at_one_address_and_ends() -> None:
    lockouts = LoginLockouts(ViidConfig(auth_failures_max=2, lockout_s=30))
    for _ in range(2):
        lockouts.failed("a", "x", 0)
    assert lockouts.left_s("a", "x", 1) == 29
    assert lockouts.left_s("a", "y", 1) == 0
    assert lockouts.left_s("b", "x", 1) == 0
    assert lockouts.left_s("a", "x", 31) == 0
    lockouts.passed("a", "x")
    lockouts.failed("a", "x", 32)
    assert lockouts.left_s("a", "x", 33) == 0
