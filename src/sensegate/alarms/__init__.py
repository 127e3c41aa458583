"""Alarms: rules over readings, devices and the gateway itself, and what becomes of each violation."""
