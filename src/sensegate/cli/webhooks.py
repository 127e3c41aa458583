"""`sensegate webhook`: feeds posted to an address; `sensegate feed subscribers`: who reads at this moment."""

from __future__ import annotations

from typing import Annotated

import typer

from sensegate.cli.shown import DEFAULT_URL, Json, Token, Url, as_json, ask, console, listed
from sensegate.cli.times import Since

app = typer.Typer(help="Webhooks: list, create, pause, resume, remove.", no_args_is_help=True)
PATH = "/api/v1/webhooks"
COLUMNS = ("id", "feed", "url", "form", "state", "reason", "cursor")
READERS = ("id", "feed", "delivery", "state", "lag_entries", "lag_s", "records", "failures", "subscriber", "reason")
Id = Annotated[str, typer.Argument(help="Id of the webhook.")]


@app.command("list")
def list_(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the webhooks of the token, and those of tokens that it may see."""
    listed(url, token, PATH, COLUMNS, json_form=json_form)


@app.command()
def create(
    feed: Annotated[str, typer.Argument(help="Name of the feed.")],
    address: Annotated[str, typer.Argument(help="Where to post to: https://HOST/PATH.")],
    *,
    form: Annotated[str, typer.Option(help="json, ndjson, csv, senml or msgpack.")] = "json",
    algorithm: Annotated[str, typer.Option(help="Of the signature: hmac-sha256 or hmac-sm3.")] = "hmac-sha256",
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Most records of one delivery.")] = 1_000,
    after: Annotated[str, typer.Option(help="Begin after this cursor.")] = "",
    since: Since = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Have a feed posted to an address; prints the secret of its signatures, which is shown only here."""
    body = {
        "feed": feed,
        "url": address,
        "form": form,
        "algorithm": algorithm,
        "batch": batch,
        "after": after,
        "since": since,
    }
    made = ask(url, token, lambda remote: remote.post(PATH, body))
    if json_form:
        as_json(made)
    else:
        console.print(f"webhook {made['id']}; secret {made['secret']}", highlight=False)


@app.command()
def pause(webhook: Id, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Send nothing until it is resumed."""
    ask(url, token, lambda remote: remote.post(f"{PATH}/{webhook}/pause"))
    console.print(f"{webhook}: paused", highlight=False)


@app.command()
def resume(
    webhook: Id,
    *,
    after: Annotated[str, typer.Option(help="Go on after this cursor; default: from where it stood.")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Go on from where it stood, or after a cursor."""
    row = ask(url, token, lambda remote: remote.post(f"{PATH}/{webhook}/resume", {"after": after}))
    console.print(f"{webhook}: {row['state']} from {row['cursor']}", highlight=False)


@app.command()
def remove(webhook: Id, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Remove it."""
    ask(url, token, lambda remote: remote.delete(f"{PATH}/{webhook}"))
    console.print(f"{webhook}: removed", highlight=False)


def subscribers(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """Show who reads at this moment: in which state, how far behind."""
    listed(url, token, "/api/v1/subscribers", READERS, json_form=json_form)
