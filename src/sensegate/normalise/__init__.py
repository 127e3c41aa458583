"""Fields → columns of readings: standard property, canonical unit, time, place, quality. Pure; numpy."""
