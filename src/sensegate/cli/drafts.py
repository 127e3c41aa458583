"""`sensegate profile new`, `unknown`, `import`: profiles made of messages, or of what others wrote down."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sensegate.cli.replay import messages
from sensegate.cli.shown import DEFAULT_URL, Json, Token, Url, as_json, ask, console, rows_of, table
from sensegate.cli.times import Since
from sensegate.errors import ConfigError
from sensegate.wording import count

FOLDER = Path("device_profiles")
Folder = Annotated[Path, typer.Option("--profiles", help="Folder of the profiles.", envvar="SENSEGATE_PROFILES")]


def target_of(name: str, folder: Path) -> Path:
    """Return the file of a new profile. Raises `ConfigError` where the name is none, or is taken."""
    vendor, slash, model = name.partition("/")
    if not slash or not vendor or not model:
        raise ConfigError(f"'{name}' is no profile name", remedy="give vendor/model, e.g. acme/th10")
    target = folder / vendor / f"{model}.yaml"
    if target.exists():
        raise ConfigError("is there already", file=str(target), remedy="raise its version instead")
    return target


def new(
    name: Annotated[str, typer.Argument(help="vendor/model; with --from or --topic it can be made up.")] = "",
    *,
    recorded: Annotated[
        Path | None,
        typer.Option("--from", help="Learn from recorded messages (JSON lines, as for replay).", exists=True),
    ] = None,
    topic: Annotated[str, typer.Option(help="Learn from what a gateway has recorded under this MQTT filter.")] = "",
    shape: Annotated[str, typer.Option(help="Learn from one shape of `sensegate profile unknown`.")] = "",
    since: Since = "1h",
    profiles: Folder = FOLDER,
    show: Annotated[bool, typer.Option("--print", help="Print the draft, write no file.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Begin a profile: of the template, or as a draft learned from messages, with the reasons of its guesses."""
    if recorded is None and not topic and not shape:
        target = target_of(name, profiles)
        template = (profiles / "_template.yaml").read_text(encoding="utf-8")
        _write(target, template.replace("vendor/model", name))
        console.print(f"{target}: edit it, then sensegate profile test {name}", highlight=False)
        return
    if recorded is not None:
        draft = _learned(recorded, topic, name)
    else:
        body = {"topic": topic, "shape": shape, "profile": name}
        draft = ask(url, token, lambda remote: remote.post("/api/v1/profiles/learn", body, since=since))
    if show:
        sys.stdout.write(draft["text"])
        return
    target = target_of(draft["profile"], profiles)
    _write(target, draft["text"])
    _report(draft, target)


def _write(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def _learned(recorded: Path, topic: str, name: str) -> dict[str, Any]:
    """Return the draft for the messages of a file, as the gateway would answer."""
    from sensegate.authoring.learn.shapes import Sample  # noqa: PLC0415 - the whole decoder
    from sensegate.authoring.survey import draft_of  # noqa: PLC0415 - the same
    from sensegate.lifecycle.unexplained import matches_filter  # noqa: PLC0415 - the same

    samples = [
        Sample(told, payload, round(at * 1e6) if at is not None else 0)
        for told, payload, at in messages(recorded)
        if not topic or matches_filter(told, topic)
    ]
    draft = draft_of(samples, name)
    if draft is None:
        raise ConfigError("holds no such message", file=str(recorded), remedy="see `sensegate replay --help`")
    return {
        "profile": draft.profile,
        "text": draft.text,
        "messages": draft.messages,
        "recognised": [
            {"field": field, "property": one.property, "reason": one.reason, "sure": one.sure}
            for field, one in draft.recognised
        ],
        "unrecognised": [{"field": field, "reason": why} for field, why in draft.unrecognised],
        "problem": draft.problem,
    }


def _report(draft: dict[str, Any], target: Path) -> None:
    """Print the recognised, guessed and unrecognised members, and the problems that `check` finds."""
    from sensegate.authoring.examples import check_profile  # noqa: PLC0415 - the whole decoder

    rows = [{**one, "sure": "" if one["sure"] else "guess"} for one in draft["recognised"]]
    rows += [
        {"field": one["field"], "property": "-", "sure": "unrecognised", "reason": one["reason"]}
        for one in draft["unrecognised"]
    ]
    table(rows, ("field", "property", "sure", "reason"))
    for problem in check_profile(target):
        sys.stdout.write(f"{problem}\n")
    console.print(
        f"{target}: a draft of {count(draft['messages'], 'message')}; compare it with the maker's document, then "
        f"sensegate check {target}",
        highlight=False,
    )


def unknown(*, since: Since = "1h", url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Show messages that no profile explains, by shape; `sensegate profile new --shape ID` drafts a profile for one."""
    rows = rows_of(ask(url, token, lambda remote: remote.get("/api/v1/profiles/unknown", since=since)))
    shown = [{**row, "reasons": ", ".join(f"{word} {many:,}" for word, many in row["reasons"].items())} for row in rows]
    columns = (
        "id",
        "name",
        "pattern",
        "port",
        "format",
        "messages",
        "reasons",
        "last",
        "interval_s",
        "recognised",
        "unrecognised",
    )
    if json_form:
        as_json(rows)
        return
    table(shown, columns)


def import_(
    path: Annotated[
        Path,
        typer.Argument(help="Vendor folder of The Things Network's device repository or ChirpStack's, or `exposes`."),
    ],
    *,
    into: Annotated[Path, typer.Option(help="Folder for the profiles.")] = FOLDER,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing: only the report.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Write over profiles that are there already.")] = False,
    json_form: Json = False,
) -> None:
    """Import profiles from device descriptions of other projects, with a report: mapped, guessed or skipped members."""
    from sensegate.authoring.imports import import_from  # noqa: PLC0415 - the whole decoder

    reports: list[dict[str, Any]] = []
    for made in import_from(path):
        file = into / f"{made.profile}.yaml"
        said: list[str] = [made.problem] if made.problem else []
        written = False
        if made.text and not dry_run:
            if file.exists() and not replace:
                said.append(f"{file} is there already; --replace writes over it")
            else:
                said += _written(file, made.text, made.files)
                written = True
        rows = [row._asdict() for row in made.rows]
        reports.append(
            {"profile": made.profile, "file": str(file) if written else "", "members": rows, "problems": said}
        )
    if json_form:
        as_json(reports)
    else:
        _shown(reports)
    if not any(report["file"] for report in reports) and not dry_run:
        raise typer.Exit(1)


def _written(file: Path, text: str, files: Mapping[str, str]) -> list[str]:
    """Write a profile with its files; return what `check` says of it."""
    from sensegate.authoring.examples import check_profile  # noqa: PLC0415 - the whole decoder

    _write(file, text)
    for name, content in files.items():
        (file.parent / name).write_text(content, encoding="utf-8")
    return [str(problem) for problem in check_profile(file)]


def _shown(reports: Sequence[Mapping[str, Any]]) -> None:
    for report in reports:
        table(report["members"], ("field", "outcome", "property", "unit", "reason"), title=report["profile"])
        for problem in report["problems"]:
            sys.stdout.write(f"{problem}\n")
    outcomes = Counter(row["outcome"] for report in reports for row in report["members"])
    written = sum(bool(report["file"]) for report in reports)
    console.print(
        f"{count(len(reports), 'model')}, {count(written, 'profile')} written; "
        f"members: {outcomes['mapped']} mapped, {outcomes['skipped']} skipped, "
        f"{outcomes['guessed']} guessed: compare these with the maker's document",
        highlight=False,
    )
