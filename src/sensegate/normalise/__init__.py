"""Normalisation of decoded fields to readings: standard property, canonical unit, time, place, quality. Pure; numpy."""
