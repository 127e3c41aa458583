"""Who and what exists: divisions, devices and their credentials, people and programs, the record of changes."""
