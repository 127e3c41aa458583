"""Reading of YAML: plain data only, by libyaml where it is installed (eight times as fast).

The configuration of a gateway (`config.gateway`) is read in Python instead: it is small, and the errors are better.
"""

from __future__ import annotations

from typing import IO, Any

import yaml

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_tree(text: str | bytes | IO[str]) -> Any:
    """Return the data of a document. Raises `yaml.YAMLError`."""
    return yaml.load(text, Loader=LOADER)  # noqa: S506 - both loaders are safe
