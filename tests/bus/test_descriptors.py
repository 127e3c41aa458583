"""Caps of connections that fit the limit of file descriptors."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.bus.descriptors import LEAST, RESERVE, fitted
from sensegate.config import Config, WebConfig
from sensegate.errors import ConfigError


def config(connections: int) -> Config:
    """Return a configuration with a cap of HTTP connections."""
    return Config(role="node", division="4401", directory="d", web=WebConfig(connections_max=connections))


@given(st.integers(LEAST, 200_000), st.integers(1, 50_000))
def test_some_descriptors_stay_free(limit: int, connections: int) -> None:
    """Whatever is configured, files and connections of our own find a descriptor; a cap is never raised."""
    fit = fitted(config(connections), limit)
    assert fit.web.connections_max <= connections
    assert fit.web.connections_max + RESERVE <= limit or fit.web.connections_max == 1
    assert fit.engine.max_connections < max(limit, LEAST)


def test_nothing_changes_where_there_are_enough() -> None:
    """The configuration is used as it is."""
    assert fitted(config(4_000), 65_536) == config(4_000)


def test_too_few_to_run() -> None:
    """It is refused with what to do."""
    with pytest.raises(ConfigError, match="ulimit -n 65536"):
        fitted(config(10), LEAST - 1)


def test_what_else_is_configured_stays() -> None:
    """Only caps of connections are changed."""
    fit = fitted(config(4_000), 300)
    kept = msgspec.structs.replace(fit, web=config(4_000).web, engine=config(4_000).engine, viid=config(4_000).viid)
    assert kept == config(4_000)
