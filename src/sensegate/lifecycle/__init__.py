"""The life of device profiles: versions, releases, canaries, comparison, reprocessing of recorded messages."""
