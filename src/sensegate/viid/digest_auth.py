"""HTTP Digest (RFC 7616) as cameras and platforms speak it: nonces that age and serve once a count, tolerant reading.

Pure but for its memory: who asks hands in the time. What clients do that the RFC does not know: a value without
quotes or with only the first of them, `qop` and `nc` in quotes, an absolute `uri`, no `opaque`, no `qop` at all (then
a nonce is good for one request).
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from sensegate.viid.password_digests import MD5, SHA256, digest

NONCES_MAX: Final = 200_000
"""Nonces in use; only those count that came back with a right secret, so that nobody can push them out."""
USES_MAX: Final = 4_096
"""Requests under one nonce; then the client is given another."""
HEADER_MAX: Final = 2_000
_BEGIN: Final = 20
"""Hex digits of a nonce's time (ms) and salt."""
_PART = re.compile(r'([A-Za-z*]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"(?=\s*(?:,|$))|"([^",]*)|([^,\s"]*))')
_ALGORITHMS: Final = {"": MD5, "MD5": MD5, "MD5-SESS": MD5, "SHA-256": SHA256, "SHA-256-SESS": SHA256}

Secrets = Callable[[str, str], Sequence[str]]
"""(user, algorithm) -> H(user:realm:password) of all passwords in force; of an unknown user one that fits nothing."""


class Denied(Exception):
    """The request does not prove its sender."""

    def __init__(self, why: str, *, stale: bool = False, wrong: bool = False) -> None:
        self.why = why
        self.stale = stale
        """The secret is right; only the nonce is old."""
        self.wrong = wrong
        """The secret is wrong: it counts for a lock-out."""
        super().__init__(why)


class Parts(NamedTuple):
    """An `Authorization: Digest` header."""

    user: str
    realm: str
    nonce: str
    uri: str
    response: str
    qop: str
    nc: str
    cnonce: str
    algorithm: str


def parts(header: str) -> Parts | None:
    """Return the parts of a header; None where it is no digest."""
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() != "digest" or len(header) > HEADER_MAX:
        return None
    found: dict[str, str] = {}
    for name, quoted, half, bare in _PART.findall(rest):
        value = re.sub(r"\\(.)", r"\1", quoted) if quoted else half or bare
        found.setdefault(name.lower(), value.strip())
    return Parts(
        found.get("username", ""),
        found.get("realm", ""),
        found.get("nonce", ""),
        found.get("uri", ""),
        found.get("response", ""),
        found.get("qop", "").lower(),
        found.get("nc", ""),
        found.get("cnonce", ""),
        found.get("algorithm", ""),
    )


class Digest:
    """The verifier of one realm."""

    def __init__(self, realm: str, *, nonce_s: float) -> None:
        self._realm = realm
        self._nonce_s = nonce_s
        self._used: OrderedDict[str, set[int]] = OrderedDict()
        self._key = secrets.token_bytes(32)
        self._opaque = secrets.token_hex(8)

    def challenges(
        self, algorithms: Sequence[str], now: float, *, stale: bool = False, compact: bool = False
    ) -> list[str]:
        """Return the values of `WWW-Authenticate`, all with one new nonce.

        The order of the parts is that which clients expect that read them with a pattern; MD5 is not named, as the
        oldest clients stumble over `algorithm`.
        """
        nonce = self._made(f"{round(now * 1_000):012x}{secrets.token_hex(4)}")
        glue = "," if compact else ", "
        shared = [f'realm="{self._realm}"', 'qop="auth"', f'nonce="{nonce}"', f'opaque="{self._opaque}"']
        ends = ["stale=true"] if stale else []
        return [
            f"Digest {glue.join([*shared, *([f'algorithm={algorithm}'] if algorithm != MD5 else []), *ends])}"
            for algorithm in algorithms
        ]

    def verify(self, header: str, method: str, path: str, known: Secrets, now: float) -> str:
        """Return the user whom a header proves for a request; `path`: as it was sent, with query.

        Raises:
            Denied: it proves nobody.
        """
        given = parts(header)
        if given is None or not (given.user and given.nonce and given.uri and given.response):
            raise Denied("no complete digest")
        algorithm = _ALGORITHMS.get(given.algorithm.upper())
        if algorithm is None:
            raise Denied("an algorithm that is not offered")
        if given.qop not in {"", "auth"}:
            raise Denied("qop is auth, or missing")
        if given.realm and given.realm != self._realm:
            raise Denied("another realm")
        if not same_path(given.uri, path):
            raise Denied("uri is not that of the request")
        count = _count(given)
        asked = digest(algorithm, f"{method}:{given.uri}")
        right = False
        for secret in known(given.user, algorithm):
            base = secret
            if given.algorithm.upper().endswith("-SESS"):
                base = digest(algorithm, f"{secret}:{given.nonce}:{given.cnonce}")
            middle = f"{given.nc}:{given.cnonce}:{given.qop}:" if given.qop else ""
            wanted = digest(algorithm, f"{base}:{given.nonce}:{middle}{asked}")
            right |= hmac.compare_digest(wanted.encode(), given.response.lower().encode("utf-8", "replace"))
        if not right:
            raise Denied("wrong user or password", wrong=True)
        self._use(given.nonce, count, now)
        return given.user

    def _made(self, begin: str) -> str:
        """Return the nonce that begins so: it tells its time, and that it is ours."""
        return begin + hmac.digest(self._key, begin.encode(), "sha256").hex()[:24]

    def _is_fresh(self, nonce: str, now: float) -> bool:
        begin = nonce[:_BEGIN]
        if not (nonce.isascii() and hmac.compare_digest(self._made(begin), nonce)):
            return False
        return now - int(begin[:12], 16) / 1_000 <= self._nonce_s

    def _use(self, nonce: str, count: int, now: float) -> None:
        if not self._is_fresh(nonce, now):
            raise Denied("the nonce is old", stale=True)
        while self._used and not self._is_fresh(next(iter(self._used)), now):
            self._used.popitem(last=False)
        used = self._used.get(nonce)
        if used is None:
            if len(self._used) >= NONCES_MAX:
                raise Denied("too many nonces are in use", stale=True)
            used = self._used[nonce] = set()
        if len(used) >= USES_MAX:
            raise Denied("the nonce has served long enough", stale=True)
        if count in used or (used and 0 in {count, *used}):
            raise Denied("the nonce was used with this count already: a replay")
        used.add(count)


def _count(given: Parts) -> int:
    """Return `nc`; 0 for a client that knows no qop."""
    if not given.qop:
        return 0
    if not (given.cnonce and re.fullmatch(r"[0-9a-fA-F]{1,8}", given.nc)) or int(given.nc, 16) == 0:
        raise Denied("nc or cnonce is missing")
    return int(given.nc, 16)


def same_path(uri: str, path: str) -> bool:
    """Return whether a `uri`, absolute or not, is the one that was asked for; the query may be left out."""
    try:
        said, asked = urlsplit(uri), urlsplit(path)
    except ValueError:
        return False
    if unquote(said.path) != unquote(asked.path):
        return False
    return not said.query or unquote(said.query) == unquote(asked.query)
