"""Video metadata: formats, redaction to what may be stored, and decoding to observations. No I/O.

A foundation like `frames/`: the endpoints that receive metadata (`collect/`, `web/`) and the decoder both use it.
"""
