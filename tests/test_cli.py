from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner, Result

from sensegate.cli import app, main
from sensegate.cli.doctor import CheckOutcome, examine
from sensegate.cli.feeds import SHOWN
from sensegate.cli.replay import messages
from sensegate.errors import ConfigError, Unavailable
from sensegate.share.records import CSV_COLUMNS
from sensegate.web.client import ProblemResponse

ROOT = Path(__file__).parents[1]
RUNNER = CliRunner()
COMMANDS = (
    "demo", "run", "check", "explain", "profile", "device", "token", "feed", "ledger", "doctor", "replay", "bench",
    "catalogue", "application", "grant", "statement",
)  # fmt: skip


def call(*arguments: str) -> Result:
    return RUNNER.invoke(app, list(arguments), catch_exceptions=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_contract_explains_itself(command: str) -> None:
    """Each command of interfaces.md is there and has a help text."""
    result = call(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_the_version_is_that_of_the_package() -> None:
    """`--version` prints it."""
    assert call("--version").output.startswith("sensegate 0.")


# ── a gateway that answers what the contract says ────────────────────────────────────────────────────


class Gateway:
    """The HTTP side of a gateway, as far as the command line uses it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.balanced = True
        self.role = "node"
        self.rows = [{"line": 2, "id": "a", "outcome": "added", "problem": "lon: looks swapped", "password": "p"}]
        self.lines = ["4401-0-1-0,c1.AA,gz-1,air_temperature,,21.5,Cel,2026-01-01T00:00:00.000000Z"]
        self.records = [RECORD]
        self.devices: list[dict[str, Any]] | None = None
        self.counts = {"messages": 5, "accepted": 9}
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        body: Any = await request.text()
        self.asked.append((request.method, request.path_qs, body))
        if request.headers.get("Authorization") != "Bearer right":
            problem = {"title": "Unauthorized", "status": 401, "detail": "the token is not known; ask for a new one"}
            return web.json_response(problem, status=401, content_type="application/problem+json")
        if request.path.endswith("/devices/import"):
            return web.Response(text="".join(f"{json.dumps(row)}\n" for row in self.rows))
        if request.headers.get("Accept") == "text/csv":
            count = {"X-Count": str(len(self.lines)), "X-Next-Cursor": "c1.AA"}
            return web.Response(text="".join(f"{line}\r\n" for line in (CSV_COLUMNS, *self.lines)), headers=count)
        return web.json_response(self.document(request.method, request.path))

    def document(self, method: str, path: str) -> Any:
        device = {"id": "gz-1", "division": "440106", "profile": "sensegate/plain", "state": "active", "revision": 3}
        made = {**device, "username": "gz-1", "password": "shown-once"}
        documents = {
            "POST devices": made,
            "POST devices/gz-1/rotate": made,
            "POST moves": MOVE,
            "POST moves/m1/cancellation": {**MOVE, "stage": "cancelled", "not_carried": "", "owed": ""},
            "GET devices": {"items": [device] if self.devices is None else self.devices},
            "GET devices/gz-1": device,
            "PATCH devices/gz-1": device,
            "POST tokens": {"id": "7f", "token": "sg_7f_secret"},
            "GET feeds": {"items": [{"name": "all", "divisions": [], "grade_max": 3}]},
            "GET feeds/all/records": {"records": self.records, "next": "c1.AA"},
            "GET feeds/all/latest": {"records": self.records, "next": ""},
            "GET me": {"gateway_role": self.role},
            "GET nodes": {
                "rows": [{"division": "4401", "role": "node", "devices": 61}, {"division": "44", "role": "centre"}]
            },
            "GET ledger": {"rows": [{"node": "4401", **self.counts}], "balanced": self.balanced},
            "GET trace": TRACE,
        }
        return documents[f"{method} {path.removeprefix('/api/v1/')}"]


MOVE = {
    "id": "m1", "source": "4401", "target": "4403", "stage": "carried", "not_carried": "readings of its gateway",
    "owed": "4401 has to retire the device when it is back",
}  # fmt: skip
TRACE = {
    "record": "4401-0-1-0", "device": "gz-1", "property": "pm2_5", "division": "4401",
    "time": "2026-01-01T00:00:00Z", "received": "2026-01-01T00:00:01Z",
    "steps": [
        {"step": "message", "at": "2026-01-01T00:00:01Z", "sequence": 477_188_589_013, "detail": "9 bytes"},
        {"step": "span", "detail": "confirmed"},
    ],
}  # fmt: skip
RECORD = {
    "id": "4401-0-1-0", "cursor": "c1.AA", "device": "gz-1", "property": "air_temperature", "value": 21.5,
    "unit": "Cel", "time": "2026-01-01T00:00:00.000000Z", "quality": "good", "division": "440106", "flags": ["late"],
}  # fmt: skip


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    """A gateway on loopback."""
    gateway = Gateway()
    application = web.Application()
    application.router.add_route("*", "/{rest:.*}", gateway.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    gateway.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    yield gateway
    await runner.cleanup()


async def speak(gateway: Gateway, *arguments: str) -> Result:
    """Run a command against the gateway in a thread, for it has a loop of its own."""
    where = ["--url", f"http://127.0.0.1:{gateway.port}", "--token", "right"]
    return await asyncio.to_thread(call, *arguments, *where)


async def test_a_credential_is_printed_once(gateway: Gateway) -> None:
    """`device add` shows the password and says that it will not come again."""
    result = await speak(gateway, "device", "add", "gz-1", "--division", "440106", "--profile", "sensegate/plain")
    assert "shown-once" in result.output
    assert "not shown again" in result.output
    method, path, body = gateway.asked[0]
    assert (method, path) == ("POST", "/api/v1/devices")
    assert json.loads(body)["division"] == "440106"


async def test_tables_are_json_too(gateway: Gateway) -> None:
    """`--json` prints what the table is made of."""
    rows = json.loads((await speak(gateway, "device", "list", "--json")).output)
    assert rows[0]["id"] == "gz-1"
    assert "gz-1" in (await speak(gateway, "device", "list")).output
    assert json.loads((await speak(gateway, "feed", "list", "--json")).output)[0]["name"] == "all"


async def test_the_centre_says_where_devices_are_registered(gateway: Gateway) -> None:
    """It lists its own alone; those of the cities are at their nodes, and it says so beside the list."""
    assert "registered" not in (await speak(gateway, "device", "list")).stderr
    gateway.role = "centre"
    result = await speak(gateway, "device", "list")
    assert "devices are registered at their nodes: 4401 (61 devices); use --url to query a node" in result.stderr
    assert "4401 (61" not in result.stdout


async def test_a_device_is_disabled_at_its_revision(gateway: Gateway) -> None:
    """`device disable` changes what it has read, or nothing."""
    assert "disabled" in (await speak(gateway, "device", "disable", "gz-1")).output


async def test_a_move_is_forced_and_called_off(gateway: Gateway) -> None:
    """What is not carried is said, and that the password is void; what was not asked for is not sent."""
    where = ("--to", "4403", "--division", "440305")
    forced = await speak(gateway, "device", "move", "gz-1", *where, "--force")
    assert "readings of its gateway" in forced.output
    assert "void" in forced.output
    assert "when it is back" in forced.output
    assert "void" not in (await speak(gateway, "device", "move", "gz-1", *where, "--force", "--keep-credential")).output
    assert "is cancelled" in (await speak(gateway, "device", "move", "--cancel", "m1")).output
    bodies = [json.loads(body) for _, _, body in gateway.asked]
    assert [body.get("force") for body in bodies] == [True, True, None]
    assert [body.get("keep_credential") for body in bodies] == [None, True, None]
    assert (await speak(gateway, "device", "move", "gz-1")).exit_code == 2


async def test_a_device_is_changed_and_let_in_again(gateway: Gateway) -> None:
    """Words become what the entry holds: numbers, spans, nothing; at the revision that was read."""
    await speak(gateway, "device", "change", "gz-1", "grade=2", "interval=10m", "division=440106", "lon=", "owner=")
    wanted = {"grade": 2, "interval_s": 600.0, "division": "440106", "lon": None, "owner": ""}
    assert json.loads(gateway.asked[-1][2]) == wanted
    assert "not KEY=VALUE" in (await speak(gateway, "device", "change", "gz-1", "grade")).output
    assert "did you mean 'owner'" in (await speak(gateway, "device", "change", "gz-1", "onwer=x")).output
    await speak(gateway, "device", "enable", "gz-1")
    assert json.loads(gateway.asked[-1][2]) == {"state": "registered"}


async def test_a_label_holds_no_secret(gateway: Gateway, tmp_path: Path) -> None:
    """The QR label says which device it is, nothing else."""
    out = tmp_path / "label.svg"
    result = await speak(gateway, "device", "label", "gz-1", "--out", str(out))
    assert "sensegate:device/gz-1?division=440106" in result.output
    assert "shown-once" not in result.output
    assert out.read_text().startswith("<?xml")
    for wrong in (tmp_path / "label.doc", tmp_path / "none" / "label.svg"):
        with pytest.raises(ConfigError, match="label"):
            await speak(gateway, "device", "label", "gz-1", "--out", str(wrong))


async def test_an_import_fails_by_refused_rows_alone(gateway: Gateway, tmp_path: Path) -> None:
    """A warning is told and is no failure; good rows are taken."""
    file = tmp_path / "devices.csv"
    file.write_text("id,division,profile\n")
    result = await speak(gateway, "device", "import", str(file))
    assert (result.exit_code, "1 added" in result.stderr) == (0, True)
    gateway.rows.append({"line": 3, "id": "b", "outcome": "refused", "problem": "division: …"})
    result = await speak(gateway, "device", "import", str(file))
    assert (result.exit_code, "1 added, 1 refused" in result.stderr) == (1, True)


async def test_a_token_is_created(gateway: Gateway) -> None:
    """`token create` prints the token; its life is sent in seconds."""
    result = await speak(gateway, "token", "create", "--role", "subscriber", "--scope", "4401", "--expires", "12h")
    assert "sg_7f_secret" in result.output
    assert json.loads(gateway.asked[0][2]) == {"role": "subscriber", "scope": "4401", "expires_s": 43_200}


@pytest.mark.parametrize(
    ("form", "check"),
    [
        ("json", lambda text: json.loads(text.splitlines()[0])["value"] == 21.5),
        ("csv", lambda text: text.splitlines()[1].startswith("4401-0-1-0,c1.AA,gz-1,")),
        ("table", lambda text: "21.5" in text and "late" in text),
    ],
)
async def test_a_feed_is_tailed(gateway: Gateway, form: str, check: Callable[[str], bool]) -> None:
    """Records come out in the form asked for, and the cursor to resume with goes to standard error."""
    result = await speak(gateway, "feed", "tail", "all", "--format", form, "--limit", "1")
    assert check(result.stdout)
    assert "--after c1.AA" in result.stderr


@pytest.mark.parametrize("form", ["csv", "table", "json"])
async def test_a_feed_without_records_says_so(gateway: Gateway, form: str) -> None:
    """The header alone goes into a pipe, as where there are records, and `none` to standard error."""
    gateway.records, gateway.lines = [], []
    result = await speak(gateway, "feed", "read", "all", "--format", form, "--limit", "1", "--from", "1h")
    header = {"csv": f"{CSV_COLUMNS}\n", "table": "\t".join(SHOWN) + "\n", "json": ""}[form]
    assert (result.stdout.replace("\r", ""), result.stderr.strip()) == (header, "none")


async def test_pages_of_csv_have_one_header(gateway: Gateway) -> None:
    """The gateway heads each page with the names of its columns; two pages of one record are three lines."""
    result = await speak(gateway, "feed", "tail", "all", "--format", "csv", "--limit", "2")
    assert result.stdout.splitlines() == [CSV_COLUMNS, *gateway.lines * 2]


async def test_a_table_without_rows_says_so(gateway: Gateway) -> None:
    """Also where the output is no terminal: the header goes into the pipe, `none` to standard error."""
    gateway.devices = []
    result = await speak(gateway, "device", "list")
    assert (result.stdout.count("\n"), result.stderr.strip()) == (1, "none")
    assert (await speak(gateway, "device", "list", "--json")).output == "[]\n"


async def test_an_unbalanced_ledger_fails(gateway: Gateway) -> None:
    """`ledger` exits 0 while the books balance, else 1."""
    assert (await speak(gateway, "ledger")).exit_code == 0
    gateway.balanced = False
    result = await speak(gateway, "ledger")
    assert result.exit_code == 1
    assert "NOT BALANCED" in result.output


async def test_the_columns_of_the_ledger_are_its_sums(gateway: Gateway) -> None:
    """The parts of each sum stand behind it, in the order of the equation; further counts follow."""
    names = ["late", "withheld", "suppressed", "values", "messages", "quarantined", "decoded", "accepted", "duplicates"]
    gateway.counts = dict.fromkeys(names, 1)
    header = (await speak(gateway, "ledger")).stdout.splitlines()[0].split("\t")
    assert header == [
        *("node", "messages", "decoded", "quarantined"),
        *("values", "accepted", "duplicates", "suppressed", "withheld", "late"),
    ]


async def test_a_trace_is_a_table(gateway: Gateway) -> None:
    """The pipe gets the steps alone; the reading is named beside it, with both of its times."""
    result = await speak(gateway, "trace", "4401-0-1-0")
    assert result.stdout.splitlines() == [
        "step\tat\tsequence\tdetail",
        "message\t2026-01-01T00:00:01Z\t477188589013\t9 bytes",
        "span\t\t\tconfirmed",
    ]
    assert result.stderr == (
        "4401-0-1-0: gz-1 pm2_5 of 4401, measured 2026-01-01T00:00:00Z, received 2026-01-01T00:00:01Z\n"
    )


async def test_a_refusal_says_what_to_do(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the gateway is one line with its detail, exit 2, no traceback."""
    where = ["--url", f"http://127.0.0.1:{gateway.port}", "--token", "wrong"]
    monkeypatch.setattr("sys.argv", ["sensegate", "device", "list", *where])
    with pytest.raises(SystemExit) as end:
        await asyncio.to_thread(main)
    assert end.value.code == 2
    assert capsys.readouterr().err == "sensegate: 401 Unauthorized: the token is not known; ask for a new one\n"


async def test_a_wrong_password_asks_for_no_token(gateway: Gateway) -> None:
    """Who signs in has none: the refusal is that of the gateway alone."""
    command = ["people", "sign-in", "li", "--password", "x", "--url", f"http://127.0.0.1:{gateway.port}"]
    with pytest.raises(ProblemResponse) as refused:
        await asyncio.to_thread(call, *command)
    assert "--token" not in str(refused.value)
    with pytest.raises(ProblemResponse, match="give --token or SENSEGATE_TOKEN"):
        await asyncio.to_thread(call, "device", "list", "--url", f"http://127.0.0.1:{gateway.port}")


def test_nobody_there_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that does not answer is named."""
    monkeypatch.setattr("sys.argv", ["sensegate", "ledger", "--url", "http://127.0.0.1:1"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "check that the gateway runs there" in capsys.readouterr().err


def test_the_errors_of_parts_that_end_together_are_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gateway ends with a group of errors: each is one line; a bug among them keeps its traceback."""
    errors: list[Exception] = [ConfigError("one"), ExceptionGroup("inner", [ConfigError("two")])]

    def fail() -> None:
        raise ExceptionGroup("parts", errors)

    monkeypatch.setattr("sensegate.cli.app", fail)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().err == "sensegate: one\nsensegate: two\n"
    errors.append(ValueError("a bug"))
    with pytest.raises(ExceptionGroup):
        main()


# ── offline ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.no_cover
def test_check_is_green_on_what_we_ship(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example configurations and their profiles pass their own check; all profiles: `tests/package`."""
    monkeypatch.chdir(ROOT)
    result = call("check", "config", "device_profiles/sensegate")
    assert result.exit_code == 0, result.output
    assert "0 problems" in result.output


def test_check_names_file_line_key_and_remedy(tmp_path: Path) -> None:
    """A wrong configuration: exit 1 and the nearest right word."""
    bad = tmp_path / "node.yaml"
    bad.write_text("role: node\ndivision: '4401'\ndirektory: /tmp/x\n")
    result = call("check", str(bad), "--json")
    assert result.exit_code == 1
    assert json.loads(result.output)["problems"] == [f"{bad}:3: direktory: unknown key; did you mean 'directory'?"]


def test_profiles_are_listed_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """`profile list` names every profile of the folder, `show` prints one."""
    monkeypatch.chdir(ROOT)
    names = {row["profile"] for row in json.loads(call("profile", "list", "--json").output)}
    assert "sensegate/plain" in names
    assert "profile: sensegate/plain" in call("profile", "show", "sensegate/plain").output
    assert call("profile", "test", "sensegate/plain").exit_code == 0
    assert call("profile", "test", "device_profiles/sensegate/plain.yaml").exit_code == 0


def test_properties_are_found_by_their_words() -> None:
    """By the standard name, the English or the Chinese one, all words together; in a domain."""
    rows = json.loads(call("profile", "properties", "valve", "position", "--json").output)
    assert [(row["property"], row["unit"], row["domain"]) for row in rows] == [("valve_position", "%", "building")]
    assert "valve_position" in call("profile", "properties", "阀门开度").output
    rows = json.loads(call("profile", "properties", "--domain", "gas", "--json").output)
    assert {row["domain"] for row in rows} == {"gas"}


def test_a_bench_that_is_not_there_names_those_that_are() -> None:
    """An unknown name is an error that lists the known ones."""
    with pytest.raises(ConfigError, match="no bench"):
        call("bench", "nonsense")


def test_the_list_of_benches_has_benches_alone() -> None:
    """Their helpers are not in it; each says what it measures."""
    rows = {row["name"]: row["description"] for row in json.loads(call("bench", "list", "--json").output)}
    assert {"drain", "live", "fanout"} <= set(rows)
    assert not {"rig", "workload", "columns"} & set(rows)
    assert all(rows.values())


def test_files_that_are_not_there_are_named_with_how_to_make_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`check` warns, `run` does not start: file, line, key, remedy; all of them at once."""
    config = tmp_path / "node.yaml"
    text = "role: node\ndivision: '4401'\ndirectory: {0}/data\nprofiles: [{0}]\nuplink:\n  url: nats://127.0.0.1:1\n"
    text += (
        "  secret_file: {0}/none.secret\nexternal_brokers: [{{name: a, host: h, password_file: {0}/none.password}}]\n"
    )
    config.write_text(text.format(tmp_path))
    result = call("check", str(config), "--json")
    assert result.exit_code == 0
    uplink = next(
        finding for finding in json.loads(result.output)["findings"] if finding["key"] == "uplink.secret_file"
    )
    assert (uplink["severity"], uplink["line"]) == ("warning", 7)
    assert f"openssl rand -hex 32 > {tmp_path}/none.secret" in uplink["remedy"]
    monkeypatch.setattr("sys.argv", ["sensegate", "run", str(config)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    output = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[2] for line in output] == ["external_brokers.0.password_file", "uplink.secret_file"]


def test_recordings_are_read(tmp_path: Path) -> None:
    """Text and base64 payloads, with and without a time; a wrong line is named."""
    file = tmp_path / "x.jsonl"
    file.write_text('{"topic":"a","payload":"é"}\n\n{"topic":"b","payload_b64":"AAE=","at":1.5}\n')
    assert list(messages(file)) == [("a", "é".encode(), None), ("b", b"\0\1", 1.5)]
    file.write_text('{"topic":"a"}\n')
    with pytest.raises(ConfigError, match=r"x\.jsonl:1"):
        list(messages(file))


def test_replay_without_a_broker_says_so(tmp_path: Path) -> None:
    """A broker that cannot be reached is an error, not a hang."""
    file = tmp_path / "x.jsonl"
    file.write_text('{"topic":"a","payload":"1"}\n')
    with pytest.raises(Unavailable, match="cannot be reached"):
        call("replay", str(file), "--to", "mqtt://127.0.0.1:1")


def test_the_doctor_finds_what_is_wrong(tmp_path: Path) -> None:
    """Secrets that others may read, and a listener without TLS beyond loopback, are bad; each says what to do."""
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o644)
    config = tmp_path / "node.yaml"
    profiles = ROOT / "device_profiles" / "sensegate"
    config.write_text(
        f"role: node\ndivision: '4401'\ndirectory: {tmp_path / 'store'}\nprofiles: [{profiles}]\n"
        f"uplink: {{url: 'nats://127.0.0.1:1', secret_file: {secret}}}\n"
    )
    report = examine(config)
    bad = {finding.check: finding for finding in report if finding.verdict is CheckOutcome.BAD}
    assert set(bad) == {"secrets"}
    assert bad["secrets"].remedy == f"chmod 600 {secret}"
    assert "engine version" in {finding.check for finding in report if finding.verdict is CheckOutcome.GOOD}
    assert all(finding.remedy for finding in report if finding.verdict is not CheckOutcome.GOOD)
    config.write_text(config.read_text() + "listen: {mqtt: {host: 0.0.0.0}}\n")
    assert "listen.mqtt.host: 0.0.0.0 is not loopback" in examine(config)[-1].detail


def test_the_doctor_on_a_broken_configuration(tmp_path: Path) -> None:
    """A configuration that does not load ends the examination with its error."""
    config = tmp_path / "node.yaml"
    config.write_text("role: node\n")
    assert examine(config)[-1].verdict is CheckOutcome.BAD
