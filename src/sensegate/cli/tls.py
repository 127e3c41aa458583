"""`sensegate tls`: certificates for a laboratory, for every link at once."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from sensegate.cli.output import console

app = typer.Typer(help="Certificates: for a laboratory, and pins.", no_args_is_help=True)
HOSTS = ("localhost", "127.0.0.1", "::1")


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Where the files are written; a second run only adds.")],
    *,
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address of the server; may be repeated. Default: loopback.")
    ] = None,
    server: Annotated[str, typer.Option(help="Name of the server's files.")] = "server",
    node: Annotated[list[str] | None, typer.Option(help="City code of a node that links up; may be repeated.")] = None,
    device: Annotated[list[str] | None, typer.Option(help="Id of a device; may be repeated.")] = None,
    client: Annotated[list[str] | None, typer.Option(help="Name of an HTTP client; may be repeated.")] = None,
) -> None:
    """Make an authority of your own and certificates of a server, of nodes, devices and clients; show how to use them.

    Not for a city: the authority's key lies in the directory, unencrypted.
    """
    from sensegate.authority.certificates import CA, Authority  # noqa: PLC0415 - cryptography, needed here alone

    authority = Authority(directory, dt.datetime.now(dt.UTC))
    made = authority.issue(server, server, usage="server", hosts=host or HOSTS)
    kinds = (("node", node or ()), ("device", device or ()), ("client", client or ()))
    for kind, names in kinds:
        for name in names:
            # A node listens too: to its devices and operators.
            hosts = (host or HOSTS) if kind == "node" else ()
            authority.issue(f"{kind}-{name}", name, usage="server" if hosts else "client", hosts=hosts)
    place = directory.resolve()
    ca = place / CA
    console.print(f"certificates in {place}; the server's pin (SHA-256) is {made.fingerprint}", highlight=False)
    console.print(
        f"""
# centre: every listener by TLS; devices and links show certificates
web: {{tls: {{cert_file: {place / server}.pem, key_file: {place / server}.key}}}}
engine:
  tls: {{cert_file: {place / server}.pem, key_file: {place / server}.key, ca_file: {ca}}}
  link_ca_file: {ca}
# node: its link
uplink:
  url: tls://HOST:PORT
  ca_file: {ca}
  pin_sha256: [{made.fingerprint}]
  cert_file: {place}/node-CODE.pem
  key_file: {place}/node-CODE.key
# command line: SENSEGATE_CA_FILE={ca}""",
        highlight=False,
        markup=False,
    )


@app.command()
def pin(file: Annotated[Path, typer.Argument(help="PEM file of a certificate.")]) -> None:
    """Print the pin of a certificate, for uplink.pin_sha256."""
    from sensegate.authority.certificates import fingerprint  # noqa: PLC0415 - cryptography, needed here alone

    typer.echo(fingerprint(file))
