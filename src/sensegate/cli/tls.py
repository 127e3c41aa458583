"""`sensegate tls`: certificates for a laboratory, and certificate pins."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from sensegate.cli.output import console

app = typer.Typer(help="Create certificates for a laboratory; print certificate pins.", no_args_is_help=True)
HOSTS = ("localhost", "127.0.0.1", "::1")


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Directory for the files; a second run only adds files.")],
    *,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Host name or address of the server; repeat for several. Default: loopback."),
    ] = None,
    server: Annotated[str, typer.Option(help="Name of the server's files.")] = "server",
    node: Annotated[
        list[str] | None, typer.Option(help="City code of a node that connects; repeat for several.")
    ] = None,
    device: Annotated[list[str] | None, typer.Option(help="Id of a device; repeat for several.")] = None,
    client: Annotated[list[str] | None, typer.Option(help="Name of an HTTP client; repeat for several.")] = None,
) -> None:
    """Create a CA and certificates for a server, nodes, devices and clients, and print how to configure them.

    For laboratories only: the CA's key is in the directory, unencrypted.

    Example: sensegate tls init certs --host centre.example --node 4403 --device air-1
    """
    from sensegate.authority.certificates import CA, LaboratoryCA  # noqa: PLC0415 - cryptography is slow to load

    authority = LaboratoryCA(directory, dt.datetime.now(dt.UTC))
    certificate = authority.issue(server, server, usage="server", hosts=host or HOSTS)
    kinds = (("node", node or ()), ("device", device or ()), ("client", client or ()))
    for kind, names in kinds:
        for name in names:
            # A node is a server, too: for its devices and operators.
            hosts = (host or HOSTS) if kind == "node" else ()
            authority.issue(f"{kind}-{name}", name, usage="server" if hosts else "client", hosts=hosts)
    folder = directory.resolve()
    ca = folder / CA
    console.print(f"certificates in {folder}; the server's pin (SHA-256) is {certificate.fingerprint}", highlight=False)
    console.print(
        f"""
# centre: TLS on every listener; devices and links present certificates
web: {{tls: {{cert_file: {folder / server}.pem, key_file: {folder / server}.key}}}}
engine:
  tls: {{cert_file: {folder / server}.pem, key_file: {folder / server}.key, ca_file: {ca}}}
  link_ca_file: {ca}
# node: its link
uplink:
  url: tls://HOST:PORT
  ca_file: {ca}
  pin_sha256: [{certificate.fingerprint}]
  cert_file: {folder}/node-CODE.pem
  key_file: {folder}/node-CODE.key
# command line: SENSEGATE_CA_FILE={ca}""",
        highlight=False,
        markup=False,
    )


@app.command()
def pin(file: Annotated[Path, typer.Argument(help="PEM file of a certificate.")]) -> None:
    """Print the pin (SHA-256) of a certificate, for uplink.pin_sha256.

    Example: sensegate tls pin certs/server.pem
    """
    from sensegate.authority.certificates import fingerprint  # noqa: PLC0415 - cryptography is slow to load

    typer.echo(fingerprint(file))
