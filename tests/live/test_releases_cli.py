"""The life of a profile from the command line, against a running node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from sensegate.cli import app
from sensegate.errors import SensegateError
from tests.live.releasing import version
from tests.live.site import PLAIN, Site, config_of, running
from tests.support.thermometer import THERMOMETER, write

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]


class Shell:
    """The command line as an operator of the city uses it."""

    def __init__(self, site: Site, folder: Path, token: str) -> None:
        self.site = site
        self.folder = folder
        self.token = token

    async def run(self, *words: str) -> Any:
        """Run `sensegate profile …`."""
        environment = {"SENSEGATE_URL": self.site.addresses.http, "SENSEGATE_TOKEN": self.token, "COLUMNS": "200"}
        return await asyncio.to_thread(CliRunner().invoke, app, ["profile", *words], env=environment)

    async def good(self, *words: str) -> str:
        """Run it; return what it printed."""
        result = await self.run(*words)
        assert result.exit_code == 0, (result.output, result.exception)
        return str(result.output)

    async def json(self, *words: str, code: int = 0) -> Any:
        """Run it for a program."""
        result = await self.run(*words, "--json")
        assert result.exit_code == code, (result.output, result.exception)
        return json.loads(result.stdout)

    def file(self, number: int, **more: Any) -> str:
        """Write a version; return its file."""
        return str(write(self.folder / "new", version(number, **more)))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shell(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shell]:
    """A node with a device that has spoken, and a city's operator."""
    folder = tmp_path_factory.mktemp("profiles")
    (folder / "new").mkdir()
    write(folder, THERMOMETER)
    config = config_of(tmp_path_factory.mktemp("node"), profiles=(str(folder / "acme"), str(PLAIN)))
    async with running(config) as site:
        token, _ = await site.token("city_operator", "4401")
        device = await site.device("shell-1", profile="acme/th")
        for value in (200, 210):
            assert (await site.push(device, f'{{"t": {value}}}')).status == 202
        yield Shell(site, folder, token)


async def test_from_a_file_to_a_release_and_back(shell: Shell) -> None:
    """diff, propose, canary, release, versions, show, rollback, redecode: each says what it did."""
    result = await shell.run("diff", "acme/th", shell.file(2, scale=1.0))
    assert result.exit_code == 1, "there are differences"
    assert "air_temperature" in result.output
    assert "\t10.0\t" in result.output
    report = await shell.json("diff", "acme/th", shell.file(2, scale=1.0), "--since", "1h", code=1)
    assert [(row["device"], row["count"], row["factor"]) for row in report["differences"]] == [("shell-1", 2, 10.0)]
    assert "acme/th@2 is draft" in await shell.good("propose", "--draft", shell.file(2, scale=1.0))
    assert "acme/th@2 is proposed" in await shell.good("propose", "acme/th@2", "-m", "degrees")
    out = await shell.good("canary", "acme/th@2", "--share", "0.5")
    assert "canary: version 2 for 1 device" in out
    assert "canary" not in await shell.good("canary", "acme/th@2", "--end")
    assert "in force: version 2 in 4401" in await shell.good("release", "acme/th@2")
    assert (await shell.json("versions", "acme/th"))["versions"][1]["in_force"] == ["4401"]
    assert "superseded" in await shell.good("versions", "acme/th")
    assert "scale: 1.0" in await shell.good("show", "acme/th@2")
    assert [row["version"] for row in await shell.json("list", "--live") if row["id"] == "acme/th"] == [2]
    await shell.site.push(await shell.site.device("shell-2", profile="acme/th"), '{"t": 220}')
    assert "in force: version 1 in 4401" in await shell.good("rollback", "acme/th", "-m", "tenths after all")
    row = await shell.json("redecode", "acme/th", "--since", "1h")
    assert (row["state"], row["messages"], row["revised"], row["equal"]) == ("done", 3, 1, 2)
    assert "is done" in await shell.good("redecode", "acme/th", "--device", "shell-2", "--selection", "raw")


async def test_a_shadow_from_the_command_line(shell: Shell) -> None:
    """Begun, looked at, ended."""
    await shell.good("propose", shell.file(5, scale=0.01))
    assert "--look" in await shell.good("shadow", "acme/th@5")
    device = await shell.site.device("shell-3", profile="acme/th")
    for _ in range(100):
        await shell.site.push(device, '{"t": 220}')
        out = await shell.good("shadow", "acme/th@5", "--look")
        if "air_temperature" in out:
            break
    assert "0.1" in out
    assert "air_temperature" in await shell.good("shadow", "acme/th@5", "--end", "--by-device")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("release", "acme/th"), "'acme/th' is not a version; give vendor/model@version"),
        (("release", "acme/th@77"), "no version 77 of acme/th in your scope"),
        (("rollback", "th"), "'th' is not a profile name"),
        (("diff", "acme/th@1", "acme/other@2"), "are different profiles"),
        (("propose", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (("redecode", "acme/th", "--since", "90d"), "decoded messages are retained for 72 h"),
        (("redecode", "acme/th", "--since", "soon"), "soon"),
        (("canary", "acme/th@1", "--share", "0.5", "--device", "x"), "exactly one is needed"),
    ],
)
async def test_errors_say_what_to_do(shell: Shell, words: tuple[str, ...], message: str) -> None:
    """One line, with the remedy."""
    result = await shell.run(*words)
    assert result.exit_code != 0
    assert isinstance(result.exception, SensegateError | SystemExit)
    assert message in str(result.exception) + result.output


@pytest.mark.parametrize(
    "command",
    [
        "versions",
        "propose",
        "withdraw",
        "request-changes",
        "release",
        "canary",
        "rollback",
        "diff",
        "shadow",
        "redecode",
    ],
)
async def test_help_teaches(shell: Shell, command: str) -> None:
    """Every command says what it does and takes --json."""
    out = await shell.good(command, "--help")
    assert "--json" in out
    assert len(out) > 400
