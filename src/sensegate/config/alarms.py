"""The configuration of alarms: the mail server of their deliveries.

Part of `config.gateway`, which reads it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from sensegate.config.setting import ConfigRecord, doc


class MailConfig(ConfigRecord, frozen=True):
    """The mail server by which alarms are delivered."""

    host: Annotated[str, doc("SMTP server; empty: no mail")] = ""
    port: Annotated[int, doc("port of the SMTP server", least=1, most=65_535)] = 587
    security: Annotated[
        Literal["starttls", "tls", "none"],
        doc("starttls, tls from the first byte, or none (in a network of one's own)"),
    ] = "starttls"
    username: Annotated[str, doc("user at the SMTP server; empty: none")] = ""
    password_file: Annotated[str, doc("file with the password")] = ""
    ca_file: Annotated[str, doc("PEM of the CA of the server's certificate; empty: those of the system")] = ""
    sender: Annotated[str, doc("address from which mail is sent")] = "sensegate@localhost"
    domains: Annotated[
        tuple[str, ...], doc("domains to which mail may go, each with its subdomains (gd.gov.cn); empty: any")
    ] = ()


class AlarmsConfig(ConfigRecord, frozen=True):
    """Deliveries of alarms; where webhooks and robots may be is set by `egress.allow`."""

    mail: Annotated[MailConfig, doc("mail server")] = MailConfig()
