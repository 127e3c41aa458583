"""The service root: the entity sets, and which requirements of the standard hold."""

from __future__ import annotations

from sensegate.sensorthings.kinds import SETS

SPEC = "http://www.opengis.net/spec/iot_sensing/1.1/req"
REQUIREMENTS: tuple[str, ...] = (
    f"{SPEC}/datamodel",
    f"{SPEC}/resource-path/resource-path-to-entities",
    f"{SPEC}/request-data",
    f"{SPEC}/create-update-delete",
    f"{SPEC}/data-array/data-array",
    f"{SPEC}/create-observations-via-mqtt/observations-creation",
    f"{SPEC}/receive-updates-via-mqtt/receive-updates",
)
"""Requirements and requirement classes that hold, as the service root lists them."""


def service_root(base: str, broker: str) -> dict[str, object]:
    """Return the document of the service root at a URL; `broker`: URL of MQTT, empty where there is none."""
    settings: dict[str, object] = {"conformance": list(REQUIREMENTS)}
    if broker:
        settings |= {name: {"endpoints": [broker]} for name in REQUIREMENTS if "via-mqtt" in name}
    return {"value": [{"name": name, "url": f"{base}/{name}"} for name in SETS], "serverSettings": settings}
