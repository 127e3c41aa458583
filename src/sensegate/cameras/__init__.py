"""Cameras: pseudonymisation keys, alarm streams, and restrictions on publishing."""
