"""`sensegate init`: the first configuration of a gateway, with its certificates, from five answers."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sensegate.cli import running
from sensegate.cli.output import console
from sensegate.errors import ConfigError


class GatewayRole(StrEnum):
    """Answers that describe the new gateway."""

    NODE = "node"
    CENTRE = "centre"


class Ports(msgspec.Struct, frozen=True):
    """The listening ports of a gateway."""

    web: int
    mqtt: int
    engine: int


PORTS = {GatewayRole.NODE: Ports(18_080, 11_883, 14_222), GatewayRole.CENTRE: Ports(28_080, 21_883, 24_222)}
DIVISIONS = {GatewayRole.NODE: "4401", GatewayRole.CENTRE: "44"}
LOOPBACK = "127.0.0.1"
CONFIG_FILE = "config.yaml"


class GatewayChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The answers from which a configuration is written."""

    role: GatewayRole
    division: str
    folder: Path
    host: str
    """Host name or address by which browsers and devices reach the gateway."""
    ports: Ports
    profiles: tuple[str, ...] = ("builtin",)
    centre: str = ""
    join_code_file: str = ""

    @property
    def is_local(self) -> bool:
        """Return whether only this machine reaches the gateway."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def file(self) -> Path:
        """The configuration file."""
        return self.folder / CONFIG_FILE

    @property
    def data(self) -> Path:
        """The directory of the store."""
        return self.folder / "data"

    @property
    def url(self) -> str:
        """The address of the HTTP interface."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.is_local else 'https'}://{host}:{self.ports.web}"


def config_text(choice: GatewayChoice, cert_file: Path | None, key_file: Path | None) -> str:
    """Return the configuration as YAML; without a certificate all listeners stay on loopback."""
    outside = LOOPBACK if choice.is_local else "0.0.0.0"  # noqa: S104 - the operator names a host that others reach
    engine_host = outside if choice.role is GatewayRole.CENTRE else LOOPBACK
    tls = f"{{cert_file: {_quoted(cert_file)}, key_file: {_quoted(key_file)}}}" if cert_file and key_file else ""
    lines = [
        "# Written by `sensegate init`. Every key, its default and what it does: config/README.md.",
        f"role: {choice.role}",
        f"division: {_quoted(choice.division)}",
        f"directory: {_quoted(choice.data)}",
        f"profiles: {json.dumps(choice.profiles, ensure_ascii=False)} # builtin: those of the package",
        "engine:",
        f"  host: {engine_host}" + (" # nodes connect here" if choice.role is GatewayRole.CENTRE else ""),
        f"  port: {choice.ports.engine}",
        *([f"  tls: {tls}"] if tls else []),
        "listen:",
        f"  mqtt: {{host: {outside}, port: {choice.ports.mqtt}}} # devices connect here",
        "web:",
        f"  host: {outside} # browsers and subscribers connect here",
        f"  port: {choice.ports.web}",
        *([f"  tls: {tls}"] if tls else []),
    ]
    if choice.centre:
        lines += ["uplink:", f"  centre_url: {_quoted(choice.centre)}"]
        lines += [f"  join_code_file: {_quoted(choice.join_code_file)}"] if choice.join_code_file else []
    return "\n".join(lines) + "\n"


def _quoted(value: Path | str | None) -> str:
    return json.dumps(str(value), ensure_ascii=False)  # a JSON string is one of YAML too


def write_gateway(choice: GatewayChoice, now: dt.datetime) -> Path | None:
    """Write certificates and configuration, and check them; return the CA's file, None without TLS.

    Raises `ConfigError` where a configuration exists or an answer is wrong; nothing is left behind then.
    """
    from sensegate.authority.certificates import CA, LaboratoryCA  # noqa: PLC0415 - cryptography is slow to load
    from sensegate.authority.config_divisions import division_faults  # noqa: PLC0415 - loads the table
    from sensegate.config import files, load  # noqa: PLC0415 - slow to load

    if choice.file.exists():
        raise ConfigError("the file exists", file=str(choice.file), remedy="give another --directory, or remove it")
    choice.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    cert_file = key_file = authority_file = None
    if not choice.is_local:
        authority = LaboratoryCA(choice.folder / "certificates", now)
        issued = authority.issue("server", choice.host, usage="server", hosts=(choice.host, "localhost", LOOPBACK))
        cert_file, key_file = issued.cert_file, issued.key_file
        authority_file = choice.folder / "certificates" / CA
    choice.file.write_text(config_text(choice, cert_file, key_file), encoding="utf-8")
    try:
        loaded = load(choice.file)
        faults = division_faults(loaded, choice.file) + files.file_faults(loaded, choice.file)
    except ConfigError:
        choice.file.unlink()
        raise
    if faults:
        choice.file.unlink()
        raise faults[0]
    return authority_file


