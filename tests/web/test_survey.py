"""REST behind the pages: survey of components, map, labels, layers, assessment, settings; all cut to the caller."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from sensegate.authority.scope import Role
from sensegate.config import Config, WebConfig, parse
from sensegate.config.map import MapConfig
from sensegate.errors import ConfigError
from sensegate.model import QualityRow
from sensegate.quantities.indicator_sums import MeanIndicators
from sensegate.web.assessment import assess
from sensegate.web.settings import MASK, setting_rows
from tests.web.serving import Gateway, serving

MARK = "=cmd|' /C calc'!A0<script>"
HOUR = 3_600_000_000


@pytest.fixture
async def city(gateway: Gateway) -> Gateway:
    """Return three components of two cities: one complete, one without a place, one elsewhere."""
    await gateway.device(
        "lamp-1", name=MARK, owner="城管局", department="urban", domain="lighting", asset="0101", lon=113.3, lat=23.1
    )
    await gateway.device("lamp-2", domain="lighting", lon=113.31, lat=23.11)
    await gateway.device("pump-1", "440304", domain="water", owner="水务局")
    return gateway


async def test_the_survey_counts_by_class_and_place(city: Gateway) -> None:
    """Each class, division and department is a row with what is missing; another city's components are not counted."""
    _, body, _ = await city.ask("GET", "/api/v1/survey", await city.token(), expect=200)
    rows = {(row["domain"], row["department"]): row for row in body["rows"]}
    assert sum(row["components"] for row in body["rows"]) == 3
    assert rows["lighting", "urban"]["without_owner"] == 0
    assert rows["lighting", ""]["without_owner"] == rows["lighting", ""]["without_asset"] == 1
    assert rows["water", ""]["without_place"] == rows["water", ""]["never_heard"] == 1
    guangzhou = await city.token(Role.CITY_OPERATOR, "4401")
    _, body, _ = await city.ask("GET", "/api/v1/survey", guangzhou, expect=200)
    assert {row["domain"] for row in body["rows"]} == {"lighting"}
    await city.ask("GET", "/api/v1/survey/components?division=4403", guangzhou, expect=403)
    await city.ask("GET", "/api/v1/survey/components?gap=colour", guangzhou, expect=400)


async def test_components_are_paged_filtered_and_exported(city: Gateway) -> None:
    """Lists have a key for the next page; CSV and GeoJSON have the same components, those of the caller's scope."""
    token = await city.token(Role.CITY_OPERATOR, "4401")
    path = "/api/v1/survey/components"
    _, first, _ = await city.ask("GET", f"{path}?limit=1", token, expect=200)
    _, second, _ = await city.ask("GET", f"{path}?limit=1&after={first['next']}", token, expect=200)
    assert [row["id"] for row in first["rows"] + second["rows"]] == ["lamp-1", "lamp-2"]
    assert second["rows"][0]["gaps"] == ["owner", "department", "asset", "name", "never_heard"]
    _, body, _ = await city.ask("GET", f"{path}?gap=asset", token, expect=200)
    assert [row["id"] for row in body["rows"]] == ["lamp-2"]
    _, raw, _ = await city.ask("GET", path, token, expect=200, headers={"Accept": "text/csv"})
    rows = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"))))
    assert [row["id"] for row in rows] == ["lamp-1", "lamp-2"]
    assert rows[0]["name"] == f"'{MARK}"
    assert rows[0]["owner"] == "城管局"
    _, shape, _ = await city.ask("GET", path, token, expect=200, headers={"Accept": "application/geo+json"})
    assert [feature["geometry"]["coordinates"] for feature in shape["features"]] == [[113.3, 23.1], [113.31, 23.11]]


async def test_the_map_gathers_devices_in_cells(city: Gateway) -> None:
    """Near devices are one cell, single ones have their id; an empty rectangle has none; degrees are checked."""
    token, path = await city.token(), "/api/v1/map/devices"
    _, cells, _ = await city.ask("GET", f"{path}?west=109&east=118&south=20&north=26", token, expect=200)
    assert [(cell["devices"], cell["id"]) for cell in cells] == [(2, "")]
    _, cells, _ = await city.ask("GET", f"{path}?west=113.29&east=113.32&south=23.09&north=23.12", token, expect=200)
    assert sorted(cell["id"] for cell in cells) == ["lamp-1", "lamp-2"]
    _, cells, _ = await city.ask("GET", f"{path}?west=0&east=1&south=0&north=1", token, expect=200)
    assert cells == []
    await city.ask("GET", f"{path}?west=nan", token, expect=400)
    shenzhen = await city.token(Role.CITY_OPERATOR, "4403")
    _, cells, _ = await city.ask("GET", path, shenzhen, expect=200)
    assert cells == []


async def test_labels_hold_no_secret_and_are_cut(city: Gateway) -> None:
    """A label has the path of its code; those of another city are not given."""
    token = await city.token(Role.CITY_OPERATOR, "4401")
    _, body, _ = await city.ask("GET", "/api/v1/device-labels?limit=1", token, expect=200)
    (label,) = body["rows"]
    assert (label["id"], body["next"]) == ("lamp-1", "lamp-1")
    assert label["path"].startswith("M2 2h7v1H2z")
    _, body, _ = await city.ask("GET", "/api/v1/device-labels?q=pump", token, expect=200)
    assert body["rows"] == []


