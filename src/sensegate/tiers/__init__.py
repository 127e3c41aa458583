"""The border between tiers: what a node asks its centre, and what the centre takes of it."""
