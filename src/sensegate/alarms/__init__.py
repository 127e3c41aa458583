"""Alarms: rules over readings, devices and the gateway itself, and the states of their violations."""
