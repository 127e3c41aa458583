"""`sensegate centre`: two centres, of which one is active; on the machine of the one that is asked."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sensegate.authority import terms
from sensegate.authority.standby import PROMOTE, STATUS, Standby
from sensegate.cli.output import Json, console, print_json
from sensegate.errors import ConfigError
from sensegate.wording import count

app = typer.Typer(help="Two centres: which is active; order the one that stands by to be.", no_args_is_help=True)
FRESH_S = 10.0
Directory = Annotated[Path, typer.Argument(help="`directory` of the centre's configuration.", exists=True)]


def standby_status(directory: Path) -> Standby | None:
    """Return how a centre stands by, None where it does not at the moment."""
    try:
        found = msgspec.json.decode((directory / STATUS).read_bytes(), type=Standby)
    except (OSError, msgspec.DecodeError):
        return None
    return found if time.time() - found.at < FRESH_S else None


@app.command()
def status(directory: Directory, *, json_form: Json = False) -> None:
    """Say whether this centre is active or stands by, and how far its copy is; exit 1 if it is neither."""
    term, now = terms.read(directory), standby_status(directory)
    said = "stands by" if now else "active" if term.active else "not running"
    votes = term.voters[-1].nodes if term.voters else ()
    if json_form:
        told = {"state": said, "term": term.number, "alone": term.alone, "voters": votes}
        print_json({**told, **(msgspec.to_builtins(now) if now else {})})
    else:
        console.print(f"{said}, term {now.term if now else term.number}")
        if now:
            behind = "not known how far behind" if now.behind < 0 else f"{count(now.behind, 'entry', 'entries')} behind"
            console.print(f"the active centre {'answers' if now.reached else 'is not reached'}, {behind}")
        elif term.active and term.alone:
            console.print("it delivers without a standby: the other one may only take over by order")
        if votes:
            console.print(f"nodes that vote in automatic fail-over: {', '.join(votes)}")
    if said == "not running":
        sys.exit(1)


@app.command()
def promote(
    directory: Directory,
    *,
    force: Annotated[
        bool, typer.Option(help="Although its copy is not whole, or the active one answers: what it lacks is hidden.")
    ] = False,
) -> None:
    """Order a centre that stands by to be active; the other one is fenced when it meets a node or this centre."""
    now = standby_status(directory)
    if now is None:
        raise ConfigError("this centre does not stand by", file=str(directory), remedy="start it with `sensegate run`")
    if not force and now.reached:
        raise ConfigError("the active centre answers", file=str(directory), remedy="stop it first, or give --force")
    if not force and now.behind != 0:
        what = (
            "its copy has never begun"
            if now.behind < 0
            else f"{count(now.behind, 'entry', 'entries')} missing when it was lost"
        )
        raise ConfigError(what, file=str(directory), remedy="give --force to go on without them")
    (directory / PROMOTE).touch()
    console.print("ordered; `sensegate centre status` says when it is active")
