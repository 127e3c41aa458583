"""What a request's `@context` does: it expands short names to IRIs, and compacts IRIs to short names."""

from __future__ import annotations

from typing import Protocol

from sensegate.ngsi_ld.vocabulary import CORE_VOCABULARY, DEFAULT_VOCABULARY, iri


class Terms(Protocol):
    """Translation between short names and IRIs."""

    def expand(self, name: str) -> str:
        """Return the IRI of a name."""
        ...

    def compact(self, iri: str) -> str:
        """Return the short name of an IRI; the IRI where it has none."""
        ...


class DefaultTerms:
    """Names without a context of the user: the core context."""

    def expand(self, name: str) -> str:
        """Return the IRI of a name."""
        return name if ":" in name else iri(name)

    def compact(self, name: str) -> str:
        """Return the short name of an IRI."""
        return name.removeprefix(DEFAULT_VOCABULARY).removeprefix(CORE_VOCABULARY)
