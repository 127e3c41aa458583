"""Decode: a `Message` and its device's profile become fields. Pure: no I/O except reading profile files at load."""

from __future__ import annotations

from sensegate.decode.decode import Decoder, DeviceNames
from sensegate.decode.profiles import ProfileSet

__all__ = ["Decoder", "DeviceNames", "ProfileSet"]
