"""Divisions, devices and their credentials, people and programs, the audit trail of changes."""
