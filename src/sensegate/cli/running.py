"""`sensegate run`, `demo` and `bench`: what starts processes."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import signal
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
import uvloop

from sensegate.cli.shown import aside, console, table
from sensegate.cli.times import span
from sensegate.errors import ConfigError

if TYPE_CHECKING:
    from sensegate.config import Config

CHECKOUT = Path(__file__).parents[3]
BENCHES = CHECKOUT / "tests" / "bench"


async def until_told(work: Coroutine[Any, Any, Any]) -> None:
    """Run `work` until it ends or SIGTERM or SIGINT asks for an orderly end."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    asked = False

    def ask() -> None:
        nonlocal asked
        asked = True
        task.cancel()

    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, ask)
    try:
        await task
    except asyncio.CancelledError:
        if not asked:
            raise
    finally:
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(sign)


def run(config: Annotated[Path, typer.Argument(help="Configuration, see config/README.md.")]) -> None:
    """Run one node or centre until SIGTERM or Ctrl-C; an orderly stop ends its nats-server too.

    The first start writes an administrator's token to admin.token in the `directory` of the configuration.
    `sensegate check CONFIG` and `sensegate doctor CONFIG` say before what is wrong. config/README.md: a first start.
    """
    from sensegate import flow  # noqa: PLC0415 - the whole gateway; only this command needs it
    from sensegate.config import files, load  # noqa: PLC0415 - the same

    loaded = load(config)
    wrong = files.faults(loaded, config, start=True) + _place(config, loaded)
    if wrong:
        raise ExceptionGroup("it cannot start", wrong)
    uvloop.run(until_told(flow.run(loaded)))
    aside.print("stopped")


def _place(file: Path, config: Config) -> list[ConfigError]:
    """Return why the directory of a gateway cannot be used."""
    found: list[ConfigError] = []
    try:
        Path(config.directory).mkdir(parents=True, exist_ok=True, mode=0o700)
        (Path(config.directory) / ".touched").touch()
        (Path(config.directory) / ".touched").unlink()
    except OSError as why:
        remedy = "give one that this user may write, e.g. `directory: ./data`, or run as the user it belongs to"
        what = f"{config.directory} cannot be written ({why.strerror})"
        found.append(ConfigError(what, file=str(file), key="directory", remedy=remedy))
    return found


def engine(
    config: Annotated[Path, typer.Argument(help="Configuration of the gateway, see config/README.md.")],
    directory: Annotated[Path, typer.Argument(help="Where the two files are written, 0600; users there are kept.")],
) -> None:
    """Write the configuration of a nats-server that you run yourself, and the file of users by which we enter it."""
    from sensegate.bus import external  # noqa: PLC0415 - only this command needs it
    from sensegate.config import load  # noqa: PLC0415 - the same
    from sensegate.decode.profiles import any_video_profile  # noqa: PLC0415 - the same

    loaded = load(config)
    personal = any_video_profile(loaded.profiles)
    written, users = external.write(loaded, directory, personal=personal)
    console.print(f"{written}: start it with `nats-server -c {written}`", highlight=False, soft_wrap=True)
    if external.is_encrypted(loaded, personal=personal):
        told = "its store is encrypted: start it with the key in $SENSEGATE_STORE_KEY, and set engine.encryption: on"
        console.print(told, highlight=False, soft_wrap=True)
    console.print(f"{users}: give it as engine.credentials_file, with engine.url", highlight=False, soft_wrap=True)


def demo(
    *,
    for_: Annotated[
        float,
        typer.Option(
            "--for",
            parser=span,
            metavar="SPAN",
            show_default="until Ctrl-C",
            help="End after so long (60s, 5m), print the verdict, exit 1 if anything was lost or doubled.",
        ),
    ] = 0.0,
    nodes: Annotated[int, typer.Option(min=1, max=21, help="Number of city nodes.")] = 2,
    devices: Annotated[
        int,
        typer.Option(
            min=0, max=1_000_000, help="Simulated devices, all nodes together; 0: 60 for each node. At least 12 each."
        ),
    ] = 0,
    cameras: Annotated[int, typer.Option(min=0, max=10_000, help="Simulated cameras, all nodes together.")] = 50,
    rate: Annotated[float, typer.Option(min=1, help="Messages a second, all nodes together.")] = 200.0,
    summary: Annotated[Path | None, typer.Option(help="File for the summary (JSON, holds tokens: 0600).")] = None,
    data: Annotated[Path | None, typer.Option(help="Directory that is kept; default: a temporary one.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 1,
    cut: Annotated[bool, typer.Option("--cut/--no-cut", help="Cut one node's link to the centre for a while.")] = True,
) -> None:
    """Run a centre and its nodes in one go, with simulated devices, injected faults and an independent judge."""
    from sensegate.demo.run import run_demo  # noqa: PLC0415 - only this command needs it
    from sensegate.demo.setup import Options  # noqa: PLC0415 - the same

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


def benches() -> dict[str, str]:
    """Return what each benchmark measures: files of tests/bench that have a function `bench`, and their first lines."""
    found: dict[str, str] = {}
    for file in sorted(BENCHES.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.AsyncFunctionDef) and node.name == "bench" for node in tree.body):
            found[file.stem] = " ".join((ast.get_docstring(tree) or "").partition("\n\n")[0].split())
    return found


def bench(
    name: Annotated[str, typer.Argument(help="Name of a benchmark, or `list` to see what there is.")],
    *,
    json_form: Annotated[bool, typer.Option("--json", help="Print the figures as one line of JSON.")] = False,
) -> None:
    """Run a benchmark of tests/bench: its baseline runs in the same minute on the same machine."""
    known = benches()
    if not known:
        raise ConfigError(
            f"no benchmarks in {BENCHES}", remedy="they come with a checkout of the repository, not with the package"
        )
    if name == "list":
        table([{"name": one, "what": what} for one, what in known.items()], ("name", "what"), json_form=json_form)
        return
    if name not in known:
        raise ConfigError(f"no benchmark '{name}'", remedy=f"one of: {', '.join(known)}")
    measure = _bench(BENCHES / f"{name}.py")
    figures: dict[str, Any] = uvloop.run(_whole(measure))
    if json_form:
        import json  # noqa: PLC0415 - one line, unlike as_json

        each = figures.pop("each", [])  # one line for each of several subjects
        for line in [{"bench": name, **figures}, *each]:
            typer.echo(json.dumps(line, ensure_ascii=False))
        return
    for key, value in figures.items():
        console.print(f"{key:28} {value}", highlight=False)


async def _whole(measure: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    return await measure()


def _bench(file: Path) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Load a benchmark's file; benches may import one another as `tests.bench.…`."""
    import sys  # noqa: PLC0415 - only here

    if str(CHECKOUT) not in sys.path:
        sys.path.insert(0, str(CHECKOUT))
    spec = importlib.util.spec_from_file_location(f"tests.bench.{file.stem}", file)
    assert spec is not None  # noqa: S101 - the file exists
    assert spec.loader is not None  # noqa: S101 - the same
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast("Callable[[], Awaitable[dict[str, Any]]]", module.bench)
