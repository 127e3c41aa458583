"""Transports of pushed deliveries: webhooks, subscribers at our own broker by NATS or MQTT, and brokers of others.

`subscriptions` decides what goes to whom and keeps the cursors; the modules here carry one delivery and return its
result (`contract`). `authority.egress` decides to which addresses a transport may connect.
"""
