"""Rules that concern several settings, or the text of one: listeners, networks, time zones, order of limits.

`config.reading` applies them to every configuration that it reads, so `sensegate check` refuses what a start would.
"""

from __future__ import annotations

import ipaddress
import zoneinfo
from collections.abc import Iterator
from datetime import datetime
from typing import Final, NamedTuple

from sensegate.config.gateway import Config, TcpConfig

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_ANY_ADDRESS: Final = frozenset({"", "0.0.0.0", "::", "*"})  # noqa: S104 - compared, not listened on
_ORDERED: Final = (
    ("ingest.commit_messages_max", "ingest.depth_messages_max"),
    ("ingest.message_bytes_max", "engine.max_payload_bytes"),
    ("egress.retry_initial_s", "egress.retry_max_s"),
    ("people.session_idle_timeout_s", "people.session_max_s"),
    ("viid.body_bytes_max", "viid.bodies_total_bytes_max"),
)
"""Pairs of settings of which the first must not exceed the second."""


class ConfigViolation(NamedTuple):
    """A rule that a configuration breaks."""

    path: tuple[str, ...]
    problem: str
    remedy: str


class _Listening(NamedTuple):
    path: tuple[str, ...]
    host: str
    port: int


def violations(config: Config) -> Iterator[ConfigViolation]:
    """Yield the rules that a configuration breaks."""
    yield from _times(config)
    yield from _networks(config)
    yield from _exposed(config)
    yield from _shared_ports(config)
    yield from _order(config)
    yield from _approvals(config)
    yield from _cluster(config)
    yield from _fronts(config)


def _approvals(config: Config) -> Iterator[ConfigViolation]:
    layers = config.web.map
    for layer, given, approval in (
        ("tiles", layers.tiles_directory, layers.tiles_approval),
        ("overlay", layers.overlay_file, layers.overlay_approval),
    ):
        if given and not approval.strip():
            problem = f"the {layer} of the map have no approval number (審圖號)"
            remedy = "give the number that stands on the map; it is printed with it"
            yield ConfigViolation(("web", "map", f"{layer}_approval"), problem, remedy)


