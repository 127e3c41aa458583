"""The part of a server's configuration that makes it one of a cluster."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from sensegate.config import EngineConfig
from sensegate.config.cluster import ClusterServerConfig, ClusterTlsConfig

ROUTE_USER = "routes"


class ClusterMember(msgspec.Struct, frozen=True):
    """A server of a cluster, seen from itself."""

    own: ClusterServerConfig
    others: tuple[ClusterServerConfig, ...]
    cluster_name: str
    directory: Path
    """Directory of its store, on its machine."""
    tls: ClusterTlsConfig
    replicas: int
    """Copies of each stream."""


def members_of(config: EngineConfig, cluster_name: str) -> tuple[ClusterMember, ...]:
    """Return the servers of the configured cluster; empty: there is none."""
    servers = config.cluster.servers
    return tuple(
        ClusterMember(
            server,
            tuple(other for other in servers if other is not server),
            cluster_name,
            Path(config.cluster.directory) / server.name,
            config.cluster.tls,
            config.replicas,
        )
        for server in servers
    )


def route_password(seed: str) -> str:
    """Return the password of the routes, derived from the secret of `EngineState.slot_seed`."""
    return urlsafe_b64encode(hmac.digest(seed.encode(), b"routes", sha256)).rstrip(b"=").decode()


def cluster_block(member: ClusterMember, seed: str, route_tls: str, quoted: Sequence[str]) -> str:
    """Return the block `cluster`.

    Args:
        member: the server.
        seed: secret from which the password of the routes is derived.
        route_tls: the block `tls` of the routes; empty: they use none.
        quoted: name of the cluster and own host, quoted.
    """
    password = route_password(seed)
    routes = ", ".join(
        f'"nats-route://{ROUTE_USER}:{password}@{_bracketed(other.host)}:{other.route_port}"' for other in member.others
    )
    name, host = quoted
    return f"""\
cluster {{
  name: {name}
  host: {host}
  port: {member.own.route_port}
  no_advertise: true
  authorization {{ user: {ROUTE_USER}, password: "{password}", timeout: 5 }}
  routes: [{routes}]
{route_tls}}}
"""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
