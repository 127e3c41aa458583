"""Names of pages of the history: keys of rows, sealed, since they hold true times that a mask may hide."""

from __future__ import annotations

import base64
import binascii
import os
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sensegate.errors import ConfigError
from sensegate.history.query import Key

_NONCE_BYTES = 12
_KEY = struct.Struct(">qqI")


class PageTokens:
    """Seals and opens names of pages."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, key: Key | None, feed: str) -> str:
        """Return the name of the page after a row; empty: there is none."""
        if key is None:
            return ""
        nonce = os.urandom(_NONCE_BYTES)
        return base64.urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, _KEY.pack(*key), feed.encode())).decode()

    def open(self, text: str, feed: str) -> Key | None:
        """Return the row of a name; None for an empty one.

        Raises:
            ConfigError: it is not the name of a page of this feed.
        """
        if not text:
            return None
        try:
            sealed = base64.urlsafe_b64decode(text)
            time, entry, index = _KEY.unpack(
                self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], feed.encode())
            )
        except (InvalidTag, ValueError, binascii.Error, struct.error):
            raise ConfigError(
                f"'{text[:40]}' is not `next` of a page of this feed", key="after", remedy="give `next` unchanged"
            ) from None
        return time, entry, index
