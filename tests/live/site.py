"""A whole node or centre run by `flow.run` in this process on a directory of its own, and clients to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp
import msgspec
import structlog

from sensegate import flow
from sensegate.bus.addresses import GatewayAddresses
from sensegate.clock import Clock
from sensegate.config import (
    Config,
    IngestConfig,
    ListenConfig,
    MqttConfig,
    NodeUserConfig,
    StoreConfig,
    TimeConfig,
    UplinkConfig,
    WebConfig,
)
from sensegate.config.people import EgressConfig
from tests.live.phone import Phone

PROFILES = Path(__file__).parents[2] / "device_profiles"
PLAIN = PROFILES / "sensegate" / "plain.yaml"
SMALL = StoreConfig(
    intake_bytes=64 * 1024**2,
    log_bytes=256 * 1024**2,
    ledger_bytes=16 * 1024**2,
    registry_bytes=16 * 1024**2,
    audit_bytes=16 * 1024**2,
    disk_reserve_bytes=1024**2,
)
PROBLEM = "application/problem+json"
STOP_S = 12.0


def config_of(
    directory: Path,
    division: str = "4401",
    *,
    store: StoreConfig = SMALL,
    ingest: IngestConfig | None = None,
    web: WebConfig | None = None,
    profiles: tuple[str, ...] = (str(PLAIN),),
    egress: EgressConfig | None = None,
) -> Config:
    """Return the configuration of a node (or the centre, 44) with free ports."""
    role: Literal["node", "centre"] = "centre" if division == "44" else "node"
    return Config(
        role=role,
        division=division,
        directory=str(directory),
        profiles=profiles,
        store=store,
        ingest=ingest or IngestConfig(),
        web=web or WebConfig(),
        time=TimeConfig(),
        egress=egress or EgressConfig(),
        # In a process of its own the front is what test_front.py looks at; here it would cost each start a second.
        listen=ListenConfig(mqtt=MqttConfig(processes=0)),
        log_level="error",
    )


class Answer(msgspec.Struct):
    """What HTTP answered."""

    status: int
    body: Any
    """Decoded JSON, or bytes."""
    headers: dict[str, str]
    media: str


class Made(msgspec.Struct):
    """A registered device."""

    id: str
    password: str
    topics: list[str]


class Site:
    """A running gateway; `admin` is its first token."""

    def __init__(self, config: Config, addresses: GatewayAddresses, http: aiohttp.ClientSession, admin: str) -> None:
        self.config = config
        self.addresses = addresses
        self.admin = admin
        self.session = http
        self.auditor = ("", "")
        """Text and id of the token that reads the audit trail."""
        self.task: asyncio.Task[None]
        self.centre: Site
        """Of a node with one."""

    def config_file(self, name: str) -> Path:
        """Return a file of its directory."""
        return Path(self.config.directory) / name

    # ── clients ───────────────────────────────────────────────────────────────────────────────────────

    def phone(self) -> Phone:
        """Return an MQTT client of this gateway."""
        return Phone(urlsplit(self.addresses.mqtt).port or 0)

    async def ask(self, method: str, path: str, token: str | None = None, **more: Any) -> Answer:
        """Ask by HTTP, as the admin unless a token is given (empty: none); any error must be a problem document."""
        token = self.admin if token is None else token
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **more.pop("headers", {})}
        async with self.session.request(method, self.addresses.http + path, headers=headers, **more) as response:
            raw = await response.read()
            media = response.content_type
            body: Any = json.loads(raw) if raw and media.endswith("json") and "ndjson" not in media else raw
            if response.status >= 400 and path != "/readyz":
                assert media == PROBLEM, (path, raw)
                assert body["status"] == response.status
                assert body["instance"] == response.headers["X-Request-Id"]
                assert "Traceback" not in str(body)
            return Answer(response.status, body, dict(response.headers), media)

    async def device(self, name: str, division: str = "440106", **more: Any) -> Made:
        """Register a device of the plain profile."""
        wanted = {"id": name, "division": division, "profile": "sensegate/plain", **more}
        answer = await self.ask("POST", "/api/v1/devices", json=wanted)
        assert answer.status == 201, answer.body
        return Made(name, answer.body["password"], answer.body["topics"])

    async def token(self, role: str = "subscriber", scope: str = "4401", **more: Any) -> tuple[str, str]:
        """Make a token as the admin, one of an auditor as the first auditor; return (text, id)."""
        maker = self.config_file("auditor.token").read_text().strip() if role == "auditor" else None
        answer = await self.ask("POST", "/api/v1/tokens", maker, json={"role": role, "scope": scope, **more})
        assert answer.status == 201, answer.body
        return answer.body["token"], answer.body["id"]

    async def push(self, device: Made, payload: Any, **more: Any) -> Answer:
        """Push one message by HTTP with the device's own credential."""
        return await self.ask(
            "POST",
            f"/api/v1/ingest/{device.id}",
            "",
            data=payload,
            headers={
                "Content-Type": "application/json",
                "Authorization": aiohttp.encode_basic_auth(device.id, device.password),
                **more.pop("headers", {}),
            },
            **more,
        )

    @contextlib.asynccontextmanager
    async def stream(self, token: str, feed: str = "all", **query: str) -> AsyncIterator[Stream]:
        """Open a feed's stream of events, which must be granted."""
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{self.addresses.http}/api/v1/feeds/{feed}/stream"
        async with self.session.get(url, headers=headers, params=query) as response:
            assert response.status == 200
            yield Stream(response)

    # ── what it says ──────────────────────────────────────────────────────────────────────────────────

    async def records(self, token: str | None = None, **query: Any) -> list[dict[str, Any]]:
        """Return all records of the feed `all` up to now, page by page."""
        records: list[dict[str, Any]] = []
        after = query.pop("after", "")
        while True:
            params = {**query, "limit": "5000", **({"after": after} if after else {})}
            answer = await self.ask("GET", "/api/v1/feeds/all/records", token, params=params)
            assert answer.status == 200, answer.body
            records += answer.body["records"]
            after = answer.body["next"]
            if len(answer.body["records"]) < 5_000:
                return records

    async def quarantine(self, **query: Any) -> list[dict[str, Any]]:
        """Return the quarantined messages."""
        answer = await self.ask("GET", "/api/v1/quarantine", params={"limit": "1000", **query})
        rows: list[dict[str, Any]] = answer.body["rows"]
        return rows

    async def totals(self) -> dict[str, int]:
        """Return the ledger's totals; they must balance."""
        answer = await self.ask("GET", "/api/v1/ledger", params={"since": "1h"})
        assert answer.body.get("balanced"), answer.body
        totals: dict[str, int] = answer.body["totals"]
        return totals

    async def audit(self) -> list[dict[str, Any]]:
        """Return the audit trail."""
        rows: list[dict[str, Any]] = []
        after = 0
        if not self.auditor[0]:
            self.auditor = await self.token("auditor", self.config.division)
        auditor, token_id = self.auditor
        while True:
            query = {"limit": "5000", **({"after": str(after)} if after else {})}
            page = (await self.ask("GET", "/api/v1/audit", auditor, params=query)).body
            rows += [row for row in page["rows"] if row["target"] != token_id]
            if "next" not in page:
                return rows
            after = page["next"]

    async def ready(self) -> tuple[int, list[str]]:
        """Return (status, reasons and warnings) of /readyz."""
        answer = await self.ask("GET", "/readyz", "")
        return answer.status, answer.body["reasons"] + answer.body["warnings"]

    async def metric(self, line: str) -> float:
        """Return the value of a metric; `line` is its name with its labels as exposed."""
        text = (await self.ask("GET", "/metrics")).body.decode()
        return next((float(row.rpartition(" ")[2]) for row in text.splitlines() if row.startswith(f"{line} ")), 0.0)


