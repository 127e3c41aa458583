"""`sensegate run`, `engine`, `demo` and `bench`: commands that run a gateway or a benchmark."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import gc
import importlib.util
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
import uvloop

from sensegate.cli.output import console, print_table, stderr
from sensegate.cli.times import parse_duration
from sensegate.errors import ConfigError

if TYPE_CHECKING:
    from sensegate.config import Config

BENCHES = Path("tests") / "bench"
"""Folder of the benchmarks in a checkout of the repository; the package has none."""


async def run_until_signalled(work: Coroutine[Any, Any, Any]) -> None:
    """Run `work` until it ends, or until SIGTERM or SIGINT cancels it."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    signalled = False

    def cancel() -> None:
        nonlocal signalled
        signalled = True
        task.cancel()

    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, cancel)
    try:
        await task
    except asyncio.CancelledError:
        if not signalled:
            raise
    finally:
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(signal_number)


@contextlib.contextmanager
def _collector_off() -> Iterator[None]:
    """Import without garbage collection: nearly all of the 120,000 objects live as long as the process.

    Visiting them again and again is a fifth of the CPU of importing a gateway.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def run(config: Annotated[Path, typer.Argument(help="Configuration file, see config/README.md.")]) -> None:
    """Run a node or centre until SIGTERM or Ctrl-C, together with its nats-server.

    The first start writes the token of an administrator to admin.token in the `directory` of the configuration, that of
    an auditor to auditor.token.
    `sensegate check CONFIG` and `sensegate doctor CONFIG` find problems beforehand. config/README.md describes a first
    start.

    Example: sensegate run config/node.yaml
    """
    from sensegate.authority.config_divisions import division_faults  # noqa: PLC0415 - only commands that read a configuration need it
    from sensegate.config import files, load  # noqa: PLC0415 - as above

    loaded = load(config)
    errors = division_faults(loaded, config) + files.file_faults(loaded, config, start=True)
    errors += _directory_errors(config, loaded)
    if errors:
        raise ExceptionGroup("the gateway cannot start", errors)
    with _collector_off():
        from sensegate import flow  # noqa: PLC0415 - loads the whole gateway; errors of the configuration are printed before
    uvloop.run(run_until_signalled(flow.run(loaded)))
    stderr.print("stopped")


def front(
    config: Annotated[Path, typer.Argument(help="Configuration file of the node, see config/README.md.")],
) -> None:
    """Run the MQTT fronts of this machine apart from the gateway, until SIGTERM or Ctrl-C.

    It needs listen.mqtt.separate, and the servers of engine.url. Devices stay connected, and are acknowledged, while
    the gateway is restarted or another one takes over.

    Example: sensegate front config/node.yaml
    """
    from sensegate import logs  # noqa: PLC0415 - only this command needs it
    from sensegate.config import load  # noqa: PLC0415 - as above
    from sensegate.ingest.mqtt_fronts import run_fronts  # noqa: PLC0415 - loads most of the gateway

    loaded = load(config)
    if not loaded.listen.mqtt.separate:
        problem, remedy = "the gateway runs its fronts itself", "set it to true, or do not run `sensegate front`"
        raise ConfigError(problem, file=str(config), key="listen.mqtt.separate", remedy=remedy)
    logs.configure(loaded.log_level, loaded.log_format)
    uvloop.run(run_until_signalled(run_fronts(loaded)))
    stderr.print("stopped")


def _directory_errors(file: Path, config: Config) -> list[ConfigError]:
    """Return the errors that prevent the use of a gateway's directory."""
    errors: list[ConfigError] = []
    try:
        Path(config.directory).mkdir(parents=True, exist_ok=True, mode=0o700)
        (Path(config.directory) / ".touched").touch()
        (Path(config.directory) / ".touched").unlink()
    except OSError as why:
        remedy = "give a directory that this user may write, e.g. `directory: ./data`, or run as its owner"
        problem = f"{config.directory} is not writable ({why.strerror})"
        errors.append(ConfigError(problem, file=str(file), key="directory", remedy=remedy))
    return errors


def engine(
    config: Annotated[Path, typer.Argument(help="Configuration file of the gateway, see config/README.md.")],
    directory: Annotated[
        Path, typer.Argument(help="Directory for the two files, mode 0600; users already there are kept.")
    ],
) -> None:
    """Write the configuration of an external nats-server, and the credentials file with which the gateway connects.

    With engine.cluster.servers it writes one for each server of the cluster, in a folder of its name.

    Example: sensegate engine config/node.yaml /etc/sensegate
    """
    from sensegate.authority.slots import node_slots  # noqa: PLC0415 - only this command needs it
    from sensegate.bus import external  # noqa: PLC0415 - the same
    from sensegate.config import load  # noqa: PLC0415 - as above
    from sensegate.decode.profiles import any_video_profile  # noqa: PLC0415 - as above

    loaded = load(config)
    personal = any_video_profile(loaded.profile_folders)
    written, users = external.write(loaded, directory, slots=node_slots(loaded), personal=personal)
    for path in written:
        console.print(f"{path}: start it with `nats-server -c {path}`", highlight=False, soft_wrap=True)
    if external.is_encrypted(loaded, personal=personal):
        hint = "its store is encrypted: start it with the key in $SENSEGATE_STORE_KEY, and set engine.encryption: on"
        console.print(hint, highlight=False, soft_wrap=True)
    console.print(f"{users}: set engine.credentials_file to it, and engine.url", highlight=False, soft_wrap=True)


