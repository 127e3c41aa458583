"""`sensegate check`, `explain` and `profile`: offline work on configurations and device profiles."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from sensegate import wording
from sensegate.cli import drafts
from sensegate.cli.findings import Finding, excerpt, finding_of
from sensegate.cli.output import (
    DEFAULT_URL,
    Json,
    Token,
    Url,
    call,
    console,
    print_json,
    print_table,
    rows_of,
    with_progress,
)
from sensegate.config import builtin, load
from sensegate.config import files as config_files
from sensegate.config import yaml as yamls
from sensegate.errors import ConfigError, NotFound
from sensegate.wording import count

if TYPE_CHECKING:
    from sensegate.decode.profile import CompiledProfile

app = typer.Typer(help="Write, test and release device profiles.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="vendor/model.", metavar="PROFILE")]


def files(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the YAML files at and below paths; templates (leading underscore) only if named.

    Raises:
        ConfigError: a path does not exist.
    """
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*.yaml") if not file.name.startswith("_"))
        elif path.exists():
            yield path
        else:
            raise ConfigError("the path does not exist", file=str(path), remedy="give a file or a folder")


def is_profile(file: Path) -> bool:
    """Return whether a file is a profile: by its key `profile`, or by its folder if it cannot be parsed."""
    try:
        with file.open(encoding="utf-8") as text:
            head = yamls.parse_tree(text)
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return drafts.FOLDER.name in file.resolve().parts
    return isinstance(head, dict) and ("profile" in head or "messages" in head)


def findings(paths: Sequence[Path]) -> list[Finding]:
    """Return the errors, probable mistakes and remarks on configurations and profiles."""
    from sensegate.authoring.lint import review_profile  # noqa: PLC0415 - loads the whole decoder
    from sensegate.authority.config_divisions import division_faults  # noqa: PLC0415 - only this command needs it

    results: list[Finding] = []
    valid: list[CompiledProfile] = []
    for file in with_progress(list(files(paths)), "checking"):
        if is_profile(file):
            profile, faults = review_profile(file)
            results += map(finding_of, faults)
            if profile is not None and not file.name.startswith("_"):
                valid.append(profile)
            continue
        try:
            config = load(file)
            results += map(finding_of, division_faults(config, file))
            results += [Finding("warning", fault) for fault in config_files.file_faults(config, file)]
        except ConfigError as why:
            results.append(finding_of(why))
    return [*results, *map(finding_of, _compare(valid))] if valid else results


def _compare(profiles: Sequence[CompiledProfile]) -> Iterator[ConfigError]:
    """Yield what valid profiles say against each other: two of one name, or topics that several claim."""
    from sensegate.authoring.overlaps import overlaps  # noqa: PLC0415 - loads the whole decoder
    from sensegate.decode.profiles import check_ids  # noqa: PLC0415 - as above

    try:
        check_ids(profiles)
    except ConfigError as why:
        yield why
        return
    yield from overlaps(sorted(profiles, key=lambda profile: profile.id))


def problems(paths: Sequence[Path]) -> list[str]:
    """Return the errors of configurations and profiles as lines ``file:line: key: what is wrong; what to do``."""
    return [finding.text for finding in findings(paths) if finding.severity == "error"]


def check(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Files or folders; default: config and device_profiles here, else the profiles of the package."
        ),
    ] = None,
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Treat warnings as problems.")] = False,
    notes: Annotated[
        bool, typer.Option("--notes", help="Also print remarks, e.g. profiles that share topics.")
    ] = False,
    json_form: Json = False,
) -> None:
    """Check configurations and profiles and run the examples of every profile; exit 1 if there is a problem.

    Example: sensegate check config/node.yaml device_profiles/acme
    """
    targets = paths or [path for path in (Path("config"), drafts.FOLDER) if path.exists()] or [builtin.PROFILES]
    files_checked = len(list(files(targets)))
    if not files_checked:
        raise ConfigError(
            f"there is nothing to check in {', '.join(map(str, targets))}",
            remedy="name a configuration or a profile, or a folder of them; their names end with .yaml",
        )
    results = [result for result in findings(targets) if notes or result.severity != "note"]
    errors = [
        result.text for result in results if result.severity == "error" or (strict and result.severity == "warning")
    ]
    warnings = sum(result.severity == "warning" for result in results)
    if json_form:
        print_json({"files": files_checked, "problems": errors, "findings": [result.record() for result in results]})
    else:
        for result in results:
            mark = "" if result.severity == "error" else f" [{result.severity}]"
            sys.stdout.write("\n".join([f"{result.text}{mark}", *excerpt(result.error)]) + "\n")
        summary = (count(files_checked, "file"), count(len(errors), "problem"), count(warnings, "warning"))
        console.print(", ".join(summary), highlight=False)
    if errors:
        raise typer.Exit(1)


