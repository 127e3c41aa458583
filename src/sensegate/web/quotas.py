"""Quotas of callers: how many requests and streams one credential may have open at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sensegate import metrics
from sensegate.errors import Overloaded

RETRY_AFTER_S = 5.0


class CallerQuota:
    """The number of requests of a kind that each caller has open, limited."""

    def __init__(self, key: str, kind: str, limit: int) -> None:
        """`key`: configuration key of the limit; `kind`: plural noun for errors."""
        self._key = key
        self._kind = kind
        self._limit = limit
        self._open: Counter[str] = Counter()

    @contextmanager
    def held(self, caller: str) -> Iterator[None]:
        """Count a request while the context lasts. Raises `Overloaded`: the caller has too many open."""
        if self._open[caller] >= self._limit:
            metrics.LIMIT_HITS.labels(self._key).inc()
            raise Overloaded(
                f"{caller} has {self._limit} {self._kind} open, the most of one credential ({self._key}); "
                "end some of them, or use a further credential",
                retry_after_s=RETRY_AFTER_S,
            )
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]
