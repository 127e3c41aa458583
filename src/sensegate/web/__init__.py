"""Web: the HTTP side. What it shows is handed in (see `deps.py`)."""
