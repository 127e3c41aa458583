"""Frame formats of Chinese national protocols, shared by the socket listeners and the decoder.

One module per protocol, all of the same shape: `next_frame` finds the next frame in a stream of bytes, `parse` returns
a record of its header and whether its checksum is right, and `build_…` functions build what a centre answers. The
meaning of the values in a frame is the concern of `decode/formats`.
"""
