"""The harness is a module of its own (`tests.ledger.kills`), shared by the tests and `make soak`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)
