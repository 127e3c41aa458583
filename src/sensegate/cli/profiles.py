"""`sensegate check`, `explain` and `profile`: configurations and device profiles, offline."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
import yaml

from sensegate import wording
from sensegate.cli import drafts
from sensegate.cli.findings import Finding, excerpt, finding
from sensegate.cli.shown import DEFAULT_URL, Json, Token, Url, as_json, ask, console, followed, rows_of, table
from sensegate.config import files as config_files
from sensegate.config import load
from sensegate.config import yaml as yamls
from sensegate.errors import ConfigError, NotFound
from sensegate.wording import count

app = typer.Typer(help="Device profiles: written and tried here, released at a gateway.", no_args_is_help=True)

FOLDER = Path("device_profiles")
Folder = Annotated[Path, typer.Option("--profiles", help="Folder of the profiles.", envvar="SENSEGATE_PROFILES")]
Name = Annotated[str, typer.Argument(help="vendor/model.", metavar="PROFILE")]


def files(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the YAML files at and below paths; templates (leading underscore) are checked too where named.

    Raises:
        ConfigError: a path is not there.
    """
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*.yaml") if not file.name.startswith("_"))
        elif path.exists():
            yield path
        else:
            raise ConfigError("is not there", file=str(path), remedy="name a file or a folder")


def is_profile(file: Path) -> bool:
    """Tell a profile from a configuration: by its key `profile`, or by its folder where it cannot be read."""
    try:
        with file.open(encoding="utf-8") as text:
            head = yamls.tree(text)
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return FOLDER.name in file.resolve().parts
    return isinstance(head, dict) and ("profile" in head or "messages" in head)


def findings(paths: Sequence[Path]) -> list[Finding]:
    """Return what is wrong with configurations and profiles, what is probably a mistake, and what is to be known."""
    from sensegate.authoring.examples import check_profile  # noqa: PLC0415 - the whole decoder
    from sensegate.authoring.lint import lint_profile  # noqa: PLC0415 - the same
    from sensegate.authoring.overlaps import overlaps  # noqa: PLC0415 - the same
    from sensegate.decode.profiles import ProfileSet  # noqa: PLC0415 - the same

    found: list[Finding] = []
    good: list[Path] = []
    for file in followed(list(files(paths)), "checking"):
        if is_profile(file):
            wrong = check_profile(file)
            found += map(finding, wrong or lint_profile(file))
            good += [] if wrong or file.name.startswith("_") else [file]
            continue
        try:
            found += [Finding("warning", one) for one in config_files.faults(load(file), file)]
        except ConfigError as why:
            found.append(finding(why))
    try:
        loaded = ProfileSet.load(good)
    except ConfigError as why:  # two of one name
        return [*found, finding(why)]
    return [*found, *map(finding, overlaps([one for name in loaded.ids if (one := loaded.find(name))]))]


def problems(paths: Sequence[Path]) -> list[str]:
    """Return what is wrong with configurations and profiles, a line each: ``file:line: key: what; what to do``."""
    return [one.text for one in findings(paths) if one.severity == "error"]


def check(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Files or folders; default: config and device_profiles.")
    ] = None,
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as problems too.")] = False,
    notes: Annotated[bool, typer.Option("--notes", help="Also what is to be known: who shares which topics.")] = False,
    json_form: Json = False,
) -> None:
    """Check configurations and profiles and run every profile's examples; exit 1 if anything is wrong."""
    given = paths or [path for path in (Path("config"), FOLDER) if path.exists()]
    looked_at = len(list(files(given)))
    found = [one for one in findings(given) if notes or one.severity != "note"]
    wrong = [one.text for one in found if one.severity == "error" or (strict and one.severity == "warning")]
    warnings = sum(one.severity == "warning" for one in found)
    if json_form:
        as_json({"files": looked_at, "problems": wrong, "findings": [one.record() for one in found]})
    else:
        for one in found:
            mark = "" if one.severity == "error" else f" [{one.severity}]"
            sys.stdout.write("\n".join([f"{one.text}{mark}", *excerpt(one.error)]) + "\n")
        said = (count(looked_at, "file"), count(len(wrong), "problem"), count(warnings, "warning"))
        console.print(", ".join(said), highlight=False)
    if wrong:
        raise typer.Exit(1)


