"""Feature: alarm streams of cameras, which the gateway opens."""

from __future__ import annotations

from functools import partial

from sensegate.authority.egress import Egress, EgressConnector
from sensegate.cameras.alert_stream import CameraSource
from sensegate.feature import Feature, FeatureSpec, Parts, Place, Task


async def _open(parts: Parts) -> Feature | None:
    config, devices = parts.core.config, parts.lifecycle.devices
    if not config.cameras:
        return None
    egress = Egress(config.egress.cameras, key="egress.cameras")
    source = CameraSource(
        config.cameras,
        config.ingest,
        parts.core.clock,
        egress,
        partial(EgressConnector, egress),
        known=lambda device: devices.find(device) >= 0,
    )
    return Feature(sources=(source,), tasks={"cameras": Task(source.run, Place.HELPER)}, warnings=source.warnings)


FEATURE = FeatureSpec(name="camera alarms", title="alarm streams of cameras", config=("cameras",), open=_open)
