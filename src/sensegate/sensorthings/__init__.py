"""OGC SensorThings API 1.1 over feeds, the registry and the log."""