async def test_layers_are_the_operators_own(tmp_path: Path) -> None:
    """Tiles and overlay come from the configured files with their approval; no path leads out of the folder."""
    (tmp_path / "tiles" / "7" / "104").mkdir(parents=True)
    (tmp_path / "tiles" / "7" / "104" / "55.png").write_bytes(b"\x89PNG")
    (tmp_path / "secret.png").write_bytes(b"secret")
    overlay = tmp_path / "own.geojson"
    overlay.write_text('{"type":"FeatureCollection","features":[]}')
    layers = MapConfig(
        tiles_directory=str(tmp_path / "tiles"),
        tiles_approval="粤S(2026)001号",
        overlay_file=str(overlay),
        overlay_approval="粤S(2026)002号",
    )
    async with serving(WebConfig(map=layers)) as gateway:
        token = await gateway.token()
        _, body, _ = await gateway.ask("GET", "/api/v1/map", token, expect=200)
        assert (body["has_tiles"], body["overlay_approval"]) == (True, "粤S(2026)002号")
        await gateway.ask("GET", "/api/v1/map/overlay", token, expect=200)
        await gateway.ask("GET", "/api/v1/map/overlay", expect=401)
        _, raw, response = await gateway.ask("GET", "/tiles/7/104/55", expect=200)
        assert (raw, response.content_type) == (b"\x89PNG", "image/png")
        for path in (
            "/tiles/7/104/56",
            "/tiles/7/..%2f../secret",
            "/tiles/%2e%2e/%2e%2e/secret",
            "/tiles/7/104/55.png",
        ):
            await gateway.ask("GET", path, expect=404)


async def test_without_layers_there_are_none(gateway: Gateway) -> None:
    """A gateway without a base map says so, and has no tiles."""
    _, body, _ = await gateway.ask("GET", "/api/v1/map", await gateway.token(), expect=200)
    assert body == {"has_tiles": False, "tiles_approval": "", "has_overlay": False, "overlay_approval": ""}
    await gateway.ask("GET", "/tiles/7/104/55", expect=404)
    await gateway.ask("GET", "/api/v1/map/overlay", await gateway.token(), expect=404)


@pytest.mark.parametrize("layer", ["tiles_directory", "overlay_file"])
def test_a_layer_without_its_approval_is_refused(layer: str) -> None:
    """A drawn map of China is shown with its approval number or not at all."""
    text = f"role: node\ndivision: '4401'\ndirectory: d\nweb: {{map: {{{layer}: x}}}}\n"
    with pytest.raises(ConfigError) as refused:
        parse(text, file="node.yaml")
    assert refused.value.key == f"web.map.{layer.partition('_')[0]}_approval"


async def test_the_assessment_of_a_month(city: Gateway) -> None:
    """Indicators are means over hours of devices, the score their sum; other months and cities are left out."""
    now = city.web.deps.clock.now()
    hour = now // HOUR * HOUR
    city.quality = [
        QualityRow("lamp-1", hour, 60, 1.0, 0.9, 0.8, None),
        QualityRow("lamp-2", hour, 60, 1.0, 0.7, 1.0, None),
        QualityRow("pump-1", hour, 60, 0.0, 0.0, 0.0, 0.0),
        QualityRow("lamp-1", hour - 400 * 24 * HOUR, 60, 0.0, 0.0, 0.0, 0.0),
    ]
    token = await city.token(Role.CITY_OPERATOR, "4401")
    _, body, _ = await city.ask("GET", "/api/v1/assessment?by=domain", token, expect=200)
    (row,) = body["rows"]
    assert (row["name"], row["devices"], row["received"]) == ("lighting", 2, 120)
    assert (row["accuracy"], row["continuity"], row["completeness"]) == (0.8, 0.9, None)
    assert row["score"] == 90.0
    assert body["hours_known"] == 1
    await city.ask("GET", "/api/v1/assessment?month=2026-13", token, expect=400)
    await city.ask("GET", "/api/v1/assessment?by=colour", token, expect=400)


def test_a_score_without_indicators_is_none() -> None:
    """Nothing judged is no score of 0, nor one of 100."""
    assert assess("x", MeanIndicators(1, 1, 0, None, None, None, None)).score is None


def test_settings_show_origin_and_no_secret() -> None:
    """A changed value is of the configuration; users in addresses are masked; no setting is left out."""
    config = Config(role="centre", division="44", directory="d", web=WebConfig(port=8080))
    rows = {row.key: row for row in setting_rows(config)}
    assert (rows["web.port"].value, rows["web.port"].origin) == ("8080", "configuration")
    assert rows["log_level"].origin == "default"
    text = "role: node\ndivision: '4401'\ndirectory: d\nengine: {url: 'nats://u:hush@h:4222', credentials_file: c}\n"
    secret = {row.key: row for row in setting_rows(parse(text, file="n"))}["engine.url"]
    assert "hush" not in secret.value
    assert MASK in secret.value


async def test_settings_are_for_those_who_run_the_gateway(gateway: Gateway) -> None:
    """Operators of a city do not see them."""
    await gateway.ask("GET", "/api/v1/settings", await gateway.token(Role.CITY_OPERATOR, "4401"), expect=403)
