"""Break-glass orders: made on the machine, bounded, recorded before they are valid, refused from anybody else."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from sensegate.authority import break_glass
from sensegate.authority.break_glass import BreakGlass, BreakGlassOrder, give_order
from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.scope import Role, Scope
from sensegate.authority.tokens import Tokens
from sensegate.authority.trail import MemoryTrail
from sensegate.clock import FakeClock
from sensegate.errors import ConfigError, PermissionDenied

HOME = Scope("4401")


@pytest.fixture
def tokens(bucket: MemoryBucket, trail: MemoryTrail, clock: FakeClock) -> Tokens:
    return Tokens(bucket, trail, clock)


@pytest.fixture
def taker(tmp_path: Path, tokens: Tokens, clock: FakeClock) -> BreakGlass:
    return BreakGlass(tmp_path, tokens, clock)


async def test_an_auditor_comes_from_the_machine(
    taker: BreakGlass, tokens: Tokens, trail: MemoryTrail, clock: FakeClock, tmp_path: Path
) -> None:
    """The trail has the token, the user and the reason; the file holds no secret; the token makes an auditor."""
    text, token = give_order(tmp_path, Role.AUDITOR, HOME, by="li", reason="the auditor has left", now=clock.now())
    file = tmp_path / break_glass.FILE
    assert text.split("_", 2)[2] not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    with pytest.raises(PermissionDenied):
        tokens.verify(text)
    assert await taker.take() == msgspec.structs.replace(token, revision=1)
    assert not file.exists()
    assert await taker.take() is None
    by, action, target, _, after = trail.records[0]
    assert (by, action, target) == ("local:li", "token.break_glass", token.id)
    assert after is not None
    assert after["reason"] == "the auditor has left"
    principal = tokens.verify(text)
    await tokens.create(Role.AUDITOR, HOME, by=principal)
    await clock.advance(3_601)
    with pytest.raises(PermissionDenied, match="expired"):
        tokens.verify(text)


@pytest.mark.parametrize(
    ("role", "scope", "more", "fault"),
    [
        (Role.SUBSCRIBER, HOME, {}, "role"),
        (Role.COUNTY_OPERATOR, HOME, {}, "role"),
        (Role.CITY_OPERATOR, Scope("44"), {}, "role"),
        (Role.ADMIN, HOME, {"reason": " "}, "reason"),
        (Role.ADMIN, HOME, {"reason": "a\nb"}, "reason"),
        (Role.ADMIN, HOME, {"lifetime_s": 86_401.0}, "expires"),
        (Role.ADMIN, HOME, {"lifetime_s": -1.0}, "expires"),
    ],
)
def test_what_is_not_ordered(
    *, role: Role, scope: Scope, more: dict[str, object], fault: str, clock: FakeClock, tmp_path: Path
) -> None:
    """Roles that others can make, an empty reason, more than a day."""
    keys: dict[str, object] = {"by": "li", "reason": "r", "now": clock.now(), **more}
    with pytest.raises(ConfigError, match=fault):
        give_order(tmp_path, role, scope, **keys)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


async def test_an_order_of_somebody_else_is_refused(
    taker: BreakGlass, tokens: Tokens, trail: MemoryTrail, clock: FakeClock, tmp_path: Path
) -> None:
    """A file that others could write, an order that was edited, that lies there too long, or is a link: removed."""
    file = tmp_path / break_glass.FILE

    def order(lifetime_s: float = 3_600.0) -> str:
        return give_order(tmp_path, Role.ADMIN, HOME, by="li", reason="r", now=clock.now(), lifetime_s=lifetime_s)[0]

    async def refused(text: str) -> None:
        assert await taker.take() is None
        assert not file.exists()
        with pytest.raises(PermissionDenied):
            tokens.verify(text)

    text = order()
    file.chmod(0o660)
    await refused(text)
    text = order()
    made = msgspec.json.decode(file.read_bytes(), type=BreakGlassOrder)
    endless = msgspec.structs.replace(made, token=msgspec.structs.replace(made.token, expires=2**60))
    file.write_bytes(msgspec.json.encode(endless))
    await refused(text)
    text = order(60.0)
    await clock.advance(61)
    await refused(text)
    text = order()
    file.write_bytes(file.read_bytes()[:-9])
    await refused(text)
    order()
    aside = file.rename(tmp_path / "aside")
    file.symlink_to(aside)
    with pytest.raises(OSError, match="symbolic link"):
        await taker.take()
    file.unlink()
    os.mkfifo(file, 0o600)
    assert await taker.take() is None
    assert not trail.records
    text = order()
    with pytest.raises(ConfigError, match="earlier order"):
        order()
    assert await taker.take() is not None, "negative control"
    assert tokens.verify(text).role is Role.ADMIN
