"""What the README of NGSI-LD says of conformance is what the table of clauses shows."""

from __future__ import annotations

from tests.house import ngsi_ld


def test_every_clause_that_holds_has_a_test_that_exists() -> None:
    """Each row once; one that is open says why."""
    assert ngsi_ld.without_test() == []
    named = [(row["clause"], row["what"]) for row in ngsi_ld.rows()]
    assert len(named) == len(set(named))
    assert [row for row in ngsi_ld.rows() if row["holds"] != "yes" and not row["note"]] == []