def explain(
    file: Annotated[str, typer.Argument(help="File with the payload; - reads standard input.", metavar="FILE|-")],
    *,
    topic: Annotated[
        str, typer.Option(help="Topic that it came on; none: a frame as a network server brings it.")
    ] = "",
    device: Annotated[str, typer.Option(help="Id of the device; default: whoever the topic names.")] = "",
    profile: Annotated[
        str,
        typer.Option(
            help="The device's own profile, where no topic tells it: behind a network server, by HTTP, on a line."
        ),
    ] = "",
    port: Annotated[int | None, typer.Option(help="Port of a frame without a topic.")] = None,
    hexed: Annotated[bool, typer.Option("--hex", help="The payload is written in hex.")] = False,
    profiles: Folder = FOLDER,
    json_form: Json = False,
) -> None:
    """Walk one message through the stages: which profile claims it and why, fields, readings, quality, identity."""
    from sensegate.authoring.explain import explain as walk  # noqa: PLC0415 - the whole decoder

    try:
        payload = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as why:
        remedy = f"{why.strerror or why}; name a file with the payload, or - for standard input"
        raise ConfigError("cannot be read", file=file, remedy=remedy) from why
    if hexed:
        try:
            payload = bytes.fromhex(payload.decode("ascii"))
        except ValueError as why:
            raise ConfigError("is no hex", file=file, remedy="two digits a byte; blanks are left out") from why
    stages = walk([profiles], topic, payload, device=device, profile=profile, port=port)
    if json_form:
        as_json(stages)
        return
    for stage in stages:
        console.rule(str(stage["stage"]), align="left")
        for line in stage["lines"]:
            console.print(f"  {line}", highlight=False)


def _file(name: str, folder: Path) -> Path:
    file = folder / f"{name}.yaml"
    if not file.exists():
        known = [f"{one.parent.name}/{one.stem}" for one in files([folder])] if folder.exists() else []
        raise NotFound(f"no profile '{name}' in {folder}; {wording.unknown_profile(name, known)}")
    return file


app.command()(drafts.new)
app.command()(drafts.unknown)
app.command("import")(drafts.import_)


@app.command("list")
def list_(
    *,
    profiles: Folder = FOLDER,
    live: Annotated[bool, typer.Option("--live", help="Ask the gateway what is in force there.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """List the profiles of a folder, or with --live those in force at a gateway."""
    if live:
        found = rows_of(ask(url, token, lambda remote: remote.get("/api/v1/profiles", limit=10_000)))
        table(
            found,
            ("id", "version", "folder", "trial_versions", "title", "format", "topics", "problem"),
            json_form=json_form,
        )
        return
    from sensegate.decode.grammar import parse  # noqa: PLC0415 - the decoder

    rows = []
    for file in files([profiles]):
        source, _ = parse(file.read_text(encoding="utf-8"), file=str(file))
        rows.append(
            {
                "profile": source.profile,
                "version": source.version,
                "label": source.label.en,
                "label_zh": source.label.zh,
                "format": source.format,
                "domain": source.domain,
                "topics": list(dict.fromkeys(topic for rule in source.messages for topic in rule.topics)),
                "examples": len(source.examples),
            }
        )
    table(rows, ("profile", "version", "label", "format", "topics", "examples"), json_form=json_form)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="vendor/model, or vendor/model@version.", metavar="PROFILE[@VERSION]")],
    *,
    profiles: Folder = FOLDER,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Print a profile as it is written: the folder's, or with @version the one that a gateway keeps."""
    profile, at, version = name.partition("@")
    if at:
        path = f"/api/v1/profiles/{profile}/versions/{version}"
        sys.stdout.write(ask(url, token, lambda remote: remote.get(path))["text"])
        return
    sys.stdout.write(_file(name, profiles).read_text(encoding="utf-8"))


@app.command("test")
def run_examples(
    name: Annotated[str, typer.Argument(help="vendor/model; default: all.", metavar="[PROFILE]")] = "",
    *,
    profiles: Folder = FOLDER,
) -> None:
    """Run the examples of one profile or of all; exit 1 if one does not give what it says."""
    from sensegate.authoring.examples import check_profile  # noqa: PLC0415 - the whole decoder

    chosen = [_file(name, profiles)] if name else list(files([profiles]))
    found = [str(problem) for file in followed(chosen, "running examples") for problem in check_profile(file)]
    for line in found:
        sys.stdout.write(line + "\n")
    console.print(f"{count(len(chosen), 'profile')}, {count(len(found), 'problem')}", highlight=False)
    if found:
        raise typer.Exit(1)
