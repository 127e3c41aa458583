"""The audit trail as evidence, from a running gateway: exported, tampered with, found; one chain whatever is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from sensegate.authority.chain import check_export, decode
from sensegate.authority.heads import public_key, read_heads
from sensegate.cli import app
from sensegate.clock import SystemClock
from sensegate.config.people import AuditConfig
from sensegate.demo.city import City, CityOptions
from sensegate.errors import Unavailable
from sensegate.web.client import ProblemResponse
from tests.conftest import eventually
from tests.live.site import Site, config_of, reading, running

pytestmark = pytest.mark.live


async def shell(site: Site, token: str, *words: str) -> Any:
    """Run `sensegate audit …`."""
    environment = {"SENSEGATE_URL": site.addresses.http, "SENSEGATE_TOKEN": token, "COLUMNS": "200"}
    return await asyncio.to_thread(CliRunner().invoke, app, ["audit", *words], env=environment)


def tampered(lines: list[bytes], how: str) -> list[bytes]:
    """Return the lines of an export with one thing done to them."""
    lines = list(lines)
    at = len(lines) // 2
    match how:
        case "edit":
            lines[at] = lines[at].replace(b'"action":"', b'"action":"un', 1)
        case "deletion":
            del lines[at]
        case "reordering":
            lines[at], lines[at - 1] = lines[at - 1], lines[at]
        case "insertion":
            lines.insert(at, lines[at])
        case "truncation":
            del lines[at:-1]
        case "truncation with its head":
            del lines[at:]
        case "beginning":
            del lines[0]
    return lines


@pytest.mark.asyncio(loop_scope="module")
async def test_evidence_leaves_the_gateway_and_every_tampering_is_found(node: Site, tmp_path: Path) -> None:
    """Devices and tokens change; the auditor exports and notes the head; whatever is then done to the file is named."""
    auditor, _ = await node.token("auditor", "4401")
    await node.device("audited-1")
    for number in range(5):
        _, token = await node.token(name=f"t{number}")
        assert (await node.ask("DELETE", f"/api/v1/tokens/{token}")).status in {200, 204}
    export, heads, key = tmp_path / "a.ndjson", tmp_path / "heads", Path(node.config.directory) / "audit.pub"
    result = await shell(node, auditor, "head")
    assert result.exit_code == 0, result.output
    heads.write_text(result.stdout, encoding="ascii")
    assert (await shell(node, auditor, "export", "--out", str(export))).exit_code == 0
    whole = await shell(node, auditor, "verify", str(export), "--head", str(heads), "--key", str(key))
    assert whole.exit_code == 0, whole.output
    assert "1 head recorded earlier confirmed" in whole.output
    assert (await shell(node, auditor, "verify", "--key", str(key))).exit_code == 0, "that of the running gateway"
    lines = export.read_bytes().splitlines()
    actions = [decode(line).action for line in lines[:-1]]
    assert actions.count("token.revoke") >= 5
    assert "device.add" in actions
    assert actions[-1] == "audit.export", "who looked is recorded too"
    for how in ("edit", "deletion", "reordering", "insertion", "truncation", "truncation with its head", "beginning"):
        broken = tmp_path / "broken"
        broken.write_bytes(b"\n".join(tampered(lines, how)) + b"\n")
        result = await shell(node, auditor, "verify", str(broken), "--head", str(heads), "--key", str(key))
        assert (result.exit_code, "BROKEN" in result.output) == (1, True), (how, result.output)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", ["/api/v1/audit", "/api/v1/audit/head", "/api/v1/audit/export"])
async def test_the_trail_is_the_auditors_alone(node: Site, path: str) -> None:
    """Who rules does not see the record of it; an auditor of a part does not see the whole; nobody can change it."""
    for role, place in (("county_operator", "440106"), ("city_operator", "4401"), ("subscriber", "4401")):
        token, _ = await node.token(role, place)
        assert (await node.ask("GET", path, token)).status == 403, role
    assert (await node.ask("GET", path)).status == 403, "admin"
    county, _ = await node.token("auditor", "440106")
    answer = await node.ask("GET", path, county)
    assert (answer.status, answer.body.get("rows", [])) in [(403, []), (200, [])]
    auditor, _ = await node.token("auditor", "4401")
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert (await node.ask(method, path, auditor)).status == 405


async def test_sm3_by_configuration_goes_on_the_same_chain(tmp_path: Path) -> None:
    """A gateway started again with `audit.hash: sm3` writes on; one export holds both and is whole."""
    config = config_of(tmp_path / "node")
    async with running(config) as site:
        await site.device("first-1")
    async with running(replace(config, audit=AuditConfig(hash="sm3"))) as site:
        await site.device("second-1")
        auditor, _ = await site.token("auditor", "4401")
        answer = await site.ask("GET", "/api/v1/audit/export", auditor)
    lines = answer.body.splitlines()
    assert check_export(lines, key=public_key(tmp_path / "node" / "audit.pub")).fault is None
    assert {decode(line).hash.value for line in lines[:-1]} == {"sha256", "sm3"}
    assert check_export(tampered(lines, "edit")).fault is not None


class TurnedHour(SystemClock):
    """A clock at half past an hour; the sleep to the next one ends when the test turns the hour."""

    def __init__(self) -> None:
        self._ahead = 1_800_000_000 - time.time_ns() // 1_000 % 3_600_000_000
        self.turned = asyncio.Event()

    def now(self) -> int:
        return super().now() + self._ahead

    async def sleep(self, seconds: float) -> None:
        if 1_200 < seconds < 1_801 and not self.turned.is_set():
            await self.turned.wait()
        else:
            await super().sleep(seconds)


async def test_every_hour_deliveries_and_a_signed_head(tmp_path: Path) -> None:
    """What a subscriber took stands as counts on the chain; the head is in the file, and the export proves it."""
    clock = TurnedHour()
    async with running(config_of(tmp_path / "node"), clock=clock) as site:
        device = await site.device("d-1")
        await site.push(device, reading(21.5))
        reader, reader_id = await site.token()
        assert len(await eventually(lambda: site.records(reader))) == 1
        file = tmp_path / "node" / "audit-heads.ndjson"
        assert not file.exists()
        clock.turned.set()
        await eventually(file.exists)
        auditor, _ = await site.token("auditor", "4401")
        lines = (await site.ask("GET", "/api/v1/audit/export", auditor)).body.splitlines()
    key = public_key(tmp_path / "node" / "audit.pub")
    assert check_export(lines, heads=read_heads(file, key=key), key=key).fault is None
    results = [record.after for line in lines[:-1] if (record := decode(line)).action == "delivery.counts"]
    rows: list[Any] = [row for result in results if result for row in result["totals"]]  # type: ignore[attr-defined]
    assert [(row["feed"], row["records"]) for row in rows if row["token"] == reader_id] == [("all", 1)]


WRITER = """
import asyncio, sys
from pathlib import Path
from sensegate.authority.audit import Audit
from sensegate.authority.scope import Principal, Role, scope
from sensegate.bus.connect import Login, connect
from sensegate.bus.server_conf import EngineState
from sensegate.bus.slots import inbox_prefix
from sensegate.clock import SystemClock
import msgspec

