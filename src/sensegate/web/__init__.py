"""Web: the HTTP side. Its dependencies are handed in (see `deps.py`)."""
