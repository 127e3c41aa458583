"""The client at a running gateway: the blocks of its README as they stand, and its wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sensegate.config.history import HistoryConfig
from sensegate_client import Client, NotAuthenticated, NotFoundError
from tests.conftest import eventually
from tests.live.blocks import output
from tests.live.granting import granted
from tests.live.site import config_of, reading, running

pytestmark = pytest.mark.live
FOLDER = Path(__file__).parents[2] / "src" / "sensegate_client"
BLOCKS = re.findall(r"^```python\n(.*?)^```", (FOLDER / "README.md").read_text(), re.MULTILINE | re.DOTALL)


async def test_the_readme_and_all_calls(tmp_path: Path) -> None:
    """Each block prints the readings; every kind of read has the same ones, and errors have their classes."""
    config = replace(config_of(tmp_path / "node"), history=HistoryConfig(enabled=True, flush_s=0.2))
    async with running(config) as site:
        grant = await granted(site, "page")
        device = await site.device("page-1")
        begin = time.time() // 3_600 * 3_600 - 3_600
        for number in range(3):
            stamp = datetime.fromtimestamp(begin + 60 * number, UTC).isoformat()
            assert (await site.push(device, reading(21.125 + number, stamp))).status == 202

        async def stored() -> Any:
            answer = await site.ask("GET", "/api/v1/feeds/page/history?from=30d", grant.token)
            return len(answer.body["records"]) == 3

        await eventually(stored)
        environment = {"HTTP": site.addresses.http, "TOKEN": grant.token, "FEED": "page"}
        (tmp_path / "work").mkdir()
        start = f"import os\nos.chdir({str(tmp_path / 'work')!r})\n"
        printed = [await output("python", start + block, environment) for block in BLOCKS]
        assert [("page-1" in text, "23.125" in text) for text in printed] == [(True, True)] * 4, printed
        assert "'mean': 22.125" in printed[3]
        # Both files of the blocks hold a cursor: nothing comes again.
        repeated = [await output("python", start + block, environment) for block in BLOCKS[:2]]
        assert repeated[0] == ""
        assert repeated[1] == printed[1]
        async with Client(site.addresses.http, grant.token) as client:
            feed = client.feed("page", begin="30d")
            assert "page" in [description.name for description in await client.feeds()]
            values = [21.125, 22.125, 23.125]
            columns = [page async for page in feed.columns(follow=False, rows=2)]
            assert [record.value for page in columns for record in page.records()] == values
            records = [record async for record in feed.records(follow=False)]
            assert [record.value for record in records] == values
            rest = [record.value async for record in feed.records(after=records[0].cursor, follow=False)]
            assert rest == values[1:]
            history = [page async for page in feed.history(descending=True, rows=2)]
            assert [record.value for page in history for record in page.records()] == values[::-1]
            assert [record.value for record in await feed.samples(10)] == values
            with pytest.raises(NotFoundError):
                await anext(client.feed("absent").columns())
        async with Client(site.addresses.http, "wrong") as client:
            with pytest.raises(NotAuthenticated):
                await anext(client.feed("page").columns())


def test_the_wheel_holds_the_client_alone(tmp_path: Path) -> None:
    """Its files, no other package, three dependencies; it is imported without anything of the gateway."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=FOLDER, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = tmp_path.glob("sensegate_client-*.whl")
    archive = zipfile.ZipFile(wheel)
    modules = {f"sensegate_client/{path.name}" for path in [*FOLDER.glob("*.py"), FOLDER / "py.typed"]}
    assert {name for name in archive.namelist() if ".dist-info" not in name} == modules
    (metadata,) = [name for name in archive.namelist() if name.endswith("METADATA")]
    needed = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", archive.read(metadata).decode(), re.MULTILINE)
    assert needed == ["aiohttp", "msgspec", "zstandard"]
    script = (
        f"import sys; sys.path.insert(0, {str(wheel)!r}); import sensegate_client; print(sensegate_client.__file__); "
        "print(*{name.partition('.')[0] for name in sys.modules} & {'sensegate', 'numpy', 'pandas', 'pyarrow'})"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path, env={**os.environ}
    )
    assert ran.stdout.splitlines() == [f"{wheel}/sensegate_client/__init__.py", ""]
