"""The configuration of line protocol: stores of others into which readings are written.

Part of `config.gateway`, which reads it.
"""

from __future__ import annotations

import re
from typing import Annotated

from sensegate.config.setting import ConfigRecord, doc

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


class InfluxOutletConfig(ConfigRecord, frozen=True):
    """A store that takes InfluxDB 2 line protocol, and the feed that is written into it."""

    name: Annotated[str, doc("short name: lower-case letters, digits and dashes")]
    url: Annotated[str, doc("its address without the path of the API: http(s)://HOST:PORT")]
    subscriber: Annotated[str, doc("id of the token whose rights and grants decide what is written")]
    feed: Annotated[str, doc("feed that is written")] = "all"
    token_file: Annotated[str, doc("file with the store's token; empty: none")] = ""
    org: Annotated[str, doc("organisation at the store; VictoriaMetrics has none")] = ""
    bucket: Annotated[str, doc("bucket at the store; VictoriaMetrics has none")] = ""
    batch_records: Annotated[int, doc("most readings of a request", least=1, most=10_000)] = 5_000
    timeout_s: Annotated[float, doc("time within which the store must answer", least=1, most=300)] = 30.0

    def __post_init__(self) -> None:
        """Check the forms."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name: '{self.name[:40]}' is no short name; use lower-case letters, digits and dashes")
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url: '{self.url[:60]}' is not an address; give http(s)://HOST:PORT")


class InfluxConfig(ConfigRecord, frozen=True):
    """InfluxDB 2 line protocol out; needs the extra `sensegate[influx]`."""

    outlets: Annotated[tuple[InfluxOutletConfig, ...], doc("stores into which readings are written")] = ()

    def __post_init__(self) -> None:
        """Check that names differ."""
        names = [outlet.name for outlet in self.outlets]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise ValueError(f"outlets: '{twice}' occurs twice; give each its own name")
