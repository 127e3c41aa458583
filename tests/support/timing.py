"""How long tests wait where the product promises a time: the gate shares its machine, which may stand still.

`make soak` runs every test file that imports from here, with the strict limits.
"""

from __future__ import annotations

import os

WITHIN_TWO_SECONDS = 2.0 if os.environ.get("SENSEGATE_SOAK") else 20.0
"""What is promised within two seconds is held to them by `make soak` alone."""
ATTACK_CPU_S = 0.75 if os.environ.get("SENSEGATE_SOAK") else 1.2
"""Most CPU of hostile scripts until all are suspended; 0.66 to 0.70 s on a machine without other work."""
