"""Bodies of requests for access."""

from __future__ import annotations

import msgspec
import pytest

from sensegate.clock import DAY_US
from sensegate.web.routing import iso
from sensegate.web.share_bodies import STARTS_MAX_US, NewApplication


def test_a_grant_starts_and_ends_in_years_that_can_be_written() -> None:
    """A later start, such as one in nanoseconds, is refused: nobody could list the grant."""
    body = {"purpose": "p", "legal_basis": "l", "starts": STARTS_MAX_US}
    application = msgspec.convert(body, NewApplication)
    assert iso(application.starts + 36_500 * DAY_US)
    with pytest.raises(msgspec.ValidationError, match="starts"):
        msgspec.convert({**body, "starts": 10**18}, NewApplication)
