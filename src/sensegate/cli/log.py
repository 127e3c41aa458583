"""`sensegate log`: entries of the log that cannot be read."""

from __future__ import annotations

from typing import Annotated

import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_table

app = typer.Typer(help="Entries of the log: unreadable, quarantine, restore.", no_args_is_help=True)
COLUMNS = ("sequence", "state", "subject", "size", "stored", "reason", "readers", "by", "at")
Sequence = Annotated[int, typer.Argument(help="Sequence of the entry, as `unreadable` shows it.", min=1)]
Note = Annotated[str, typer.Option(help="Why, for the audit trail.")]


@app.command()
def unreadable(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the entries that readers could not read and passed over, and those that are set aside.

    sensegate log unreadable
    """
    rows = call(url, token, lambda remote: remote.get("/api/v1/log/unreadable"))["rows"]
    print_table(rows, COLUMNS, json_form=json_form)


@app.command()
def quarantine(sequence: Sequence, *, note: Note = "", url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Set an entry aside, so that no reader meets it any more; a copy of its bytes is kept in the store's directory.

    sensegate log quarantine 1234 --note "damaged by the disk"
    """
    row = call(url, token, lambda remote: remote.post(f"/api/v1/log/{sequence}/quarantine", {"note": note}))
    console.print(f"entry {row['sequence']} ({row['subject']}, {row['size']} bytes) is set aside", highlight=False)


@app.command()
def restore(sequence: Sequence, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Let readers see an entry again that was set aside, e.g. after an update that can read it.

    sensegate log restore 1234
    """
    call(url, token, lambda remote: remote.delete(f"/api/v1/log/{sequence}/quarantine"))
    console.print(f"entry {sequence} is read again", highlight=False)