def report(choice: GatewayChoice, authority_file: Path | None) -> list[str]:
    """Return the lines that tell where to look."""
    environment = f"SENSEGATE_CA_FILE={authority_file} " if authority_file else ""
    token_file = choice.data / "admin.token"
    scheme = "mqtts" if authority_file else "mqtt"
    lines = [
        f"configuration  {choice.file}",
        f"start          sensegate run {choice.file}",
        f"check          sensegate doctor {choice.file}",
        f"console        {choice.url}/console/",
        f"first token    {token_file} (written by the first start)",
        f"devices        {scheme}://{choice.host}:{choice.ports.mqtt}",
        f"in a terminal  {environment}SENSEGATE_TOKEN=$(cat {token_file}) sensegate top --url {choice.url}",
    ]
    if authority_file:
        folder = authority_file.parent
        lines.append(f"certificates   {folder} (of a laboratory: replace them by those of your authority)")
    if choice.role is GatewayRole.CENTRE:
        lines.append("next           sensegate node invite 4401, for each node that shall join")
    elif not choice.centre:
        lines.append(f"next           sensegate node join CODE --centre https://CENTRE:28080 --config {choice.file}")
    return lines


def init(
    *,
    role: Annotated[
        GatewayRole | None, typer.Option(help="node: the gateway of a city; centre: of a province.")
    ] = None,
    division: Annotated[str, typer.Option(help="Code of its division, as 4401.")] = "",
    directory: Annotated[Path | None, typer.Option(help="Folder for configuration, certificates and data.")] = None,
    host: Annotated[
        str, typer.Option(help="Host name or address by which others reach it; 127.0.0.1: this machine alone, no TLS.")
    ] = "",
    start: Annotated[bool | None, typer.Option("--start/--no-start", help="Start it afterwards.")] = None,
    centre: Annotated[str, typer.Option(help="Of a node: address of its centre, https://HOST:PORT.")] = "",
    join_code_file: Annotated[str, typer.Option(help="Of a node: file with a join code of its centre.")] = "",
    profiles: Annotated[
        list[str] | None, typer.Option(help="Folder or file with device profiles; default: builtin, those it brings.")
    ] = None,
    web_port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of HTTP; 0: the usual one.")] = 0,
    mqtt_port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of MQTT; 0: the usual one.")] = 0,
    engine_port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the links; 0: the usual one.")] = 0,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing: take the default of what is not given.")
    ] = False,
) -> None:
    """Write the first configuration of a gateway with its certificates, start it on request, and print where to look.

    Asks for its role, division, folder and address, and whether to start it; what is given as an option is not asked.

    Example: sensegate init --role node --division 4401 --yes
    """

    def ask(question: str, default: str) -> str:
        return default if yes else str(typer.prompt(question, default=default)).strip()

    chosen = role or GatewayRole(_one_of(ask("node (of a city) or centre (of a province)?", "node")))
    code = _checked_division(chosen, division or ask("code of its division", DIVISIONS[chosen]))
    folder = directory or Path(ask("folder for configuration, certificates and data", f"sensegate-{code}"))
    name = host or ask("host name or address by which others reach it (127.0.0.1: this machine alone)", LOOPBACK)
    usual = PORTS[chosen]
    ports = Ports(web_port or usual.web, mqtt_port or usual.mqtt, engine_port or usual.engine)
    choice = GatewayChoice(
        role=chosen,
        division=code,
        folder=folder.resolve(),
        host=_checked_host(name),
        ports=ports,
        profiles=tuple(profiles or ("builtin",)),
        centre=centre,
        join_code_file=join_code_file,
    )
    authority_file = write_gateway(choice, dt.datetime.now(dt.UTC))
    if start is None:
        start = not yes and typer.confirm("start it now", default=False)
    for line in report(choice, authority_file):
        console.print(line, highlight=False, markup=False)
    if start:
        console.print("running        until Ctrl-C", highlight=False)
        running.run(choice.file)


def _one_of(answer: str) -> str:
    if answer not in list(GatewayRole):
        raise ConfigError(f"'{answer[:20]}' is unknown", key="role", remedy="answer node or centre")
    return answer


def _checked_division(role: GatewayRole, code: str) -> str:
    """Return the code. Raises `ConfigError` where it is none, or that of a province for the gateway of a city."""
    from sensegate.authority.divisions import DivisionLevel, Divisions  # noqa: PLC0415 - loads the table

    divisions = Divisions.load()
    known = divisions.check(code)[0]
    if role is GatewayRole.NODE and known in divisions and divisions.get(known).level is DivisionLevel.PROVINCE:
        city = divisions.children(known)[0]
        raise ConfigError(
            f"{code} is the province {divisions.get(known).name_en}; a node is the gateway of a city",
            key="division",
            remedy=f"give a city, as {city.code}, or --role centre for the gateway of a province",
        )
    return code


def _checked_host(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if not host.isascii() or not all(character.isalnum() or character in ".-" for character in host):
            problem = f"'{host[:60]}' is not a host name"
            raise ConfigError(problem, key="host", remedy="give a name or an address, no URL") from None
        return host
    if address.is_unspecified:
        remedy = "give the address or name that others use; the gateway listens on all addresses then"
        raise ConfigError(f"{host} is no address to reach it by", key="host", remedy=remedy)
    return host
