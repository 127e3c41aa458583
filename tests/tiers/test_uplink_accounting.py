"""Rules of telling what was carried: the sum of what is told is what the centre confirmed, whatever is lost between."""

from __future__ import annotations

import pytest

from sensegate.bus.ledger import Ledger
from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.errors import Fenced
from sensegate.model import LogMessage
from sensegate.tiers.uplink_accounting import UplinkAccounting


async def ledger_totals(log: MemoryLog) -> dict[str, int]:
    """Return the sum of all that was told."""
    sums = Ledger()
    for entry in await log.fetch(0):
        if entry.subject == "carried.4401":
            sums.merge(Ledger.decode(entry.payload))
    return sums.totals()


async def test_only_the_difference_is_told() -> None:
    """Told twice, counted once; the node's own kinds are not repeated; nothing new writes nothing."""
    log, totals = MemoryLog(), {"forwarded": 5, "withheld.grade": 2, "messages": 9}
    carried = UplinkAccounting("4401", log, lambda: totals, FakeClock(), ttl_h=1)
    await carried.record()
    totals["forwarded"] = 8
    await carried.record()
    end = (await log.bounds())[1]
    await carried.record()
    assert await ledger_totals(log) == {"forwarded": 8, "withheld.grade": 2}
    assert (await log.bounds())[1] == end


async def test_a_successor_goes_on_and_a_dip_is_waited_out() -> None:
    """After a restart the count goes on from what was told; totals that are short for a while take nothing back."""
    log = MemoryLog()
    await UplinkAccounting("4401", log, lambda: {"forwarded": 5}, FakeClock(), ttl_h=1).record()
    totals = {"forwarded": 3}
    for count in (3, 5, 7):
        totals["forwarded"] = count
        await UplinkAccounting("4401", log, lambda: totals, FakeClock(), ttl_h=1).record()
    assert await ledger_totals(log) == {"forwarded": 7}


async def test_a_record_that_cannot_be_read_ends_nothing() -> None:
    """What it recorded is not known: nothing is told twice, and what comes from now on is told."""
    log, totals = MemoryLog(), {"forwarded": 5}
    await UplinkAccounting("4401", log, lambda: totals, FakeClock(), ttl_h=1).record()
    await log.write([LogMessage("commit.4401-carried", b"damaged", rollup=True)])
    carried = UplinkAccounting("4401", log, lambda: totals, FakeClock(), ttl_h=1)
    totals.clear()
    await carried.record()  # the centre has not said anything yet
    totals["forwarded"] = 7
    await carried.record()
    totals["forwarded"] = 9
    await carried.record()
    assert await ledger_totals(log) == {"forwarded": 7}
    totals["forwarded"] = 10
    await UplinkAccounting("4401", log, lambda: totals, FakeClock(), ttl_h=1).record()
    assert await ledger_totals(log) == {"forwarded": 8}


async def test_of_two_only_one_tells() -> None:
    """A replaced process is fenced and reads anew, so that nothing is told twice."""
    log, totals = MemoryLog(), {"forwarded": 1}
    old = UplinkAccounting("4401", log, lambda: totals, FakeClock(), ttl_h=1)
    await old.record()
    totals["forwarded"] = 4
    await UplinkAccounting("4401", log, lambda: totals, FakeClock(), ttl_h=1).record()
    totals["forwarded"] = 6
    with pytest.raises(Fenced):
        await old.record()
    await old.record()
    assert await ledger_totals(log) == {"forwarded": 6}
