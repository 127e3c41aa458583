"""HTTP Digest authentication (RFC 7616) with expiring nonces, tolerant of the deviations of cameras and platforms.

The caller passes in the time. Accepted deviations: values without quotes or with only the opening one, `qop` and `nc`
in quotes, an absolute `uri`, no `opaque`, no `qop` (then a nonce is valid for one request).
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
"""Most nonces in use; only nonces that came back with a right secret count, so that nobody can evict them."""
USES_MAX: Final = 4_096
"""Most requests with a nonce, after which the client gets a new one."""
HEADER_MAX: Final = 2_000
_BEGIN: Final = 20
"""Number of hex digits of the time (ms) and salt of a nonce."""
_PART = re.compile(r'([A-Za-z*]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"(?=\s*(?:,|$))|"([^",]*)|([^,\s"]*))')
_ALGORITHMS: Final = {"": MD5, "MD5": MD5, "MD5-SESS": MD5, "SHA-256": SHA256, "SHA-256-SESS": SHA256}

Secrets = Callable[[str, str], Sequence[str]]
"""(user, algorithm) -> H(user:realm:password) of all valid passwords; for an unknown user one that never matches."""


class DigestError(Exception):
    """The request is not authenticated."""

    def __init__(self, why: str, *, stale: bool = False, wrong: bool = False) -> None:
        self.why = why
        self.stale = stale
        """The secret is right, but the nonce has expired."""
        self.wrong = wrong
        """The secret is wrong, which counts towards a lock-out."""
        super().__init__(why)


class DigestHeader(NamedTuple):
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


def parse_header(header: str) -> DigestHeader | None:
    """Return the fields of a header; None if it is not a digest."""
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() != "digest" or len(header) > HEADER_MAX:
        return None
    fields: dict[str, str] = {}
    for name, quoted, half, bare in _PART.findall(rest):
        value = re.sub(r"\\(.)", r"\1", quoted) if quoted else half or bare
        fields.setdefault(name.lower(), value.strip())
    return DigestHeader(
        fields.get("username", ""),
        fields.get("realm", ""),
        fields.get("nonce", ""),
        fields.get("uri", ""),
        fields.get("response", ""),
        fields.get("qop", "").lower(),
        fields.get("nc", ""),
        fields.get("cnonce", ""),
        fields.get("algorithm", ""),
    )


class DigestVerifier:
    """The verifier of a realm."""

    def __init__(self, realm: str, *, nonce_lifetime_s: float) -> None:
        self._realm = realm
        self._nonce_s = nonce_lifetime_s
        self._used: OrderedDict[str, set[int]] = OrderedDict()
        self._key = secrets.token_bytes(32)
        self._opaque = secrets.token_hex(8)

    def challenges(
        self, algorithms: Sequence[str], now: float, *, stale: bool = False, compact: bool = False
    ) -> list[str]:
        """Return the values of `WWW-Authenticate`, with a new nonce.

        The order of the fields suits clients that parse them with a fixed pattern; MD5 is not named, because the oldest
        clients reject `algorithm`.
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
        """Return the authenticated user of a request; `path` is the request target including the query.

        Raises:
            DigestError: the header is not valid.
        """
        given = parse_header(header)
        if given is None or not (given.user and given.nonce and given.uri and given.response):
            raise DigestError("the digest is incomplete")
        algorithm = _ALGORITHMS.get(given.algorithm.upper())
        if algorithm is None:
            raise DigestError("the algorithm is not offered")
        if given.qop not in {"", "auth"}:
            raise DigestError("qop must be auth or missing")
        if given.realm and given.realm != self._realm:
            raise DigestError("another realm")
        if not same_path(given.uri, path):
            raise DigestError("uri is not that of the request")
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
            raise DigestError("wrong user or password", wrong=True)
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
            raise DigestError("the nonce is old", stale=True)
        while self._used and not self._is_fresh(next(iter(self._used)), now):
            self._used.popitem(last=False)
        used = self._used.get(nonce)
        if used is None:
            if len(self._used) >= NONCES_MAX:
                raise DigestError("too many nonces are in use", stale=True)
            used = self._used[nonce] = set()
        if len(used) >= USES_MAX:
            raise DigestError("the nonce was used for too many requests", stale=True)
        if count in used or (used and 0 in {count, *used}):
            raise DigestError("the nonce was used with this count before: a replay")
        used.add(count)


def _count(given: DigestHeader) -> int:
    """Return `nc`; 0 for a client without qop."""
    if not given.qop:
        return 0
    if not (given.cnonce and re.fullmatch(r"[0-9a-fA-F]{1,8}", given.nc)) or int(given.nc, 16) == 0:
        raise DigestError("nc or cnonce is missing")
    return int(given.nc, 16)


def same_path(uri: str, path: str) -> bool:
    """Return whether a `uri`, absolute or not, names the request target; the query may be missing."""
    try:
        given, requested = urlsplit(uri), urlsplit(path)
    except ValueError:
        return False
    if unquote(given.path) != unquote(requested.path):
        return False
    return not given.query or unquote(given.query) == unquote(requested.query)
