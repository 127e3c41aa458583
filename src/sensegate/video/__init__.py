"""Video metadata as facts: what a format says, what of it may be kept, and how it becomes an observation. No I/O.

A foundation like `frames/`: the endpoints that take metadata (`collect/`, `web/`) and the decoder both stand on it.
"""
