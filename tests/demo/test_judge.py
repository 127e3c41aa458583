from __future__ import annotations

import ast
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sensegate.demo import judge as judge_module
from sensegate.demo.judge import VERDICTS, FeedJudge, FeedTap, main, to_us

T0 = 1_767_225_600_000_000


def stamp(time_us: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def intent(n: int, *, kind: str = "plain", values: str = "", of: str = "-", at: int | None = None) -> str:
    when = T0 + n * 1_000_000 if at is None else at
    return f"I r{n} {when + 10} {kind} 4401 dev {when} {of} {values or f'air_temperature={n}.5;pm2_5={n}'}"


def record(n: int, name: str = "air_temperature", value: object = None, **changes: object) -> dict[str, Any]:
    base = {
        "id": f"4401-0-{n}-{name}",
        "cursor": f"c{n}{name}",
        "device": "dev",
        "property": name,
        "value": value if value is not None else (n + 0.5 if name == "air_temperature" else n),
        "time": stamp(T0 + n * 1_000_000),
        "flags": [],
    }
    return base | changes


def seated(lines: list[str], records: list[dict[str, Any]], *, node: str = "") -> tuple[FeedJudge, dict[str, Any]]:
    tap = FeedTap("centre", "", "all", "", node)
    judge = FeedJudge([tap])
    judge.read_line("D dev")
    for line in lines:
        judge.read_line(line)
    for record in records:
        judge.read_record(tap, record, T0 + 20_000_000)
    return judge, judge.verdict()


def both(n: int) -> list[dict[str, Any]]:
    return [record(n), record(n, "pm2_5")]


GOOD_LINES = [intent(1), intent(2), intent(3), "A r1 1", "A r2 1", "A r3 1"]
GOOD_RECORDS = [*both(1), *both(2), *both(3)]


def counts(verdict: dict[str, Any]) -> dict[str, int]:
    return {name: count for name, count in verdict["taps"]["centre"].items() if name in VERDICTS and count}


def test_it_imports_nothing_of_the_gateway() -> None:
    """The judge knows the standard library and aiohttp, nothing else."""
    tree = ast.parse(Path(judge_module.__file__).read_text(encoding="utf-8"))
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            roots.add(str(node.module).split(".")[0])
    assert roots <= {"aiohttp", *sys.stdlib_module_names}


def test_a_clean_run_has_no_verdict() -> None:
    """All acknowledged readings seen once: nothing is wrong."""
    judge, verdict = seated(GOOD_LINES, GOOD_RECORDS)
    assert counts(verdict) == {}
    assert not verdict["failed"]
    assert judge.complete()
    assert verdict["published"] == verdict["acknowledged"] == 3
    assert verdict["readings"] == 6


@pytest.mark.parametrize(
    ("altered", "expected"),
    [
        (GOOD_RECORDS[1:], {"lost": 1}),
        ([*GOOD_RECORDS, GOOD_RECORDS[0]], {"doubled": 1}),
        ([*GOOD_RECORDS, record(3, id="other", cursor="other")], {"doubled": 1}),
        ([*both(2), *both(1), *both(3)], {"disordered": 2}),
        ([*GOOD_RECORDS, record(9, flags=["late"])], {"phantom": 1}),
        ([record(1, value=99.0), *GOOD_RECORDS[1:]], {"corrupt": 1, "lost": 1}),
    ],
    ids=["removed", "repeated", "under another id", "swapped", "made up", "altered"],
)
def test_an_altered_record_is_named(altered: list[dict[str, Any]], expected: dict[str, int]) -> None:
    """Negative controls of faults.md 5.1: the judge names exactly what was done to the records."""
    _, verdict = seated(GOOD_LINES, altered)
    assert counts(verdict) == expected
    assert verdict["failed"]


def test_a_mark_excuses_disorder() -> None:
    """A reading that comes late and says so is in order."""
    late = [{**item, "flags": ["backlog"]} for item in both(1)]
    _, verdict = seated(GOOD_LINES, [*both(2), *late, *both(3)])
    assert counts(verdict) == {}


def test_each_channel_has_an_order_of_its_own() -> None:
    """Lanes of one camera may come one after another; within a lane what is older comes first."""
    lines = [intent(n, values=f"vehicle_speed#lane1={n};vehicle_speed#lane2={n}") for n in (1, 2)]

    def lane(number: int, *places: int) -> list[dict[str, Any]]:
        named = {"channel": f"lane{number}"}
        return [record(n, "vehicle_speed", n, id=f"{number}-{n}", cursor=f"{number}-{n}", **named) for n in places]

    _, verdict = seated(lines, [*lane(1, 1, 2), *lane(2, 1, 2)])
    assert counts(verdict) == {}
    _, verdict = seated(lines, [*lane(1, 1, 2), *lane(2, 2, 1)])
    assert counts(verdict) == {"disordered": 1}


def test_without_acknowledgement_nothing_is_lost() -> None:
    """What was not acknowledged may or may not appear; it is counted, not judged."""
    _, verdict = seated([intent(1), intent(2), "A r2 1"], both(2))
    assert counts(verdict) == {}
    _, verdict = seated([intent(1), intent(2), "A r2 1"], [*both(1), *both(2)])
    assert counts(verdict) == {}
    assert verdict["unacknowledged_appeared"] == 1


def test_a_repeat_is_one_reading() -> None:
    """A message that repeats another adds no reading, and its acknowledgement demands the one there is."""
    lines = [intent(1), intent(2, kind="repeat", of="r1", values="air_temperature=1.5;pm2_5=1", at=T0 + 1_000_000)]
    _, verdict = seated([*lines, "A r2 1"], [])
    assert counts(verdict) == {"lost": 2}
    _, verdict = seated([*lines, "A r1 1", "A r2 1"], both(1))
    assert counts(verdict) == {}
    assert verdict["injected_values"] == {"plain": 2, "repeat": 2}


def test_a_conflict_is_two_readings_and_marked() -> None:
    """Another value under the same identity must arrive too, with its flag."""
    lines = [*GOOD_LINES, intent(4, kind="conflict", values="air_temperature=7.5", at=T0 + 1_000_000), "A r4 1"]
    other = record(1, value=7.5, id="x", cursor="x", flags=["conflict"])
    assert counts(seated(lines, [*GOOD_RECORDS, other])[1]) == {}
    assert counts(seated(lines, GOOD_RECORDS)[1]) == {"lost": 1}
    unmarked = counts(seated(lines, [*both(1), {**other, "flags": []}, *both(2), *both(3)])[1])
    assert unmarked == {"unmarked": 1}


def test_a_forbidden_reading_is_leaked() -> None:
    """What was published in another's name must appear nowhere."""
    lines = [intent(1, kind="refused", values="air_temperature!1.5"), "A r1 1"]
    assert counts(seated(lines, [])[1]) == {}
    assert counts(seated(lines, [record(1)])[1]) == {"leaked": 1}


def test_another_nodes_reading_is_leaked() -> None:
    """A tap on one node sees that node alone."""
    assert counts(seated(GOOD_LINES, both(1), node="4403")[1]) == {"leaked": 2}


def test_readings_by_hand_are_not_judged() -> None:
    """What a person publishes by hand on a device of their own is no phantom."""
    judge, verdict = seated(GOOD_LINES, [*GOOD_RECORDS, record(1, device="by-hand")])
    assert not verdict["failed"]
    assert judge.by_hand == 1


def test_a_reading_by_hand_must_not_come_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings sent by hand are counted, one with a known id as doubled. The number of known ids is limited."""
    manual = record(1, device="by-hand", id="h1")
    judge, verdict = seated(GOOD_LINES, [*GOOD_RECORDS, manual, record(1, "pm2_5", device="by-hand", id="h2")])
    assert (verdict["by_hand"], judge.status()["by_hand"], verdict["failed"]) == (2, 2, False)
    _, verdict = seated(GOOD_LINES, [*GOOD_RECORDS, manual, manual])
    assert counts(verdict) == {"doubled": 1}
    assert "by-hand air_temperature" in verdict["taps"]["centre"]["samples"][0]
    monkeypatch.setattr(judge_module, "MANUAL_MAX", 1)
    judge, _ = seated([], [record(n, device="by-hand") for n in range(5)])
    assert len(judge.taps[0].manual) == 1


def test_what_is_done_with_is_forgotten_and_still_not_seen_twice() -> None:
    """Memory stays bounded over days; a reading that comes again after that is a phantom."""
    judge, _ = seated(GOOD_LINES, GOOD_RECORDS)
    judge.forget(T0 + 10_000_000_000)
    assert judge.forgotten == 3
    assert not judge.messages
    judge.read_record(judge.taps[0], record(1, flags=["late"]), T0)
    assert counts(judge.verdict()) == {"phantom": 1}


def test_times_are_read_to_the_microsecond() -> None:
    """With and without a fraction."""
    assert to_us("2026-01-01T00:00:00.000001Z") == T0 + 1
    assert to_us("2026-01-01T00:00:00Z") == T0
    assert to_us("2026-01-01T00:00:00.5Z") == T0 + 500_000


@pytest.fixture
async def feed() -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A feed over HTTP that serves a list two records at a time."""
    records: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer secret":
            return web.json_response({}, status=401)
        after = int(request.query.get("after", "0"))
        page = records[after : after + 2]
        if not page:
            import asyncio

            await asyncio.sleep(0.05)
        return web.json_response({"records": page, "next": str(after + len(page))})

    app = web.Application()
    app.router.add_get("/api/v1/feeds/all/records", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    yield f"http://127.0.0.1:{port}", records
    await runner.cleanup()


@pytest.mark.parametrize(("drop", "code"), [(0, 0), (1, 1)])
async def test_the_command(tmp_path: Path, feed: tuple[str, list[dict[str, Any]]], drop: int, code: int) -> None:
    """`python -m sensegate.demo.judge` reads files and feed, writes the verdict, exits 1 when guilty."""
    import asyncio

    url, records = feed
    records += GOOD_RECORDS[drop:]
    (tmp_path / "a.ledger").write_text("\n".join(["D dev", *GOOD_LINES, "E 1"]) + "\n")
    token = tmp_path / "token"
    token.write_text("secret\n")
    verdict = tmp_path / "verdict.json"
    arguments = ["--ledger", str(tmp_path), "--tap", f"centre={url},all,{token}", "--verdict", str(verdict)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sensegate.demo.judge",
        *arguments,
        "--settle-s=0.1",
        "--deadline-s=1",
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == code
    assert json.loads(out.splitlines()[-1])["taps"]["centre"]["matched"] == 6 - drop
    assert json.loads(verdict.read_text())["taps"]["centre"]["lost"] == drop


async def test_a_refusing_feed_is_no_verdict(
    tmp_path: Path, feed: tuple[str, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A feed that answers 401 ends the judge with 2: nothing was judged."""
    import asyncio

    (tmp_path / "token").write_text("wrong")
    arguments = ["--ledger", str(tmp_path), "--tap", f"centre={feed[0]},all,{tmp_path / 'token'}"]
    code = await asyncio.to_thread(main, [*arguments, "--verdict", str(tmp_path / "v")])
    assert code == 2
    assert "401" in capsys.readouterr().err
