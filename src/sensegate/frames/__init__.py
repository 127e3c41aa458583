"""Byte facts of national protocols, for those who read them from a socket and those who decode them: a foundation.

One file a protocol, each with the same shape: `cut` finds the next frame in a stream of bytes, a record with a `read`
says what its head holds and whether its check value is right, and functions build what a centre answers. What the
values in a frame mean is the affair of `decode/formats`.
"""
