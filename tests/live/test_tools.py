"""Files for Grafana, Node-RED and Home Assistant: sound in their form, and a gateway answers all that they ask."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import msgspec
import pytest
import pytest_asyncio
from grafana_foundation_sdk.models.dashboard import Dashboard

from sensegate.config.history import HistoryConfig
from tests.conftest import eventually
from tests.live.granting import Granted, granted
from tests.live.pushed import by_mqtt
from tests.live.site import Site, config_of, reading, running

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]
DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "sensegate.json").read_bytes())
FLOWS: list[dict[str, Any]] = json.loads((DEPLOY / "node-red" / "flows.json").read_bytes())
PAGE = (DEPLOY / "tools.md").read_text(encoding="utf-8")
CORE_NODES = frozenset(
    {"tab", "inject", "change", "http request", "split", "debug", "mqtt in", "mqtt out", "mqtt-broker"}
)
"""Nodes that every Node-RED has."""
CHOSEN = {"property": "air_temperature", "division": "440106", "device": "gz-1|gz-2"}
"""What is chosen at the top of the dashboard."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Site, Granted]]:
    """Yield a gateway with two devices, the last hour of them in its history, and a grant of all."""
    config = msgspec.structs.replace(
        config_of(tmp_path_factory.mktemp("tools")), history=HistoryConfig(enabled=True, flush_s=0.2)
    )
    async with running(config) as site:
        grant = await granted(site, "tools")
        for name in ("gz-1", "gz-2"):
            device = await site.device(name)
            times = [datetime.fromtimestamp(time.time() - 60 * minute, UTC).isoformat() for minute in range(30)]
            rows = ",".join(reading(20 + minute / 4, moment) for minute, moment in enumerate(times))
            assert (await site.push(device, f"[{rows}]")).status == 202

        async def is_written() -> bool:
            answer = await site.ask("GET", "/api/v1/feeds/tools/history?from=2h&limit=1000", grant.token)
            return len(answer.body["records"]) == 60

        await eventually(is_written)
        yield site, grant


# ── Grafana ───────────────────────────────────────────────────────────────────────────────────────────


def with_choices(text: str) -> str:
    """Return a query with the variables as Grafana puts them in."""
    for name, value in CHOSEN.items():
        text = text.replace(f"${{{name}:regex}}", value).replace(f"${{{name}}}", value)
    return text


def faults_of(dashboard: dict[str, Any]) -> list[str]:
    """Return what is wrong with a dashboard: names that it does not define, panels that overlap or have equal ids."""
    names = {variable["name"] for variable in dashboard["templating"]["list"]}
    unknown = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard))) - names
    faults = [f"${name} is not defined" for name in sorted(unknown)]
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(set(ids)) < len(ids):
        faults.append("panels have equal ids")
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        own = {
            (column, row)
            for column in range(place["x"], place["x"] + place["w"])
            for row in range(place["y"], place["y"] + place["h"])
        }
        if own & cells or place["x"] + place["w"] > 24:
            faults.append(f"panel {panel['id']} overlaps another, or the edge")
        cells |= own
    return faults


async def test_the_dashboard_is_sound() -> None:
    """As Grafana's own library reads it, and by its variables and places; controls: an unknown name, an overlap."""
    assert len(Dashboard.from_json(DASHBOARD).panels or []) == len(DASHBOARD["panels"])
    assert faults_of(DASHBOARD) == []
    for old, new in (("${division:regex}", "${city:regex}"), ('"x": 12', '"x": 11'), ('"id": 2', '"id": 1')):
        text = (DEPLOY / "grafana" / "sensegate.json").read_text(encoding="utf-8")
        assert faults_of(json.loads(text.replace(old, new))), new


async def test_the_dashboard_is_answered(served: tuple[Site, Granted]) -> None:
    """Each query of its panels and variables, at its range or instant: values; the control: another property, none."""
    site, grant = served
    root = "/api/v1/feeds/tools/prometheus/api/v1"

    async def results(expression: str, *, instant: bool) -> list[Any]:
        now = str(time.time())
        bounds = {"time": now} if instant else {"start": str(float(now) - 7_200), "end": now, "step": "60"}
        path = f"{root}/{'query' if instant else 'query_range'}"
        answer = await site.ask("GET", path, grant.token, params={"query": expression, **bounds})
        assert answer.status == 200, (expression, answer.body)
        rows: list[Any] = answer.body["data"]["result"]
        return rows

    targets = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    assert len(targets) >= 6
    for target in targets:
        expression = with_choices(target["expr"])
        rows = await results(expression, instant=target["instant"])
        assert rows, expression
        legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"])) - {"channel"}
        assert legend <= set(rows[0]["metric"]), (expression, rows[0]["metric"])
        assert not await results(expression.replace("air_temperature", "pm2_5"), instant=target["instant"])
    for variable in DASHBOARD["templating"]["list"][1:]:
        inner = re.fullmatch(r"label_values\((?:(.+), )?(\w+)\)", variable["definition"])
        assert inner, variable["definition"]
        params = {"match[]": with_choices(inner[1])} if inner[1] else {}
        answer = await site.ask("GET", f"{root}/label/{inner[2]}/values", grant.token, params=params)
        assert answer.status == 200, answer.body
        assert {*CHOSEN[variable["name"]].split("|")} <= {*answer.body["data"]}


