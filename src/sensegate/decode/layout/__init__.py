"""Binary layouts: steps (`steps.py`) become Python source (`emit.py`) that is compiled once (`layout.py`).

One emitter writes each layout twice: as a tree with names (the general path), and as its bare values with the list of
branches taken (`flat`: the quick path), which `decode/columnar.py` makes columns of.
"""
