"""The specs of the profiles in force as columns, for lookup by one gather."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sensegate.errors import ConfigError, ProfileError
from sensegate.model import BOOL, F64, I16, I32, I64, U8, U32, Datum, Spec
from sensegate.quantities.properties import PROPERTIES, VALUE_KINDS, Properties, ValueKind
from sensegate.quantities.quality import Flag
from sensegate.quantities.series import SeriesIndex

NEVER = np.iinfo(np.int64).max
"""A time span longer than any between readings."""

PLACE_AXES = {"longitude": 1, "latitude": 2}
"""Property that is a coordinate -> its axis."""
GAP_S = 3600.0
"""Without a declared interval: greatest time between neighbours that are compared for their step."""
GAP_INTERVALS = 3.0
"""Number of declared intervals, if there is one, in place of `GAP_S`."""
GAP_LEAST_S = 60.0


class SpecTable:
    """Spec columns; row *i* is the spec with index *i* in the profile set.

    Raises:
        ProfileError: if a spec names an unknown property.
    """

    def __init__(self, specs: Sequence[Spec], series: SeriesIndex, properties: Properties = PROPERTIES) -> None:
        self.specs = tuple(specs)
        index = np.array([_property(spec, properties) for spec in specs], np.int64)
        self.property: I16 = index.astype(np.int16)
        self.variable: I32 = np.array([series.variable(spec.property, spec.channel) for spec in specs], np.int32)
        self.scale = _floats([spec.scale for spec in specs])
        self.offset = _floats([spec.offset for spec in specs])
        self.physical_low: F64 = properties.low[index]
        self.physical_high: F64 = properties.high[index]
        self.low: F64 = np.fmax(self.physical_low, _floats([spec.low for spec in specs]))
        self.high: F64 = np.fmin(self.physical_high, _floats([spec.high for spec in specs]))
        own_step = _floats([spec.step for spec in specs])
        self.step: F64 = np.where(np.isinf(own_step), properties.step[index], own_step)
        self.counter: BOOL = properties.counter[index]
        self.modulus = _floats([spec.modulus for spec in specs])
        self.usual_low: F64 = properties.usual_low[index]
        self.usual_high: F64 = properties.usual_high[index]
        self.usual: BOOL = (self.usual_low > 0) | np.isfinite(self.usual_high)
        """True if the property has a usual band."""
        interval = _floats([spec.interval_s for spec in specs])
        gap_s = np.where(interval > 0, np.fmax(interval * GAP_INTERVALS, GAP_LEAST_S), GAP_S)
        self.gap: I64 = (gap_s * 1e6).astype(np.int64)
        stuck_h = properties.stuck_h[index]
        self.stuck: I64 = np.where(stuck_h > 0, (stuck_h * 3.6e9).astype(np.int64), NEVER)
        self.interval: I64 = (interval * 1e6).astype(np.int64)
        self.flags: U32 = np.array([Flag.ALARM if spec.alarm else 0 for spec in specs], np.uint32)
        kind = properties.kind[index]
        self.boolean: BOOL = kind == VALUE_KINDS.index(ValueKind.BOOLEAN)
        self.string: BOOL = kind == VALUE_KINDS.index(ValueKind.STRING)
        self.other: BOOL = kind != VALUE_KINDS.index(ValueKind.NUMBER)
        """True if a value is no number."""
        self.compared: BOOL = (kind == VALUE_KINDS.index(ValueKind.NUMBER)) & (
            np.isfinite(self.step) | (self.stuck != NEVER) | self.counter
        )
        """True if a series is a counter, has a step limit or may be stuck: only then its history is compared."""
        self.shifted = tuple(at for at, spec in enumerate(specs) if spec.datum not in {Datum.WGS84, Datum.CGCS2000})
        """Indices of coordinate specs that are not in WGS-84."""
        self.converted: BOOL = (self.scale != 1) | (self.offset != 0)
        self.converted[list(self.shifted)] = True
        """True if a value is in another unit or coordinate system than its reading."""
        self.place_axis: U8 = np.array([PLACE_AXES.get(spec.property, 0) for spec in specs], np.uint8)
        """Axis of a coordinate, 0 for other properties."""
        # Columns that no spec uses are skipped entirely.
        self.any_scale = bool((self.scale != 1).any() or (self.offset != 0).any())
        self.any_flags = bool(self.flags.any())
        self.any_boolean = bool(self.boolean.any())
        self.any_other = bool(self.other.any())
        self.any_usual = bool(self.usual.any())
        self.any_place = bool(self.place_axis.any())

    def __len__(self) -> int:
        return len(self.specs)


def _property(spec: Spec, properties: Properties) -> int:
    try:
        return properties.index(spec.property)
    except ConfigError as why:
        raise ProfileError(why.problem, key=f"{spec.profile} {spec.name}", remedy=why.remedy) from why


def _floats(values: list[float]) -> F64:
    return np.array(values, np.float64)
