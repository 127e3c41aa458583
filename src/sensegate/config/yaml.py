"""How YAML is read: plain data only, by libyaml where it is there, eight times as fast.

But not a gateway's configuration (`config.py`): it is small, and the reader in Python tells errors better.
"""

from __future__ import annotations

from typing import IO, Any

import yaml

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def tree(text: str | bytes | IO[str]) -> Any:
    """Return what a document says. Raises `yaml.YAMLError`."""
    return yaml.load(text, Loader=LOADER)  # noqa: S506 - both loaders are safe
