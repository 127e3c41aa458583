"""`sensegate profile new`, `unknown`, `import`: draft profiles from messages or from other projects' descriptions."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_json, print_table, rows_of
from sensegate.cli.replay import messages
from sensegate.cli.times import Since
from sensegate.config import builtin
from sensegate.errors import ConfigError
from sensegate.wording import count

FOLDER = Path("device_profiles")
"""Folder of profiles where a command is started: new ones are written to it."""
Folder = Annotated[Path, typer.Option("--profiles", help="Folder of the profiles.", envvar="SENSEGATE_PROFILES")]


def folder_to_read() -> Path:
    """Return the folder that is read without `--profiles`: the one here, else that of the package."""
    return FOLDER if FOLDER.is_dir() else builtin.PROFILES


FolderToRead = Annotated[
    Path,
    typer.Option(
        "--profiles",
        help="Folder of the profiles.",
        envvar="SENSEGATE_PROFILES",
        default_factory=folder_to_read,
        show_default="device_profiles here, else those of the package",
    ),
]


def _named(template: str, name: str) -> str:
    """Return the text of a new profile: the template with the profile's name and the topics of its vendor."""
    vendor, _, _ = name.partition("/")
    text = "".join(line for line in template.splitlines(keepends=True) if not line.startswith("# Copy to "))
    return text.replace("vendor/model", name).replace("vendor/", f"{vendor}/")


def new_profile_file(name: str, folder: Path) -> Path:
    """Return the file of a new profile. Raises `ConfigError` if the name is malformed or taken."""
    vendor, slash, model = name.partition("/")
    if not slash or not vendor or not model:
        raise ConfigError(f"'{name}' is not a profile name", remedy="give vendor/model, e.g. acme/th10")
    target = folder / vendor / f"{model}.yaml"
    if target.exists():
        raise ConfigError("the profile exists already", file=str(target), remedy="raise its version instead")
    return target