# ── Node-RED ──────────────────────────────────────────────────────────────────────────────────────────


def flow_faults(flows: list[dict[str, Any]]) -> list[str]:
    """Return what Node-RED would not import, or would run without."""
    ids = [node["id"] for node in flows]
    faults = ["nodes have equal ids"] if len(set(ids)) < len(ids) else []
    for node in flows:
        if node["type"] not in CORE_NODES:
            faults.append(f"{node['id']}: {node['type']} has to be installed")
        wires = [target for output in node.get("wires", []) for target in output]
        references = [
            *wires,
            *(node[name] for name in ("z", "broker") if name in node and node["type"] != "mqtt-broker"),
        ]
        faults += [f"{node['id']}: {reference} is not there" for reference in references if reference not in ids]
        for variable in re.findall(r"SENSEGATE_\w+", json.dumps(node)):
            if f"`{variable}`" not in PAGE:
                faults.append(f"{node['id']}: {variable} is not on the page")
    return faults


def rules_of(name: str) -> dict[str, str]:
    """Return property -> expression of a node that changes messages."""
    (node,) = [node for node in FLOWS if node["id"] == name]
    return {rule["p"]: rule["to"] for rule in node["rules"]}


async def test_the_flows_are_sound() -> None:
    """Nodes that every Node-RED has, wires that lead to a node, variables that the page names; with controls."""
    assert flow_faults(FLOWS) == []
    text = json.dumps(FLOWS)
    for old, new in (
        ('"type": "split"', '"type": "influxdb"'),
        ('[["each"]]', '[["nobody"]]'),
        ("SENSEGATE_TOPIC", "SENSEGATE_PLACE"),
    ):
        assert old in text
        assert flow_faults(json.loads(text.replace(old, new))), new


async def test_the_flows_are_answered(served: tuple[Site, Granted]) -> None:
    """The address by HTTP and the topics by MQTT give records with the fields that the flow takes."""
    site, grant = served
    address = re.fullmatch(r'\$env\("SENSEGATE_URL"\) & "(.+)"', rules_of("address")["url"])
    assert address
    answer = await site.ask("GET", address[1], grant.token)
    (member,) = re.findall(r"^payload\.(\w+)$", rules_of("records")["payload"])
    assert member == rules_of("pushed")["payload"].removeprefix("payload.")
    fields = {field for text in rules_of("reading").values() for field in re.findall(r"payload\.(\w+)", text)}
    assert fields == {"device", "property", "time", "value"}
    assert all(fields <= record.keys() for record in answer.body[member])
    assert len(answer.body[member]) == 2
    (begin,) = [node["payload"] for node in FLOWS if node["id"] == "begin"]
    # `by_mqtt` subscribes to sg/grants/GRANT/# and sends to sg/control/GRANT/mqtt, as the page names them.
    assert "`sg/grants/GRANT/#`, `sg/control/GRANT/mqtt`" in PAGE
    async with by_mqtt(site, grant, begin) as mqtt:
        _, payload = await mqtt.phone.next("message")
        assert all(fields <= record.keys() for record in json.loads(payload)[member])


# ── Home Assistant ────────────────────────────────────────────────────────────────────────────────────


async def test_the_sensors_are_answered(served: tuple[Site, Granted]) -> None:
    """The address of the page, and its templates over the answer, as Home Assistant evaluates them."""
    site, grant = served
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (source,) = msgspec.yaml.decode(block.replace("DEVICE", "gz-1").replace("CENTRE", site.addresses.http))["rest"]
    assert source["resource"].startswith(site.addresses.http)
    answer = await site.ask("GET", source["resource"].removeprefix(site.addresses.http), grant.token)
    (sensor,) = source["sensor"]
    environment = jinja2.Environment(autoescape=True)

    def rendered(template: str, document: Any) -> str:
        return environment.from_string(template).render(value_json=document)

    assert rendered(sensor["value_template"], answer.body) == "20.0"
    assert rendered(sensor["availability"], answer.body) == "True"
    assert rendered(sensor["availability"], {"records": []}) == "False", "the control"