async def main():
    kept = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=EngineState)
    login = Login("gateway", kept.passwords["gateway"], inbox_prefix("gateway"))
    nc = await connect(f"nats://127.0.0.1:{kept.port}", login)
    audit = Audit(nc, SystemClock(), gateway="4401")
    by = Principal("other", Role.ADMIN, scope("4401"))
    number = 0
    while True:
        number += 1
        await audit.record(by, "other.write", str(number))
        print(number, flush=True)
        await asyncio.sleep(0.005)  # without a pause it would fill the trail, and starve the starts of the gateway

asyncio.run(main())
"""


@pytest.mark.slow
async def test_one_chain_through_kills_and_two_processes(tmp_path: Path) -> None:
    """The gateway is killed 3 times while devices are added and another process appends; that one is killed too."""
    city = City(tmp_path, ["4401"], options=CityOptions(profiles=Path("device_profiles") / "sensegate", alone=True))
    store = tmp_path / "4401" / "store"
    added: list[str] = []
    try:
        await city.start()
        node = city.nodes["4401"]

        async def add() -> None:
            for number in range(10_000):
                wanted = {"id": f"d{number}", "division": "440106", "profile": "sensegate/plain"}
                with contextlib.suppress(Unavailable, ProblemResponse):
                    async with node.remote() as remote:
                        await remote.post("/api/v1/devices", wanted)
                    added.append(f"d{number}")
                await asyncio.sleep(0.005)

        adding = asyncio.create_task(add())
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, str(store / "engine" / "engine.json"), stdout=asyncio.subprocess.PIPE
        )
        for _ in range(3):
            before = len(added)
            await eventually(lambda before=before: len(added) > before + 10, 30)  # type: ignore[misc]
            os.kill(node.process.pid, signal.SIGKILL)
        await eventually(lambda least=len(added) + 10: len(added) > least, 30)  # type: ignore[misc] # noqa: B008
        other.kill()
        output, _ = await other.communicate()
        adding.cancel()
        await asyncio.gather(adding, return_exceptions=True)
        remote = node.remote()
        remote.token = (store / "auditor.token").read_text().strip()
        async with remote:
            text, _ = await remote.text("/api/v1/audit/export", accept="*/*")
        lines = text.encode().splitlines()
        report = check_export(lines, key=public_key(store / "audit.pub"))
        assert report.fault is None, report
        records = [decode(line) for line in lines[:-1]]
        recorded = [record.target for record in records if record.action == "device.add"]
        assert set(added) <= set(recorded), "what was answered is recorded"
        others = [int(record.target) for record in records if record.action == "other.write"]
        acknowledged = len(output.split())
        assert others == list(range(1, len(others) + 1)), "none twice, none missing"
        assert acknowledged > 10
        assert acknowledged <= len(others) <= acknowledged + 1
    finally:
        await city.stop()
    assert not (store / "audit-heads.ndjson").exists() or read_heads(store / "audit-heads.ndjson")