def explain(
    file: Annotated[str, typer.Argument(help="File with the payload; - reads standard input.", metavar="FILE|-")],
    *,
    topic: Annotated[
        str, typer.Option(help="Topic of the message; default: none, a frame from a network server.")
    ] = "",
    device: Annotated[str, typer.Option(help="Id of the device; default: the device that the topic names.")] = "",
    profile: Annotated[
        str,
        typer.Option(
            help="Profile of the device, if the topic identifies none (network server, HTTP, TCP) or several."
        ),
    ] = "",
    port: Annotated[int | None, typer.Option(help="Port of a frame without a topic.")] = None,
    hexed: Annotated[bool, typer.Option("--hex", help="Read the payload as hex digits.")] = False,
    profiles: drafts.FolderToRead,
    json_form: Json = False,
) -> None:
    """Explain how one message is processed: matching profile and why, fields, readings, quality, identity.

    Example: sensegate explain payload.json --topic acme/th10/7/up
    """
    from sensegate.authoring.explain import explain as explain_message  # noqa: PLC0415 - the whole decoder

    try:
        payload = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as why:
        remedy = f"{why.strerror or why}; give a file with the payload, or - for standard input"
        raise ConfigError("the file cannot be read", file=file, remedy=remedy) from why
    if hexed:
        try:
            payload = bytes.fromhex(payload.decode("ascii"))
        except ValueError as why:
            raise ConfigError(
                "the payload is not hex", file=file, remedy="give two digits per byte; blanks are ignored"
            ) from why
    stages = explain_message([profiles], topic, payload, device=device, profile=profile, port=port)
    if json_form:
        print_json(stages)
        return
    for stage in stages:
        console.rule(str(stage["stage"]), align="left")
        for line in stage["lines"]:
            console.print(f"  {line}", highlight=False)


def _file(name: str, folder: Path) -> Path:
    """Return the file of a profile, which is named as vendor/model or by its path. Raises `NotFound`."""
    if name.endswith(".yaml") and Path(name).is_file():
        return Path(name).absolute()
    file = folder / f"{name}.yaml"
    if not file.exists():
        known = [f"{file.parent.name}/{file.stem}" for file in files([folder])] if folder.exists() else []
        raise NotFound(f"no profile '{name}' in {folder}; {wording.unknown_profile(name, known)}")
    return file


app.command()(drafts.new)
app.command()(drafts.unknown)
app.command("import")(drafts.import_)


@app.command("list")
def list_(
    *,
    profiles: drafts.FolderToRead,
    live: Annotated[bool, typer.Option("--live", help="List the profiles in force at the gateway.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """List the profiles of a folder, or with --live those in force at a gateway.

    Example: sensegate profile list --live
    """
    if live:
        rows_in_force = rows_of(call(url, token, lambda remote: remote.get("/api/v1/profiles", limit=10_000)))
        print_table(
            rows_in_force,
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
    print_table(rows, ("profile", "version", "label", "format", "topics", "examples"), json_form=json_form)


@app.command()
def properties(
    words: Annotated[
        list[str] | None, typer.Argument(help="Words in the name, English or Chinese; default: all.")
    ] = None,
    *,
    domain: Annotated[str, typer.Option(help="Restrict to this domain, e.g. air.")] = "",
    json_form: Json = False,
) -> None:
    """List the properties that a profile may name, with their canonical units.

    Example: sensegate profile properties valve
    """
    from sensegate.quantities.properties import PROPERTIES  # noqa: PLC0415 - the whole table

    rows = [
        {
            "property": row.name,
            "kind": row.kind,
            "unit": row.unit,
            "domain": row.domain,
            "label": row.label_en,
            "label_zh": row.label_zh,
        }
        for row in PROPERTIES.rows
        if domain in {"", row.domain}
        and all(word.lower() in f"{row.name} {row.label_en} {row.label_zh}".lower() for word in words or ())
    ]
    print_table(rows, ("property", "kind", "unit", "domain", "label", "label_zh"), json_form=json_form)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="vendor/model, or vendor/model@version.", metavar="PROFILE[@VERSION]")],
    *,
    profiles: drafts.FolderToRead,
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Print the text of a profile from the folder, or with @VERSION from a gateway.

    Example: sensegate profile show acme/th10@4
    """
    profile, at, version = name.partition("@")
    if at:
        path = f"/api/v1/profiles/{profile}/versions/{version}"
        sys.stdout.write(call(url, token, lambda remote: remote.get(path))["text"])
        return
    sys.stdout.write(_file(name, profiles).read_text(encoding="utf-8"))


def _accept(name: str, selected: Sequence[Path]) -> None:
    """Write the values seen as expected, in one profile that the command names."""
    from sensegate.authoring.accept import accept as accept_examples  # noqa: PLC0415 - the whole decoder

    if not name:
        raise ConfigError("--accept needs a profile", remedy="name one: sensegate profile test acme/th10 --accept")
    for file in selected:
        for label in accept_examples(file):
            sys.stdout.write(f"{file}: example '{label}' expects now what it gives; compare it with the document\n")


@app.command("test")
def run_examples(
    name: Annotated[str, typer.Argument(help="vendor/model, or its file; default: all.", metavar="[PROFILE]")] = "",
    *,
    profiles: drafts.FolderToRead,
    accept: Annotated[
        bool, typer.Option("--accept", help="Write the values seen as expected, after a change that you compared.")
    ] = False,
) -> None:
    """Run the examples of one profile or of all; exit 1 if one fails.

    Example: sensegate profile test acme/th10
    """
    from sensegate.authoring.examples import check_profile  # noqa: PLC0415 - the whole decoder

    selected = [_file(name, profiles)] if name else list(files([profiles]))
    if accept:
        _accept(name, selected)
    failures = [str(problem) for file in with_progress(selected, "running examples") for problem in check_profile(file)]
    for line in failures:
        sys.stdout.write(line + "\n")
    console.print(f"{count(len(selected), 'profile')}, {count(len(failures), 'problem')}", highlight=False)
    if failures:
        raise typer.Exit(1)
