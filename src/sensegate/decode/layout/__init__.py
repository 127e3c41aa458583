"""Binary layouts: steps (`steps.py`) become Python source (`emit.py`) that is compiled once (`layout.py`).

One emitter writes each layout in two forms: as a tree with names (the slow path), and as flat values with the list of
branches taken (the fast path), which `decode/columnar.py` turns into columns.
"""
