"""Decode: a `Message` and its device's profile become fields. Pure: no I/O but reading profile files at load."""

from __future__ import annotations

from sensegate.decode.decode import Decoder, DeviceNames
from sensegate.decode.examples import check_profile
from sensegate.decode.profiles import ProfileSet

__all__ = ["Decoder", "DeviceNames", "ProfileSet", "check_profile"]