def demo(
    *,
    for_: Annotated[
        float,
        typer.Option(
            "--for",
            parser=parse_duration,
            metavar="SPAN",
            show_default="until Ctrl-C",
            help="End after this time (60s, 5m), print the verdict, exit 1 if anything was lost or duplicated.",
        ),
    ] = 0.0,
    nodes: Annotated[int, typer.Option(min=1, max=21, help="Number of city nodes.")] = 2,
    devices: Annotated[
        int,
        typer.Option(
            min=0,
            max=1_000_000,
            help="Number of simulated devices of all nodes; 0: 60 for each node. At least 12 each.",
        ),
    ] = 0,
    cameras: Annotated[int, typer.Option(min=0, max=10_000, help="Number of simulated cameras of all nodes.")] = 50,
    rate: Annotated[float, typer.Option(min=1, help="Messages per second of all nodes.")] = 200.0,
    summary: Annotated[
        Path | None, typer.Option(help="File for the summary (JSON; contains tokens, mode 0600).")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Directory to keep; default: a temporary one.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random generator.")] = 1,
    cut: Annotated[bool, typer.Option("--cut/--no-cut", help="Cut one node's link to the centre for a while.")] = True,
) -> None:
    """Run a centre and its nodes with simulated devices, injected faults and an independent judge.

    Example: sensegate demo --for 60s
    """
    from sensegate.demo.run import run_demo  # noqa: PLC0415 - only this command needs it
    from sensegate.demo.setup import Options  # noqa: PLC0415 - as above

    if summary is not None and not summary.parent.is_dir():
        raise ConfigError(
            "there is no such folder", file=str(summary.parent), key="--summary", remedy="create it, or name another"
        )
    options = Options(
        for_s=for_ or None,
        nodes=nodes,
        devices=devices or 60 * nodes,
        cameras=cameras,
        rate=rate,
        summary=summary,
        data=data,
        seed=seed,
        cut=cut,
    )
    raise typer.Exit(uvloop.run(run_demo(options, console)))


def available_benches() -> dict[str, str]:
    """Return the name and description of each benchmark: files of tests/bench that define a function `bench`."""
    benches: dict[str, str] = {}
    for file in sorted(BENCHES.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.AsyncFunctionDef) and node.name == "bench" for node in tree.body):
            benches[file.stem] = " ".join((ast.get_docstring(tree) or "").partition("\n\n")[0].split())
    return benches


def bench(
    name: Annotated[str, typer.Argument(help="Name of a benchmark, or `list` to list them.")],
    *,
    json_form: Annotated[bool, typer.Option("--json", help="Print the results as one line of JSON.")] = False,
) -> None:
    """Run a benchmark of tests/bench, together with its baseline on the same machine.

    Example: sensegate bench drain
    """
    known = available_benches()
    if not known:
        raise ConfigError(
            f"no benchmarks in {BENCHES.absolute()}",
            remedy="start it in a checkout of the repository; the package has none",
        )
    if name == "list":
        rows = [{"name": bench_name, "description": text} for bench_name, text in known.items()]
        print_table(rows, ("name", "description"), json_form=json_form)
        return
    if name not in known:
        raise ConfigError(f"no benchmark '{name}'", remedy=f"one of: {', '.join(known)}")
    measure = _load_bench(BENCHES / f"{name}.py")
    figures: dict[str, Any] = uvloop.run(_awaited(measure))
    if json_form:
        import json  # noqa: PLC0415 - one line, unlike print_json

        rows = figures.pop("each", [])  # a line for each of several subjects
        for line in [{"bench": name, **figures}, *rows]:
            typer.echo(json.dumps(line, ensure_ascii=False))
        return
    for key, value in figures.items():
        console.print(f"{key:28} {value}", highlight=False)


async def _awaited(measure: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    return await measure()


def _load_bench(file: Path) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Return the function `bench` of a benchmark's file; benchmarks may import one another as `tests.bench.…`."""
    import sys  # noqa: PLC0415 - only here

    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    spec = importlib.util.spec_from_file_location(f"tests.bench.{file.stem}", file)
    assert spec is not None  # noqa: S101 - the file exists
    assert spec.loader is not None  # noqa: S101 - the same
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast("Callable[[], Awaitable[dict[str, Any]]]", module.bench)
