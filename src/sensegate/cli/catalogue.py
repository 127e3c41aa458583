"""`sensegate catalogue`: what is shared, and what is said about it."""

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
from sensegate.web.client import Remote

app = typer.Typer(
    help="The catalogue: what is shared, by whom, on which terms.\n\n"
    "A feed is a draft in it until everything that the rules demand is said about it; from then on everybody finds "
    "it and may apply for it (`sensegate application apply`).",
    no_args_is_help=True,
)

_PATH = "/api/v1/catalogue"
COLUMNS = ("feed", "title", "state", "sharing", "grade", "code")


class ExportFormat(StrEnum):
    """How the catalogue is exported."""

    DCAT = "dcat"
    CSV = "csv"


Feed = Annotated[str, typer.Argument(help="Name of the feed, as `sensegate catalogue list` shows it.")]


@app.command("list")
def list_(
    words: Annotated[list[str] | None, typer.Argument(help="Words that it must hold, Chinese or English.")] = None,
    *,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """List or search what is shared; drafts are shown to those in charge.

    Example: sensegate catalogue list 广州 水位
    """
    query = " ".join(words or ())
    print_list(url, token, _PATH, COLUMNS, json_form=json_form, q=query)


@app.command()
def show(feed: Feed, *, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Show all about one: terms, columns, sample, measured quality beside what is promised, what is missing."""
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
    for what in answer["missing"]:
        console.print(f"missing: {what}", style="yellow", highlight=False)


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


@app.command()
def describe(
    feed: Feed,
    said: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, e.g. title=水位 sharing=conditional.")] = None,
    *,
    file: Annotated[Path | None, typer.Option(help="YAML or JSON file with keys and values.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Say something about a feed (role city_operator and above); it is published once nothing is missing.

    Five keys are demanded of everything: department, source, update, quality, usage. Also title, title_en, domain,
    grade (1 to 4), kind (base, theme, department), cadence (realtime, hourly, …), sharing (unconditional,
    conditional, not_shared); unless unconditional also conditions and legal_basis.

    Example: sensegate catalogue describe gz-water department=广州市水务局 source=雷达水位计 update=每5分钟
    """
    changes = _changes(file, said or [])

    async def work(remote: Remote) -> Any:
        present = await remote.get(f"{_PATH}/{feed}")
        return await remote.patch(f"{_PATH}/{feed}", changes, present["revision"])

    answer = call(url, token, work)
    if json_form:
        print_json(answer)
        return
    console.print(f"{feed}: {answer['state']}" + (f", code {answer['code']}" if answer["code"] else ""))
    for what in answer["missing"]:
        console.print(f"missing: {what}", style="yellow", highlight=False)


def _changes(file: Path | None, said: list[str]) -> dict[str, Any]:
    """Return what a file and words like KEY=VALUE say. Raises `ConfigError`."""
    changes: dict[str, Any] = {}
    if file is not None:
        try:
            read = msgspec.yaml.decode(file.read_bytes())
        except (OSError, msgspec.DecodeError) as why:
            raise ConfigError("cannot be read", file=str(file), remedy=str(why)) from why
        if not isinstance(read, dict):
            raise ConfigError("no keys and values", file=str(file), remedy="one `key: value` a line")
        changes |= read
    for word in said:
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
    rows: Annotated[int, typer.Option(min=1, max=50, help="How many records.")] = 5,
    mask: Annotated[
        str, typer.Option(help='How they are seen, as JSON: {"drop": ["place"], "hash": ["device"], "time_s": 3600}.')
    ] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Draw sample and columns anew from the data of the last day; everybody who finds the entry sees them."""
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
    """Write all published entries as one document."""
    accept = "text/csv" if form is ExportFormat.CSV else "application/ld+json"
    text, _ = call(url, token, lambda remote: remote.text(_PATH, accept=accept))
    if out is None:
        sys.stdout.write(text + ("" if text.endswith("\n") else "\n"))
    else:
        save(out, text.encode())