def _times(config: Config) -> Iterator[ConfigViolation]:
    try:
        zoneinfo.ZoneInfo(config.time.zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        remedy = "give a name of the IANA database, e.g. Asia/Shanghai"
        yield ConfigViolation(("time", "zone"), f"there is no time zone '{config.time.zone[:60]}'", remedy)
    try:
        datetime.fromisoformat(config.time.oldest)
    except ValueError:
        remedy = "give a time like 2000-01-01T00:00:00Z"
        yield ConfigViolation(("time", "oldest"), f"'{config.time.oldest[:60]}' is not a time", remedy)


def _networks(config: Config) -> Iterator[ConfigViolation]:
    for at, listener in enumerate(config.listen.tcp):
        for entry in listener.allow:
            if problem := network_problem(entry):
                remedy = "give addresses or networks like 10.1.0.0/16"
                yield ConfigViolation(("listen", "tcp", str(at), "allow"), problem, remedy)
    for entry in config.web.trusted_proxies:
        if problem := network_problem(entry):
            yield ConfigViolation(("web", "trusted_proxies"), problem, "give addresses or networks like 10.1.0.0/16")
    for name, allow in (("allow", config.egress.allow), ("cameras", config.egress.cameras)):
        for entry in allow:
            if _may_be_network(entry) and (problem := network_problem(entry)):
                remedy = "give a network (10.2.0.0/16), an address, a host name, or public"
                yield ConfigViolation(("egress", name), problem, remedy)


def _may_be_network(entry: str) -> bool:
    return not entry or "/" in entry or ":" in entry or entry.replace(".", "").isdigit()


def network_problem(entry: str) -> str:
    """Return why a text is neither an address nor a network; empty if it is one."""
    try:
        ipaddress.ip_network(entry)
    except ValueError:
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return f"'{entry[:60]}' is neither an address nor a network"
        return f"'{entry[:60]}' has bits beyond its mask; the network is {network}"
    return ""


def _exposed(config: Config) -> Iterator[ConfigViolation]:
    """Yield listeners beyond loopback that lack what protects them."""
    engine, web, viid = config.engine, config.web, config.viid
    remedy = "set engine.tls.cert_file and key_file, or listen on loopback"
    if not engine.url and not engine.tls.cert_file:
        for key, host in (("host", engine.host), ("mqtt_host", engine.mqtt_host)):
            if host not in _LOOPBACK:
                yield ConfigViolation(("engine", key), f"{host} is not loopback and TLS is not configured", remedy)
    mqtt_host = config.listen.mqtt.host
    if not engine.tls.cert_file and mqtt_host not in _LOOPBACK:
        yield ConfigViolation(
            ("listen", "mqtt", "host"), f"{mqtt_host} is not loopback and TLS is not configured", remedy
        )
    if not web.tls.cert_file:
        for key, hosts in (("host", (web.host,)), ("additional_hosts", web.additional_hosts)):
            for host in hosts:
                if host not in _LOOPBACK:
                    remedy = "set web.tls.cert_file and key_file, or listen on loopback"
                    yield ConfigViolation(("web", key), f"{host} is not loopback and TLS is not configured", remedy)
    for at, listener in enumerate(config.listen.tcp):
        if listener.host not in _LOOPBACK and not _is_restricted(listener):
            remedy = "give allow, passwords_file or tls.ca_file, or listen on 127.0.0.1"
            problem = f"{listener.host} would accept frames of any device from any host"
            yield ConfigViolation(("listen", "tcp", str(at), "host"), problem, remedy)
    if viid.server_id and viid.host not in _LOOPBACK and not viid.cert_file and not viid.allow_plaintext:
        remedy = "set viid.cert_file and key_file, or viid.allow_plaintext: true"
        yield ConfigViolation(("viid", "host"), f"{viid.host} is not loopback and TLS is not configured", remedy)


def _is_restricted(listener: TcpConfig) -> bool:
    return bool(listener.allow or listener.passwords_file or listener.tls.ca_file)


def _listening(config: Config) -> Iterator[_Listening]:
    if not config.engine.url:
        yield _Listening(("engine", "port"), config.engine.host, config.engine.port)
        yield _Listening(("engine", "mqtt_port"), config.engine.mqtt_host, config.engine.mqtt_port)
    for host in (config.web.host, *config.web.additional_hosts):
        yield _Listening(("web", "port"), host, config.web.port)
    for at, listener in enumerate(config.listen.tcp):
        yield _Listening(("listen", "tcp", str(at), "port"), listener.host, listener.port)
    if config.viid.server_id:
        yield _Listening(("viid", "port"), config.viid.host, config.viid.port)


def _fronts(config: Config) -> Iterator[ConfigViolation]:
    listen = config.listen.mqtt
    if listen.separate and not (listen.port and config.engine.url):
        problem = "fronts that run apart need a port of their own and servers that they reach"
        yield ConfigViolation(("listen", "mqtt", "separate"), problem, "set listen.mqtt.port and engine.url")


def _cluster(config: Config) -> Iterator[ConfigViolation]:
    engine = config.engine
    servers, tls = engine.cluster.servers, engine.cluster.tls
    if engine.replicas > 1 and not engine.url:
        problem = f"{engine.replicas} copies need as many servers, and the embedded nats-server is one"
        yield ConfigViolation(("engine", "replicas"), problem, "give the servers of the cluster in engine.url")
    if engine.standby and (engine.replicas == 1 or config.role == "centre"):
        problem = "a standby takes over what the servers of a cluster store, at a node"
        remedy = "set engine.replicas: 3; a centre has a standby by peer"
        yield ConfigViolation(("engine", "standby"), problem, remedy)
    if not servers:
        return
    if len(servers) < max(engine.replicas, 3) or len(servers) % 2 == 0:
        remedy = f"give 3 or 5, and at least engine.replicas ({engine.replicas})"
        yield ConfigViolation(("engine", "cluster", "servers"), f"{len(servers)} servers are no majority", remedy)
    if len({server.name for server in servers}) < len(servers):
        yield ConfigViolation(("engine", "cluster", "servers"), "a name occurs twice", "give each server its own name")
    if not (tls.cert_path and tls.key_path and tls.ca_path):
        for at, server in enumerate(servers):
            if server.host not in _LOOPBACK:
                problem = f"{server.host} is not loopback and TLS is not configured"
                remedy = "set engine.cluster.tls.cert_path, key_path and ca_path"
                yield ConfigViolation(("engine", "cluster", "servers", str(at), "host"), problem, remedy)
    if engine.link_ca_file:
        problem = "client certificates of links are not checked by the servers of a cluster"
        yield ConfigViolation(("engine", "link_ca_file"), problem, "omit it, or use a single server")


def _shared_ports(config: Config) -> Iterator[ConfigViolation]:
    earlier: list[_Listening] = []
    for listening in _listening(config):
        for other in earlier:
            if listening.port and listening.port == other.port and _overlaps(listening.host, other.host):
                problem = f"{listening.port} is also the port of {'.'.join(other.path)}"
                yield ConfigViolation(listening.path, problem, "give each listener its own port, or 0 for a free one")
        earlier.append(listening)


def _overlaps(host: str, other: str) -> bool:
    return host == other or bool(_ANY_ADDRESS & {host, other}) or {host, other} <= {"127.0.0.1", "localhost"}


def _order(config: Config) -> Iterator[ConfigViolation]:
    for smaller, greater in _ORDERED:
        low, high = _value(config, smaller), _value(config, greater)
        if low > high:
            problem = f"{low:g} exceeds {greater}, which is {high:g}"
            yield ConfigViolation(tuple(smaller.split(".")), problem, f"lower it, or raise {greater}")


def _value(config: Config, key: str) -> float:
    section, _, name = key.partition(".")
    value: float = getattr(getattr(config, section), name)
    return value
