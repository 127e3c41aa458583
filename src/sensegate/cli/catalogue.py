"""`sensegate catalogue`: the feeds that are shared, and their descriptions."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from sensegate.cli.output import (
    DEFAULT_URL,
    Json,
    Token,
    Url,
    call,
    console,
    parse_json,
    print_json,
    print_list,
    print_record,
    print_table,
    save,
)
from sensegate.errors import ConfigError
from sensegate.web.client import GatewayClient

app = typer.Typer(
    help="List, search, describe and export the catalogue of shared feeds.\n\n"
    "An entry is a draft until all required fields are given; then it is published, and everybody may find it and "
    "apply for the feed (`sensegate application apply`).",
    no_args_is_help=True,
)

_PATH = "/api/v1/catalogue"
COLUMNS = ("feed", "title", "state", "sharing", "grade", "code")


class ExportFormat(StrEnum):
    """The format of an exported catalogue."""

    DCAT = "dcat"
    CSV = "csv"


Feed = Annotated[str, typer.Argument(help="Name of the feed, as `sensegate catalogue list` shows it.")]


@app.command("list")
def list_(
    words: Annotated[list[str] | None, typer.Argument(help="Words to search for, Chinese or English.")] = None,
    *,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """List or search the catalogue; drafts are visible to their editors.

    Example: sensegate catalogue list 广州 水位
    """
    query = " ".join(words or ())
    print_list(url, token, _PATH, COLUMNS, json_form=json_form, q=query)


@app.command()
def show(feed: Feed, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Show an entry: terms, columns, sample, promised and measured quality, missing fields.

    Example: sensegate catalogue show gz-water
    """
    answer = call(url, token, lambda remote: remote.get(f"{_PATH}/{feed}"))
    if json_form:
        print_json(answer)
        return
    lists = {"missing", "columns", "sample"}
    plain = [(key, value) for key, value in answer.items() if key not in lists and value not in ("", None, [], {})]
    print_record(dict(plain))
    if answer["columns"]:
        print_table(answer["columns"], ("name", "unit", "kind", "label_zh", "label_en", "rows"), title="columns")
    for row in answer["sample"]:
        console.print_json(data=row)
    for field in answer["missing"]:
        console.print(f"missing: {field}", style="yellow", highlight=False)


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


@app.command()
def describe(
    feed: Feed,
    fields: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, e.g. title=水位 sharing=conditional.")] = None,
    *,
    file: Annotated[Path | None, typer.Option(help="YAML or JSON file with keys and values.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Describe a feed (role city_operator and above); the entry is published when no required field is missing.

    Required: department, source, update, quality, usage, title, title_en, domain, grade (1 to 4), kind (base, theme,
    department), cadence (realtime, hourly, …), sharing (unconditional, conditional, not_shared); unless unconditional
    also conditions and legal_basis.

        sensegate catalogue describe gz-water department=广州市水务局 source=雷达水位计 update=每5分钟
    """
    changes = _changes(file, fields or [])

    async def work(remote: GatewayClient) -> Any:
        present = await remote.get(f"{_PATH}/{feed}")
        return await remote.patch(f"{_PATH}/{feed}", changes, present["revision"])

    answer = call(url, token, work)
    if json_form:
        print_json(answer)
        return
    console.print(f"{feed}: {answer['state']}" + (f", code {answer['code']}" if answer["code"] else ""))
    for field in answer["missing"]:
        console.print(f"missing: {field}", style="yellow", highlight=False)


def _reason(error: OSError | msgspec.DecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _changes(file: Path | None, pairs: list[str]) -> dict[str, Any]:
    """Return the changes in a file and in KEY=VALUE arguments. Raises `ConfigError`."""
    changes: dict[str, Any] = {}
    if file is not None:
        try:
            read = msgspec.yaml.decode(file.read_bytes())
        except (OSError, msgspec.DecodeError) as why:
            raise ConfigError("the file cannot be read", file=str(file), remedy=_reason(why)) from why
        if not isinstance(read, dict):
            raise ConfigError(
                "the file holds no keys and values", file=str(file), remedy="write one `key: value` per line"
            )
        changes |= read
    for word in pairs:
        key, separator, value = word.partition("=")
        if not separator:
            raise typer.BadParameter(f"'{word}' is not KEY=VALUE")
        changes[key] = _value(key, value)
    return changes


def _value(key: str, text: str) -> Any:
    if key == "grade" and text.isdigit():
        return int(text)
    if key == "open":
        return text.casefold() in {"true", "yes", "1"}
    if key.startswith("promise"):
        return parse_json(text, key)
    return text


@app.command()
def sample(
    feed: Feed,
    *,
    rows: Annotated[int, typer.Option(min=1, max=50, help="Number of records.")] = 5,
    mask: Annotated[
        str, typer.Option(help='Masking as JSON: {"drop": ["place"], "hash": ["device"], "time_s": 3600}.')
    ] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Draw sample and columns again from the data of the last day; everybody who finds the entry sees them.

    Example: sensegate catalogue sample gz-water --rows 5
    """
    body: dict[str, Any] = {"rows": rows}
    if mask:
        body["mask"] = parse_json(mask, "--mask")
    answer = call(url, token, lambda remote: remote.post(f"{_PATH}/{feed}/sample", body))
    if json_form:
        print_json(answer["sample"])
        return
    for row in answer["sample"]:
        console.print_json(data=row)


@app.command()
def export(
    *,
    form: Annotated[ExportFormat, typer.Option("--format", help="dcat: DCAT as JSON-LD; csv: for a spreadsheet.")] = (
        ExportFormat.DCAT
    ),
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default: standard output.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Export all published entries as one document.

    Example: sensegate catalogue export --format csv --out catalogue.csv
    """
    accept = "text/csv" if form is ExportFormat.CSV else "application/ld+json"
    text, _ = call(url, token, lambda remote: remote.text(_PATH, accept=accept))
    if out is None:
        sys.stdout.write(text + ("" if text.endswith("\n") else "\n"))
    else:
        save(out, text.encode())
