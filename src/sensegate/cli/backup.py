"""`sensegate backup` and `sensegate restore`: a consistent copy of a gateway, and a gateway made of it."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.progress import Progress

from sensegate.cli.output import Json, console, print_json, stderr
from sensegate.config import load
from sensegate.wording import count

if TYPE_CHECKING:
    from sensegate.bus.backup.manifest import BackupManifest
    from sensegate.bus.backup.restore import RestoreResult

ConfigFile = Annotated[Path, typer.Argument(help="Configuration of the node or centre.")]
KeyFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File with a passphrase of at least 16 characters, mode 0600."),
]


def backup(
    config: ConfigFile,
    *,
    to: Annotated[Path, typer.Option(help="Directory of the backup; it must not exist yet.", metavar="DIR")],
    with_secrets: KeyFile = None,
    json_form: Json = False,
) -> None:
    """Back up a node or centre, also while it runs: all streams and state files as of one moment.

    The server stands still for some milliseconds. An encrypted store stays encrypted. Keys and passwords are left out
    unless --with-secrets names a passphrase: then they lie encrypted in secrets.sealed. The index of duplicates is
    left out; it is rebuilt from the log.

    sensegate backup config/node.yaml --to /backup/node-4401 --with-secrets /root/backup.pass
    """
    from sensegate.bus.backup import create, secret_file  # noqa: PLC0415 - only this command needs it

    loaded = load(config)
    passphrase = secret_file.passphrase(with_secrets) if with_secrets else b""
    with _bar("backup", lambda: create.size_of(loaded)) as progress:
        made = create.create(loaded, config, to, passphrase=passphrase, progress=progress)
    summary = made.manifest
    if json_form:
        print_json({"directory": str(to), "standstill_s": round(made.standstill_s, 4), **_summary(summary)})
        return
    console.print(
        f"{to}: {count(len(summary.files), 'file')}, {summary.size / 1e6:,.1f} MB; "
        f"the server stood still for {made.standstill_s * 1e3:.0f} ms",
        highlight=False,
    )
    if summary.secrets:
        stderr.print(f"with {count(len(summary.secrets), 'secret file')}, encrypted; keep the passphrase elsewhere")
    elif summary.left_out:
        stderr.print(f"left out, keep copies of them elsewhere: {', '.join(summary.left_out)}")
        if summary.encrypted:
            stderr.print("the store is encrypted: without its key nobody can read this backup")


def restore(
    directory: Annotated[Path, typer.Argument(help="Directory of a backup.", metavar="DIR")],
    config: ConfigFile,
    *,
    secrets: KeyFile = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Set a store that is in the way aside; nothing of it is deleted.")
    ] = False,
    beside_original: Annotated[
        bool, typer.Option("--beside-original", help="Restore although the original may be alive.")
    ] = False,
    json_form: Json = False,
) -> None:
    """Restore a backup into the directory of a configuration, after all its checksums were verified.

    The next start begins a new timeline: cursors of entries that the copy does not hold are refused with 410 and the
    place to read on from. A node claims its lanes at the centre under a new epoch; what only the centre has stays
    there.

    sensegate restore /backup/node-4401 config/node.yaml --secrets /root/backup.pass
    """
    from sensegate.bus.backup import manifest, secret_file  # noqa: PLC0415 - only this command needs it
    from sensegate.bus.backup.restore import restore as restored_from  # noqa: PLC0415 - the same

    loaded = load(config)
    passphrase = secret_file.passphrase(secrets) if secrets else b""
    with _bar("restore", lambda: 2 * manifest.read(directory).size) as progress:
        restored = restored_from(
            directory,
            loaded,
            passphrase=passphrase,
            replace=replace,
            beside_original=beside_original,
            progress=progress,
        )
    if json_form:
        print_json({**msgspec.to_builtins(restored), "manifest": _summary(restored.manifest)})
    else:
        _tell(restored, loaded.role)


def _tell(restored: RestoreResult, role: str) -> None:
    summary = restored.manifest
    age_s = time.time() - summary.made / 1e6
    console.print(
        f"{restored.directory}: restored as of {_iso(summary.made)}, {age_s / 3600:,.1f} h ago, "
        f"by sensegate {summary.sensegate}",
        highlight=False,
    )
    lacking = "what was acknowledged here since is not in it"
    if role == "node":
        console.print(f"{lacking}; what of that had gone up stays at the centre", highlight=False)
    else:
        console.print(f"{lacking}; nodes send again what their logs still hold", highlight=False)
    if restored.aside:
        console.print(f"what was there before lies in {restored.aside}", highlight=False)
    for title, names in (
        ("secrets taken from there", restored.taken_over),
        ("secrets that are missing, put them back before the start or do without", restored.missing),
        ("files that differ from the backup and were left as they are", restored.kept),
    ):
        if names:
            stderr.print(f"{title}: {', '.join(names)}", highlight=False)


@contextlib.contextmanager
def _bar(title: str, total: Callable[[], int]) -> Iterator[Callable[[int], None]]:
    """Yield what moves a bar on the terminal on by so many bytes."""
    with Progress(console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        task = progress.add_task(title, total=total() if stderr.is_terminal else None)
        yield lambda size: progress.advance(task, size)


def _summary(manifest: BackupManifest) -> dict[str, Any]:
    """Return a manifest with the number of its files instead of the list."""
    return {**msgspec.to_builtins(manifest), "files": len(manifest.files)}


def _iso(time_us: int) -> str:
    return dt.datetime.fromtimestamp(time_us / 1e6, dt.UTC).isoformat(timespec="seconds")
