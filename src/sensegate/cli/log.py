"""`sensegate log`: unreadable entries of the log."""

from __future__ import annotations

from typing import Annotated

import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_table

app = typer.Typer(help="List, quarantine and restore unreadable entries of the log.", no_args_is_help=True)
COLUMNS = ("sequence", "state", "subject", "size", "stored", "reason", "readers", "by", "at")
Sequence = Annotated[int, typer.Argument(help="Sequence of the entry, as `log unreadable` shows it.", min=1)]
Note = Annotated[str, typer.Option(help="Reason for the audit trail.")]


@app.command()
def unreadable(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the entries that readers skipped as unreadable, and those in quarantine.

    Example: sensegate log unreadable
    """
    rows = call(url, token, lambda remote: remote.get("/api/v1/log/unreadable"))["rows"]
    print_table(rows, COLUMNS, json_form=json_form)


@app.command()
def quarantine(sequence: Sequence, *, note: Note = "", url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Quarantine an entry, so that readers skip it; a copy of its bytes stays in the directory of the store.

    Example: sensegate log quarantine 1234 --note "damaged by the disk"
    """
    row = call(url, token, lambda remote: remote.post(f"/api/v1/log/{sequence}/quarantine", {"note": note}))
    console.print(f"entry {row['sequence']} ({row['subject']}, {row['size']} bytes) is in quarantine", highlight=False)


@app.command()
def restore(sequence: Sequence, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Restore an entry from quarantine, e.g. after an update that can read it.

    Example: sensegate log restore 1234
    """
    call(url, token, lambda remote: remote.delete(f"/api/v1/log/{sequence}/quarantine"))
    console.print(f"entry {sequence} is restored", highlight=False)
