"""`make soak`: 300 seeded kills over at least 200,000 acknowledged readings; exit 1 on any fault.

`python -m tests.ledger.soak [--seed N] [--kills N] [--report FILE]`
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.ledger.kills import KILLED, Campaign, plan

READINGS_LEAST = 200_000


def say(text: str) -> None:
    """Tell what happens."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main() -> int:
    """Run the campaign and print its report."""
    parser = argparse.ArgumentParser(prog="python -m tests.ledger.soak", description=main.__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of the plan; printed")
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--report", type=Path, default=None, help="file for the report")
    given = parser.parse_args()
    least = given.kills * 40 // 300
    kills = plan(given.seed, given.kills, least=least)
    sys.stderr.write(
        f"soak: seed {given.seed}, {given.kills} kills, at least {least} of each of {len(KILLED)} targets\n"
    )
    with tempfile.TemporaryDirectory(prefix="sensegate-soak-") as directory:
        campaign = Campaign(Path(directory), kills, seed=given.seed, say=say)
        report = asyncio.run(campaign.run())
    table = report.table()
    sys.stdout.write(table + "\n")
    if given.report:
        given.report.write_text(table + "\n", encoding="utf-8")
    if report.verdict["readings"] < READINGS_LEAST and given.kills >= 300:
        sys.stdout.write(f"only {report.verdict['readings']:,} readings: raise the load\n")
        return 1
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
