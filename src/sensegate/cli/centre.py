"""`sensegate centre`: state and fail-over of a pair of centres; runs on the machine of the centre."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sensegate.cli.output import Json, console, print_json
from sensegate.errors import ConfigError
from sensegate.failover import terms
from sensegate.failover.standby_status import PROMOTE, STATUS, StandbyStatus
from sensegate.wording import count

app = typer.Typer(help="Show which of two centres is active; promote the standby.", no_args_is_help=True)
FRESH_S = 10.0
Directory = Annotated[Path, typer.Argument(help="`directory` of the centre's configuration.", exists=True)]


def standby_status(directory: Path) -> StandbyStatus | None:
    """Return the state of a standby centre, None if the centre is not a standby now."""
    try:
        state = msgspec.json.decode((directory / STATUS).read_bytes(), type=StandbyStatus)
    except (OSError, msgspec.DecodeError):
        return None
    return state if time.time() - state.written_at < FRESH_S else None


@app.command()
def status(directory: Directory, *, json_form: Json = False) -> None:
    """Show whether this centre is active or standby, and how complete its copy is; exit 1 if it is neither.

    Example: sensegate centre status /var/lib/sensegate
    """
    term, standby = terms.read(directory), standby_status(directory)
    state = "standby" if standby else "active" if term.active else "not running"
    votes = term.voters[-1].nodes if term.voters else ()
    if json_form:
        summary = {"state": state, "term": term.number, "alone": term.unreplicated, "voters": votes}
        print_json({**summary, **(msgspec.to_builtins(standby) if standby else {})})
    else:
        console.print(f"{state}, term {standby.term if standby else term.number}")
        if standby:
            behind = "lag unknown" if standby.behind < 0 else f"{count(standby.behind, 'entry', 'entries')} behind"
            console.print(f"the active centre {'answers' if standby.reached else 'does not answer'}, {behind}")
            if standby.missing:
                console.print(f"not copied yet: {', '.join(standby.missing)}")
        elif term.active and term.unreplicated:
            console.print("it delivers without a standby: the other centre may only take over by order")
        if votes:
            console.print(f"voters of the automatic fail-over: {', '.join(votes)}")
    if state == "not running":
        sys.exit(1)


@app.command()
def promote(
    directory: Directory,
    *,
    force: Annotated[
        bool,
        typer.Option(
            help="Promote although the copy is incomplete or the active centre answers; missing entries are hidden."
        ),
    ] = False,
) -> None:
    """Promote a standby centre to active; the other one is fenced when it meets a node or this centre.

    Example: sensegate centre promote /var/lib/sensegate
    """
    standby = standby_status(directory)
    if standby is None:
        raise ConfigError("this centre is not a standby", file=str(directory), remedy="start it with `sensegate run`")
    if not force and standby.reached:
        raise ConfigError("the active centre answers", file=str(directory), remedy="stop it first, or give --force")
    if not force and not standby.is_whole:
        problem = (
            "the copy is empty"
            if standby.behind < 0
            else f"the copy lacks {count(standby.behind, 'entry', 'entries')} of the active centre"
            if standby.behind
            else f"not copied whole yet: {', '.join(standby.missing)}"
        )
        raise ConfigError(problem, file=str(directory), remedy="give --force to continue without them")
    (directory / PROMOTE).touch()
    console.print("ordered; `sensegate centre status` shows when it is active")
