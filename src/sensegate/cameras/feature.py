"""Feature: alarms that are fetched from cameras, as streams that the gateway opens."""

from __future__ import annotations

from functools import partial

from sensegate.cameras.alert_stream import CameraSource
from sensegate.feature import Feature, FeatureSpec, Parts, Place, Task
from sensegate.publish.egress import Egress, EgressResolver


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
        partial(EgressResolver, egress),
        known=lambda device: devices.find(device) >= 0,
    )
    return Feature(sources=(source,), tasks={"cameras": Task(source.run, Place.HELPER)}, warnings=source.troubles)


FEATURE = FeatureSpec(name="camera alarms", title="alarms fetched from cameras", config=("cameras",), open=_open)
