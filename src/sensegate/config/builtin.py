"""The device profiles that come with the package, and the word by which a configuration names them."""

from __future__ import annotations

from pathlib import Path

WORD = "builtin"
"""Stands for the folder of the package in `profiles` of a configuration."""
PROFILES = Path(__file__).parents[1] / "device_profiles"
"""Folder of the package; in a repository a link to the top-level `device_profiles/`, where the profiles are edited."""