def reading(value: float | str, time: str = "2026-01-01T00:00:00Z", name: str = "air_temperature") -> str:
    """Return a message of the plain layout; a text stands in it as it is."""
    return f'{{"time": "{time}", "values": {{"{name}": {value}}}}}'


def _waiting() -> str:
    """Return where the tasks of the gateway stand, for the report of a stop that hangs."""
    lines = []
    for task in asyncio.all_tasks():
        places: list[str] = []
        inner: Any = task.get_coro()
        while inner is not None:
            frame = getattr(inner, "cr_frame", None) or getattr(inner, "ag_frame", None)
            places.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}" if frame else repr(inner))
            inner = getattr(inner, "cr_await", None) or getattr(inner, "ag_await", None)
        if not places[0].startswith(("Client.", "Subscription.")):
            lines.append(f"{task.get_name()} (asked to end {task.cancelling()} times): {' > '.join(places)}")
    return "\n".join(lines)


@contextlib.asynccontextmanager
async def running(config: Config, *, timeout_s: float = 30.0, clock: Clock | None = None) -> AsyncIterator[Site]:
    """Run a gateway; stopped in order at the end, whatever was left open by the test."""
    logging = structlog.get_config()
    up: asyncio.Future[GatewayAddresses] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(flow.run(config, ready=up.set_result, clock=clock), name=f"gateway {config.division}")
    try:
        either: set[asyncio.Future[Any]] = {up, task}
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        assert up.done(), f"not up after {timeout_s:g} s"
        admin = (Path(config.directory) / "admin.token").read_text().strip()
        async with aiohttp.ClientSession() as http:
            site = Site(config, up.result(), http, admin)
            site.task = task
            yield site
            if task.done() and not task.cancelled():
                await task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=STOP_S)
        structlog.configure(**logging)
        assert task.done(), f"not stopped after {STOP_S:g} s; waiting:\n{_waiting()}"


@contextlib.asynccontextmanager
async def tiers(directory: Path, division: str = "4401") -> AsyncIterator[tuple[Site, Site]]:
    """Run a node and its centre; yield (node, centre)."""
    secret = directory / "secret"
    secret.write_text(f"secret-of-{division}", encoding="utf-8")
    above = msgspec.structs.replace(
        config_of(directory / "centre", "44"), nodes=(NodeUserConfig(division=division, secret_file=str(secret)),)
    )
    async with running(above) as centre:
        uplink = UplinkConfig(url=centre.addresses.nats, secret_file=str(secret), span_ms=50)
        async with running(msgspec.structs.replace(config_of(directory / "node", division), uplink=uplink)) as node:
            yield node, centre


class Stream:
    """An open stream of server-sent events."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self, timeout_s: float = 60.0) -> dict[str, str] | None:
        """Return the next event that holds anything but `retry` or a comment, None at the end of the stream."""
        event: dict[str, str] = {}
        async with asyncio.timeout(timeout_s):
            while line := await self.response.content.readline():
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key and key not in {"retry", ""}:
                    event[key] = value
                elif not key and event:
                    return event
        return None

    async def record(self, timeout_s: float = 60.0) -> dict[str, Any]:
        """Return the next record."""
        event = await self.next(timeout_s)
        assert event is not None
        assert "event" not in event, event
        document: dict[str, Any] = json.loads(event["data"])
        return document
