"""The Chromium that the tests drive by playwright."""

from __future__ import annotations

import os
import shutil

VARIABLE = "SENSEGATE_CHROMIUM"
"""Environment variable that names another one."""
# The headless shell draws the same pages for half the CPU: it has no windows, tabs, extensions and profiles to serve.
CHROMIUM = os.environ.get(VARIABLE) or shutil.which("chromium-headless-shell") or shutil.which("chromium")
"""Its program; None: there is none."""
OPTIONS = ["--no-sandbox", "--disable-gpu"]
"""It runs as root in a container, without a graphics card; it sees this repository's pages alone."""