def new(
    name: Annotated[str, typer.Argument(help="Profile vendor/model; optional with --from or --topic.")] = "",
    *,
    recorded: Annotated[
        Path | None,
        typer.Option("--from", help="Learn from recorded messages (JSON lines, as for replay).", exists=True),
    ] = None,
    topic: Annotated[
        str, typer.Option(help="Learn from messages that a gateway has recorded under this MQTT topic filter.")
    ] = "",
    shape: Annotated[str, typer.Option(help="Learn from a message shape of `sensegate profile unknown`.")] = "",
    since: Since = "1h",
    profiles: Folder = FOLDER,
    show: Annotated[bool, typer.Option("--print", help="Print the draft instead of writing a file.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Create a profile from the template, or draft one from messages, with the reason for each guess.

    Example: sensegate profile new acme/th10 --topic 'acme/#' --since 1h
    """
    if recorded is None and not topic and not shape:
        target = new_profile_file(name, profiles)
        template = next(file for folder in (profiles, builtin.PROFILES) if (file := folder / "_template.yaml").exists())
        text = template.read_text(encoding="utf-8").replace("$schema=_schema.json", "$schema=../_schema.json")
        _write(target, _named(text, name))
        console.print(f"{target}: edit it, then sensegate check {target}", highlight=False)
        return
    if recorded is not None:
        draft = _learned(recorded, topic, name)
    else:
        body = {"topic": topic, "shape": shape, "profile": name}
        draft = call(url, token, lambda remote: remote.post("/api/v1/profiles/learn", body, since=since))
    if show:
        sys.stdout.write(draft["text"])
        return
    target = new_profile_file(draft["profile"], profiles)
    _write(target, draft["text"])
    _report(draft, target)


def _write(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def _learned(recorded: Path, topic: str, name: str) -> dict[str, Any]:
    """Return the draft for the messages of a file, in the format of the gateway's answer."""
    from sensegate.authoring.learn.shapes import Sample  # noqa: PLC0415 - the whole decoder
    from sensegate.authoring.survey import draft_of  # noqa: PLC0415 - as above
    from sensegate.decode.topics import matches_filter  # noqa: PLC0415 - as above

    samples = [
        Sample(topic_, payload, round(at * 1e6) if at is not None else 0)
        for topic_, payload, at in messages(recorded)
        if not topic or matches_filter(topic_, topic)
    ]
    draft = draft_of(samples, name)
    if draft is None:
        raise ConfigError(
            "the file holds no matching message", file=str(recorded), remedy="see `sensegate replay --help`"
        )
    return {
        "profile": draft.profile,
        "text": draft.text,
        "messages": draft.messages,
        "recognised": [
            {"field": field, "property": rule.property, "reason": rule.reason, "sure": rule.sure}
            for field, rule in draft.recognised
        ],
        "unrecognised": [{"field": field, "reason": reason} for field, reason in draft.unrecognised],
        "problem": draft.problem,
    }


def _report(draft: dict[str, Any], target: Path) -> None:
    """Print the recognised, guessed and unrecognised fields, and the problems that `check` finds."""
    from sensegate.authoring.examples import check_profile  # noqa: PLC0415 - the whole decoder

    rows = [{**member, "sure": "" if member["sure"] else "guess"} for member in draft["recognised"]]
    rows += [
        {"field": member["field"], "property": "-", "sure": "unrecognised", "reason": member["reason"]}
        for member in draft["unrecognised"]
    ]
    print_table(rows, ("field", "property", "sure", "reason"))
    for problem in check_profile(target):
        sys.stdout.write(f"{problem}\n")
    console.print(
        f"{target}: a draft of {count(draft['messages'], 'message')}; compare it with the vendor's documentation, then "
        f"sensegate check {target}",
        highlight=False,
    )


def unknown(*, since: Since = "1h", url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List messages that no profile explains, by shape; `sensegate profile new --shape ID` drafts a profile for one.

    Example: sensegate profile unknown --since 24h
    """
    rows = rows_of(call(url, token, lambda remote: remote.get("/api/v1/profiles/unknown", since=since)))
    shown = [
        {**row, "reasons": ", ".join(f"{reason} {number:,}" for reason, number in row["reasons"].items())}
        for row in rows
    ]
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
        print_json(rows)
        return
    print_table(shown, columns)


def import_(
    path: Annotated[
        Path,
        typer.Argument(
            help="Vendor folder of The Things Network's or ChirpStack's device repository, packages of codecs, "
            "or a file with `exposes`."
        ),
    ],
    *,
    into: Annotated[Path, typer.Option(help="Folder for the profiles.")] = FOLDER,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the report, write nothing.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite existing profiles.")] = False,
    json_form: Json = False,
) -> None:
    """Import profiles from device descriptions of other projects, with a report of mapped, guessed and skipped fields.

    Example: sensegate profile import lorawan-devices/vendor/acme --dry-run
    """
    from sensegate.authoring.imports import import_from  # noqa: PLC0415 - the whole decoder

    reports: list[dict[str, Any]] = []
    for imported in import_from(path):
        file = into / f"{imported.profile}.yaml"
        problems: list[str] = [imported.problem] if imported.problem else []
        written = False
        if imported.text and not dry_run:
            if file.exists() and not replace:
                problems.append(f"{file} exists already; --replace overwrites it")
            else:
                problems += _written(file, imported.text, imported.files)
                written = True
        rows = [row._asdict() for row in imported.rows]
        reports.append(
            {"profile": imported.profile, "file": str(file) if written else "", "members": rows, "problems": problems}
        )
    if json_form:
        print_json(reports)
    else:
        _print_reports(reports)
    if not any(report["file"] for report in reports) and not dry_run:
        raise typer.Exit(1)


def _written(file: Path, text: str, files: Mapping[str, str]) -> list[str]:
    """Write a profile with its files; return the problems that `check` finds."""
    from sensegate.authoring.examples import check_profile  # noqa: PLC0415 - the whole decoder

    _write(file, text)
    for name, content in files.items():
        (file.parent / name).write_text(content, encoding="utf-8")
    return [str(problem) for problem in check_profile(file)]


def _print_reports(reports: Sequence[Mapping[str, Any]]) -> None:
    for report in reports:
        print_table(report["members"], ("field", "outcome", "property", "unit", "reason"), title=report["profile"])
        for problem in report["problems"]:
            sys.stdout.write(f"{problem}\n")
    outcomes = Counter(row["outcome"] for report in reports for row in report["members"])
    written = sum(bool(report["file"]) for report in reports)
    console.print(
        f"{count(len(reports), 'model')}, {count(written, 'profile')} written; "
        f"members: {outcomes['mapped']} mapped, {outcomes['skipped']} skipped, "
        f"{outcomes['proposed']} without a property, "
        f"{outcomes['guessed']} guessed: compare these with the vendor's documentation",
        highlight=False,
    )
