"""Codecs of makers, unmodified, against the results that their makers expect.

Fetched when the test runs, into a folder of its own; nothing of them is in the repository. Adeunis publishes its codec
library for eighteen products as `@adeunis/codecs` on npm (MIT), with the unit tests of its parsers: a payload and what
must come of it. The library (240 kB of ES5 made by TypeScript, 110 classes) runs as it is; one function behind it calls
the parser that a unit test names.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from sensegate.scripts.pool import ScriptPool
from sensegate.scripts.wire import ScriptLimits
from tests.scripts.conftest import ask, source_of

PACKAGE = "@adeunis/codecs@1.6.1"
LEAST_CASES, LEAST_VALUES = 150, 1_000
"""Fewer found in the package's unit tests would mean that this test does not read them rightly."""

_CLASS = re.compile(r"(\w+)\s*=\s*new codec\.(\w+)\(\)")
_IT = re.compile(r"\bit\(\s*(['\"`])(.*?)\1\s*,\s*(?:\(\)|function\s*\(\))\s*(?:=>)?\s*\{(.*?)\n\s{2}\}\);", re.DOTALL)
_PAYLOAD = re.compile(r"payloadString\s*=\s*((?:'[0-9A-Fa-f]*'\s*\+?\s*)+);")
_CALL = re.compile(
    r"(\w+)\.parseFrame\(\s*Buffer\.from\((payloadString|'[0-9A-Fa-f]*'),\s*'hex'\),\s*"
    r"Buffer\.from\('([^']*)'(?:,\s*'(hex)')?\)(?:,\s*'(\w+)')?(?:,\s*'(\w+)')?\s*\)"
)
_EXPECT = re.compile(r"expect\(content((?:\.\w+|\[[^\]]+\])*)\)\.to\.equal\((.*?)\);", re.DOTALL)
_STEP = re.compile(r"\.(\w+)|\['([^']*)'\]|\[(\d+)\]")


class Case(NamedTuple):
    """One unit test of the package."""

    name: str
    parser: str
    hex: str
    configuration: str
    encoding: str
    network: str
    product: str
    expected: tuple[tuple[tuple[str | int, ...], Any], ...]
    """(path, value); `...` for undefined."""


def cases_of(text: str, file: str) -> Iterator[Case]:
    """Yield the unit tests of a file that decode one frame and compare plain values."""
    parsers = dict(_CLASS.findall(text))
    for _, title, body in _IT.findall(text):
        calls = _CALL.findall(body)
        if len(calls) != 1 or calls[0][0] not in parsers:
            continue
        variable, payload, configuration, encoding, network, product = calls[0]
        if payload == "payloadString":
            given = _PAYLOAD.findall(body)
            if len(given) != 1:
                continue
            payload = "".join(re.findall(r"[0-9A-Fa-f]+", given[0]))
        expected = tuple(
            (path_of(path), value)
            for path, literal in _EXPECT.findall(body)
            if (value := value_of(literal)) is not None
        )
        if expected:
            yield Case(
                f"{file}: {title}",
                parsers[variable],
                payload.strip("'"),
                configuration,
                encoding,
                network,
                product,
                expected,
            )


def path_of(text: str) -> tuple[str | int, ...]:
    """Return the steps of ``.a['b'][0]``."""
    return tuple(int(number) if number else name or key for name, key, number in _STEP.findall(text))


def value_of(literal: str) -> Any:
    """Return the value of a plain literal, `...` for undefined, None for anything else."""
    literal = literal.strip()
    if literal == "undefined":
        return ...
    if re.fullmatch(r"'[^'\\]*'", literal):
        return literal[1:-1]
    try:
        return json.loads(literal)
    except ValueError:
        return None


def walk(tree: Any, path: tuple[str | int, ...]) -> Any:
    """Return what stands at a path, `...` where nothing does."""
    for step in path:
        try:
            tree = tree[step]
        except (KeyError, IndexError, TypeError):
            return ...
    return tree


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as npm gives it."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: no maker's codec can be fetched")
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder), PACKAGE]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=folder, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("the npm registry does not answer: no maker's codec can be fetched")
    archives = list(folder.glob("*.tgz"))
    if not archives:
        pytest.skip(f"the npm registry does not give {PACKAGE}: {run.stderr.strip()[:120]}")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def test_adeunis_decodes_as_its_maker_expects(package: Path) -> None:
    """Every value that the package's unit tests name comes out of our rooms as they say, twice over."""
    library = (package / "dist" / "lib.public.js").read_text(encoding="utf-8")
    cases = [
        case
        for file in sorted(package.glob("src/products/*/*.spec.ts"))
        for case in cases_of(file.read_text(encoding="utf-8"), f"{file.parent.name}/{file.name}")
    ]
    assert len(cases) >= LEAST_CASES
    assert sum(len(case.expected) for case in cases) >= LEAST_VALUES
    calls = [[case.parser, case.configuration, case.encoding or "utf8", case.network, case.product] for case in cases]
    glue = (
        f"\nvar CALLS = {json.dumps(calls)};\n"
        "function decodeUplink(input) {\n"
        "  var call = CALLS[input.fPort];\n"
        "  var given = [Buffer.from(input.bytes), Buffer.from(call[1], call[2])];\n"
        "  given.push(call[3] || undefined, call[4] || undefined);\n"
        "  var parser = new codec[call[0]]();\n"
        "  return { data: { content: parser.parseFrame.apply(parser, given) } };\n"
        "}\n"
    )
    limits = ScriptLimits(cpu_ms=200, mean_cpu_ms=20)
    source = source_of(library + glue, file="lib.public.js", limits=limits)
    scripts = ScriptPool()
    try:
        asks = [ask(source, bytes.fromhex(case.hex), at) for at, case in enumerate(cases)]
        outcomes = [scripts.run(asks), scripts.run(asks[::-1])[::-1]]
    finally:
        scripts.close()
    wrong = []
    for entry in outcomes:
        for case, outcome in zip(cases, entry, strict=True):
            content = None if outcome.kind else msgspec.json.decode(outcome.text)["d"].get("content")
            for path, value in case.expected:
                result = walk(content, path)
                if result != value or isinstance(result, bool) is not isinstance(value, bool):
                    wrong.append((case.name, path, value, result, outcome.text[:200] if outcome.kind else ""))
    assert wrong == []


def test_the_comparison_can_fail() -> None:
    """A value that the maker does not expect would be found."""
    text = """
    p = new codec.P();
  it('a', () => {
    const payloadString = '4701';
    const content = p.parseFrame(Buffer.from(payloadString, 'hex'), Buffer.from('10', 'hex'), 'unknown');
    expect(content.type).to.equal('x');
    expect(content['a'].value).to.equal(-2.5);
    expect(content['b'][1]).to.equal(undefined);
  });
"""
    [case] = cases_of(text, "f")
    assert case == Case(
        "f: a", "P", "4701", "10", "hex", "unknown", "", ((("type",), "x"), (("a", "value"), -2.5), (("b", 1), ...))
    )
    tree = {"type": "y", "a": {"value": -2.5}, "b": [0, 1]}
    assert [walk(tree, path) == value for path, value in case.expected] == [False, True, False]
