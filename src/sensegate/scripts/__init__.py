"""Codec scripts of makers (LoRa Alliance TS013, and the older shapes), run in children that can do nothing else.

`pool.Scripts` is what decoding uses: frames in, results or reasons out, within bounds. `child.py` is what runs in a
child process, `engine.py` one script there, `harness.js` the room around it, `seal.py` what the child gives up,
`conduct.py` which scripts are suspended. A foundation: it knows no stage, and imports little, so that a child starts
soon.
"""
