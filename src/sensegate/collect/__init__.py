"""The outside world as deliveries; one file for each source."""
