"""Backup and restore of a gateway: everything in its directory, as it was at one moment, while it runs."""
