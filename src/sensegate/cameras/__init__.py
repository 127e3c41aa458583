"""Cameras: keys of pseudonyms, alarm streams that are fetched, what cameras may publish."""
