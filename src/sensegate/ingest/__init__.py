"""The ingest pipeline: from deliveries to acknowledged commits, over collect, decode, normalise and persist."""
