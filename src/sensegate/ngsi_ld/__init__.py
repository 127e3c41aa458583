"""NGSI-LD API (ETSI GS CIM 009) over feeds, the registry and entities that departments keep."""
