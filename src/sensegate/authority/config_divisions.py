"""The divisions that a configuration names, compared with the table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sensegate.authority.divisions import Divisions
from sensegate.config import Config, line_of
from sensegate.errors import ConfigError


def division_faults(config: Config, file: Path) -> list[ConfigError]:
    """Return the errors of divisions that do not exist; `file` is the configuration itself."""
    divisions = Divisions.load()
    text = file.read_text(encoding="utf-8")
    faults: list[ConfigError] = []
    for path, code in _named(config):
        try:
            divisions.check(code)
        except ConfigError as why:
            line = line_of(text, list(path))
            faults.append(ConfigError(why.problem, file=str(file), line=line, key=".".join(path), remedy=why.remedy))
    return faults


def _named(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (path of the key, code) for each division that a configuration names."""
    yield ("division",), config.division
    if config.member:
        yield ("member",), config.member.partition("-")[0]
    for at, node in enumerate(config.nodes):
        yield ("nodes", str(at), "division"), node.division.partition("-")[0]
        for place, area in enumerate(node.areas):
            yield ("nodes", str(at), "areas", str(place)), area
    for at, rule in enumerate(config.oidc.rules):
        if rule.scope:
            yield ("oidc", "rules", str(at), "scope"), rule.scope.partition("/")[0]
