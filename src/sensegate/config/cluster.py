"""Settings of a cluster of nats-servers on machines of their own, to which the gateway connects by `engine.url`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from sensegate.config.setting import ConfigRecord, doc


class ClusterServerConfig(ConfigRecord, frozen=True):
    """A server of the cluster."""

    name: Annotated[
        str,
        doc("name of the server, unique in the cluster; `sensegate engine` writes its files under it"),
        msgspec.Meta(pattern="^[a-z0-9][a-z0-9-]*$", max_length=32),
    ]
    host: Annotated[str, doc("address by which the gateway and the other servers reach it")]
    port: Annotated[int, doc("port for clients and links", least=1, most=65_535)] = 4222
    route_port: Annotated[int, doc("port for the other servers", least=1, most=65_535)] = 6222
    mqtt_port: Annotated[int, doc("port of its own MQTT listener, for our fronts only", least=1, most=65_535)] = 1883


class ClusterTlsConfig(ConfigRecord, frozen=True):
    """Certificates with which the servers know each other; paths as on the machines of the servers."""

    cert_path: Annotated[str, doc("PEM certificate chain, for server and client use")] = ""
    key_path: Annotated[str, doc("PEM private key")] = ""
    ca_path: Annotated[str, doc("PEM of the CA of all servers' certificates")] = ""


class ClusterConfig(ConfigRecord, frozen=True):
    """The servers of a cluster, for which `sensegate engine` writes configurations."""

    servers: Annotated[
        tuple[ClusterServerConfig, ...], doc("3 or 5 servers, each on a machine of its own; empty: a single server")
    ] = ()
    directory: Annotated[str, doc("directory of the stores on the machines of the servers")] = "/var/lib/sensegate-nats"
    tls: Annotated[ClusterTlsConfig, doc("certificates of the routes between the servers")] = ClusterTlsConfig()
