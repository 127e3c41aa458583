"""`sensegate webhook`: feeds posted to an address; `sensegate feed subscribers`: the current readers."""

from __future__ import annotations

from typing import Annotated

import typer

from sensegate.cli.output import DEFAULT_URL, Json, Token, Url, call, console, print_json, print_list
from sensegate.cli.times import Since
from sensegate.cli.words import SignatureAlgorithm, WebhookForm

app = typer.Typer(help="Create, list, pause, resume and delete webhooks.", no_args_is_help=True)
PATH = "/api/v1/webhooks"
COLUMNS = ("id", "feed", "url", "form", "state", "reason", "cursor")
READERS = ("id", "feed", "delivery", "state", "lag_entries", "lag_s", "records", "failures", "subscriber", "reason")
Id = Annotated[str, typer.Argument(help="Id of the webhook.")]


@app.command("list")
def list_(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the webhooks of your token, and those of tokens that it may see.

    Example: sensegate webhook list
    """
    print_list(url, token, PATH, COLUMNS, json_form=json_form)


@app.command()
def create(
    feed: Annotated[str, typer.Argument(help="Name of the feed.")],
    address: Annotated[str, typer.Argument(help="Address to post to: https://HOST/PATH.")],
    *,
    form: Annotated[WebhookForm, typer.Option(help="Format of the body.")] = "json",
    algorithm: Annotated[SignatureAlgorithm, typer.Option(help="Algorithm of the signature.")] = "hmac-sha256",
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Most records in one delivery.")] = 1_000,
    after: Annotated[str, typer.Option(help="Start after this cursor.")] = "",
    since: Since = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
    json_form: Json = False,
) -> None:
    """Create a webhook that posts a feed to an address; its signing secret is printed only once.

    Example: sensegate webhook create gz-air https://example.org/hook --form ndjson
    """
    body = {
        "feed": feed,
        "url": address,
        "form": form,
        "algorithm": algorithm,
        "batch": batch,
        "after": after,
        "since": since,
    }
    webhook = call(url, token, lambda remote: remote.post(PATH, body))
    if json_form:
        print_json(webhook)
    else:
        console.print(f"webhook {webhook['id']}; secret {webhook['secret']}", highlight=False)


@app.command()
def pause(webhook: Id, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Pause a webhook until it is resumed.

    Example: sensegate webhook pause w0123456789abcdef
    """
    call(url, token, lambda remote: remote.post(f"{PATH}/{webhook}/pause"))
    console.print(f"{webhook}: paused", highlight=False)


@app.command()
def resume(
    webhook: Id,
    *,
    after: Annotated[str, typer.Option(help="Continue after this cursor; default: where it was paused.")] = "",
    url: Url = DEFAULT_URL,
    token: Token = "",
) -> None:
    """Resume a webhook where it was paused, or after a cursor.

    Example: sensegate webhook resume w0123456789abcdef
    """
    row = call(url, token, lambda remote: remote.post(f"{PATH}/{webhook}/resume", {"after": after}))
    console.print(f"{webhook}: {row['state']} from {row['cursor']}", highlight=False)


@app.command()
def delete(webhook: Id, *, url: Url = DEFAULT_URL, token: Token = "") -> None:
    """Delete a webhook.

    Example: sensegate webhook delete w0123456789abcdef
    """
    call(url, token, lambda remote: remote.delete(f"{PATH}/{webhook}"))
    console.print(f"{webhook}: deleted", highlight=False)


def subscribers(*, url: Url = DEFAULT_URL, token: Token = "", json_form: Json = False) -> None:
    """List the current readers of feeds, with state and lag.

    Example: sensegate feed subscribers
    """
    print_list(url, token, "/api/v1/subscribers", READERS, json_form=json_form)
