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
)
"""Requirements and requirement classes that hold, as the service root lists them."""


def service_root(base: str) -> dict[str, object]:
    """Return the document of the service root at a URL."""
    return {
        "value": [{"name": name, "url": f"{base}/{name}"} for name in SETS],
        "serverSettings": {"conformance": list(REQUIREMENTS)},
    }
