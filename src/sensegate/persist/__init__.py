"""Identity and duplicates, the conservation ledger, the atomic commit: readings enter the log here, once."""
