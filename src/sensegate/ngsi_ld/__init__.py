"""NGSI-LD (ETSI GS CIM 009) over feeds, the history and the entities that departments keep."""
