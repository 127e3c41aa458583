"""Tools for those who write device profiles: test, lint, explain, compare, import and draft them.

Built on `sensegate.decode`, which imports nothing of this package: a gateway decodes without it.
"""

from __future__ import annotations

from sensegate.authoring.examples import NamedDevices, check_profile, readings_of

__all__ = ["NamedDevices", "check_profile", "readings_of"]
